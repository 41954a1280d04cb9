"""The tests behind a verdict agree with statsmodels and scipy, and keep their error rates."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from layerangles.equivalence.decision import (
    Margin,
    Moments,
    PairTests,
    compare_pairs,
    decide,
    differences,
    gain,
    holm,
    moments,
    outcome_of,
    p_nonzero,
    pairs_of,
    standard_errors,
)
from layerangles.errors import InputError

N_SEEDS = 6


def _scores(n_matched: int = 4, *, none: bool = True, rng_seed: int = 0, sd: float = 0.02) -> np.ndarray:
    """``[seed, strategy]``: strategies that differ, correlated within a seed; none as the last, 0.2 worse."""
    rng = np.random.default_rng(rng_seed)
    means = 0.8 + 0.02 * np.arange(n_matched)
    if none:
        means = np.append(means, 0.6)
    n = len(means)
    return means + 0.05 * rng.standard_normal((N_SEEDS, 1)) + sd * rng.standard_normal((N_SEEDS, n))


def _one_sided(values: np.ndarray) -> float:
    """One-sided p-value of "the mean is not above 0"."""
    return float(stats.ttest_1samp(values, 0, alternative="greater").pvalue)


# --- against the libraries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("none", [False, True])
@pytest.mark.parametrize("size", [0.005, 0.03, 0.1])
def test_equivalence_p_values_are_those_of_tost(size: float, none: bool) -> None:
    scores = _scores(none=none)
    found = compare_pairs(moments(scores), 4, Margin(size))
    for pair, (a, b) in enumerate(combinations(range(4), 2)):
        expected = ttost_paired(scores[:, a], scores[:, b], -size, size)[0]
        assert found.p_equivalent[pair] == pytest.approx(expected, rel=1e-9)
        of_difference = DescrStatsW(scores[:, a] - scores[:, b]).ttost_mean(-size, size)[0]
        assert found.p_equivalent[pair] == pytest.approx(of_difference, rel=1e-9)


@pytest.mark.parametrize("size", [0.005, 0.03, 0.1])
def test_difference_p_values_are_two_sided_t_tests_against_the_nearer_margin(size: float) -> None:
    scores = _scores()
    found = compare_pairs(moments(scores), 4, Margin(size)).p_different
    for pair, (a, b) in enumerate(combinations(range(4), 2)):
        d = scores[:, a] - scores[:, b]
        nearer = min(_one_sided(d - size), _one_sided(-d - size))
        assert found[pair] == pytest.approx(min(1, 2 * nearer), rel=1e-9)


def test_a_margin_of_the_gain_is_tested_by_the_contrast_seed_by_seed() -> None:
    scores, share = _scores(), 0.15
    found = compare_pairs(moments(scores), 4, Margin(share, of_gain=True))
    of_gain = share * (scores[:, :4].mean(axis=1) - scores[:, 4])
    for pair, (a, b) in enumerate(combinations(range(4), 2)):
        d = scores[:, a] - scores[:, b]
        inside = max(_one_sided(of_gain - d), _one_sided(of_gain + d))
        beyond = min(max(_one_sided(d - of_gain), _one_sided(d)), max(_one_sided(-d - of_gain), _one_sided(-d)))
        assert found.p_equivalent[pair] == pytest.approx(inside, rel=1e-9)
        assert found.p_different[pair] == pytest.approx(min(1, 2 * beyond), rel=1e-9)
    assert found.p_equivalent.min() < 0.05 < found.p_equivalent.max()  # the scene has both


def test_nonzero_p_values_are_those_of_the_paired_t_test() -> None:
    scores = _scores()
    found = p_nonzero(moments(scores), 4)
    expected = [stats.ttest_rel(scores[:, a], scores[:, b]).pvalue for a, b in combinations(range(4), 2)]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [[0.03], [0.01, 0.02, 0.03, 0.04], [0.04, 0.001, 0.0011, 0.9, 0.5, 0.02], [0.2] * 10])
def test_holm_agrees_with_statsmodels(p: list[float]) -> None:
    assert holm(np.array(p)) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("n_seeds", [2, N_SEEDS])
def test_moments_and_standard_errors_agree_with_numpy(n_seeds: int) -> None:
    scores = _scores()[:n_seeds]
    found = moments(scores)
    assert found.n_seeds == n_seeds
    assert found.mean == pytest.approx(scores.mean(axis=0))
    assert found.covariance == pytest.approx(np.cov(scores.T))
    contrasts = np.vstack([differences(4, 5), gain(4)])
    expected = stats.sem(scores @ contrasts.T, axis=0)
    assert standard_errors(found, contrasts) == pytest.approx(expected, rel=1e-9)


def test_studies_in_leading_dimensions_are_tested_one_by_one() -> None:
    studies = [_scores(rng_seed=n) for n in range(6)]
    each = [moments(scores) for scores in studies]
    stacked = Moments(
        np.array([m.mean for m in each]).reshape(2, 3, 5),
        np.array([m.covariance for m in each]).reshape(2, 3, 5, 5),
        N_SEEDS,
    )
    for margin in (Margin(0.03), Margin(0.15, of_gain=True)):
        together = compare_pairs(stacked, 4, margin)
        decisions = decide(together, 0.05)
        for n, of_one in enumerate(each):
            at = np.unravel_index(n, (2, 3))
            alone = compare_pairs(of_one, 4, margin)
            assert together.p_equivalent[at] == pytest.approx(alone.p_equivalent)
            assert together.p_different[at] == pytest.approx(alone.p_different)
            assert holm(together.p_different)[at] == pytest.approx(holm(alone.p_different))
            assert p_nonzero(stacked, 4)[at] == pytest.approx(p_nonzero(of_one, 4))
            assert (decisions.equivalent[at], decisions.different[at]) == tuple(decide(alone, 0.05))


# --- what is decided ------------------------------------------------------------------------------------------


def test_contrasts_are_first_minus_second_of_all_pairs() -> None:
    assert pairs_of(3) == [(0, 1), (0, 2), (1, 2)]
    assert differences(3, 4).tolist() == [[1, -1, 0, 0], [1, 0, -1, 0], [0, 1, -1, 0]]
    assert gain(4).tolist() == [0.25, 0.25, 0.25, 0.25, -1]


def test_equivalent_needs_every_pair_and_different_one_after_holm() -> None:
    def decided(p_equivalent: list[float], p_different: list[float], alpha: float = 0.05) -> tuple[bool, bool]:
        found = decide(PairTests(np.array(p_equivalent), np.array(p_different)), alpha)
        return bool(found.equivalent), bool(found.different)

    assert decided([0.05, 0.01, 0.04], [1.0, 1.0, 1.0]) == (True, False)
    assert decided([0.051, 0.01, 0.04], [1.0, 1.0, 1.0]) == (False, False)
    assert decided([1.0, 1.0, 1.0], [0.9, 0.016, 0.5]) == (False, True)
    assert decided([1.0, 1.0, 1.0], [0.9, 0.017, 0.5]) == (False, False)  # 3 × 0.017
    assert decided([1.0, 1.0, 1.0], [0.9, 0.016, 0.5], alpha=0.04) == (False, False)
    nan = math.nan
    assert decided([nan, nan], [nan, nan]) == (False, False)


def test_decisions_become_outcomes() -> None:
    assert outcome_of(True, False) == "equivalent"
    assert outcome_of(False, True) == "different"
    assert outcome_of(False, False) == "undecided"


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 0.2), st.booleans(), st.sampled_from([0.01, 0.05, 0.2, 0.49]))
def test_no_study_is_both_equivalent_and_different(rng_seed: int, size: float, of_gain: bool, alpha: float) -> None:
    scores = _scores(3, rng_seed=rng_seed)
    found = decide(compare_pairs(moments(scores), 3, Margin(size, of_gain)), alpha)
    assert not (found.equivalent and found.different)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 0.5), st.floats(-2, 2), st.floats(0.1, 10))
def test_neither_origin_nor_unit_nor_order_matters(rng_seed: int, size: float, shift: float, scale: float) -> None:
    scores = _scores(3, rng_seed=rng_seed)
    for of_gain in (False, True):
        found = compare_pairs(moments(scores), 3, Margin(size, of_gain))
        moved = Margin(size if of_gain else size * scale, of_gain)
        again = compare_pairs(moments(shift + scale * scores), 3, moved)
        turned = compare_pairs(moments(scores[::-1, [2, 1, 0, 3]]), 3, Margin(size, of_gain))
        for ours, others, reversed_pairs in zip(found, again, turned, strict=True):
            assert others == pytest.approx(ours, rel=1e-6, abs=1e-12)
            assert reversed_pairs[::-1] == pytest.approx(ours, rel=1e-6, abs=1e-12)


def test_a_wider_margin_makes_equivalence_more_and_difference_less_plausible() -> None:
    given_moments = moments(_scores())
    sizes = (0.01, 0.02, 0.04, 0.08)
    found = [compare_pairs(given_moments, 4, Margin(size)) for size in sizes]
    for narrow, wide in pairwise(found):
        assert (wide.p_equivalent < narrow.p_equivalent).all()
        assert (wide.p_different >= narrow.p_different).all()


# --- corners --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [0.0, 0.8, 1 / 3, -41.7])
@pytest.mark.parametrize("size", [1e-3, 100.0])
def test_scores_that_are_all_equal_are_equivalent_without_a_warning(score: float, size: float) -> None:
    given_moments = moments(np.full((5, 3), score))
    found = compare_pairs(given_moments, 3, Margin(size))
    assert found.p_equivalent.max() < 1e-9
    assert found.p_different.tolist() == [1, 1, 1]
    assert p_nonzero(given_moments, 3) == pytest.approx(1)


def test_differences_that_never_vary_are_decided_by_any_margin() -> None:
    scores = np.array([[0.8], [0.7], [0.9]]) + np.array([0.0, 0.02, 0.02])
    found = compare_pairs(moments(scores), 3, Margin(0.01))
    assert (found.p_equivalent <= 0.05).tolist() == [False, False, True]
    assert (found.p_different <= 0.05).tolist() == [True, True, False]
    assert (compare_pairs(moments(scores), 3, Margin(0.03)).p_equivalent <= 0.05).all()


def test_the_floor_of_a_standard_error_is_far_below_any_that_scores_have() -> None:
    scores = 0.8 + 1e-9 * np.random.default_rng(0).standard_normal((5, 2))
    expected = stats.ttest_rel(scores[:, 0], scores[:, 1]).pvalue
    assert p_nonzero(moments(scores), 2) == pytest.approx([expected], rel=1e-4)


def test_one_seed_has_no_p_value() -> None:
    given_moments = moments(np.array([[0.8, 0.9, 0.5]]))
    assert given_moments.mean.tolist() == [0.8, 0.9, 0.5]
    assert np.isnan(given_moments.covariance).all()
    found = compare_pairs(given_moments, 2, Margin(0.1, of_gain=True))
    assert np.isnan([*found.p_equivalent, *found.p_different, *p_nonzero(given_moments, 2)]).all()
    assert tuple(decide(found, 0.05)) == (False, False)


@pytest.mark.parametrize("none", [0.9, 0.8])
def test_without_a_gain_nothing_is_equivalent(none: float) -> None:
    scores = np.column_stack([_scores(3, none=False, sd=1e-6), np.full(N_SEEDS, none)])
    scores[:, 3] += scores[:, :3].mean(axis=1) - 0.8  # the gain is 0.8 − none at every seed
    found = compare_pairs(moments(scores), 3, Margin(10, of_gain=True))
    assert found.p_equivalent.min() > 0.4


def test_without_a_gain_strategies_are_different_only_where_they_differ() -> None:
    rng = np.random.default_rng(3)
    equal = 0.8 + 0.01 * rng.standard_normal((50, 2))
    worse_than_none = np.column_stack([equal, np.full(50, 2.0)])
    found = compare_pairs(moments(worse_than_none), 2, Margin(0.5, of_gain=True)).p_different
    assert found == pytest.approx([stats.ttest_rel(equal[:, 0], equal[:, 1]).pvalue], rel=1e-9)


def test_margins_say_their_size_and_unit() -> None:
    assert str(Margin(0.5)) == "0.5"
    assert str(Margin(0.25, of_gain=True)) == "0.25 of the gain over none"
    assert not Margin(1).of_gain


@pytest.mark.parametrize("size", [0.0, -1.0, math.inf, math.nan])
def test_margins_that_are_not_positive_numbers_are_refused(size: float) -> None:
    with pytest.raises(InputError, match=f"the margin is {size}; allowed are finite numbers above 0"):
        Margin(size)


# --- what is promised -----------------------------------------------------------------------------------------


def _studies(means: list[float], n_seeds: int, n: int, *, sd: float, rng_seed: int = 0) -> Moments:
    """Moments of normal scores, none last; strategies share the level of a seed."""
    rng = np.random.default_rng(rng_seed)
    shape = (n, n_seeds, len(means))
    scores = np.array(means) + rng.standard_normal((n, n_seeds, 1)) + sd * rng.standard_normal(shape)
    each = [moments(of_one) for of_one in scores]
    return Moments(np.array([m.mean for m in each]), np.array([m.covariance for m in each]), n_seeds)


@pytest.mark.parametrize("of_gain", [False, True])
@pytest.mark.parametrize("n_seeds", [3, 10])
def test_a_pair_at_the_margin_is_wrongly_decided_one_time_in_twenty_at_most(n_seeds: int, of_gain: bool) -> None:
    """At a margin of 1 (half of a gain of 2), with an sd that makes the test of equivalence exact."""
    n, alpha = 3000, 0.05
    # The mean of the matched strategies is 0.5, so none lies at −1.5 for a gain of 2.
    sample = _studies([0, 1, -1.5], n_seeds, n, sd=0.15)
    found = compare_pairs(sample, 2, Margin(0.5, of_gain=True) if of_gain else Margin(1))
    decisions = decide(found, alpha)
    error = math.sqrt(alpha * (1 - alpha) / n)
    assert decisions.equivalent.mean() == pytest.approx(alpha, abs=3.5 * error)
    assert decisions.different.mean() == pytest.approx(alpha / 2, abs=3.5 * error / math.sqrt(2))
