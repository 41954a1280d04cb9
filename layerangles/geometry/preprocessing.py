"""Preprocessing of all states before angles are taken, and the statistics of the teacher that it depends on.

| kind | effect on every state of teacher and vertex |
|---|---|
| ``raw`` | nothing |
| ``centred`` | the teacher's mean, over its layers and tokens, is subtracted |
| ``z`` | the same, then each dimension is divided by the teacher's standard deviation in it, over layers and tokens |
| ``unit`` | it is scaled to norm 1; zero stays zero |
| ``drop-K`` | the K dimensions with the largest share of the teacher's dot products are left out |

Teacher and vertex share every shift and scale of a dimension, so that no shift moves the vertex against the teacher:
``centred`` changes only nulls that involve the origin. ``unit`` scales every state by a norm of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float, Int

from layerangles.errors import InputError
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

KINDS = ("raw", "centred", "z", "unit", "drop-K")


def _empty() -> torch.Tensor:
    return torch.zeros((0, 0), dtype=torch.float64)


@dataclass
class TeacherStatistics:
    """Mean and variance of each teacher layer in each dimension, over tokens; mergeable, of fixed size, in float64.

    Kept as sums of squared deviations from the mean, and merged as such (Chan, Golub and LeVeque 1983, *Algorithms for
    Computing the Sample Variance*): raw sums of squares lose six digits where a mean is 1000 times the spread.

    Attributes:
        count: tokens.
        mean: per ``[teacher_layer, dim]``; empty before the first token.
        squares: ``Σ (T − mean)²`` over tokens, per ``[teacher_layer, dim]``.
    """

    count: int = 0
    mean: Float[torch.Tensor, "teacher_layer dim"] = field(default_factory=_empty)
    squares: Float[torch.Tensor, "teacher_layer dim"] = field(default_factory=_empty)

    def update(self, teacher: Float[torch.Tensor, "teacher_layer token dim"]) -> None:
        """Add tokens: the states of all teacher layers.

        Raises:
            ValueError: layers or dimensions are not those of earlier tokens.
        """
        count = teacher.shape[1]
        if not count:
            return
        means, squares = [], []
        for layer in teacher:  # one by one: not all layers in float64 at once
            mean, deviations = mean_and_deviations(layer)
            means.append(mean)
            squares.append(deviations.square_().sum(dim=0))
        both = self.merge(TeacherStatistics(count, torch.stack(means), torch.stack(squares)))
        self.count, self.mean, self.squares = both.count, both.mean, both.squares

    def merge(self, other: TeacherStatistics) -> TeacherStatistics:
        """Statistics over both parts of the data, equal to those of the whole up to float64 rounding.

        Raises:
            ValueError: the two have different layers or dimensions.
        """
        if not self.count or not other.count:
            filled = self if self.count else other
            return TeacherStatistics(filled.count, filled.mean, filled.squares)
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                "only statistics of the same layers and dimensions can be merged; got [teacher_layer, dim] of "
                f"{list(self.mean.shape)} and {list(other.mean.shape)}."
            )
        count = self.count + other.count
        difference = other.mean.to(self.mean) - self.mean
        return TeacherStatistics(
            count,
            self.mean + difference * (other.count / count),
            self.squares + other.squares.to(self.squares) + difference.square() * (self.count * other.count / count),
        )

    def pooled_mean(self) -> Float[torch.Tensor, " dim"]:
        """The mean over layers and tokens, in the unit of the states."""
        return self.mean.mean(dim=0)

    def pooled_std(self) -> Float[torch.Tensor, " dim"]:
        """The standard deviation over layers and tokens about :meth:`pooled_mean`, without Bessel's correction."""
        between = self.mean.var(dim=0, correction=0)
        return ((self.squares / self.count).mean(dim=0) + between).sqrt()

    def share(self) -> Float[torch.Tensor, "teacher_layer dim"]:
        """Each dimension's share of the expected dot product of two random tokens of a layer, ``μ_d² / Σ_d μ_d²``.

        From 0 to 1, adding up to 1 in each layer; NaN in a layer whose mean is zero. Timkey and van Schijndel (2021,
        arXiv:2109.04404, section 3) take the expectation of each dimension's part of the cosine; this is the same
        without the two norms, so that it follows from the mean.
        """
        squared = self.mean.square()
        return squared / squared.sum(dim=-1, keepdim=True)

    def top_dimensions(
        self, k: int = 5
    ) -> tuple[Int[torch.Tensor, "teacher_layer k"], Float[torch.Tensor, "teacher_layer k"]]:
        """The k dimensions with the largest :meth:`share` in each layer, descending, and the shares; on the CPU.

        All dimensions if there are fewer than k.
        """
        index = self.mean.square().argsort(dim=-1, descending=True, stable=True)[:, :k]
        return index.cpu(), self.share().gather(-1, index).cpu()


def mean_and_deviations(
    states: Float[torch.Tensor, "token dim"],
) -> tuple[Float[torch.Tensor, " dim"], Float[torch.Tensor, "token dim"]]:
    """The mean state, and the deviations from it, in float64; zeros where there are no tokens."""
    if not len(states):
        return states.new_zeros(states.shape[1], dtype=torch.float64), states.double()
    # Seen from the first token, so that a dimension that does not vary has a variance of 0 and no rounding error.
    first = states[0].double()
    states = states.double() - first
    mean = states.mean(dim=0)
    return first + mean, states - mean


class PreprocessingKind(NamedTuple):
    """The kind of a preprocessing, which is known before any data.

    Attributes:
        name: one of :data:`KINDS`.
        n_dropped: K of ``drop-K``, else 0.
    """

    name: str
    n_dropped: int = 0

    @property
    def needs_statistics(self) -> bool:
        """Whether it depends on the teacher's statistics, which take a pass over the data."""
        return self.name not in ("raw", "unit")


def parse_preprocessing(text: str) -> PreprocessingKind:
    """Parse the name of a preprocessing, such as ``"z"`` or ``"drop-3"``.

    Raises:
        InputError: there is no preprocessing of this name.

    Example:
        >>> parse_preprocessing("drop-3")
        PreprocessingKind(name='drop-K', n_dropped=3)
    """
    if dropped := re.fullmatch(r"drop-([1-9][0-9]*)", text, re.ASCII):
        return PreprocessingKind("drop-K", int(dropped[1]))
    if text in KINDS[:-1]:
        return PreprocessingKind(text)
    raise InputError(
        f"there is no preprocessing {text!r}; allowed are {', '.join(KINDS)}, where K is a number from 1 "
        "upwards, as in 'drop-3'."
    )


@dataclass(frozen=True)
class Preprocessing:
    """A transformation of all states, of teacher and vertex alike; made by :meth:`of`.

    Attributes:
        kind: its kind; attributes that it does not use are None.
        shift: subtracted from every state.
        scale: the divisor of every dimension, after the shift.
        kept: the dimensions kept, ascending.
    """

    kind: PreprocessingKind
    shift: Float[torch.Tensor, " dim"] | None = None
    scale: Float[torch.Tensor, " dim"] | None = None
    kept: Int[torch.Tensor, " kept_dim"] | None = None

    @classmethod
    def of(cls, text: str, statistics: TeacherStatistics | None = None) -> Preprocessing:
        """The preprocessing of this name, for a teacher with these statistics.

        Raises:
            InputError: there is none of this name; it would drop all dimensions; or it is ``z`` and a dimension does
                not vary.
            ValueError: it needs statistics and got none, or statistics over no token.
        """
        kind = parse_preprocessing(text)
        if not kind.needs_statistics:
            return cls(kind)
        if statistics is None or not statistics.count:
            raise ValueError(
                f"the preprocessing {text!r} needs statistics of the teacher over one token or more; got none."
            )
        mean, std = statistics.pooled_mean(), statistics.pooled_std()
        match kind.name:
            case "centred":
                return cls(kind, shift=mean)
            case "z":
                if constant := (std == 0).nonzero().flatten().tolist():
                    raise InputError(
                        f"the preprocessing {text!r} divides by standard deviations, and the teacher is constant "
                        f"in {len(constant)} of {len(std)} dimensions (the first is {constant[0]}). Give more texts, "
                        "or use 'centred'."
                    )
                return cls(kind, shift=mean, scale=std)
        if kind.n_dropped >= len(mean):
            raise InputError(
                f"the preprocessing {text!r} would leave nothing of the teacher's {len(mean)} dimensions; allowed are "
                f"drop-1 to drop-{len(mean) - 1}."
            )
        by_share = mean.square().argsort(descending=True, stable=True)
        return cls(kind, kept=by_share[kind.n_dropped :].sort().values)

    def apply(self, states: Float[torch.Tensor, "*shape dim"]) -> Float[torch.Tensor, "*shape kept_dim"]:
        """Preprocess states in teacher space; they keep their type, and ``drop-K`` removes dimensions."""
        if self.kept is not None:
            return states.index_select(-1, self.kept.to(states.device))
        if self.kind.name == "unit":
            norm: torch.Tensor = states.norm(dim=-1, keepdim=True)
            return states / norm.masked_fill(norm == 0, 1.0)  # zero stays zero: a state without a direction
        if self.shift is not None:
            states = states - self.shift.to(states)
        return states if self.scale is None else states / self.scale.to(states)
