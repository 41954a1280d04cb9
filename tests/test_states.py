"""Which tokens count, which states are taken, and which models are understood."""

import pytest
import torch
from toys import WORDS, toy_bert, toy_texts, toy_tokenizer
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    MPNetConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    T5Config,
)

from layerangles.errors import InputError
from layerangles.states import (
    EncodedTexts,
    blocks,
    check_finite,
    counted_states,
    forward_with_states,
    pad,
    tower_of,
)

N_BLOCKS = 3
_SIZES = {"vocab_size": 21, "num_hidden_layers": N_BLOCKS, "hidden_size": 32, "num_attention_heads": 4}
_TOKENS = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_SIZES, intermediate_size=64),
    "roberta": RobertaConfig(**_SIZES, **_TOKENS, intermediate_size=64, max_position_embeddings=66),
    "distilbert": DistilBertConfig(vocab_size=21, dim=32, n_layers=N_BLOCKS, n_heads=4, hidden_dim=64),
    "electra": ElectraConfig(**_SIZES, intermediate_size=64, embedding_size=16),
    "mpnet": MPNetConfig(**_SIZES, **_TOKENS, intermediate_size=64),
    "gpt2": GPT2Config(vocab_size=21, n_embd=32, n_layer=N_BLOCKS, n_head=4, bos_token_id=2, eos_token_id=3),
    "llama": LlamaConfig(**_SIZES, **_TOKENS, intermediate_size=64),
}
BLOCKS = {
    "bert": "BertLayer",
    "roberta": "RobertaLayer",
    "distilbert": "TransformerBlock",
    "electra": "ElectraLayer",
    "mpnet": "MPNetLayer",
    "gpt2": "GPT2Block",
    "llama": "LlamaDecoderLayer",
}
PRE_NORM = {"gpt2": "ln_f", "llama": "norm"}


def _model(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModel.from_config(CONFIGS[kind]).eval()


def _inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 21, (3, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


# --- which tokens count ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_token_counts_once_and_pad_never(batch_size: int) -> None:
    texts = toy_texts(10)
    encoded = EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64)
    seen = []
    for batch in encoded.batches(batch_size):
        assert torch.equal(batch.counted, batch.inputs["attention_mask"].bool())
        assert (batch.inputs["input_ids"][batch.counted] != 0).all()
        assert (batch.inputs["input_ids"][~batch.counted] == 0).all()
        assert len(batch.counted) <= batch_size
        seen += batch.inputs["input_ids"][batch.counted].tolist()
        assert batch.example.tolist() == [e for e, row in enumerate(batch.counted) for _ in range(int(row.sum()))]
    assert len(encoded) == 10
    assert len(seen) == sum(len(text.split()) + 2 for text in texts)


def test_special_tokens_are_fed_but_left_out_when_asked() -> None:
    texts = toy_texts(6)
    encoded = EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64, special_tokens=False)
    fed = EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64)
    words = []
    for batch, with_special in zip(encoded.batches(3), fed.batches(3), strict=True):
        assert torch.equal(batch.inputs["input_ids"], with_special.inputs["input_ids"])
        assert (batch.inputs["input_ids"][batch.counted] >= 5).all()
        words += batch.inputs["input_ids"][batch.counted].tolist()
    vocabulary = toy_tokenizer().get_vocab()
    assert sorted(words) == sorted(vocabulary[word] for text in texts for word in text.split())


def test_pairs_are_fed_as_pairs() -> None:
    encoded = EncodedTexts.from_texts([("a b", "c"), ("d", "e f")], toy_tokenizer(), max_length=64)
    (batch,) = encoded.batches(2)
    vocabulary = toy_tokenizer().get_vocab()
    expected = [["[CLS]", *"ab", "[SEP]", "c", "[SEP]"], ["[CLS]", "d", "[SEP]", *"ef", "[SEP]"]]
    assert batch.inputs["input_ids"].tolist() == [[vocabulary[token] for token in row] for row in expected]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]


def test_texts_are_cut_and_counted() -> None:
    encoded = EncodedTexts.from_texts(["a b c d", "a b", "a b c"], toy_tokenizer(), max_length=5)
    assert encoded.n_truncated == 1
    assert sorted(len(feature["input_ids"]) for feature in encoded.features) == [4, 5, 5]
    assert EncodedTexts.from_texts(["a b c d"], toy_tokenizer(), max_length=6).n_truncated == 0


def test_hash_of_the_data_tells_texts_apart() -> None:
    def data(*texts: str | tuple[str, str]) -> str:
        return EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64).data_sha256

    assert data("a", "b") == data("a", "b")
    assert len({data("a", "b"), data("b", "a"), data("a b"), data("a"), data(("a", "b")), data("ab")}) == 6


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], r"no texts to measure on: got an empty list\. Give at least one text"),
        ("a b c", r"must be a list; got one string, 'a b c'\. Put it into a list"),
        (["a", ("b", "c")], r"text 1 does not fit the first: got \('b', 'c'\) after 'a'\. Allowed are strings"),
        ([("a", "b"), "cd"], r"text 1 does not fit the first: got 'cd' after \('a', 'b'\)"),
    ],
)
def test_texts_that_are_refused(texts: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64)


@pytest.mark.parametrize(("texts", "least"), [(["a b"], 3), ([("a", "b")], 4)])
def test_a_length_that_leaves_no_text_is_refused(texts: list, least: int) -> None:
    with pytest.raises(InputError, match=rf"max_length is {least - 1}, .* Allowed are {least} and more"):
        EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=least - 1)
    assert len(EncodedTexts.from_texts(["a b"], toy_tokenizer(), max_length=least)) == 1


def test_texts_longer_than_the_models_can_take_are_refused() -> None:
    long, short = BertConfig(max_position_embeddings=99), BertConfig(max_position_embeddings=7)
    encoded = EncodedTexts.from_texts(["a b", "a b c d e f"], toy_tokenizer(), max_length=64)
    encoded.check_fits([long])
    with pytest.raises(InputError, match=r"a text has 8 tokens, more than the 7 .* max_length of at most 7"):
        encoded.check_fits([long, short])
    limited = toy_tokenizer()
    limited.model_max_length = 6
    with pytest.raises(InputError, match=r"8 tokens, more than the 6"):
        EncodedTexts.from_texts(["a b c d e f"], limited, max_length=64).check_fits([long])


# --- padding --------------------------------------------------------------------------------------------------


def test_padding_is_on_the_right_whatever_the_tokenizer_prefers() -> None:
    features = [{"input_ids": [2, 5, 3], "token_type_ids": [0, 0, 1]}, {"input_ids": [2], "token_type_ids": [0]}]
    for side in ("left", "right"):
        padded = pad(toy_tokenizer(padding_side=side), features)
        assert {name: values.tolist() for name, values in padded.items()} == {
            "input_ids": [[2, 5, 3], [2, 0, 0]],
            "token_type_ids": [[0, 0, 1], [0, 0, 0]],
            "attention_mask": [[1, 1, 1], [1, 0, 0]],
        }


def test_padding_uses_the_token_of_the_tokenizer_or_any_where_there_is_none() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.pad_token = "[MASK]"
    features = [{"input_ids": [2, 5]}, {"input_ids": [2]}]
    assert pad(tokenizer, features)["input_ids"].tolist() == [[2, 5], [2, 4]]
    tokenizer.pad_token = None
    padded = pad(tokenizer, features)
    assert padded["input_ids"].shape == (2, 2)
    assert padded["attention_mask"].tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("kind", CONFIGS)
def test_padding_changes_no_state(kind: str) -> None:
    model = _model(kind)
    names = ("input_ids",) if kind in ("distilbert", "gpt2", "llama", "mpnet") else ("input_ids", "token_type_ids")
    features = [
        {"input_ids": list(ids), "token_type_ids": [0] * len(ids)} for ids in ([5, 6, 7, 8, 9, 10], [11, 12], [13])
    ]
    features = [{name: feature[name] for name in names} for feature in features]
    tokenizer = toy_tokenizer()
    with torch.inference_mode():
        together = forward_with_states(model, pad(tokenizer, features))[1]
        for row, feature in enumerate(features):
            alone = forward_with_states(model, pad(tokenizer, [feature]))[1]
            for layer, state in enumerate(alone):
                difference = (together[layer][row, : state.shape[1]] - state[0]).abs().max()
                assert difference < 1e-5, (layer, row)


def test_counted_states_are_in_reading_order() -> None:
    states = [torch.arange(12.0).reshape(2, 3, 2), -torch.arange(12.0).reshape(2, 3, 2)]
    counted = torch.tensor([[True, False, True], [False, True, False]])
    taken = counted_states(states, counted)
    assert taken.shape == (2, 3, 2)
    assert taken[0].tolist() == [[0, 1], [4, 5], [8, 9]]
    assert torch.equal(taken[1], -taken[0])


def test_states_that_are_not_finite_are_refused() -> None:
    check_finite(torch.ones(2, 3), "forward-seed0")
    for number in (torch.nan, torch.inf):
        with pytest.raises(InputError, match=r"states of forward-seed0 are not finite: its training diverged.*anew"):
            check_finite(torch.tensor([1.0, number]), "forward-seed0")


# --- which states are taken -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_there_is_one_state_for_the_embeddings_and_one_a_block(kind: str) -> None:
    model, inputs = _model(kind), _inputs()
    with torch.inference_mode():
        for final_norm in ("pre", "post"):
            output, states = forward_with_states(model, inputs, final_norm=final_norm)
            assert [tuple(state.shape) for state in states] == [(3, 9, 32)] * (N_BLOCKS + 1)
            assert output.last_hidden_state.shape == (3, 9, 32)
            for ours, theirs in zip(states[:-1], output.hidden_states[:-1], strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", PRE_NORM)
def test_last_state_of_a_pre_norm_model_is_before_or_after_its_final_norm(kind: str) -> None:
    model, inputs = _model(kind), _inputs()
    norm = getattr(model, PRE_NORM[kind])
    fed = []
    norm.register_forward_pre_hook(lambda _module, args: fed.append(args[0]))
    with torch.inference_mode():
        output, before = forward_with_states(model, inputs, final_norm="pre")
        _, after = forward_with_states(model, inputs, final_norm="post")
        assert torch.equal(before[-1], fed[0])
        assert torch.equal(after[-1], output.last_hidden_state)
        assert torch.equal(norm(before[-1]), after[-1])
    assert not torch.allclose(before[-1], after[-1], atol=0.1)


@pytest.mark.parametrize("kind", sorted(CONFIGS.keys() - PRE_NORM.keys()))
def test_a_post_norm_model_has_one_last_state(kind: str) -> None:
    model, inputs = _model(kind), _inputs()
    with torch.inference_mode():
        output, before = forward_with_states(model, inputs, final_norm="pre")
        _, after = forward_with_states(model, inputs, final_norm="post")
    assert torch.equal(before[-1], after[-1])
    assert torch.equal(after[-1], output.last_hidden_state)


def test_no_hook_is_left_behind() -> None:
    model = _model("gpt2")
    last = blocks(model)[-1]
    with torch.inference_mode():
        model(**_inputs(), output_hidden_states=True)  # transformers puts a hook of its own there
        before = list(last._forward_hooks)
        forward_with_states(model, _inputs())
        with pytest.raises(IndexError):
            forward_with_states(model, {"input_ids": torch.tensor([[999]])})
    assert list(last._forward_hooks) == before


def test_a_head_on_top_does_not_matter() -> None:
    model = toy_bert(layers=N_BLOCKS)
    inputs = EncodedTexts.from_texts([" ".join(WORDS)], toy_tokenizer(), max_length=64)
    (batch,) = inputs.batches(1)
    with torch.inference_mode():
        output, states = forward_with_states(model, batch.inputs)
        _, bare = forward_with_states(model.base_model, batch.inputs)
    assert output.logits.shape == (1, 2)
    assert all(torch.equal(a, b) for a, b in zip(states, bare, strict=True))


# --- which models are understood ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_blocks_and_tower(kind: str) -> None:
    found = blocks(_model(kind))
    assert [type(block).__name__ for block in found] == [BLOCKS[kind]] * N_BLOCKS
    assert tower_of(CONFIGS[kind]) == ("decoder" if kind in ("gpt2", "llama") else "encoder")


def test_an_encoder_decoder_is_refused() -> None:
    with pytest.raises(InputError, match=r"t5 is an encoder-decoder model; .* one tower \(encoders such as BERT"):
        tower_of(T5Config())


def test_a_model_with_one_shared_block_is_refused_before_its_norm_and_measured_after() -> None:
    model = AutoModel.from_config(AlbertConfig(**_SIZES, intermediate_size=64, embedding_size=16)).eval()
    with pytest.raises(InputError, match=r'AlbertModel keeps no list of its 3 blocks.*final_norm="post"'):
        forward_with_states(model, _inputs())
    with torch.inference_mode():
        assert len(forward_with_states(model, _inputs(), final_norm="post")[1]) == N_BLOCKS + 1
