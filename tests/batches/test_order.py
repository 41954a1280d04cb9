"""Batches: their examples, their cutting into micro-batches, and the share of each process."""

import random
from collections.abc import Sequence
from itertools import combinations, pairwise, product

import pytest
import torch
from toys.models import toy_tokenizer
from toys.training import toy_features

from kd_train.batches.order import DataOrder, _least_padding, cut_by_length, shared_out
from kd_train.randomness import derive_seed, seeded
from kd_train.tasks.base import MicroBatch


@pytest.mark.parametrize(("n_examples", "batch_size"), [(20, 8), (16, 8), (5, 8), (1, 1)])
def test_every_example_comes_once_an_epoch(n_examples: int, batch_size: int) -> None:
    order = DataOrder(n_examples, batch_size, seed=0)
    assert order.steps_per_epoch == -(-n_examples // batch_size)
    for epoch in range(3):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [order.batch(step) for step in steps]
        assert sorted(row for batch in batches for row in batch) == list(range(n_examples))
        assert all(len(batch) == batch_size for batch in batches[:-1])


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    order = DataOrder(50, 10, seed=0)
    in_sequence = [order.batch(step) for step in range(20)]
    assert [DataOrder(50, 10, seed=0).batch(step) for step in range(20)] == in_sequence
    assert [order.batch(step) for step in reversed(range(20))] == in_sequence[::-1]
    assert in_sequence[:5] != in_sequence[5:10]
    assert in_sequence[:5] != [DataOrder(50, 10, seed=1).batch(step) for step in range(5)]


@pytest.mark.parametrize("n_micro_batches", [1, 3, 8, 50])
def test_micro_batches_hold_the_batch_and_sort_it_by_length(n_micro_batches: int) -> None:
    task, features = toy_features(8)
    micro_batches = cut_by_length(features, task, toy_tokenizer(), n_micro_batches)
    assert len(micro_batches) <= n_micro_batches
    rows = [
        (inputs[mask.bool()].tolist(), int(label))
        for micro_batch in micro_batches
        for inputs, mask, label in zip(
            micro_batch.inputs["input_ids"], micro_batch.inputs["attention_mask"], micro_batch.labels, strict=True
        )
    ]
    expected = [(feature["input_ids"], feature["label"]) for feature in features]
    assert sorted(rows) == sorted(expected)
    assert [len(ids) for ids, _ in rows] == sorted(len(ids) for ids, _ in expected)
    for micro_batch in micro_batches:
        assert micro_batch.inputs["attention_mask"].any(dim=0).all()  # no column of nothing but PAD
        assert torch.equal(micro_batch.valid["encoder"], micro_batch.inputs["attention_mask"].bool())


@pytest.mark.parametrize("min_micro_batches", [1, 2, 5, 8])
def test_there_are_as_many_micro_batches_as_processes_need(min_micro_batches: int) -> None:
    task, features = toy_features(8)
    assert (
        len(cut_by_length(features, task, toy_tokenizer(), 8, min_micro_batches=min_micro_batches)) >= min_micro_batches
    )
    few = cut_by_length(features[:2], task, toy_tokenizer(), 8, min_micro_batches=min_micro_batches)
    assert len(few) == min(2, max(min_micro_batches, len({len(f["input_ids"]) for f in features[:2]})))


def _padded(lengths: Sequence[Sequence[int]], ends: tuple[int, ...]) -> int:
    """The tokens of all micro-batches, PAD among them: of every tower as many a text as its longest has."""
    return sum(
        (end - start) * sum(max(length[tower] for length in lengths[start:end]) for tower in range(len(lengths[0])))
        for start, end in pairwise((0, *ends))
    )


_CUTS = [cut for cut in product([1, 2], [1, 2, 3, 5], [1, 2, 4]) if cut[2] <= cut[1]]


@pytest.mark.parametrize(("n_towers", "n_micro_batches", "min_micro_batches"), _CUTS)
def test_micro_batches_are_cut_where_padding_is_least(
    n_towers: int, n_micro_batches: int, min_micro_batches: int
) -> None:
    rng = random.Random(n_micro_batches)  # noqa: S311
    for trial in range(12):
        longest = 4 if trial % 2 else 60  # few lengths: many cuts are equally good
        texts = [tuple(rng.randint(1, longest) for _ in range(n_towers)) for _ in range(8)]
        lengths = sorted(texts, key=lambda length: (sum(length), length))
        every = [
            (*ends, 8) for k in range(min_micro_batches - 1, n_micro_batches) for ends in combinations(range(1, 8), k)
        ]

        def worth(ends: tuple[int, ...], lengths: list[tuple[int, ...]] = lengths) -> tuple[int, int, int]:
            sizes = [end - start for start, end in pairwise((0, *ends))]
            return _padded(lengths, ends), len(ends), sum(size**2 for size in sizes)

        assert worth(_least_padding(lengths, n_micro_batches, min_micro_batches)) == min(map(worth, every))


def test_micro_batches_that_save_nothing_are_not_made() -> None:
    assert _least_padding([(7,)] * 9, 4) == (9,)
    assert _least_padding([(7,)] * 9, 4, 3) == (3, 6, 9)  # as many as asked for, and then of one size
    assert _least_padding([(7,)] * 2, 4, 3) == (1, 2)  # no more than there are examples


def _micro_batch(n_examples: int, *positions: int) -> MicroBatch:
    masks = [torch.ones(n_examples, length, dtype=torch.bool) for length in positions]
    return MicroBatch(
        {}, torch.zeros(n_examples, dtype=torch.long), dict(zip(("encoder", "decoder"), masks, strict=False))
    )


def test_micro_batches_are_shared_out_by_their_tokens() -> None:
    micro_batches = [
        _micro_batch(1, 4),
        _micro_batch(2, 5),
        _micro_batch(1, 3, 6),
        _micro_batch(1, 5),
        _micro_batch(1, 2),
    ]  # 4, 10, 9, 5, 2 tokens
    assert shared_out(micro_batches, 1) == [[0, 1, 2, 3, 4]]
    # By size: 10 to the first, 9 to the second, 5 to the second (9 < 10), 4 to the first, 2 to the first of equals.
    assert shared_out(micro_batches, 2) == [[0, 1, 4], [2, 3]]
    assert shared_out(micro_batches, 5) == [[1], [2], [3], [0], [4]]
    assert shared_out(micro_batches[:1], 3) == [[0], [], []]
    for n_processes in range(1, 7):
        shares = shared_out(micro_batches, n_processes)
        assert len(shares) == n_processes
        assert sorted(number for share in shares for number in share) == [0, 1, 2, 3, 4]


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(0, "dropout", 7) == 8459355141554307173  # sha256sum of 0/dropout/7, halved
    assert len({derive_seed(*micro_batches) for micro_batches in ((0, "a"), (0, "b"), (1, "a"), ("0", "a", 0))}) == 4


def test_generators_are_restored_after_a_seeded_block() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(1, "x"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(1, "x"):
        assert torch.equal(torch.rand(2), inside)
