"""Matching maps fitted to data from sums alone, for models that were never matched."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from layerangles.errors import InputError
from layerangles.geometry.maps import MatchingMap
from layerangles.geometry.preprocessing import mean_and_deviations
from layerangles.settings import FitKind

MAP_KINDS: tuple[FitKind, ...] = get_args(FitKind)

# The penalty on a weight, as a share of the variance of its input dimension; held-out R² shows what it costs.
RIDGE_PENALTY = 1e-3

# The golden ratio's fraction in 64 bits, as a signed number.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def target_layer(student_layer: int, student_layers: int, teacher_layers: int) -> int:
    """The teacher layer that a student layer is fitted to: ``ceil(j · L_T / L_S)``, as in forward matching; 0 → 0.

    Args:
        student_layer: j, from 0 (the embedding output) to L_S.
        student_layers: L_S, the student's blocks.
        teacher_layers: L_T, the teacher's blocks.

    Raises:
        ValueError: the student has no such layer.

    Example:
        >>> [target_layer(j, 9, 12) for j in range(10)]
        [0, 2, 3, 4, 6, 7, 8, 10, 11, 12]
    """
    if not 0 <= student_layer <= student_layers:
        raise ValueError(
            f"a student of {student_layers} blocks has the layers 0 to {student_layers}; got {student_layer}."
        )
    # In integers: the quotient of floats may land above a whole number and be rounded up once too often.
    return -(-student_layer * teacher_layers // student_layers) if student_layer else 0


def is_held_out(example: Int[Tensor, " token"]) -> Bool[Tensor, " token"]:
    """Whether a token's example is held out for testing the maps: where ``frac(key · golden ratio) < 1/5``.

    This holds out a fifth of any run of consecutive keys, to within one or two examples, and of every n-th key as well,
    so that no shard of the data is held out as a whole. Of the keys 0 to 9 it holds out 0 and 5.

    Args:
        example: the integer key (the number in the data) of each token's example.
    """
    fraction = example.long() * _GOLDEN  # in units of 2⁻⁶⁴, on purpose modulo 1; negative from 1/2 upwards
    return (fraction >= 0) & (fraction < 2**64 // 5)


@dataclass(frozen=True)
class MapMoments:
    """Means of the states of some tokens and products of their deviations from these, in float64.

    Deviations, not raw products: where a dimension's mean is 1000 times its spread, raw products lose six digits.

    Attributes:
        count: tokens.
        student_mean, teacher_mean: the mean states ``S̄`` and ``T̄``.
        student_student: ``Σ (S − S̄)(S − S̄)ᵀ``.
        student_teacher: ``Σ (S − S̄)(T − T̄)ᵀ``.
        teacher_norm: ``Σ ‖T − T̄‖²``.
    """

    count: int
    student_mean: Float[Tensor, " student_dim"]
    teacher_mean: Float[Tensor, " teacher_dim"]
    student_student: Float[Tensor, "student_dim student_dim"]
    student_teacher: Float[Tensor, "student_dim teacher_dim"]
    teacher_norm: Float[Tensor, ""]

    @classmethod
    def of(
        cls, student: Float[Tensor, "token student_dim"], teacher: Float[Tensor, "token teacher_dim"]
    ) -> "MapMoments":
        """Moments of some tokens, possibly of none."""
        student_mean, student = mean_and_deviations(student)
        teacher_mean, teacher = mean_and_deviations(teacher)
        products = student.T @ student, student.T @ teacher, teacher.square().sum()
        return cls(len(student), student_mean, teacher_mean, *products)

    def merge(self, other: "MapMoments") -> "MapMoments":
        """Moments over both parts (Chan, Golub and LeVeque 1983, *Algorithms for Computing the Sample Variance*).

        Raises:
            ValueError: the two have different dimensions.
        """
        if not self.count or not other.count:
            return self if self.count else other
        if self.student_teacher.shape != other.student_teacher.shape:
            raise ValueError(
                "only moments of the same dimensions can be merged; got [student_dim, teacher_dim] of "
                f"{list(self.student_teacher.shape)} and {list(other.student_teacher.shape)}."
            )
        count = self.count + other.count
        student = other.student_mean.to(self.student_mean) - self.student_mean
        teacher = other.teacher_mean.to(self.teacher_mean) - self.teacher_mean
        weight = self.count * other.count / count
        return MapMoments(
            count,
            self.student_mean + student * (other.count / count),
            self.teacher_mean + teacher * (other.count / count),
            (self.student_student + other.student_student.to(student)).addr_(student, student, alpha=weight),
            (self.student_teacher + other.student_teacher.to(student)).addr_(student, teacher, alpha=weight),
            self.teacher_norm + other.teacher_norm.to(teacher) + weight * teacher.square().sum(),
        )


def _nothing() -> MapMoments:
    return MapMoments.of(torch.zeros(0, 0), torch.zeros(0, 0))


@dataclass
class MapSums:
    """The moments that a map from one student layer to one teacher layer is fitted to; mergeable, of fixed size.

    Attributes:
        fitting: moments of the tokens that a map is fitted to.
        held_out: moments of the tokens of every fifth example (:func:`is_held_out`), on which it is tested.
    """

    fitting: MapMoments = field(default_factory=_nothing)
    held_out: MapMoments = field(default_factory=_nothing)

    def update(
        self,
        student: Float[Tensor, "token student_dim"],
        teacher: Float[Tensor, "token teacher_dim"],
        example: Int[Tensor, " token"],
    ) -> None:
        """Add tokens: the states of the two layers, and the key of each token's example in the data.

        Raises:
            ValueError: the dimensions are not those of earlier tokens.
        """
        held_out = is_held_out(example)
        self.fitting = self.fitting.merge(MapMoments.of(student[~held_out], teacher[~held_out]))
        self.held_out = self.held_out.merge(MapMoments.of(student[held_out], teacher[held_out]))

    def merge(self, other: "MapSums") -> "MapSums":
        """Sums over both parts of the data, equal to those over the whole up to float64 rounding.

        Raises:
            ValueError: the two have different dimensions.
        """
        return MapSums(self.fitting.merge(other.fitting), self.held_out.merge(other.held_out))


class FittedMap(NamedTuple):
    """A fitted map with its held-out R².

    Attributes:
        map: fitted to all tokens, the held-out ones too; float64.
        r2: the held-out R² of the same kind of map fitted to the others, see :func:`fit_map`.
    """

    map: MatchingMap
    r2: float


def fit_map(sums: MapSums, kind: str) -> FittedMap:
    """The map ``S ↦ W S + b`` from a student layer to a teacher layer, and its held-out R².

    - ``"identity"``: W = I, without a bias. Nothing is fitted.
    - ``"ridge"``: least squares with the penalty λ n Σ_d var(S_d) ‖W_·d‖², λ = :data:`RIDGE_PENALTY`: ridge regression
      on standardised inputs. (A penalty of one size for all dimensions would follow the variance of the one or two
      dimensions that are a thousand times larger, and shrink all others.) A dimension that does not vary has weight 0.
    - ``"orthogonal"``: ``W = U Vᵀ`` from the singular value decomposition ``U Σ Vᵀ`` of the centred cross-products
      ``Σ (T − T̄)(S − S̄)ᵀ``, without a scale, and ``b = T̄ − W S̄`` (Schönemann 1966). Into a space as wide or wider,
      W has orthonormal columns and is the least-squares solution among such; into a narrower one it has orthonormal
      rows and the largest ``Σ <T − T̄, W (S − S̄)>``. With fewer tokens than dimensions, what the data leave open is
      arbitrary.

    ``R² = 1 − Σ ‖T − W S − b‖² / Σ ‖T − T̄‖²`` over the held-out tokens, T̄ their own mean; all dimensions together, each
    by its variance. At most 1; 0 for the mean itself; negative for what is worse, as the identity often is. NaN where
    one of the two parts has no tokens, or the held-out teacher states do not vary.

    Raises:
        InputError: the kind is not known, there are no tokens, or the identity is asked for between unequal widths.
        ValueError: the states were not finite.
    """
    if kind not in MAP_KINDS:
        raise InputError(f"there is no map {kind!r} to fit; allowed are {', '.join(MAP_KINDS)}.")
    everything = sums.fitting.merge(sums.held_out)
    if not everything.count:
        raise InputError(
            "a map needs tokens to be fitted to; got none. Give texts with at least one token that counts."
        )
    if not all(bool(x.isfinite().all()) for x in (everything.student_teacher, everything.teacher_norm)):
        raise ValueError("states must be finite; got NaN or an infinite number among them.")
    r2 = _r2(_fitted(sums.fitting, kind), sums.held_out) if sums.fitting.count else math.nan
    return FittedMap(_fitted(everything, kind), r2)


def _fitted(moments: MapMoments, kind: str) -> MatchingMap:
    student_dim, teacher_dim = moments.student_teacher.shape
    if kind == "identity":
        if student_dim != teacher_dim:
            raise InputError(
                f"the identity needs a student as wide as its teacher; got the widths {student_dim} and {teacher_dim}. "
                'Fit the map "ridge" or "orthogonal" instead.'
            )
        return MatchingMap(torch.eye(teacher_dim).to(moments.student_teacher))
    weight = _ridge_weight(moments) if kind == "ridge" else _orthogonal_weight(moments)
    return MatchingMap(weight, moments.teacher_mean - weight @ moments.student_mean)


def _ridge_weight(moments: MapMoments) -> Float[Tensor, "teacher_dim student_dim"]:
    scale = moments.student_student.diagonal().sqrt()
    varying = scale > 0
    scale = scale[varying, None]
    correlation = moments.student_student[varying][:, varying] / scale / scale.T
    correlation.diagonal().add_(RIDGE_PENALTY)
    factor = torch.linalg.cholesky(correlation)
    weight = torch.zeros_like(moments.student_teacher)
    weight[varying] = torch.cholesky_solve(moments.student_teacher[varying] / scale, factor) / scale
    return weight.T.contiguous()


def _orthogonal_weight(moments: MapMoments) -> Float[Tensor, "teacher_dim student_dim"]:
    factors = torch.linalg.svd(moments.student_teacher.T, full_matrices=False)
    return torch.mm(factors.U, factors.Vh)


def _r2(fitted: MatchingMap, tokens: MapMoments) -> float:
    """R² over the tokens; NaN if there are none or the teacher's states do not vary."""
    if tokens.teacher_norm == 0:
        return math.nan
    weight = fitted.weight
    mean_error = tokens.teacher_mean - fitted.apply(tokens.student_mean)
    squared_error = (
        tokens.teacher_norm
        - 2 * (weight.T * tokens.student_teacher).sum()
        + (weight @ tokens.student_student * weight).sum()
        + tokens.count * mean_error.square().sum()
    )
    # A sum of squares that may come out a rounding error below zero where the map is perfect.
    return float(1 - squared_error.clamp(min=0.0) / tokens.teacher_norm)
