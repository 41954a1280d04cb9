"""Which tokens count, in which batches, and which token is whose partner."""

import random
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
from layerangles.models.states import check_finite, counted_states
from layerangles.models.texts import Batch, EncodedTexts, pad

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
        (counted,) = batch.counted.values()
        assert torch.equal(counted, batch.inputs["attention_mask"].bool())
        assert (batch.inputs["input_ids"][counted] != 0).all()
        assert (batch.inputs["input_ids"][~counted] == 0).all()
        seen += batch.inputs["input_ids"][counted].tolist()
        example = batch.tokens("encoder").example.tolist()
        assert example == [e for e, row in enumerate(counted) for _ in range(int(row.sum()))]
    assert len(encoded) == 10
    assert len(seen) == sum(len(text.split()) + 2 for text in texts)


@pytest.mark.parametrize(("config", "tower"), [(None, "encoder"), (BertConfig(), "encoder"), (GPT2Config(), "decoder")])
def test_what_counts_is_told_by_tower(config: PretrainedConfig | None, tower: str) -> None:
    (batch,) = EncodedTexts.from_texts(["a b", "c"], toy_tokenizer(), max_length=64, config=config).batches(2)
    assert list(batch.counted) == [tower]
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
        words += batch.inputs["input_ids"][batch.counted["encoder"]].tolist()
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
def test_texts_that_are_refused(texts: list, message: str) -> None:
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
    assert {tower: counted.long().tolist() for tower, counted in batch.counted.items()} == masks
    assert batch.tokens("encoder").example.tolist() == [0] * 3 + [1] * 5
    assert batch.tokens("decoder").example.tolist() == [0] * 5 + [1] * 3


@pytest.mark.parametrize("config", [T5, BART])
def test_special_tokens_are_left_out_in_both_towers(config: PretrainedConfig) -> None:
    pairs = [("a b c", "d"), ("e", "f g h")]
    encoded = EncodedTexts.from_texts(pairs, toy_tokenizer(), max_length=64, special_tokens=False, config=config)
    (batch,) = encoded.batches(2)
    assert batch.inputs["input_ids"][batch.counted["encoder"]].tolist() == _ids("eabc")
    assert batch.inputs["decoder_input_ids"][batch.counted["decoder"]].tolist() == _ids("fghd")


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


# --- order, groups, shards ------------------------------------------------------------------------------------


def _same(some: Iterable[Batch], others: Iterable[Batch]) -> bool:
    pairs = list(zip(list(some), list(others), strict=True))
    names = pairs[0][0].inputs
    return all(
        torch.equal(a.numbers, b.numbers) and all(torch.equal(a.inputs[n], b.inputs[n]) for n in names)
        for a, b in pairs
    )


def _groups_of(batch: Batch, n: int) -> list[tuple[int, ...]]:
    """The groups that a batch holds, in a data set of n examples; an error if it holds a part of one."""
    groups = [tuple(range(g, n if g + 3 == n else min(g + 2, n))) for g in range(0, n - 1 if n > 1 else n, 2)]
    held = [group for group in groups if set(group) & set(batch.numbers.tolist())]
    assert sorted(batch.numbers.tolist()) == [number for group in sorted(held) for number in group]
    return held


@pytest.mark.parametrize("config", [None, T5])
def test_order_of_the_texts_does_not_matter(config: PretrainedConfig | None) -> None:
    texts = [*toy_texts(9), *toy_texts(6, seed=1, longest=2), "a", "a"]
    examples = [(text, other) for text, other in zip(texts, texts[::-1], strict=True)] if config else texts
    shuffled = random.Random(3).sample(examples, len(examples))  # noqa: S311
    one, other = (
        EncodedTexts.from_texts(x, toy_tokenizer(), max_length=64, config=config) for x in (examples, shuffled)
    )
    assert one.data_sha256 != other.data_sha256
    assert _same(one.batches(4), other.batches(4))
    assert _same(one.batches(4, seed=1), other.batches(4, seed=1))
    lengths = [len(row) for batch in one.batches(2) for row in batch.inputs["input_ids"]]
    assert lengths == sorted(lengths)
    # What was given keeps its order: labels may stand beside it.
    own = [feature["input_ids"] for feature in one.features]
    assert own == toy_tokenizer()([text[0] if config else text for text in examples])["input_ids"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 10])
@pytest.mark.parametrize(("batch_size", "at_most"), [(1, 2), (2, 2), (3, 4), (4, 4), (100, 100)])
@pytest.mark.parametrize("seed", [None, 0])
def test_no_batch_splits_a_group(n: int, batch_size: int, at_most: int, seed: int | None) -> None:
    encoded = EncodedTexts.from_texts(toy_texts(n), toy_tokenizer(), max_length=64)
    seen: list[int] = []
    assert len(list(encoded.batches(batch_size, seed=seed))) == -(-max(n // 2, 1) // (at_most // 2))
    for batch in encoded.batches(batch_size, seed=seed):
        groups = _groups_of(batch, n)
        assert len(batch) <= at_most + (n % 2 and n - 1 in batch.numbers)
        assert all(len(group) == 2 for group in groups if n - 1 not in group)
        assert batch.numbers[0] == min(batch.numbers)
        assert len(batch) == len(batch.inputs["input_ids"])
        seen += batch.numbers.tolist()
    assert sorted(seen) == list(range(n))
    assert seed is not None or seen == list(range(n))


@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("n_shards", [1, 2, 3, 7])
def test_shards_are_disjoint_and_complete(n_shards: int, seed: int | None) -> None:
    n = 11  # five groups, the last of three: of seven shards two are empty
    encoded = EncodedTexts.from_texts(toy_texts(n), toy_tokenizer(), max_length=64)
    rows = {int(k): row for b in encoded.batches(100) for k, row in zip(b.numbers, b.inputs["input_ids"], strict=True)}
    seen: list[int] = []
    for which in range(n_shards):
        for batch in encoded.batches(4, shard=(which, n_shards), seed=seed):
            for group in _groups_of(batch, n):
                assert group[0] // 2 % n_shards == which
            for number, row in zip(batch.numbers.tolist(), batch.inputs["input_ids"], strict=True):
                assert torch.equal(row, rows[number][: len(row)])
            seen += batch.numbers.tolist()
    assert sorted(seen) == list(range(n))


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_that_there_is_not_is_refused(shard: tuple[int, int]) -> None:
    encoded = EncodedTexts.from_texts(["a"], toy_tokenizer(), max_length=64)
    with pytest.raises(ValueError, match=r"allowed are \(i, n\) with 0 ≤ i < n"):
        list(encoded.batches(2, shard=shard))


def test_a_seed_shuffles_groups_into_fair_batches_of_little_padding() -> None:
    encoded = EncodedTexts.from_texts(toy_texts(400, longest=30), toy_tokenizer(), max_length=64)
    assert _same(encoded.batches(8, seed=5), encoded.batches(8, seed=5))
    assert not torch.equal(next(encoded.batches(8, seed=5)).numbers, next(encoded.batches(8, seed=6)).numbers)
    lengths = torch.tensor([len(feature["input_ids"]) for feature in encoded.features]).float()
    # An early stop sees a fair sample: over many seeds, the first batch is as long as all on average. Its standard
    # error is 8.7 tokens / √200 = 0.6 of 17; the shortest of a chunk's batches has 4.
    first = [next(encoded.batches(8, seed=seed)).counted["encoder"].sum() / 8 for seed in range(200)]
    assert float(torch.stack(first).mean()) == pytest.approx(float(lengths.mean()), abs=2)
    filled = sum(batch.inputs["input_ids"].numel() for batch in encoded.batches(8, seed=5))
    assert filled < 1.2 * lengths.sum()  # batches at random would fill 1.6


# --- partners -------------------------------------------------------------------------------------------------


def _partners(batches: Iterable[Batch], tower: str) -> dict[tuple[int, int], tuple[int, int]]:
    """(example, position among its counted tokens) → the same of its partner."""
    pairs = {}
    for batch in batches:
        names = []
        for number, row in zip(batch.numbers.tolist(), batch.counted[tower], strict=True):
            names += [(number, p) for p in range(int(row.sum()))]
        pairs |= {name: names[i] for name, i in zip(names, batch.tokens(tower).partner.tolist(), strict=True)}
    return pairs


def _reference_partners(lengths: list[int]) -> dict[tuple[int, int], tuple[int, int]]:
    n = len(lengths)
    pairs = {}
    for k, length in enumerate(lengths):
        other = k + 1 if k % 2 == 0 else k - 1
        if n % 2 and k >= n - 3:
            other = max(n - 3, 0) if k == n - 1 else k + 1
        if n == 1 or lengths[other] == 0:
            other = k
        for p in range(length):
            pairs[k, p] = (other, (p + lengths[other] // 2) % lengths[other])
    return pairs


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("special_tokens", [True, False])
@pytest.mark.parametrize("config", [None, T5])
def test_partners_are_of_another_text_whatever_the_batch(
    n: int, special_tokens: bool, config: PretrainedConfig | None
) -> None:
    texts = toy_texts(n)
    examples = list(zip(texts, toy_texts(n, seed=1), strict=True)) if config else texts
    encoded = EncodedTexts.from_texts(
        examples, toy_tokenizer(), max_length=64, special_tokens=special_tokens, config=config
    )
    (whole,) = encoded.batches(100)
    for tower, counted in whole.counted.items():
        expected = _reference_partners(counted.sum(dim=1).tolist())
        assert _partners([whole], tower) == expected
        for batch_size in (1, 2, 4, 5):
            assert _partners(encoded.batches(batch_size), tower) == expected
            assert _partners(encoded.batches(batch_size, seed=2), tower) == expected
        shards = [b for which in range(3) for b in encoded.batches(4, shard=(which, 3))]
        assert _partners(shards, tower) == expected
        assert n == 1 or all(k != other for (k, _), (other, _) in expected.items())


def test_partners_of_texts_beside_an_empty_one_are_their_own() -> None:
    encoded = EncodedTexts.from_texts(["", "a b c d e"], toy_tokenizer(), max_length=64, special_tokens=False)
    (batch,) = encoded.batches(2)
    assert batch.counted["encoder"].sum(dim=1).tolist() == [0, 5]
    assert batch.tokens("encoder").partner.tolist() == [2, 3, 4, 0, 1]
    assert batch.tokens("encoder").example.tolist() == [1] * 5


def test_a_batch_moves_with_all_it_holds() -> None:
    encoded = EncodedTexts.from_texts([("a b", "c"), ("d", "e f")], toy_tokenizer(), max_length=64, config=T5)
    (batch,) = encoded.batches(2)
    moved = batch.to(torch.device("meta"))
    tensors = [*moved.inputs.values(), *moved.counted.values(), moved.numbers]
    assert len(tensors) == 5 + 2 + 1
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert list(moved.inputs) == list(batch.inputs)


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
