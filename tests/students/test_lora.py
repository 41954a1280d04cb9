"""Adapters leave the base unchanged, and merge into an ordinary model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toys.models import write_model
from toys.training import (
    FORWARD,
    differing,
    parameters_of,
    toy_adapted,
    toy_bank,
    toy_member,
    toy_micro_batches,
    toy_teacher,
    train,
)
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    T5Config,
)

from kd_train.students.lora import LoraSpec, add_adapters, merged
from kd_train.training.member import Member

_LANGUAGE: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=30, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=3, eos_token_id=3)
    ),
    "llama": lambda: AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=30,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
    ),
    "t5": lambda: AutoModelForSeq2SeqLM.from_config(
        T5Config(vocab_size=30, d_model=32, d_kv=8, d_ff=64, num_heads=4, num_layers=2, decoder_start_token_id=0)
    ),
}


def _trained() -> Member:
    """A student with adapters that are no longer nothing."""
    teacher = toy_teacher()
    member = toy_adapted(toy_member(teacher, "a", FORWARD), dropout=0.1)
    train(toy_bank(teacher, [member], learning_rate=1e-2), range(3))
    member.model.eval()
    return member


def _logits(model: nn.Module) -> Tensor:
    (micro_batch,) = toy_micro_batches(0, n_micro_batches=1)
    with torch.no_grad():
        return model(**micro_batch.inputs).logits


def test_adapters_change_nothing_at_first() -> None:
    teacher = toy_teacher()
    plain, adapted = (toy_member(teacher, "a", FORWARD).model.eval() for _ in range(2))
    add_adapters(adapted, LoraSpec(rank=4), classifier=True, seed=0)
    assert torch.equal(_logits(plain), _logits(adapted.eval()))


def test_adapters_follow_from_the_seed() -> None:
    teacher = toy_teacher()
    made = []
    for seed, torch_seed in ((0, 1), (0, 2), (1, 1)):
        member = toy_member(teacher, "a", FORWARD)
        torch.manual_seed(torch_seed)
        expected = torch.rand(1, generator=torch.Generator().manual_seed(torch_seed))
        toy_adapted(member, seed=seed)
        assert torch.equal(torch.rand(1), expected)  # the generators are left as they were
        made.append(parameters_of(member))
    assert differing(made[0], made[1]) == set()
    assert differing(made[0], made[2]) == {name for name in made[0] if "lora_A" in name}


def test_the_output_of_an_adapter_is_scaled_by_alpha_over_rank() -> None:
    """``W x + alpha/rank · B A x`` (2106.09685, section 4.1)."""
    for rank, alpha in ((4, 8.0), (2, 3.0)):
        member = toy_adapted(toy_member(toy_teacher(), "a", FORWARD), rank=rank, alpha=alpha)
        layer = member.model.base_model.encoder.layer[0].attention.self.query
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert (tuple(a.shape), tuple(b.shape)) == ((rank, 32), (32, rank))
        nn.init.normal_(b)
        x = torch.randn(5, 32)
        expected = torch.stack([layer.base_layer(v) + alpha / rank * (b @ (a @ v)) for v in x])
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("targets", [("query", "value"), ("intermediate.dense",)])
def test_adapters_are_added_to_the_requested_layers(targets: tuple[str, ...]) -> None:
    member = toy_adapted(toy_member(toy_teacher(), "a", FORWARD), targets=targets)
    adapted = {name.split(".lora_A")[0] for name, _ in member.model.named_parameters() if "lora_A" in name}
    assert len(adapted) == 2 * len(targets)
    assert all(name.endswith(targets) for name in adapted)
    trained = {name for name, p in member.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "classifier.modules_to_save" in name for name in trained)


def test_the_merged_model_answers_as_the_adapted_one() -> None:
    member = _trained()
    assert not torch.allclose(_logits(member.model), _logits(toy_member(toy_teacher(), "a", FORWARD).model.eval()))
    torch.testing.assert_close(_logits(merged(member.adapters).eval()), _logits(member.model), rtol=1e-5, atol=1e-5)


def test_merging_leaves_the_trained_model_as_it_is_to_the_bit() -> None:
    member, other = _trained(), _trained()
    before = {name: tensor.clone() for name, tensor in member.model.state_dict().items()}
    copy = merged(member.adapters)
    assert differing(before, dict(member.model.state_dict())) == set()
    for parameter in copy.parameters():
        parameter.data.zero_()
    assert differing(before, dict(member.model.state_dict())) == set()
    for of in (member, other):
        train(toy_bank(toy_teacher(), [of]), range(2))
    assert differing(parameters_of(member), parameters_of(other)) == set()


def test_the_merged_model_is_an_ordinary_one_on_disk(tmp_path: Path) -> None:
    member = _trained()
    plain = toy_member(toy_teacher(), "a", FORWARD).model
    copy = merged(member.adapters)
    assert type(copy) is type(plain)
    assert copy.state_dict().keys() == plain.state_dict().keys()
    write_model(tmp_path / "student", copy)
    whole, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(_logits(whole.eval()), _logits(copy.eval()))
    assert AutoModel.from_pretrained(tmp_path / "student").config.num_hidden_layers == 2


@pytest.mark.parametrize("family", _LANGUAGE)
def test_language_models_are_adapted_without_their_head(family: str) -> None:
    torch.manual_seed(0)
    model = _LANGUAGE[family]().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapters = add_adapters(model, LoraSpec(rank=4, alpha=8), classifier=False, seed=0)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("lm_head" in name or "shared" in name or "wte" in name for name in trained)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    copy = merged(adapters).eval()
    ids = torch.randint(4, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if family == "t5" else {})
    with torch.no_grad():
        ours, theirs = copy(**inputs).logits, model(**inputs).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert copy.state_dict().keys() == before.keys()
    moved = differing(before, dict(copy.state_dict()))
    assert moved
    assert not any("norm" in name or "emb" in name or "bias" in name or "wte" in name for name in moved)
