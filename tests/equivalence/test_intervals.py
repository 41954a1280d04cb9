"""Intervals agree with scipy, brute force, a naive loop, and theory."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from layerangles.equivalence.decision import Margin, compare_pairs, decide, moments
from layerangles.equivalence.intervals import (
    Estimate,
    fieller,
    multi_bootstrap,
    spread_interval,
    spread_of_gain_interval,
    t_interval,
)


def _scores(n_seeds: int = 12, n_strategies: int = 4, rng_seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(rng_seed)
    return 0.8 + 0.03 * np.arange(n_strategies) + 0.04 * rng.standard_normal((n_seeds, n_strategies))


def _all_nan(found: Estimate) -> bool:
    return all(math.isnan(number) for number in found)


# --- Student's ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("n", [2, 5, 30])
def test_t_intervals_agree_with_scipy(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).standard_normal(n) + 3
    expected = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert t_interval(values, confidence) == pytest.approx((values.mean(), *expected), rel=1e-12)


def test_a_single_value_has_no_interval() -> None:
    assert _all_nan(t_interval(np.array([]), 0.9))
    found = t_interval(np.array([2.5]), 0.9)
    assert found.value == 2.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert t_interval(np.array([2.5, 2.5, 2.5]), 0.9) == (2.5, 2.5, 2.5)


# --- the spread -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_ends_of_the_spread_are_the_largest_bounds_of_a_pair(confidence: float) -> None:
    scores = _scores()
    pairs = [scores[:, a] - scores[:, b] for a, b in combinations(range(4), 2)]
    together = [t_interval(pair, 1 - (1 - confidence) / 6) for pair in pairs]
    alone = [t_interval(pair, confidence) for pair in pairs]
    found = spread_interval(scores, confidence)
    assert found.value == pytest.approx(np.ptp(scores.mean(axis=0)))
    assert found.low == pytest.approx(max(max(0, low, -high) for _, low, high in together))
    assert found.high == pytest.approx(max(max(abs(low), abs(high)) for _, low, high in alone))
    assert 0 < found.low < found.value < found.high


@pytest.mark.parametrize("of_gain", [False, True])
@pytest.mark.parametrize("rng_seed", range(8))
def test_the_ends_of_the_spread_are_where_the_verdict_turns(rng_seed: int, of_gain: bool) -> None:
    """A margin below the lower end is exceeded at α, and one above the upper end of 1 − 2α is kept; others neither."""
    alpha = 0.05
    matched = _scores(8, rng_seed=rng_seed)
    none = matched.mean(axis=1) - 0.2 - 0.05 * np.random.default_rng(rng_seed).standard_normal(8)
    given = moments(np.column_stack([matched, none]))

    def ends(confidence: float) -> Estimate:
        if of_gain:
            return spread_of_gain_interval(matched, matched.mean(axis=1) - none, confidence)
        return spread_interval(matched, confidence)

    low, high = ends(1 - alpha).low, ends(1 - 2 * alpha).high
    for margin, expected in (
        (0.999 * low, (False, True)),
        (1.001 * low, (False, False)),
        (0.999 * high, (False, False)),
        (1.001 * high, (True, False)),
    ):
        if margin > 0:
            assert decide(compare_pairs(given, 4, Margin(float(margin), of_gain)), alpha) == expected


def test_strategies_that_differ_by_the_same_at_every_seed_have_a_spread_without_uncertainty() -> None:
    seeds = np.random.default_rng(0).standard_normal((8, 1))
    assert spread_interval(seeds + np.array([0.0, 0.5, 0.2]), 0.95) == pytest.approx((0.5, 0.5, 0.5))


def test_no_gain_makes_the_share_infinite() -> None:
    scores = _scores()
    n = len(scores)
    nowhere = spread_of_gain_interval(scores, np.full(n, -0.1), 0.95)
    assert nowhere == (math.inf, math.inf, math.inf)
    assert spread_of_gain_interval(np.full((n, 2), 0.5), np.zeros(n), 0.95) == (math.inf, 0, math.inf)
    unsure = spread_of_gain_interval(scores, np.linspace(-0.1, 0.3, n), 0.95)
    assert 0 < unsure.low < unsure.value < math.inf
    assert np.isfinite(spread_of_gain_interval(scores, np.full(n, 0.1), 0.95)).all()
    doubtful = spread_of_gain_interval(scores, np.append(np.full(n - 1, -0.1), 1.3), 0.95)  # of mean 0.017
    assert 0 < doubtful.low < doubtful.high == math.inf
    assert _all_nan(spread_of_gain_interval(scores, np.full(n, math.nan), 0.95))


def test_a_spread_of_one_seed_has_no_interval() -> None:
    scores = _scores(1)
    gain = np.array([0.5])
    for found, unit in ((spread_interval(scores, 0.95), 1), (spread_of_gain_interval(scores, gain, 0.95), 0.5)):
        assert found.value == pytest.approx(np.ptp(scores) / unit)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


# --- Fieller's ------------------------------------------------------------------------------------------------


def _not_rejected(top: np.ndarray, bottom: np.ndarray, confidence: float, ratios: np.ndarray) -> np.ndarray:
    values = top - ratios[:, None] * bottom
    return stats.ttest_1samp(values, 0, axis=1).pvalue >= 1 - confidence


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("sign", [1, -1])
def test_fieller_holds_the_ratios_that_the_t_test_does_not_reject(confidence: float, sign: int) -> None:
    rng = np.random.default_rng(4)
    bottom = sign * (1 + 0.4 * rng.standard_normal(7))
    top = 0.3 + 0.5 * bottom * sign + 0.3 * rng.standard_normal(7)
    found = fieller(top, bottom, confidence)
    ratios = np.linspace(-6, 6, 48_001)
    inside = ratios[_not_rejected(top, bottom, confidence, ratios)]
    assert found.value == pytest.approx(top.mean() / bottom.mean())
    assert found.low == pytest.approx(inside.min(), abs=5e-4)
    assert found.high == pytest.approx(inside.max(), abs=5e-4)
    assert len(inside) == pytest.approx((found.high - found.low) / 2.5e-4, abs=2)  # one piece


def test_fieller_is_unbounded_where_the_denominator_may_be_zero() -> None:
    rng = np.random.default_rng(5)
    bottom = 0.1 + rng.standard_normal(6)
    top = 2 + rng.standard_normal(6)
    assert stats.ttest_1samp(bottom, 0).pvalue > 0.05
    far = np.array([-1e6, 1e6])
    assert _not_rejected(top, bottom, 0.95, far).all()
    found = fieller(top, bottom, 0.95)
    assert found.value == pytest.approx(top.mean() / bottom.mean())
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_fieller_of_single_missing_and_constant_values() -> None:
    single = fieller(np.array([1.0]), np.array([4.0]), 0.95)
    assert single.value == 0.25
    assert math.isnan(single.low)
    assert math.isnan(single.high)
    assert _all_nan(fieller(np.array([1.0, 2.0]), np.array([math.nan, math.nan]), 0.95))
    nothing = fieller(np.zeros(4), np.zeros(4), 0.95)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (-math.inf, math.inf)
    exact = fieller(np.full(4, 0.5), np.full(4, 2.0), 0.95)
    assert exact == pytest.approx((0.25, 0.25, 0.25))


# --- the Multi-Bootstrap --------------------------------------------------------------------------------------


def _examples(n_strategies: int, n_seeds: int, n_examples: int, rng_seed: int = 0) -> np.ndarray:
    return np.random.default_rng(rng_seed).random((n_strategies, n_seeds, n_examples))


def test_the_multi_bootstrap_agrees_with_a_loop() -> None:
    examples = _examples(3, 4, 7)
    found = multi_bootstrap(examples, n_resamples=50, rng_seed=9)
    assert found.shape == (50, 3)
    rng = np.random.default_rng(9)
    seeds = rng.multinomial(4, [1 / 4] * 4, 50)
    rows = rng.multinomial(7, [1 / 7] * 7, 50)
    for resample in range(50):
        chosen_seeds = np.repeat(np.arange(4), seeds[resample])
        chosen_examples = np.repeat(np.arange(7), rows[resample])
        for strategy in range(3):
            expected = np.mean([[examples[strategy, k, e] for e in chosen_examples] for k in chosen_seeds])
            assert found[resample, strategy] == pytest.approx(expected)


def test_the_multi_bootstrap_has_the_variance_of_its_definition() -> None:
    """The exact variance over resamples, from the mean squares of seeds, examples and residuals."""
    examples = _examples(1, 5, 9, rng_seed=3)
    table = examples[0] - examples[0].mean()
    by_seed, by_example = table.mean(axis=1), table.mean(axis=0)
    residual = table - by_seed[:, None] - by_example[None, :]
    expected = (by_seed**2).mean() / 5 + (by_example**2).mean() / 9 + (residual**2).mean() / 45
    found = multi_bootstrap(examples, n_resamples=40_000).var()
    assert found == pytest.approx(expected, rel=0.03)


def test_the_multi_bootstrap_estimates_the_variance_over_new_seeds_and_new_examples() -> None:
    """Seeds a, examples b, residuals e, crossed: the mean varies by a²/K + b²/N + e²/(KN) from study to study.

    The bootstrap's own expectation is known, too: (K − 1)/K of the seeds' part, and so on.
    """
    n_seeds, n_examples, a, b, e, n = 6, 40, 1.0, 3.0, 4.0, 400
    rng = np.random.default_rng(0)
    studies = (
        a * rng.standard_normal((n, n_seeds, 1))
        + b * rng.standard_normal((n, 1, n_examples))
        + e * rng.standard_normal((n, n_seeds, n_examples))
    )
    k, m = n_seeds, n_examples
    expected = (
        (a**2 + e**2 / m) * (k - 1) / k**2
        + (b**2 + e**2 / k) * (m - 1) / m**2
        + e**2 * (k - 1) * (m - 1) / (k * m) ** 2
    )
    found = multi_bootstrap(studies, n_resamples=1000).var(axis=0)
    error = found.std() / math.sqrt(n)
    assert found.mean() == pytest.approx(expected, abs=3.5 * error)
    assert error < 0.03 * expected
    true = a**2 / k + b**2 / m + e**2 / (k * m)
    assert studies.mean(axis=(1, 2)).var() == pytest.approx(true, rel=0.25)


def test_strategies_share_their_resamples() -> None:
    first = _examples(1, 4, 6)
    both = multi_bootstrap(np.concatenate([first, first + 0.5]), n_resamples=20)
    assert both[:, 1] - both[:, 0] == pytest.approx(0.5)
    assert len(np.unique(both[:, 0])) > 10
