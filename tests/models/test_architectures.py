"""The states of every architecture: which they are, where the blocks stand, what padding and positions do."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from toys.architectures import _SIZES, _TWO_TOWERS, BLOCKS, CONFIGS, FINAL_NORM, TARGETS, TWO_TOWERS, WIDTH
from toys.models import WORDS, toy_bert, toy_texts, toy_tokenizer
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    MarianConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)

from layerangles.errors import InputError
from layerangles.models.states import blocks, forward_with_states, n_layers, n_positions, towers_of, width
from layerangles.models.texts import Batch, EncodedTexts

TOWERS = [(kind, tower) for kind, paths in BLOCKS.items() for tower in paths]


def _model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModel.from_config(CONFIGS[kind]).eval()


def _encoded(kind: str, texts: Sequence[str] = ("a b c d e f g h", "i j", "k l m", "n")) -> EncodedTexts:
    examples: list[Any] = list(texts)
    if kind in TWO_TOWERS:
        examples = list(zip(texts, itertools.cycle(TARGETS), strict=False))
    return EncodedTexts.from_texts(examples, toy_tokenizer(), max_length=64, config=CONFIGS[kind])


def _batch(kind: str) -> Batch:
    (batch,) = _encoded(kind).batches(4)
    return batch


def _theirs(kind: str, batch: Batch) -> dict[str, tuple[Tensor, ...]]:
    """transformers' own states, of a model that we have not touched."""
    without = () if kind in ("bert", "roberta", "electra", "gpt2") else ("token_type_ids",)
    inputs = {name: value for name, value in batch.inputs.items() if name not in without}
    output = _model(kind)(**inputs, output_hidden_states=True)
    if kind in TWO_TOWERS:
        return {"encoder": output.encoder_hidden_states, "decoder": output.decoder_hidden_states}
    return {towers_of(CONFIGS[kind])[0]: output.hidden_states}


# --- towers and blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_towers_depths_and_width(kind: str) -> None:
    config = CONFIGS[kind]
    assert towers_of(config) == tuple(BLOCKS[kind])
    depths = {"encoder": 4, "decoder": 3} if kind in TWO_TOWERS else dict.fromkeys(BLOCKS[kind], 3)
    assert {tower: n_layers(config, tower) for tower in towers_of(config)} == depths
    assert width(config) == WIDTH


@pytest.mark.parametrize(("kind", "tower"), TOWERS)
def test_blocks_are_found(kind: str, tower: str) -> None:
    model = _model(kind)
    assert blocks(model, tower) is model.get_submodule(BLOCKS[kind][tower])
    if kind not in TWO_TOWERS:
        assert blocks(model) is blocks(model, tower)


def test_a_tower_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"bert has no decoder; allowed is encoder\."):
        n_layers(CONFIGS["bert"], "decoder")
    with pytest.raises(InputError, match=r"gpt2 has no encoder; allowed is decoder\."):
        blocks(_model("gpt2"), "encoder")
    with pytest.raises(InputError, match=r"t5 has two towers; allowed are encoder and decoder\. Name one"):
        blocks(_model("t5"))


def test_a_configuration_without_depth_is_refused() -> None:
    config = PretrainedConfig(is_encoder_decoder=True)
    with pytest.raises(InputError, match=r"how many blocks its decoder has: .* none of decoder_layers, num_decoder_"):
        n_layers(config, "decoder")


def test_a_model_with_one_shared_block_is_refused_before_its_norm_and_measured_after() -> None:
    model = AutoModel.from_config(AlbertConfig(**_SIZES, embedding_size=16)).eval()
    inputs = _batch("bert").inputs
    with pytest.raises(InputError, match=r'AlbertModel keeps no list of its 3 blocks.*final_norm="post"'):
        forward_with_states(model, inputs)
    with torch.inference_mode():
        assert len(forward_with_states(model, inputs, final_norm="post")[1]["encoder"]) == 4


# --- which states are taken -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_states_are_those_of_transformers_but_a_final_norm(kind: str) -> None:
    batch = _batch(kind)
    with torch.inference_mode():
        theirs = _theirs(kind, batch)
        _, before = forward_with_states(_model(kind), batch.inputs)
        _, after = forward_with_states(_model(kind), batch.inputs, final_norm="post")
    assert list(before) == list(after) == list(towers_of(CONFIGS[kind]))
    for tower, states in before.items():
        shape = (*batch.valid[tower].shape, WIDTH)
        assert [tuple(state.shape) for state in states] == [shape] * (n_layers(CONFIGS[kind], tower) + 1)
        for layer, (ours, post, given) in enumerate(zip(states, after[tower], theirs[tower], strict=True)):
            assert torch.equal(post, given)
            is_normed = layer == len(states) - 1 and kind in FINAL_NORM
            assert torch.allclose(ours, given, atol=0.01) == (not is_normed)
            assert torch.equal(ours, given) == (not is_normed)
        for below, above in itertools.pairwise(states):
            assert not torch.allclose(below, above, atol=0.1)


@pytest.mark.parametrize(("kind", "tower"), TOWERS)
def test_last_state_is_the_last_blocks_own_output(kind: str, tower: str) -> None:
    model = _model(kind)
    block = model.get_submodule(BLOCKS[kind][tower])[-1]
    forward, returned = block.forward, []

    def record(*args: Any, **kwargs: Any) -> Any:
        returned.append(forward(*args, **kwargs))
        return returned[-1]

    block.forward = record
    with torch.inference_mode():
        _, states = forward_with_states(model, _batch(kind).inputs)
    (result,) = returned
    assert torch.equal(states[tower][-1], result[0] if isinstance(result, tuple) else result)


@pytest.mark.parametrize(("kind", "tower"), [(kind, tower) for kind, norms in FINAL_NORM.items() for tower in norms])
def test_final_norm_lies_between_before_and_after(kind: str, tower: str) -> None:
    model, inputs = _model(kind), _batch(kind).inputs
    norm = model.get_submodule(FINAL_NORM[kind][tower])
    with torch.inference_mode():
        _, before = forward_with_states(model, inputs, final_norm="pre")
        _, after = forward_with_states(model, inputs, final_norm="post")
        assert torch.equal(norm(before[tower][-1]), after[tower][-1])


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_no_hook_is_left_behind(kind: str) -> None:
    model, inputs = _model(kind), _batch(kind).inputs
    broken = inputs | {"input_ids": inputs["input_ids"] + 999}
    with torch.inference_mode():
        forward_with_states(model, inputs, final_norm="post")  # transformers puts hooks of its own there
        last = [blocks(model, tower)[-1] for tower in towers_of(model.config)]
        before = [list(block._forward_hooks) for block in last]
        forward_with_states(model, inputs)
        with pytest.raises(IndexError):
            forward_with_states(model, broken)
    assert [list(block._forward_hooks) for block in last] == before


def test_a_head_on_top_does_not_matter() -> None:
    bert = toy_bert(layers=3)
    torch.manual_seed(0)
    t5 = AutoModelForSeq2SeqLM.from_config(CONFIGS["t5"]).eval()
    bare_t5 = _model("t5")
    assert not bare_t5.load_state_dict(t5.state_dict(), strict=False).missing_keys
    for kind, model, bare in (("bert", bert, bert.base_model), ("t5", t5, bare_t5)):
        inputs = _batch(kind).inputs
        with torch.inference_mode():
            output, states = forward_with_states(model, inputs)
            _, expected = forward_with_states(bare, inputs)
        assert output.logits.shape[0] == 4
        for tower, own in states.items():
            assert all(torch.equal(a, b) for a, b in zip(own, expected[tower], strict=True))


def test_inputs_that_a_model_does_not_know_are_left_out() -> None:
    inputs = _batch("bert").inputs
    assert "token_type_ids" in inputs
    types = {"token_type_ids": torch.ones_like(inputs["token_type_ids"])}
    with torch.inference_mode():
        for kind, is_known in (("bert", True), ("distilbert", False), ("bart", False)):
            own = _batch(kind).inputs
            _, plain = forward_with_states(_model(kind), own)
            _, typed = forward_with_states(_model(kind), own | types)
            assert torch.equal(plain["encoder"][0], typed["encoder"][0]) == (not is_known)
        # Most models swallow what they do not know; those that do not must not be asked to.
        model = _model("bart")
        forward = model.forward
        model.forward = lambda input_ids, decoder_input_ids, output_hidden_states: forward(
            input_ids, decoder_input_ids=decoder_input_ids, output_hidden_states=output_hidden_states
        )
        assert len(forward_with_states(model, _batch("bart").inputs | types)[1]["decoder"]) == 4


# --- padding and positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_padding_changes_no_state(kind: str) -> None:
    model = _model(kind)
    texts = [" ".join(WORDS[:12]), "b c"]
    with torch.inference_mode():
        (together,) = _encoded(kind, texts).batches(2)
        assert all((~valid).any() for valid in together.valid.values())
        _, padded = forward_with_states(model, together.inputs)
        for row in range(2):
            inputs = {}
            for tower, valid in together.valid.items():
                names = [n for n in together.inputs if n.startswith("decoder_") == (tower == "decoder")]
                names = names if kind in TWO_TOWERS else list(together.inputs)
                inputs |= {name: together.inputs[name][row : row + 1, : valid[row].sum()] for name in names}
            _, alone = forward_with_states(model, inputs)
            for tower, states in alone.items():
                for layer, state in enumerate(states):
                    got = padded[tower][layer][row, : state.shape[1]]
                    assert (got - state[0]).abs().max() < 1e-5 * state.abs().max(), (tower, layer, row)


_SMALL: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SIZES, max_position_embeddings=12),
    "electra": ElectraConfig(**_SIZES, max_position_embeddings=12),
    "distilbert": DistilBertConfig(dim=WIDTH, n_layers=1, n_heads=4, hidden_dim=64, max_position_embeddings=12),
    "gpt2": GPT2Config(n_embd=WIDTH, n_layer=1, n_head=4, n_positions=12),
    "bart": BartConfig(**_TWO_TOWERS, max_position_embeddings=12),
    "marian": MarianConfig(**_TWO_TOWERS, max_position_embeddings=12, decoder_start_token_id=0),
    "roberta, PAD 0": RobertaConfig(**_SIZES, max_position_embeddings=12),
} | {
    kind: AutoConfig.for_model(kind, **_SIZES | {"pad_token_id": 1, "max_position_embeddings": 12})
    for kind in ("camembert", "data2vec-text", "ibert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")
}


@pytest.mark.parametrize("kind", _SMALL)
def test_a_model_takes_as_many_tokens_as_it_has_positions(kind: str) -> None:
    """Positions of RoBERTa and its kin begin after PAD's; the models themselves tell by an IndexError."""
    config = _SMALL[kind]
    model = AutoModel.from_config(config).eval()
    n = n_positions(config)
    assert n == {"roberta, PAD 0": 11}.get(kind, 10 if config.pad_token_id == 1 else 12)
    for length, fits in ((n, True), (n + 1, False)):
        # BART's table has two rows more than it says; that is its own affair.
        inputs = {"input_ids": torch.full((1, length + (2 if kind == "bart" and not fits else 0)), 5)}
        if kind in TWO_TOWERS:
            inputs["decoder_input_ids"] = torch.tensor([[0, 5, 6]])
        if fits:
            model(**inputs)
        else:
            with pytest.raises((IndexError, RuntimeError)):
                model(**inputs)


def test_texts_are_checked_against_positions_of_both_towers() -> None:
    tokenizer = toy_tokenizer()
    bart = BartConfig(max_position_embeddings=7)
    for pair in (("a b c d e f", "a"), ("a", "a b c d e f")):
        encoded = EncodedTexts.from_texts([pair], tokenizer, max_length=64, config=CONFIGS["bart"])
        encoded.check_fits([CONFIGS["bart"], CONFIGS["t5"]])
        with pytest.raises(InputError, match=r"a text has 8 tokens, more than the 7 .* max_length of at most 7"):
            encoded.check_fits([bart])
    encoded = EncodedTexts.from_texts(["a b c d e f"], tokenizer, max_length=64)
    encoded.check_fits([RobertaConfig(max_position_embeddings=10, pad_token_id=1)])
    with pytest.raises(InputError, match=r"a text has 8 tokens, more than the 7"):
        encoded.check_fits([RobertaConfig(max_position_embeddings=9, pad_token_id=1)])
    assert n_positions(CONFIGS["t5"]) is None


def test_toy_texts_go_through_every_architecture() -> None:
    for kind in CONFIGS:
        for batch in _encoded(kind, toy_texts(5)).batches(2):
            with torch.inference_mode():
                _, states = forward_with_states(_model(kind), batch.inputs)
            assert all(state.isfinite().all() for tower in states.values() for state in tower)
