"""Assignments: the targets of each student layer at a training step, whether fixed, redrawn, mixed or nearest.

An assignment belongs to one student and one tower. What it observes of a batch it adds up in ``observed``; the bank
sums that over micro-batches and processes and hands it back at the end of the step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from kd_train.matching.losses import mean_squared_error
from layerangles.layers import LayerPair
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch

    States = Mapping[int, Float[torch.Tensor, "token dim"]]
else:
    torch, States = lazy_module("torch"), Mapping


class Assignment(ABC):
    """The targets of the student layers of one tower.

    Attributes:
        observed: sums over the micro-batches of this step so far; None for an assignment that observes nothing.
    """

    observed: Float[torch.Tensor, "student_layer teacher_layer"] | None = None

    @abstractmethod
    def pairs(self, step: int) -> tuple[LayerPair, ...]:
        """The pairs ``(student_layer, teacher_layer)`` that take part in a step, counted from 0."""

    def student_layers(self, step: int) -> tuple[int, ...]:
        """The student layers whose states a step needs, ascending."""
        return tuple(sorted({student_layer for student_layer, _ in self.pairs(step)}))

    def teacher_layers(self, step: int) -> tuple[int, ...]:
        """The teacher layers whose states a step needs, ascending."""
        return tuple(sorted({teacher_layer for _, teacher_layer in self.pairs(step)}))

    def matched(self, step: int, student: States, teacher: States) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of student states, in teacher space, and their targets; both ``[token, dim]``."""
        return [(student[s], teacher[t]) for s, t in self.pairs(step)]

    def end_step(self, observed: Float[torch.Tensor, "student_layer teacher_layer"]) -> None:  # noqa: B027
        """Update the assignment with the observations on the whole batch."""

    def pairs_before(self, step: int) -> tuple[LayerPair, ...]:
        """The pairs of the last of ``step`` steps; those of the first step for 0."""
        return self.pairs(max(step - 1, 0))

    def record(self, step: int) -> dict[str, Any] | None:  # noqa: ARG002
        """The changes of the map in the steps before ``step``, for ``matching.json``; None for a fixed map."""
        return None

    def state(self) -> dict[str, torch.Tensor]:
        """The tensors that a resumed run needs."""
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:  # noqa: B027
        """Restore the tensors of :meth:`state`."""


class Fixed(Assignment):
    """The same pairs in every step."""

    def __init__(self, pairs: Sequence[LayerPair]) -> None:
        self._pairs = tuple(pairs)

    def pairs(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """The same pairs for every step."""
        return self._pairs


class Redrawn(Assignment):
    """Pairs redrawn every ``every`` steps (RAIL-KD, 2109.10164), a function of the mapping seed and the step."""

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

    Args:
        pairs: every student layer with every teacher layer.
    """

    observed: Float[torch.Tensor, "student_layer teacher_layer"]

    def __init__(self, pairs: tuple[LayerPair, ...]) -> None:
        self._pairs = pairs
        self._sums = torch.zeros(len(self.student_layers(0)), len(self.teacher_layers(0)), dtype=torch.float64)
        self.observed = torch.zeros_like(self._sums)

    def pairs(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """All weighted pairs."""
        return self._pairs

    def matched(self, step: int, student: States, teacher: States) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The states of every student layer and its mixture."""
        targets = torch.stack([teacher[layer] for layer in self.teacher_layers(step)])
        matched, weight_sums = [], []
        for layer in self.student_layers(step):
            weights = torch.einsum("td,itd->ti", student[layer], targets).softmax(dim=-1)
            matched.append((student[layer], torch.einsum("ti,itd->td", weights, targets)))
            weight_sums.append(weights.detach().sum(dim=0))
        self.observed = self.observed + _on_cpu(torch.stack(weight_sums))
        return matched

    def end_step(self, observed: Float[torch.Tensor, "student_layer teacher_layer"]) -> None:
        """Add the weights of the batch's tokens to those of all batches."""
        self._sums += observed
        self.observed = torch.zeros_like(self._sums)

    def record(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """The mean weights over all tokens so far; rows are student layers, columns teacher layers, both from 1.

        All are 0 before the first token.
        """
        # The weights of a token add up to 1.
        means = self._sums / self._sums.sum(dim=1, keepdim=True) if self._sums.any() else self._sums
        return {"kind": "attention", "mean_weights": means.tolist()}

    def state(self) -> dict[str, torch.Tensor]:
        """The sums of the weights."""
        return {"weights": self._sums}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore the sums of the weights."""
        self._sums = state["weights"].clone()


class DynamicAssignment(Assignment):
    """Each teacher layer of the forward map is matched to the student layer nearest to it (CoFi, 2204.00408).

    The map is monotone (a higher teacher layer never goes with a lower student layer) and of least total error. It is
    chosen on the batch of the step before, since the current batch is seen one micro-batch at a time.

    Args:
        pairs: the forward map, which the first step uses; an embedding pair in it stays in every step.
    """

    observed: Float[torch.Tensor, "student_layer teacher_layer"]

    def __init__(self, pairs: tuple[LayerPair, ...]) -> None:
        self._embedding = tuple(pair for pair in pairs if pair[0] == 0)
        blocks = pairs[len(self._embedding) :]
        self._candidates, self._targets = tuple(s for s, _ in blocks), tuple(t for _, t in blocks)
        self._chosen = self._used = self._candidates
        self._counts = torch.zeros(len(self._candidates), len(self._targets), dtype=torch.float64)
        self.observed = torch.zeros_like(self._counts)

    def pairs(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """The map of the current step."""
        return (*self._embedding, *zip(self._chosen, self._targets, strict=True))

    def pairs_before(self, step: int) -> tuple[LayerPair, ...]:  # noqa: ARG002
        """The map of the step before."""
        return (*self._embedding, *zip(self._used, self._targets, strict=True))

    def student_layers(self, step: int) -> tuple[int, ...]:  # noqa: ARG002
        """All student layers: each is a candidate."""
        return (*(student_layer for student_layer, _ in self._embedding), *self._candidates)

    def matched(self, step: int, student: States, teacher: States) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The states of the map's pairs; the errors of all candidates are added to ``observed``."""
        with torch.no_grad():
            errors = torch.stack(
                [
                    torch.stack([mean_squared_error(student[s], teacher[t]).sum() for t in self._targets])
                    for s in self._candidates
                ]
            )
        self.observed = self.observed + _on_cpu(errors)
        return super().matched(step, student, teacher)

    def end_step(self, observed: Float[torch.Tensor, "student_layer teacher_layer"]) -> None:
        """Count the map that was used, and choose the next step's."""
        for column, student_layer in enumerate(self._chosen):
            self._counts[student_layer - 1, column] += 1
        self._used, self._chosen = self._chosen, monotone_assignment(observed)
        self.observed = torch.zeros_like(self._counts)

    def record(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """In how many steps each student layer (row) was matched to each target (column)."""
        return {"kind": "dynamic", "teacher_layers": list(self._targets), "steps": self._counts.int().tolist()}

    def state(self) -> dict[str, torch.Tensor]:
        """The maps of the last step and the next one, and the counts."""
        return {"chosen": torch.tensor(self._chosen), "used": torch.tensor(self._used), "counts": self._counts}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore the maps and the counts."""
        self._chosen, self._used = tuple(state["chosen"].tolist()), tuple(state["used"].tolist())
        self._counts = state["counts"].clone()


def monotone_assignment(errors: Float[torch.Tensor, "student_layer teacher_layer"]) -> tuple[int, ...]:
    """The student layer, from 1, of every teacher layer (column): never descending, of least total error.

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


def _on_cpu(sums: torch.Tensor) -> torch.Tensor:
    """In float64, which not every device has."""
    return sums.cpu().double()


def _lists(pairs: Sequence[LayerPair]) -> list[list[int]]:
    return [list(pair) for pair in pairs]
