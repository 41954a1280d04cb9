"""The order of examples, and the cutting of batches into micro-batches with little padding."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from kd_train.randomness import derive_seed
from kd_train.tasks.base import Feature, MicroBatch, Task


class DataOrder:
    """The examples of every step's batch: one permutation per epoch, a function of (seed, epoch) alone."""

    def __init__(self, n_examples: int, batch_size: int, seed: int) -> None:
        self.n_examples, self.batch_size, self.seed = n_examples, batch_size, seed
        self.steps_per_epoch = -(-n_examples // batch_size)
        self._epoch = -1
        self._permutation: list[int] = []

    def batch(self, step: int) -> list[int]:
        """The rows of the batch of ``step``, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._permutation = torch.randperm(self.n_examples, generator=generator).tolist()
            self._epoch = epoch
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]


def cut_by_length(
    features: Sequence[Feature],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    n_micro_batches: int,
    *,
    min_micro_batches: int = 1,
) -> list[MicroBatch]:
    """Cut a batch into ``min_micro_batches`` to ``n_micro_batches`` micro-batches of like length.

    The batch stays what it is: its gradient is the sum over the micro-batches (see :mod:`kd_train.matching.losses`).
    """
    lengths = [task.lengths(feature) for feature in features]
    order = sorted(range(len(features)), key=lambda i: (sum(lengths[i]), lengths[i]))
    ends = _least_padding([lengths[i] for i in order], n_micro_batches, min_micro_batches)
    return [task.collate([features[i] for i in order[start:end]], tokenizer) for start, end in pairwise((0, *ends))]


def _least_padding(
    lengths: Sequence[Sequence[int]], n_micro_batches: int, min_micro_batches: int = 1
) -> tuple[int, ...]:
    """Ends of the micro-batches of ordered examples that, padded, hold the fewest tokens (dynamic programming).

    Of equals the one of fewer micro-batches is taken, then the one of more equal micro-batches.

    Args:
        lengths: the tokens of every example, tower by tower.
        n_micro_batches: the most micro-batches.
        min_micro_batches: the fewest, where there are as many examples.
    """
    n = len(lengths)
    sizes = np.asarray(lengths)
    # cost[start, end]: the tokens of a micro-batch of the examples start … end - 1; infinite if empty. A term for its
    # size, less than half a token over all micro-batches, prefers equal sizes among cuts of equal padding.
    cost = np.full((n, n + 1), np.inf)
    for start in range(n):
        size = np.arange(1, n - start + 1)
        longest = np.maximum.accumulate(sizes[start:], axis=0).sum(axis=1)
        cost[start, start + 1 :] = longest * size + 0.25 * (size / n) ** 2
    return cut_of_least_cost(cost, n_micro_batches, min_micro_batches, worth=0.5)


def cut_of_least_cost(
    cost: npt.NDArray[np.float64], n_parts: int, min_parts: int = 1, *, worth: float = 0.0
) -> tuple[int, ...]:
    """The ends of the parts into which a sequence is cut at least cost (dynamic programming).

    Args:
        cost: ``cost[start, end]`` of a part; infinite where ``end`` is not above ``start``.
        n_parts: the most parts.
        min_parts: the fewest parts, as far as the sequence can be cut.
        worth: the least cost that a further part must save.
    """
    n = len(cost)
    least = np.append(0.0, cost[0, 1:])  # least cost of each prefix, so far in one part
    begins: list[list[int]] = [[0] * (n + 1)]
    for number in range(2, n_parts + 1):
        ways = least[:n, None] + cost
        ways[0] = np.inf  # the part before it must not be empty
        begin = ways.argmin(axis=0)
        more = ways[begin, np.arange(n + 1)]
        better = more < (least - worth if number > min_parts else np.inf)
        begins.append(np.where(better, begin, -1).tolist())
        least = np.where(better, more, least)
    ends: list[int] = []
    end = n
    for begin_of in reversed(begins):
        if end > 0 and begin_of[end] >= 0:
            ends.append(end)
            end = begin_of[end]
    return tuple(reversed(ends))


def shared_out(micro_batches: Sequence[MicroBatch], n_processes: int) -> list[list[int]]:
    """By process, the micro-batches that it computes: the largest first, each to the process with the fewest tokens."""
    sizes = [sum(mask.numel() for mask in micro_batch.valid.values()) for micro_batch in micro_batches]
    loads = [0] * n_processes
    shares: list[list[int]] = [[] for _ in range(n_processes)]
    for number in sorted(range(len(micro_batches)), key=lambda i: -sizes[i]):
        process = loads.index(min(loads))
        loads[process] += sizes[number]
        shares[process].append(number)
    return [sorted(share) for share in shares]
