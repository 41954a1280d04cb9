"""Rates of decisions agree with simulated scores and closed forms; numbers of seeds are just enough."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from layerangles.equivalence import power
from layerangles.equivalence.decision import Margin, Moments, compare_pairs, decide, moments
from layerangles.equivalence.power import (
    Rates,
    decision_rates,
    largest_sd,
    seeds_to_decide,
    seeds_to_plan,
)
from layerangles.errors import InputError

MEAN = np.array([0.80, 0.81, 0.83, 0.50])  # the last is none
COVARIANCE = 0.03**2 * (0.5 + np.diag([0.3, 0.5, 0.7, 0.9]))


def _simulated(
    mean: np.ndarray, covariance: np.ndarray, n_seeds: int, margin: Margin, n_matched: int, n: int, alpha: float
) -> Rates:
    """The rates of studies whose scores are drawn one by one."""
    scores = np.random.default_rng(7).multivariate_normal(mean, covariance, size=(n, n_seeds))
    each = [moments(of_one) for of_one in scores]
    sample = Moments(np.array([m.mean for m in each]), np.array([m.covariance for m in each]), n_seeds)
    decisions = decide(compare_pairs(sample, n_matched, margin), alpha)
    return Rates(float(decisions.equivalent.mean()), float(decisions.different.mean()))


def _tost_power(ratio: float, n: int, alpha: float = 0.05) -> float:
    """The probability that TOST finds equal strategies equivalent (exact): ``ratio`` is sd / margin."""
    quantile = stats.t.isf(alpha, n - 1)

    def given_s(s: float) -> float:  # of the sample's sd over the true one
        half = math.sqrt(n) / ratio - quantile * s
        density = stats.chi.pdf(s * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)
        return max(0.0, 2 * stats.norm.cdf(half) - 1) * density

    return integrate.quad(given_s, 0, math.sqrt(n) / ratio / quantile, limit=200)[0]


# --- rates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_seeds", [2, 3, 4, 12])  # fewer degrees of freedom than strategies, as many, and more
@pytest.mark.parametrize(
    ("margin", "n_matched"),
    [(Margin(0.06), None), (Margin(0.25, of_gain=True), None), (Margin(0.06), 3), (Margin(0.01), 3)],
    ids=["four strategies", "share of the gain", "three and none", "small"],
)
def test_rates_are_those_of_scores_drawn_one_by_one(n_seeds: int, margin: Margin, n_matched: int | None) -> None:
    n = 1500
    matched = n_matched or (3 if margin.of_gain else 4)
    mean = MEAN if margin.of_gain or n_matched else MEAN + np.array([0, 0, 0, 0.3])
    covariance = COVARIANCE / 2 if n_seeds < 12 else COVARIANCE
    found = decision_rates(mean, covariance, n_seeds, margin, n_matched=n_matched, alpha=0.1, n_studies=6000)
    expected = _simulated(mean, covariance, n_seeds, margin, matched, n, alpha=0.1)
    for ours, theirs in zip(found, expected, strict=True):
        error = math.sqrt(max(ours * (1 - ours), 1e-3) * (1 / n + 1 / 6000))
        assert ours == pytest.approx(theirs, abs=4 * error)
    assert found.undecided == pytest.approx(1 - found.equivalent - found.different)


def test_the_simulated_scenes_have_rates_away_from_0_and_1() -> None:
    """The comparison with scores drawn one by one would otherwise compare zeros."""
    assert decision_rates(MEAN[:3], COVARIANCE[:3, :3], 12, Margin(0.06)).equivalent > 0.2
    assert decision_rates(MEAN[:3], COVARIANCE[:3, :3], 12, Margin(0.01)).different > 0.1


@pytest.mark.parametrize(("ratio", "n"), [(0.3, 3), (0.5, 5), (1.0, 10), (2.0, 36)])
def test_rates_of_two_equal_strategies_agree_with_the_exact_power_of_tost(ratio: float, n: int) -> None:
    found = decision_rates(np.zeros(2), np.eye(2) * ratio**2 / 2, n, Margin(1), n_studies=20_000)
    assert found.equivalent == pytest.approx(_tost_power(ratio, n), abs=4 * math.sqrt(0.25 / 20_000))


@pytest.mark.parametrize("degrees", [1, 3, 4, 5, 40])
def test_sample_covariances_have_the_mean_and_variance_of_wishart(degrees: int) -> None:
    size, n = 4, 6_000
    drawn = power._wishart(np.random.default_rng(0), n, size, degrees)
    assert drawn.shape == (n, size, size)
    assert drawn == pytest.approx(np.swapaxes(drawn, 1, 2))
    variance = (1 + np.eye(size)) / degrees  # of an entry: (σ_ij² + σ_ii σ_jj) / ν
    assert drawn.mean(axis=0) == pytest.approx(np.eye(size), abs=5 * math.sqrt(2 / degrees / n))
    assert drawn.var(axis=0) == pytest.approx(variance, rel=0.25)
    assert np.linalg.matrix_rank(drawn[0]) == min(size, degrees)


def test_a_singular_covariance_has_a_root() -> None:
    scores = np.random.default_rng(1).standard_normal((3, 6))
    covariance = np.cov(scores, rowvar=False)
    root = power._root(covariance)
    assert root @ root.T == pytest.approx(covariance)
    rates = decision_rates(np.zeros(6), covariance, 30, Margin(1.0))
    assert 0 <= rates.undecided <= 1


def test_the_same_question_has_the_same_answer() -> None:
    def rates(**options: int) -> Rates:
        return decision_rates(MEAN[:3], COVARIANCE[:3, :3], 12, Margin(0.06), **options)

    assert rates() == rates()
    assert rates() != rates(rng_seed=1)
    assert rates(n_studies=7).equivalent * 7 == pytest.approx(round(rates(n_studies=7).equivalent * 7))


# --- seeds that are just enough -------------------------------------------------------------------------------


def _equivalent(sd: float, n_seeds: int, n_matched: int, alpha: float = 0.05) -> float:
    covariance = np.eye(n_matched) * sd**2 / 2
    return decision_rates(np.zeros(n_matched), covariance, n_seeds, Margin(1), alpha=alpha).equivalent


@pytest.mark.parametrize("n_matched", [2, 4])
@pytest.mark.parametrize(
    ("sd", "power_", "alpha"), [(0.05, 0.8, 0.05), (1.0, 0.8, 0.05), (1.3, 0.9, 0.05), (1, 0.6, 0.1)]
)
def test_the_seeds_to_plan_are_just_enough(sd: float, power_: float, alpha: float, n_matched: int) -> None:
    found = seeds_to_plan(sd, 1.0, n_matched, power=power_, alpha=alpha)
    assert found is not None
    assert _equivalent(sd, found, n_matched, alpha) >= power_
    assert found == 2 or _equivalent(sd, found - 1, n_matched, alpha) < power_


@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0, 4.0])
def test_the_seeds_to_plan_agree_with_the_exact_power_and_the_rule_of_thumb(sd: float) -> None:
    found = seeds_to_plan(sd, 1.0, 2)
    assert found is not None
    error = 3.5 * math.sqrt(0.8 * 0.2 / 2000)  # of the simulated rate
    assert _tost_power(sd, found) > 0.8 - error
    assert _tost_power(sd, found - 1) < 0.8 + error
    assert found == pytest.approx(2 + 8.6 * sd**2, abs=max(1, 0.03 * found))


def test_more_scatter_more_strategies_and_a_smaller_margin_need_more_seeds() -> None:
    by_sd = [seeds_to_plan(sd, 0.02, 3) or 0 for sd in (0.002, 0.01, 0.02, 0.04)]
    assert by_sd == sorted(by_sd)
    assert by_sd[0] == 2 < by_sd[1] < by_sd[2] < by_sd[3]
    by_number = [seeds_to_plan(1.0, 1.0, n) or 0 for n in (2, 4, 7)]
    assert by_number == sorted(by_number)
    assert by_number[0] < by_number[-1]
    assert seeds_to_plan(0.02, 0.02, 3) == seeds_to_plan(5.0, 5.0, 3)
    assert (seeds_to_plan(1, 1, 2, power=0.9) or 0) > (seeds_to_plan(1, 1, 2) or 0)
    assert (seeds_to_plan(1, 1, 2, alpha=0.01) or 0) > (seeds_to_plan(1, 1, 2) or 0)


def test_more_than_1000_seeds_are_none_and_no_scatter_needs_two() -> None:
    assert seeds_to_plan(20.0, 1.0, 2) is None
    assert seeds_to_plan(0.0, 1.0, 7) == 2


def test_the_largest_sd_inverts_the_seeds_to_plan() -> None:
    for n_seeds, n_matched in ((3, 2), (5, 4), (10, 7), (40, 2)):
        found = largest_sd(n_seeds, 1.0, n_matched)
        assert _equivalent(found, n_seeds, n_matched) >= 0.8
        assert _equivalent(1.003 * found, n_seeds, n_matched) < 0.8
        assert seeds_to_plan(found, 1.0, n_matched) == n_seeds
        assert largest_sd(n_seeds, 0.02, n_matched) == pytest.approx(0.02 * found, rel=2e-3)
    assert largest_sd(5, 1, 2, power=0.9) < largest_sd(5, 1, 2)
    assert largest_sd(5, 1, 2, alpha=0.01) < largest_sd(5, 1, 2)
    tiny = largest_sd(2, 1, 7, alpha=0.001)
    assert 0 < tiny < 2e-3
    assert _equivalent(tiny, 2, 7, alpha=0.001) >= 0.8 > _equivalent(1.003 * tiny, 2, 7, alpha=0.001)


# --- seeds for a decision -------------------------------------------------------------------------------------


def test_seeds_to_decide_are_just_enough_and_say_which_way() -> None:
    covariance = 0.02**2 * np.eye(3)
    for mean, margin, outcome in (
        ([0.8, 0.8, 0.8], Margin(0.02), "equivalent"),
        ([0.8, 0.8, 0.84], Margin(0.02), "different"),
        ([0.8, 0.8, 0.6], Margin(0.2, of_gain=True), "equivalent"),
        ([0.8, 0.7, 0.6], Margin(0.2, of_gain=True), "different"),
    ):
        found = seeds_to_decide(np.array(mean), covariance, margin)
        assert found is not None
        assert found.outcome == outcome
        enough = decision_rates(np.array(mean), covariance, found.seeds, margin)
        fewer = decision_rates(np.array(mean), covariance, found.seeds - 1, margin)
        assert getattr(enough, outcome) >= 0.8
        assert max(fewer.equivalent, fewer.different) < 0.8


def test_at_the_margin_no_number_of_seeds_decides() -> None:
    assert seeds_to_decide(np.array([0.8, 0.82]), 0.01**2 * np.eye(2), Margin(0.02)) is None


def test_one_outcome_must_reach_the_power_not_both_together() -> None:
    """At the margin 5 % are found equivalent and 2.5 % different, however many seeds there are."""
    at_the_margin = (np.array([0.8, 0.82]), 0.01**2 * np.eye(2), Margin(0.02))
    assert seeds_to_decide(*at_the_margin, power=0.065) is None
    found = seeds_to_decide(*at_the_margin, power=0.03)
    assert found is not None
    assert found.outcome == "equivalent"


def test_the_seeds_to_decide_depend_on_power_and_alpha() -> None:
    def seeds(**options: float) -> int:
        found = seeds_to_decide(np.zeros(2), np.eye(2), Margin(1), **options)
        assert found is not None
        return found.seeds

    assert seeds(power=0.6) < seeds() < seeds(power=0.95)
    assert seeds(alpha=0.1) < seeds() < seeds(alpha=0.01)


def test_none_plays_no_part_with_an_absolute_margin() -> None:
    covariance = COVARIANCE.copy()
    found = seeds_to_decide(MEAN, covariance, Margin(0.05), n_matched=3)
    covariance[3, 3] += 5
    again = seeds_to_decide(MEAN - [0, 0, 0, 9], covariance, Margin(0.05), n_matched=3)
    assert found is not None
    assert again is not None
    assert found.outcome == again.outcome == "equivalent"
    assert found.seeds == pytest.approx(again.seeds, abs=1)  # others are drawn


# --- what is not allowed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("power_", [0.0, 1.0, -1.0, 2.0, math.nan])
def test_powers_out_of_range_are_refused(power_: float) -> None:
    with pytest.raises(InputError, match=f"the power is {power_}; allowed are numbers between 0 and 1, such as 0.8"):
        seeds_to_decide(np.zeros(2), np.eye(2), Margin(1), power=power_)


@pytest.mark.parametrize("sd", [-0.1, math.nan, math.inf])
def test_scatter_that_is_negative_or_not_finite_is_refused(sd: float) -> None:
    with pytest.raises(InputError, match=f"sd of a paired difference is {sd}; allowed are finite numbers from 0"):
        seeds_to_plan(sd, 1, 2)


def test_too_few_seeds_or_strategies_are_refused() -> None:
    with pytest.raises(InputError, match="the number of seeds is 1; one alone decides nothing"):
        decision_rates(np.zeros(2), np.eye(2), 1, Margin(1))
    for planned in (lambda: seeds_to_plan(1, 1, 1), lambda: largest_sd(5, 1, 1)):
        with pytest.raises(InputError, match="the number of strategies is 1; they can be compared from 2 on"):
            planned()
    with pytest.raises(InputError, match="the margin is 0"):
        seeds_to_plan(1, 0, 2)
