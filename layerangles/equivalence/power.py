"""The power of a study with a given number of seeds, and the seeds that it needs, by simulation of its tests."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from layerangles.equivalence.decision import Margin, Moments, Outcome, compare_pairs, decide
from layerangles.errors import InputError

MOST_SEEDS = 1000
_STUDIES = 2000  # simulated: the standard error of a rate of 0.8 is 0.009


class Rates(NamedTuple):
    """The rates of the outcomes of a study, 0 to 1."""

    equivalent: float
    different: float

    @property
    def undecided(self) -> float:
        """The rate of neither outcome."""
        return 1 - self.equivalent - self.different


def decision_rates(
    mean: Float[np.ndarray, " strategy"],
    covariance: Float[np.ndarray, "strategy strategy"],
    n_seeds: int,
    margin: Margin,
    *,
    n_matched: int | None = None,
    alpha: float = 0.05,
    n_studies: int = _STUDIES,
    rng_seed: int = 0,
) -> Rates:
    """The rates of the outcomes for normal scores with these moments.

    Sample means and covariances are drawn (the latter from a Wishart distribution) instead of single scores, so that
    the cost does not grow with the number of seeds.

    Args:
        mean: expected scores of the matched strategies, then of none if the margin is a share of the gain.
        covariance: of the scores at one seed.
        n_seeds: 2 or more.
        margin: the smallest difference that matters.
        n_matched: the number of matched strategies; by default all, or all but none.
        alpha: the level of the tests.
        n_studies: the number of simulated studies.
        rng_seed: seed of the simulation.

    Raises:
        InputError: fewer than two seeds.
    """
    if n_seeds < 2:
        raise InputError(f"the number of seeds is {n_seeds}; one alone decides nothing, so allowed are 2 and more.")
    rng = np.random.default_rng(rng_seed)
    root = _root(covariance)
    means = mean + rng.standard_normal((n_studies, len(mean))) @ root.T / np.sqrt(n_seeds)
    sample = Moments(means, root @ _wishart(rng, n_studies, root.shape[1], n_seeds - 1) @ root.T, n_seeds)
    matched = n_matched if n_matched is not None else len(mean) - int(margin.of_gain)
    decisions = decide(compare_pairs(sample, matched, margin), alpha)
    return Rates(float(decisions.equivalent.mean()), float(decisions.different.mean()))


def _root(covariance: Float[np.ndarray, "strategy strategy"]) -> Float[np.ndarray, "strategy factor"]:
    """``R`` with ``R Rᵀ`` equal to the covariance, which is singular if there are fewer seeds than strategies."""
    values, vectors = np.linalg.eigh(covariance)
    root: Float[np.ndarray, "strategy factor"] = vectors * np.sqrt(np.maximum(values, 0))
    return root


def _wishart(rng: np.random.Generator, n: int, size: int, degrees: int) -> Float[np.ndarray, "study factor factor"]:
    """Sample covariances of standard normal vectors; the degrees of freedom may be fewer than ``size``."""
    if degrees < size:
        normal = rng.standard_normal((n, degrees, size))
        return np.asarray(np.einsum("nds,ndt->nst", normal, normal) / degrees)
    # Bartlett's decomposition: the cost does not depend on the degrees of freedom.
    lower = np.tril(rng.standard_normal((n, size, size)), k=-1)
    diagonal = np.arange(size)
    lower[:, diagonal, diagonal] = np.sqrt(rng.chisquare(degrees - diagonal, (n, size)))
    return np.asarray(np.einsum("nsk,ntk->nst", lower, lower) / degrees)


class SeedsNeeded(NamedTuple):
    """The number of seeds with which a study would be decided, and the outcome."""

    seeds: int
    outcome: Outcome


def seeds_to_decide(
    mean: Float[np.ndarray, " strategy"],
    covariance: Float[np.ndarray, "strategy strategy"],
    margin: Margin,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    n_matched: int | None = None,
) -> SeedsNeeded | None:
    """The fewest seeds with which one outcome has at least the probability ``power``; None for more than 1,000.

    Rates are simulated: a power of 0.8 may fall short by about two points (benchmarks/verdict.py).

    Args:
        mean: see :func:`decision_rates`.
        covariance: of the scores at one seed.
        margin: the smallest difference that matters.
        power: between 0 and 1.
        alpha: the level of the tests.
        n_matched: the number of matched strategies.

    Raises:
        InputError: the power is not between 0 and 1.
    """
    if not 0 < power < 1:
        raise InputError(f"the power is {power}; allowed are numbers between 0 and 1, such as 0.8.")

    def rates(n_seeds: int) -> Rates:
        return decision_rates(mean, covariance, n_seeds, margin, alpha=alpha, n_matched=n_matched)

    def decided(n_seeds: int) -> bool:
        found = rates(n_seeds)
        return max(found.equivalent, found.different) >= power

    if not decided(MOST_SEEDS):
        return None
    low, high = 1, 2  # not decided with low, decided with high
    while high < MOST_SEEDS and not decided(high):
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    found = rates(high)
    return SeedsNeeded(high, "equivalent" if found.equivalent >= found.different else "different")


def seeds_to_plan(
    sd_of_difference: float, margin: float, n_matched: int, *, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """The number of seeds with which equally good strategies are found equivalent; None for more than 1,000.

    For two strategies about 2 + 8.6 (sd / margin)² at 80 % power and α = 5 %; more strategies need more, since every
    pair has to pass.

    Args:
        sd_of_difference: sd over seeds of two strategies' paired difference, in the metric's unit; from a pilot study.
        margin: in the same unit.
        n_matched: the number of strategies, 2 or more; their scores are taken as equally correlated.
        power: the probability of the verdict "equivalent".
        alpha: the level of the tests.

    Raises:
        InputError: the sd is negative or not finite, the margin is not above 0, or there are fewer than two strategies.
    """
    if not (np.isfinite(sd_of_difference) and sd_of_difference >= 0):
        raise InputError(f"the sd of a paired difference is {sd_of_difference}; allowed are finite numbers from 0.")
    _check_strategies(n_matched)
    covariance = np.eye(n_matched) * sd_of_difference**2 / 2
    found = seeds_to_decide(np.zeros(n_matched), covariance, Margin(margin), power=power, alpha=alpha)
    return None if found is None else found.seeds


def largest_sd(n_seeds: int, margin: float, n_matched: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The largest sd of a paired difference with which ``n_seeds`` seeds find equally good strategies equivalent.

    The inverse of :func:`seeds_to_plan`: with more scatter, a study of so many seeds is likely to conclude nothing.

    Args:
        n_seeds: the number of seeds.
        margin: the smallest difference that matters.
        n_matched: the number of compared strategies.
        power: the probability of the verdict "equivalent".
        alpha: the level of the tests.

    Returns:
        The sd, in the margin's unit.

    Raises:
        InputError: fewer than two seeds or strategies, or a margin that is not above 0.
    """
    _check_strategies(n_matched)

    def enough(sd: float) -> bool:
        covariance = np.eye(n_matched) * sd**2 / 2
        rates = decision_rates(np.zeros(n_matched), covariance, n_seeds, Margin(margin), alpha=alpha)
        return rates.equivalent >= power

    low, high = 0.0, margin
    while enough(high):
        low, high = high, 2 * high
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low


def _check_strategies(n_matched: int) -> None:
    if n_matched < 2:
        raise InputError(f"the number of strategies is {n_matched}; they can be compared from 2 on.")
