"""Packed inputs give the outputs and gradients of padded ones; models that cannot be packed are padded."""

import pytest
import torch
from toys.models import toy_bert
from toys.training import (
    FORWARD,
    REVERSE,
    differing,
    parameters_of,
    toy_bank,
    toy_family,
    toy_member,
    toy_micro_batches,
    train,
)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    ConvBertConfig,
    FunnelConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedModel,
)

from kd_train.batches.packing import Packing, attending_packed, can_be_packed
from kd_train.matching.losses import LossSpec
from layerangles.models.states import first_position, forward_with_states

LENGTHS = [3, 1, 9, 4, 9, 2, 7]
PACKED = ("bert", "roberta", "distilbert", "electra", "electra-of-one-width")


def _padded_inputs(lengths: list[int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(5, 20, valid.shape, generator=torch.Generator().manual_seed(0)) * valid
    return {"input_ids": ids, "attention_mask": valid.long()}, valid


def _both(model: PreTrainedModel, lengths: list[int]) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
    """Logits and flat states of all layers, padded and packed."""
    inputs, valid = _padded_inputs(lengths)
    packing = Packing(valid, first_position(model.config))
    output, states = forward_with_states(model, inputs)
    with attending_packed(model, packing):
        packed_output, packed_states = forward_with_states(model, packing.packed(inputs), packing=packing)
    return [
        (output.logits, [state[valid] for state in states["encoder"]]),
        (packed_output.logits, [state[0] for state in packed_states["encoder"]]),
    ]


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 5], [1]])
def test_packed_states_and_logits_are_the_padded_ones(family: str, lengths: list[int]) -> None:
    (logits, states), (packed_logits, packed_states) = _both(toy_family(family), lengths)
    torch.testing.assert_close(packed_logits, logits, rtol=1e-5, atol=1e-5)
    assert len(packed_states) == len(states) == 5
    for packed, padded in zip(packed_states, states, strict=True):
        assert packed.shape == (sum(lengths), padded.shape[1])
        torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", PACKED)
def test_packed_gradients_are_the_padded_ones(family: str) -> None:
    model = toy_family(family)
    gradients = []
    for logits, states in _both(model, LENGTHS):
        model.zero_grad()
        (logits.square().sum() + sum(state.square().sum() for state in states)).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    scale = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6 * scale)


def test_packing_restores_the_model() -> None:
    model = toy_bert(layers=2)
    forward_with_states(model, _padded_inputs([2])[0])  # transformers leaves hooks of its own at the first call
    before = (model.config._attn_implementation, [len(m._forward_hooks) for m in model.modules()], model.training)
    assert can_be_packed(model)
    with pytest.raises(KeyError), attending_packed(model, Packing(torch.ones(1, 1, dtype=torch.bool))):
        raise KeyError
    assert before == (
        model.config._attn_implementation,
        [len(m._forward_hooks) for m in model.modules()],
        model.training,
    )


@pytest.mark.parametrize("family", PACKED)
def test_encoders_that_can_be_packed_are_recognized(family: str) -> None:
    assert can_be_packed(toy_family(family))


def test_models_that_cannot_be_packed_are_recognized() -> None:
    small = {
        "vocab_size": 30,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    windows = AutoModelForSequenceClassification.from_config(
        ModernBertConfig(**small, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    )
    decoder = AutoModelForCausalLM.from_config(LlamaConfig(**small))
    assert not can_be_packed(toy_family("mpnet"))  # its attention has position biases of its own
    convolutions = AutoModelForSequenceClassification.from_config(ConvBertConfig(**small, embedding_size=32))
    assert not can_be_packed(convolutions)  # they reach over the ends of texts
    funnel = FunnelConfig(vocab_size=30, d_model=32, d_inner=64, n_head=4, d_head=8, block_sizes=[1, 1])
    assert not can_be_packed(AutoModelForSequenceClassification.from_config(funnel))  # it takes no positions
    assert not can_be_packed(windows)
    assert not can_be_packed(decoder)


def test_a_packed_bank_is_the_padded_one_up_to_rounding() -> None:
    after, losses = [], []
    for packs in (True, False):
        teacher = toy_bert(layers=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        members = [
            toy_member(teacher, "forward", FORWARD),
            toy_member(teacher, "first", REVERSE, loss=LossSpec(hidden="patient")),
            toy_member(teacher, "control", FORWARD, targets="other_text"),
        ]
        bank = toy_bank(teacher, members, learning_rate=1e-4)
        assert bank.packs
        bank.packs = packs
        losses.append(train(bank, range(4)))
        after.append([parameters_of(member) for member in members])
    for packed, padded in zip(*losses, strict=True):
        for name, terms in padded.items():
            assert packed[name] == pytest.approx(terms, rel=1e-4)
    for packed_parameters, padded_parameters in zip(*after, strict=True):
        for name, value in padded_parameters.items():
            torch.testing.assert_close(packed_parameters[name], value, rtol=0, atol=5e-4)


def test_a_loss_that_counts_pad_is_not_packed() -> None:
    teacher = toy_bert(layers=4)
    member = toy_member(teacher, "qwen", FORWARD, loss=LossSpec(hidden="paper_qwen"))
    bank = toy_bank(teacher, [member])
    assert bank.packs
    assert not bank._is_packed(member)
    before = parameters_of(member)
    bank.train_step(toy_micro_batches(3, n_micro_batches=1), 3)
    assert differing(before, parameters_of(member))


def test_attention_is_laid_out_in_rectangles_of_like_length() -> None:
    lengths = [1, 3, 3, 20, 21, 40, 60, 60]
    valid = torch.arange(60) < torch.tensor(lengths)[:, None]
    rectangles = Packing(valid).rectangles
    assert [rectangle.shape for rectangle in rectangles] == [(3, 3), (2, 21), (1, 40), (2, 60)]
    assert [rectangle.mask is None for rectangle in rectangles] == [False, False, True, True]
    assert [rectangle.tokens for rectangle in rectangles] == [
        slice(0, 7),
        slice(7, 48),
        slice(48, 88),
        slice(88, 208),
    ]
