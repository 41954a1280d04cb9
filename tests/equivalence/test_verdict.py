"""Verdicts on studies with planted truths: equivalent, different, undecided, and what is refused."""

import math
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired
from toys.command_line import script
from toys.planted import MARGIN, NAMES, planted_cell, planted_scores

from layerangles.equivalence import decision_rates, fieller, seeds_to_decide, variance_components
from layerangles.equivalence.decision import Margin, moments
from layerangles.equivalence.intervals import spread_interval, spread_of_gain_interval, t_interval
from layerangles.equivalence.posterior import rope
from layerangles.equivalence.verdict import judge
from layerangles.errors import InputError
from layerangles.report.verdict_wording import reason_for


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
@pytest.mark.parametrize("rng_seed", range(3))
def test_equal_strategies_are_equivalent(margin: Margin, rng_seed: int) -> None:
    found = judge(planted_cell(planted_scores(rng_seed=rng_seed)), margin)
    assert found.outcome == "equivalent"
    assert set(found.pairs["outcome"]) == {"equivalent"}
    assert found.inside > 0.9
    assert found.seeds_needed is None
    assert found.n_seeds == 6
    assert (found.margin, found.alpha, found.power) == (margin, 0.05, 0.8)


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
@pytest.mark.parametrize("rng_seed", range(3))
def test_a_strategy_that_is_worse_by_two_margins_is_named(margin: Margin, rng_seed: int) -> None:
    found = judge(planted_cell(planted_scores((0.8, 0.8, 0.76, 0.8), rng_seed=rng_seed)), margin)
    assert found.outcome == "different"
    assert [pair for pair, outcome in found.pairs["outcome"].items() if outcome == "different"] == [
        ("forward", "random"),
        ("reverse", "random"),
        ("random", "last"),
    ]
    assert re.match(r"\w+ is better than random by ", reason_for(found))
    assert found.pairs.loc[("random", "last"), "below"] > 0.95
    assert found.pairs.loc[("forward", "random"), "above"] > 0.95
    assert found.inside < 0.05
    assert found.seeds_needed is None


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
@pytest.mark.parametrize("rng_seed", range(3))
def test_much_scatter_is_undecided_with_the_seeds_that_would_decide(margin: Margin, rng_seed: int) -> None:
    scores = planted_scores(sd=0.03, rng_seed=rng_seed)
    found = judge(planted_cell(scores), margin)
    assert found.outcome == "undecided"
    values = np.stack([*scores.values()], axis=1)
    expected = seeds_to_decide(values.mean(axis=0), np.cov(values.T), margin, n_matched=4)
    assert found.seeds_needed == (None if expected is None else expected.seeds)


def test_the_seeds_needed_are_more_than_there_are_and_would_decide() -> None:
    scores = planted_scores(sd=0.015, rng_seed=2)
    found = judge(planted_cell(scores), MARGIN, power=0.7, alpha=0.1)
    assert found.outcome == "undecided"
    assert found.seeds_needed is not None
    assert found.seeds_needed > 6
    values = np.stack([*scores.values()], axis=1)
    options = {"n_matched": 4, "alpha": 0.1}
    enough = decision_rates(values.mean(axis=0), np.cov(values.T), found.seeds_needed, MARGIN, **options)
    fewer = decision_rates(values.mean(axis=0), np.cov(values.T), found.seeds_needed - 1, MARGIN, **options)
    assert max(enough.equivalent, enough.different) >= 0.7 > max(fewer.equivalent, fewer.different)


def test_without_a_gain_a_share_of_it_is_never_enough() -> None:
    found = judge(planted_cell(planted_scores(sd=1e-4, none=0.9)), Margin(0.5, of_gain=True))
    assert found.outcome != "equivalent"
    assert found.gain.value == pytest.approx(-0.1, abs=1e-3)
    assert found.spread_of_gain.value == math.inf
    assert found.inside == 0


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_table_of_pairs_agrees_with_scipy_and_statsmodels(alpha: float) -> None:
    scores = planted_scores((0.8, 0.81, 0.83, 0.795), sd=0.01)
    found = judge(planted_cell(scores), MARGIN, alpha=alpha).pairs
    assert found.index.names == ["first", "second"]
    assert list(found.index) == list(combinations(NAMES, 2))
    values = {pair: scores[pair[0]] - scores[pair[1]] for pair in found.index}
    for pair, d in values.items():
        row = found.loc[pair]
        assert row["difference"] == pytest.approx(d.mean())
        assert row["sd"] == pytest.approx(d.std(ddof=1))
        for low, high, confidence in (("low", "high", 1 - 2 * alpha), ("wide_low", "wide_high", 1 - alpha)):
            expected = stats.t.interval(confidence, len(d) - 1, loc=d.mean(), scale=stats.sem(d))
            assert (row[low], row[high]) == pytest.approx(expected)
        assert row["p_equivalent"] == pytest.approx(ttost_paired(scores[pair[0]], scores[pair[1]], -0.02, 0.02)[0])
        within = row["low"] > -0.02 and row["high"] < 0.02
        assert (row["p_equivalent"] <= alpha) == within
        exact = stats.t(len(d) - 1, loc=d.mean(), scale=stats.sem(d))
        assert row["inside"] == pytest.approx(exact.cdf(0.02) - exact.cdf(-0.02), abs=0.015)
        assert row["above"] == pytest.approx(exact.sf(0.02), abs=0.015)
        assert row["below"] == pytest.approx(exact.cdf(-0.02), abs=0.015)
        beyond = row["p_different"] <= alpha
        assert row["outcome"] == ("equivalent" if within else "different" if beyond else "undecided")
    assert set(found["outcome"]) == {"equivalent", "different", "undecided"}
    t_tests = [stats.ttest_1samp(d, 0).pvalue for d in values.values()]
    assert found["p_nonzero"].to_numpy() == pytest.approx(multipletests(t_tests, method="holm")[1])
    beyond = [
        min(1, 2 * min(stats.ttest_1samp(s * d, 0.02, alternative="greater").pvalue for s in (1, -1)))
        for d in values.values()
    ]
    assert found["p_different"].to_numpy() == pytest.approx(multipletests(beyond, method="holm")[1])
    assert "examples_low" not in found


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_table_of_strategies_has_t_intervals_of_scores_and_gains(higher_is_better: bool) -> None:
    scores = planted_scores((0.8, 0.81, 0.83, 0.79), sd=0.01) | {
        "shuffled": np.array([0.5, 0.6, np.nan, 0.55, 0.5, 0.4])
    }
    sign = 1 if higher_is_better else -1
    found = judge(planted_cell(scores, higher_is_better=higher_is_better), MARGIN, alpha=0.1).strategies
    assert list(found.index) == [*NAMES, "none", "shuffled"]
    assert found["role"].tolist() == ["matched"] * 4 + ["none", "control"]
    assert (found["n_draws"] == 1).all()
    for name, values in scores.items():
        there, row = np.isfinite(values), found.loc[name]
        expected = t_interval(values[there], 0.9)
        assert tuple(row[["score", "low", "high"]]) == pytest.approx(expected)
        assert row["sd"] == pytest.approx(values[there].std(ddof=1))
        gain = t_interval(sign * (values - scores["none"])[there], 0.9)
        if name == "none":
            assert row[["gain", "gain_low", "gain_high"]].isna().all()
        else:
            assert tuple(row[["gain", "gain_low", "gain_high"]]) == pytest.approx(gain)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_spread_gain_and_components_are_those_of_the_matched_strategies(higher_is_better: bool) -> None:
    scores = planted_scores((0.8, 0.81, 0.83, 0.79), sd=0.01)
    cell, sign = planted_cell(scores, higher_is_better=higher_is_better), 1 if higher_is_better else -1
    found = judge(cell, MARGIN, alpha=0.1)
    matched = sign * np.stack([scores[name] for name in NAMES], axis=1)
    gain = matched.mean(axis=1) - sign * scores["none"]
    assert found.spread == spread_interval(matched, 0.9)
    assert found.spread.value == pytest.approx(np.ptp(matched.mean(axis=0)))
    assert found.gain == pytest.approx(t_interval(gain, 0.9))
    assert found.spread_of_gain == pytest.approx(spread_of_gain_interval(matched, gain, 0.9))
    extremes = abs(scores["random"] - scores["last"]) * np.sign((scores["random"] - scores["last"]).mean())
    assert found.extremes_of_gain == pytest.approx(fieller(scores["random"] - scores["last"], gain, 0.9))
    assert extremes.mean() == pytest.approx(found.spread.value)
    pd.testing.assert_frame_equal(found.components, variance_components(cell))
    posterior = rope(moments(np.column_stack([matched, sign * scores["none"]])), 4, MARGIN)
    assert found.inside == posterior.all_inside < found.pairs["inside"].min()


@pytest.mark.parametrize(("name", "top"), [("alpha", 0.5), ("power", 1)])
@pytest.mark.parametrize("value", [0.0, -1.0, 1.0, math.nan])
def test_alpha_and_power_out_of_range_are_refused(name: str, top: float, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} is {value}; allowed are numbers between 0 and {top}\."):
        judge(planted_cell(planted_scores()), MARGIN, **{name: value})


def test_an_alpha_of_a_half_is_refused() -> None:
    with pytest.raises(InputError, match=r"alpha is 0\.5"):
        judge(planted_cell(planted_scores()), MARGIN, alpha=0.5)
    assert judge(planted_cell(planted_scores()), MARGIN, power=0.5).power == 0.5


def test_fewer_than_two_matched_strategies_are_refused() -> None:
    scores = planted_scores()
    with pytest.raises(InputError, match=r"the cell toy has 1 matched strategies \(forward\), and strategies can be"):
        judge(planted_cell({name: scores[name] for name in ("forward", "none")}), MARGIN)
    with pytest.raises(InputError, match=r"has 0 matched strategies \(none\)"):
        judge(planted_cell({"none": scores["none"]}), MARGIN)


def test_a_cell_without_a_paired_seed_is_refused() -> None:
    scores = {"a": np.array([0.5, np.nan]), "b": np.array([np.nan, 0.5])}
    with pytest.raises(InputError, match=r"the cell toy has no seed at which all of a, b have a score, so nothing is"):
        judge(planted_cell(scores), MARGIN)


def test_a_margin_of_the_gain_needs_none() -> None:
    message = (
        r"the margin is 0\.1 of the gain over none, and the cell toy has no strategy none to gain over\. Give a margin "
        r"in the metric's own unit, or train none\."
    )
    with pytest.raises(InputError, match=message):
        judge(planted_cell(planted_scores(none=None)), Margin(0.1, of_gain=True))


@pytest.mark.long
def test_the_benchmark_keeps_what_is_promised() -> None:
    """A small run; bounds are four standard errors of a rate."""
    benchmark = script(Path(__file__).parents[2] / "benchmarks" / "verdict.py")
    n = 400

    def error(rate: float) -> float:
        return 4 * math.sqrt(rate * (1 - rate) / n)

    for figure in benchmark.wrong_rates(n, (5, 10), (2, 4)):
        assert figure.rate <= 0.05 + error(0.05), figure
    for figure in benchmark.right_rates(n, (5, 10), (2, 4)):
        least = {"right: all equal": 0.8, "right: scatter of 5 margins": 0.95}.get(figure.what, 0.5)
        assert figure.rate >= least - error(least), figure
    for figure in benchmark.planned_power(n, (2, 4)):
        assert figure.rate >= 0.8 - error(0.8), figure
    for figure in benchmark.coverage(n // 5, (3, 10), (2, 4)):
        assert figure.rate >= 0.95 - error(0.95), figure
    for figure in benchmark.coverage_of_fieller(n, (10,)):
        if "pair known" in figure.what:
            assert figure.rate == pytest.approx(0.95, abs=error(0.95)), figure
    for figure in benchmark.new_examples(n, (3, 10)):
        if figure.what.startswith("coverage"):
            assert figure.rate >= 0.9 - error(0.9), figure
        if figure.what.startswith("false"):
            assert figure.rate <= 0.05 + error(0.05), figure
    assert "strategies" in benchmark.table(benchmark.right_rates(2, (5,), (2,)))
