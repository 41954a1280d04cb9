"""Which tokens count, in which batches, and which token is whose partner."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from toys.models import toy_texts, toy_tokenizer
from transformers import (
    BartConfig,
    BatchEncoding,
    BertConfig,
    GPT2Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

from layerangles.errors import InputError
from layerangles.models.texts import EncodedTexts, pad

T5 = T5Config(pad_token_id=0, eos_token_id=3, decoder_start_token_id=0)
BART = BartConfig(pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=3)
VOCABULARY = toy_tokenizer().get_vocab()


def _ids(tokens: Iterable[str]) -> list[int]:
    return [VOCABULARY[token] for token in tokens]


# --- which tokens count ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_token_counts_once_and_pad_never(batch_size: int) -> None:
    texts = toy_texts(10)
    encoded = EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64)
    seen = []
    for batch in encoded.batches(batch_size):
        (valid,) = batch.valid.values()
        assert torch.equal(valid, batch.inputs["attention_mask"].bool())
        assert (batch.inputs["input_ids"][valid] != 0).all()
        assert (batch.inputs["input_ids"][~valid] == 0).all()
        seen += batch.inputs["input_ids"][valid].tolist()
        example = batch.tokens("encoder").example.tolist()
        assert example == [e for e, row in enumerate(valid) for _ in range(int(row.sum()))]
    assert len(encoded) == 10
    assert len(seen) == sum(len(text.split()) + 2 for text in texts)


@pytest.mark.parametrize(("config", "tower"), [(None, "encoder"), (BertConfig(), "encoder"), (GPT2Config(), "decoder")])
def test_what_counts_is_told_by_tower(config: PretrainedConfig | None, tower: str) -> None:
    (batch,) = EncodedTexts.from_texts(["a b", "c"], toy_tokenizer(), max_length=64, config=config).batches(2)
    assert list(batch.valid) == [tower]
    assert batch.inputs["input_ids"].tolist() == [
        _ids(["[CLS]", "c", "[SEP]", "[PAD]"]),
        _ids(["[CLS]", *"ab", "[SEP]"]),
    ]


def test_special_tokens_are_fed_but_left_out_when_asked() -> None:
    texts = toy_texts(6)
    encoded = EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64, special_tokens=False)
    fed = EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64)
    words = []
    for batch, with_special in zip(encoded.batches(3), fed.batches(3), strict=True):
        assert torch.equal(batch.inputs["input_ids"], with_special.inputs["input_ids"])
        words += batch.inputs["input_ids"][batch.valid["encoder"]].tolist()
    assert min(words) >= 5
    assert sorted(words) == sorted(VOCABULARY[word] for text in texts for word in text.split())


def test_pairs_are_fed_as_pairs() -> None:
    encoded = EncodedTexts.from_texts([("d", "e f"), ("a b", "c")], toy_tokenizer(), max_length=64)
    (batch,) = encoded.batches(2)
    expected = [["[CLS]", *"ab", "[SEP]", "c", "[SEP]"], ["[CLS]", "d", "[SEP]", *"ef", "[SEP]"]]
    assert batch.inputs["input_ids"].tolist() == [_ids(row) for row in expected]
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
def test_texts_that_do_not_fit_together_are_refused(texts: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EncodedTexts.from_texts(texts, toy_tokenizer(), max_length=64)


def test_a_text_without_a_token_is_refused() -> None:
    bare = toy_tokenizer()
    bare.backend_tokenizer.post_processor = None  # as GPT-2's, it adds nothing
    with pytest.raises(InputError, match=r"text 1 is '', of which this tokenizer makes no token.*Leave it out"):
        EncodedTexts.from_texts(["a", ""], bare, max_length=64)
    assert len(EncodedTexts.from_texts(["a", ""], toy_tokenizer(), max_length=64)) == 2


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


# --- encoder-decoders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "start"), [(T5, "[PAD]"), (BART, "[SEP]")])
def test_decoder_reads_the_target_shifted_right(config: PretrainedConfig, start: str) -> None:
    pairs = [("a b c", "d"), ("e", "f g h")]
    (batch,) = EncodedTexts.from_texts(pairs, toy_tokenizer(), max_length=64, config=config).batches(2)
    assert batch.inputs["input_ids"].tolist() == [
        _ids(["[CLS]", "e", "[SEP]", "[PAD]", "[PAD]"]),
        _ids(["[CLS]", *"abc", "[SEP]"]),
    ]
    assert batch.inputs["decoder_input_ids"].tolist() == [
        _ids([start, "[CLS]", *"fgh"]),
        _ids([start, "[CLS]", "d", "[PAD]", "[PAD]"]),
    ]
    masks = {"encoder": [[1, 1, 1, 0, 0], [1] * 5], "decoder": [[1] * 5, [1, 1, 1, 0, 0]]}
    assert batch.inputs["attention_mask"].tolist() == masks["encoder"]
    assert batch.inputs["decoder_attention_mask"].tolist() == masks["decoder"]
    # T5 starts with PAD, which counts there; the PAD behind a text does not.
    assert {tower: valid.long().tolist() for tower, valid in batch.valid.items()} == masks
    assert batch.tokens("encoder").example.tolist() == [0] * 3 + [1] * 5
    assert batch.tokens("decoder").example.tolist() == [0] * 5 + [1] * 3


@pytest.mark.parametrize("config", [T5, BART])
def test_special_tokens_are_left_out_in_both_towers(config: PretrainedConfig) -> None:
    pairs = [("a b c", "d"), ("e", "f g h")]
    encoded = EncodedTexts.from_texts(pairs, toy_tokenizer(), max_length=64, special_tokens=False, config=config)
    (batch,) = encoded.batches(2)
    assert batch.inputs["input_ids"][batch.valid["encoder"]].tolist() == _ids("eabc")
    assert batch.inputs["decoder_input_ids"][batch.valid["decoder"]].tolist() == _ids("fghd")


def test_sources_and_targets_are_cut_alike() -> None:
    pairs = [("a b c d", "e"), ("f", "g h i j k"), ("l m n o", "a b c d"), ("a b c", "d e f")]
    encoded = EncodedTexts.from_texts(pairs, toy_tokenizer(), max_length=5, config=BART)
    assert encoded.n_truncated == 3
    for batch in encoded.batches(4):
        assert batch.inputs["input_ids"].shape[1] <= 5
        assert batch.inputs["decoder_input_ids"].shape[1] <= 5
    # Each has its own special tokens, two of them: three tokens leave one word.
    assert EncodedTexts.from_texts(pairs, toy_tokenizer(), max_length=3, config=BART).n_truncated == 4


def test_the_target_is_tokenized_as_a_target() -> None:
    """A translation model's tokenizer has two languages, and switches to the other for a target."""

    class TwoLanguages(PreTrainedTokenizerFast):
        language = "source"

        def _switch_to_input_mode(self) -> None:
            self.language = "source"

        def _switch_to_target_mode(self) -> None:
            self.language = "target"

        def _encode_plus(self, text: list[str], *args: Any, **kwargs: Any) -> BatchEncoding:
            return super()._encode_plus([f"{'a' if self.language == 'source' else 'b'} {t}" for t in text], **kwargs)

    tokenizer = TwoLanguages(tokenizer_object=toy_tokenizer().backend_tokenizer, **{"pad_token": "[PAD]"})
    (batch,) = EncodedTexts.from_texts([("c", "d")] * 2, tokenizer, max_length=9, config=T5).batches(2)
    assert batch.inputs["input_ids"][0].tolist() == _ids(["[CLS]", *"ac", "[SEP]"])
    assert batch.inputs["decoder_input_ids"][0].tolist() == _ids(["[PAD]", "[CLS]", *"bd"])


def test_an_encoder_decoder_needs_targets_and_a_start() -> None:
    with pytest.raises(
        InputError, match=r"t5 is an encoder-decoder, .* got one string an example, 'a b'\. Allowed are "
    ):
        EncodedTexts.from_texts(["a b"], toy_tokenizer(), max_length=64, config=T5)
    with pytest.raises(InputError, match=r"this t5 has no decoder_start_token_id.* Put the id into its config\.json"):
        EncodedTexts.from_texts([("a", "b")], toy_tokenizer(), max_length=64, config=T5Config())


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
