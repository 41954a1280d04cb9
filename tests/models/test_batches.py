"""Batches: order, groups and shards of examples, and the partner of every token."""

import random
from collections.abc import Iterable

import pytest
import torch
from toys.models import toy_texts, toy_tokenizer
from transformers import PretrainedConfig, T5Config

from layerangles.models.texts import Batch, EncodedTexts

T5 = T5Config(pad_token_id=0, eos_token_id=3, decoder_start_token_id=0)

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
    first = [next(encoded.batches(8, seed=seed)).valid["encoder"].sum() / 8 for seed in range(200)]
    assert float(torch.stack(first).mean()) == pytest.approx(float(lengths.mean()), abs=2)
    filled = sum(batch.inputs["input_ids"].numel() for batch in encoded.batches(8, seed=5))
    assert filled < 1.2 * lengths.sum()  # batches at random would fill 1.6


# --- partners -------------------------------------------------------------------------------------------------


def _partners(batches: Iterable[Batch], tower: str) -> dict[tuple[int, int], tuple[int, int]]:
    """(example, position among its valid tokens) → the same of its partner."""
    pairs = {}
    for batch in batches:
        names = []
        for number, row in zip(batch.numbers.tolist(), batch.valid[tower], strict=True):
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
    for tower, valid in whole.valid.items():
        expected = _reference_partners(valid.sum(dim=1).tolist())
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
    assert batch.valid["encoder"].sum(dim=1).tolist() == [0, 5]
    assert batch.tokens("encoder").partner.tolist() == [2, 3, 4, 0, 1]
    assert batch.tokens("encoder").example.tolist() == [1] * 5


def test_a_batch_moves_with_all_it_holds() -> None:
    encoded = EncodedTexts.from_texts([("a b", "c"), ("d", "e f")], toy_tokenizer(), max_length=64, config=T5)
    (batch,) = encoded.batches(2)
    moved = batch.to(torch.device("meta"))
    tensors = [*moved.inputs.values(), *moved.valid.values(), moved.numbers]
    assert len(tensors) == 5 + 2 + 1
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert list(moved.inputs) == list(batch.inputs)
