"""Which target a student layer has at a step of training: always the same, drawn anew, weighed, or nearest.

One assignment belongs to one student and one tower. What it learns of a batch it adds up in ``observed``; the bank sums
that over micro-batches and processes and hands it back at the end of the step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kd_train.matching.losses import mean_squared_error
from kd_train.matching.strategies import Strategy, forward_targets, layer_pairs
from layerangles.layers import LayerPair, Tower

States = Mapping[int, Float[Tensor, "token dim"]]


class Assignment(ABC):
    """What the student layers of one tower are matched to.

    Attributes:
        observed: what the micro-batches of this step added up so far; None for a map that observes nothing.
    """

    observed: Float[Tensor, "student_layer teacher_layer"] | None = None

    @abstractmethod
    def pairs(self, step: int) -> tuple[LayerPair, ...]:
        """The pairs ``(student_layer, teacher_layer)`` that take part in a step, counted from 0."""

    def student_layers(self, step: int) -> tuple[int, ...]:
        """The student layers whose states a step needs, ascending."""
        return tuple(sorted({student_layer for student_layer, _ in self.pairs(step)}))

    def teacher_layers(self, step: int) -> tuple[int, ...]:
        """The teacher layers whose states a step needs, ascending."""
        return tuple(sorted({teacher_layer for _, teacher_layer in self.pairs(step)}))

    def matched(self, step: int, student: States, teacher: States) -> list[tuple[Tensor, Tensor]]:
        """Student states, in teacher space, and what each is to resemble; both ``[token, dim]``."""
        return [(student[s], teacher[t]) for s, t in self.pairs(step)]

    def end_step(self, observed: Float[Tensor, "student_layer teacher_layer"]) -> None:  # noqa: B027
        """Take in what was observed on the whole batch."""

    def pairs_before(self, step: int) -> tuple[LayerPair, ...]:
        """The pairs that led to the state after so many steps; those of the first step for 0."""
        return self.pairs(max(step - 1, 0))

    def record(self, step: int) -> dict[str, Any] | None:  # noqa: ARG002
        """For ``matching.json``: what a changing map did in the steps before ``step``; None for a fixed map."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take back what :meth:`state` gave."""


class Fixed(Assignment):
    """The same pairs in every step."""

    def __init__(self, pairs: Sequence[LayerPair]) -> None:
        self._pairs = tuple(pairs)

    def pairs(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """The pairs, whatever the step."""
        return self._pairs


class Redrawn(Assignment):
    """Pairs drawn anew every so many steps (RAIL-KD, 2109.10164): a function of the mapping seed and the step."""

    def __init__(self, draw: Callable[[int], tuple[LayerPair, ...]], every: int) -> None:
        self._draw, self._every = draw, every

    def pairs(self, step: int) -> tuple[LayerPair, ...]:
        """The pairs of the draw that a step falls into."""
        return self._draw(step // self._every)

    def record(self, step: int) -> dict[str, Any]:
        """All draws so far, each with the step at which it began."""
        draws = range(max(1, -(-step // self._every)))
        return {
            "kind": "redrawn",
            "every_steps": self._every,
            "draws": [{"from_step": n * self._every, "pairs": _lists(self._draw(n))} for n in draws],
        }


class Attention(Assignment):
    """Every student layer is matched to a mixture of all teacher layers (ALP-KD, 2012.14022).

    The weight of teacher layer i for student layer j is, token by token, ``softmax_i <W S_j, T_i>``.
    """

    def __init__(self, student_layers: int, teacher_layers: int) -> None:
        self._student_layers, self._teacher_layers = student_layers, teacher_layers
        self._sums = torch.zeros(student_layers, teacher_layers, dtype=torch.float64)
        self.observed = torch.zeros_like(self._sums)
        self._pairs = layer_pairs(Strategy(kind="attention"), student_layers, teacher_layers)

    def pairs(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """All pairs that are weighed."""
        return self._pairs

    def matched(self, step: int, student: States, teacher: States) -> list[tuple[Tensor, Tensor]]:  # noqa: ARG002
        """Every student layer and its mixture."""
        targets = torch.stack([teacher[i] for i in range(1, self._teacher_layers + 1)])
        matched, weights_of = [], []
        for layer in range(1, self._student_layers + 1):
            weights = torch.einsum("td,itd->ti", student[layer], targets).softmax(dim=-1)
            matched.append((student[layer], torch.einsum("ti,itd->td", weights, targets)))
            weights_of.append(weights.detach().sum(dim=0))
        self.observed = _added(self.observed, torch.stack(weights_of))
        return matched

    def end_step(self, observed: Float[Tensor, "student_layer teacher_layer"]) -> None:
        """Add the weights of the batch's tokens to those of all batches."""
        self._sums += observed
        self.observed = torch.zeros_like(self._sums)

    def record(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """The mean weights over all tokens so far; rows are student layers, columns teacher layers, both from 1."""
        tokens = self._sums.sum(dim=1, keepdim=True).clamp_min(1e-300)
        return {"kind": "attention", "mean_weights": (self._sums / tokens).tolist()}

    def state(self) -> dict[str, Tensor]:
        """The sums of the weights."""
        return {"weights": self._sums}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from these sums."""
        self._sums = state["weights"].clone()


class DynamicAssignment(Assignment):
    """Each teacher layer of the forward map goes with the student layer nearest to it (CoFi, 2204.00408).

    The map is monotone (a higher teacher layer never goes with a lower student layer) and of least total error. It is
    chosen on the batch of the step before, since the batch at hand is seen micro-batch by
    micro-batch; the first step is forward's.
    """

    def __init__(self, student_layers: int, teacher_layers: int, *, embedding_pair: bool) -> None:
        self._student_layers = student_layers
        self._targets = forward_targets(student_layers, teacher_layers)
        self._embedding: tuple[LayerPair, ...] = ((0, 0),) if embedding_pair else ()
        self._chosen = self._used = tuple(range(1, student_layers + 1))
        self._counts = torch.zeros(student_layers, len(self._targets), dtype=torch.float64)
        self.observed = torch.zeros_like(self._counts)

    def pairs(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """The map of the step at hand."""
        return (*self._embedding, *zip(self._chosen, self._targets, strict=True))

    def pairs_before(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """The map of the step before."""
        return (*self._embedding, *zip(self._used, self._targets, strict=True))

    def student_layers(self, step: int) -> tuple[int, ...]:  # noqa: ARG002
        """All of them: each is a candidate."""
        return (*(0 for _ in self._embedding), *range(1, self._student_layers + 1))

    def matched(self, step: int, student: States, teacher: States) -> list[tuple[Tensor, Tensor]]:
        """The map's pairs; the errors of all candidates are added to what is observed."""
        with torch.no_grad():
            errors = torch.stack(
                [
                    torch.stack([mean_squared_error(student[s], teacher[t]).sum() for t in self._targets])
                    for s in range(1, self._student_layers + 1)
                ]
            )
        self.observed = _added(self.observed, errors)
        return super().matched(step, student, teacher)

    def end_step(self, observed: Float[Tensor, "student_layer teacher_layer"]) -> None:
        """Count the map that was used, and choose the next step's."""
        for column, student_layer in enumerate(self._chosen):
            self._counts[student_layer - 1, column] += 1
        self._used, self._chosen = self._chosen, monotone_assignment(observed)
        self.observed = torch.zeros_like(self._counts)

    def record(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """In how many steps each student layer (row) was matched to each target (column)."""
        return {"kind": "dynamic", "teacher_layers": list(self._targets), "steps": self._counts.int().tolist()}

    def state(self) -> dict[str, Tensor]:
        """The maps of the last step and the next one, and the counts."""
        return {"chosen": torch.tensor(self._chosen), "used": torch.tensor(self._used), "counts": self._counts}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self._chosen, self._used = tuple(state["chosen"].tolist()), tuple(state["used"].tolist())
        self._counts = state["counts"].clone()


def monotone_assignment(errors: Float[Tensor, "student_layer teacher_layer"]) -> tuple[int, ...]:
    """For every teacher layer (column) a student layer, from 1, never descending, of least total error.

    Example:
        >>> monotone_assignment(torch.tensor([[5.0, 1.0], [1.0, 4.0]]))
        (2, 2)
    """
    table = errors.detach().cpu().double().numpy()
    n_students, n_teachers = table.shape
    best, came_from = table[:, 0], []
    for column in range(1, n_teachers):
        # The best way to any student layer up to this one.
        up_to = np.minimum.accumulate(best)
        came_from.append([int(np.argmin(best[: row + 1])) for row in range(n_students)])
        best = up_to + table[:, column]
    chosen = [int(np.argmin(best))]
    for previous in reversed(came_from):
        chosen.append(previous[chosen[-1]])
    return tuple(row + 1 for row in reversed(chosen))


def assign(
    strategy: Strategy,
    student_layers: int,
    teacher_layers: int,
    *,
    tower: Tower,
    embedding_pair: bool,
    steps_per_epoch: int,
) -> Assignment:
    """The assignment of a strategy in one tower; see :func:`kd_train.matching.strategies.layer_pairs`."""
    draw = partial(layer_pairs, strategy, student_layers, teacher_layers, tower=tower, embedding_pair=embedding_pair)
    if strategy.kind == "attention":
        return Attention(student_layers, teacher_layers)
    if strategy.kind == "dynamic":
        return DynamicAssignment(student_layers, teacher_layers, embedding_pair=embedding_pair)
    if strategy.redraw is not None:
        every = steps_per_epoch if strategy.redraw == "epoch" else strategy.redraw
        return Redrawn(lambda number: draw(draw=number), every)
    return Fixed(draw())


def _added(observed: Tensor | None, seen: Tensor) -> Tensor:
    """On the CPU, since not every device has float64."""
    seen = seen.cpu().double()
    return seen if observed is None else observed + seen


def _lists(pairs: Sequence[LayerPair]) -> list[list[int]]:
    return [list(pair) for pair in pairs]
