"""The tests behind a verdict: pairs of strategies against a margin, from means and covariances over seeds.

Every hypothesis is about a *contrast*: a weighted sum of the strategies' expected scores, plus a constant. For two
strategies a and b and the margin δ, the test of equivalence (TOST; Schuirmann 1987) asks whether a − b − δ < 0 and
a − b + δ > 0. If the margin is a share f of the gain over none, δ is itself a contrast, f · (mean of the matched −
none), and the test includes its uncertainty, as in Fieller's interval. A contrast of scores that are paired by seed is
tested by the t test of its values, seed by seed.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from layerangles.errors import InputError

Outcome = Literal["equivalent", "different", "undecided"]


@dataclass(frozen=True)
class Margin:
    """The smallest difference that matters.

    Attributes:
        size: above 0; in the metric's own unit, or, with ``of_gain``, as a share of the gain of matching over none.
        of_gain: whether ``size`` is such a share.
    """

    size: float
    of_gain: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.size) and self.size > 0):
            raise InputError(f"the margin is {self.size}; allowed are finite numbers above 0.")

    def __str__(self) -> str:
        return f"{self.size:g} of the gain over none" if self.of_gain else f"{self.size:g}"


class Moments(NamedTuple):
    """Moments of scores that are paired by seed; leading dimensions are the studies of a simulation.

    Attributes:
        mean: over seeds, ``[…, strategy]``.
        covariance: over seeds, with n − 1 in the denominator, ``[…, strategy, strategy]``.
        n_seeds: 2 or more.
    """

    mean: Float[np.ndarray, "*study strategy"]
    covariance: Float[np.ndarray, "*study strategy strategy"]
    n_seeds: int


def moments(scores: Float[np.ndarray, "seed strategy"]) -> Moments:
    """Mean and covariance over seeds; for one seed the covariance is NaN, and so are the p-values."""
    n_seeds, n_strategies = scores.shape
    covariance = np.full((n_strategies, n_strategies), np.nan)
    if n_seeds > 1:
        covariance = np.atleast_2d(np.cov(scores, rowvar=False))
    return Moments(scores.mean(axis=0), covariance, n_seeds)


class PairTests(NamedTuple):
    """The tests of all pairs, ``[…, pair]`` each.

    Attributes:
        p_equivalent: p-values of the hypothesis that the difference is not within the margin (TOST: the larger of two).
        p_different: p-values of the hypothesis that it is, two-sided, not adjusted for the number of pairs.
    """

    p_equivalent: Float[np.ndarray, "*study pair"]
    p_different: Float[np.ndarray, "*study pair"]


def pairs_of(n_matched: int) -> list[tuple[int, int]]:
    """The index pairs of all pairs of strategies."""
    return list(combinations(range(n_matched), 2))


def differences(n_matched: int, n_strategies: int) -> Float[np.ndarray, "pair strategy"]:
    """The contrasts of all pairs, the first minus the second; the matched strategies come first."""
    contrasts = np.zeros((len(pairs_of(n_matched)), n_strategies))
    for row, (first, second) in enumerate(pairs_of(n_matched)):
        contrasts[row, first], contrasts[row, second] = 1, -1
    return contrasts


def gain(n_matched: int) -> Float[np.ndarray, " strategy"]:
    """The contrast of the mean of the matched strategies over none, which comes last."""
    return np.array([1 / n_matched] * n_matched + [-1.0])


def compare_pairs(given: Moments, n_matched: int, margin: Margin) -> PairTests:
    """Test every pair of matched strategies against the margin.

    Args:
        given: the moments of the matched strategies' scores, and of none's as the last where the margin is a share of
            the gain. More is better.
        n_matched: how many of the strategies are matched.
        margin: the smallest difference that matters.
    """
    n_strategies = given.mean.shape[-1]
    pairs = differences(n_matched, n_strategies)
    weights = margin.size * gain(n_matched) if margin.of_gain else np.zeros(n_strategies)
    constant = 0.0 if margin.of_gain else margin.size
    above = _p_not_above(given, pairs - weights, -constant)  # small where the difference exceeds the margin
    below = _p_not_above(given, -pairs - weights, -constant)
    if margin.of_gain:
        # A negative gain makes the margin negative: pairs must also differ from zero to be beyond it.
        positive = _p_not_above(given, pairs, 0.0)
        above, below = np.maximum(above, positive), np.maximum(below, 1 - positive)
    inside = np.maximum(_p_not_above(given, -pairs + weights, constant), _p_not_above(given, pairs + weights, constant))
    return PairTests(
        p_equivalent=inside,
        p_different=np.minimum(1, 2 * np.minimum(above, below)),
    )


def p_nonzero(given: Moments, n_matched: int) -> Float[np.ndarray, "*study pair"]:
    """Two-sided p-values of every pair's paired t test, not adjusted for the number of pairs."""
    positive = _p_not_above(given, differences(n_matched, given.mean.shape[-1]), 0.0)
    return np.asarray(np.minimum(1, 2 * np.minimum(positive, 1 - positive)))


def _p_not_above(
    given: Moments, contrasts: Float[np.ndarray, "pair strategy"], constant: float
) -> Float[np.ndarray, "*study pair"]:
    """One-sided p-values of "contrast + constant ≤ 0" by the t test: small if it is above 0."""
    value = np.einsum("ps,...s->...p", contrasts, given.mean) + constant
    return np.asarray(special.stdtr(given.n_seeds - 1, -value / standard_errors(given, contrasts)))


def standard_errors(given: Moments, contrasts: Float[np.ndarray, "pair strategy"]) -> Float[np.ndarray, "*study pair"]:
    """The standard errors of contrasts, never below rounding error.

    Scores that agree to the last digit at every seed have a standard error of zero. The floor keeps 0 / 0 out of the t
    test, so that equal scores are equivalent at any margin.
    """
    variance = np.einsum("ps,...st,pt->...p", contrasts, given.covariance, contrasts) / given.n_seeds
    scale = np.abs(given.mean).max(axis=-1, keepdims=True)
    # The constant serves scores that are all 0; a smaller one would let the quotient overflow.
    floor = np.maximum(1e-12 * scale, 1e-150)
    return np.asarray(np.maximum(np.sqrt(np.maximum(variance, 0)), floor))


def holm(p: Float[np.ndarray, "*study pair"]) -> Float[np.ndarray, "*study pair"]:
    """Holm's (1979) adjusted p-values along the last dimension; they control the rate of *any* false rejection."""
    order = np.argsort(p, axis=-1)
    factors = np.arange(p.shape[-1], 0, -1)
    ascending = np.maximum.accumulate(np.take_along_axis(p, order, axis=-1) * factors, axis=-1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(1, ascending), axis=-1)
    return adjusted


class Decisions(NamedTuple):
    """Whether all pairs are shown to be within the margin, and whether some pair is shown to be beyond; never both."""

    equivalent: Bool[np.ndarray, "*study"]
    different: Bool[np.ndarray, "*study"]


def decide(tests: PairTests, alpha: float) -> Decisions:
    """The verdict on all pairs together.

    Equivalent if every single pair is (intersection-union: without any adjustment the rate of a false "equivalent" is
    at most ``alpha``); different if some pair is, with Holm's adjustment.
    """
    return Decisions(
        equivalent=np.asarray((tests.p_equivalent <= alpha).all(axis=-1)),
        different=np.asarray((holm(tests.p_different) <= alpha).any(axis=-1)),
    )


def outcome_of(equivalent: bool, different: bool) -> Outcome:
    """The word for a decision."""
    return "equivalent" if equivalent else "different" if different else "undecided"
