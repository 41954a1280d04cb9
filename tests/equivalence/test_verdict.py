"""Verdicts on studies with planted truths; every number of their tables and sentences; what must not change them."""

import math
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired
from toys.command_line import script

from layerangles.equivalence import decision_rates, fieller, largest_sd, seeds_to_decide, variance_components
from layerangles.equivalence.cells import Cell, Role, cells_from_frame
from layerangles.equivalence.decision import Margin, moments
from layerangles.equivalence.intervals import multi_bootstrap, spread_interval, spread_of_gain_interval, t_interval
from layerangles.equivalence.posterior import rope
from layerangles.equivalence.verdict import Verdict, judge
from layerangles.errors import InputError
from layerangles.notation import number
from layerangles.report.verdict_wording import reason_for, verdict_table

NAMES = ("forward", "reverse", "random", "last")
EQUAL = (0.8, 0.8, 0.8, 0.8)
MARGIN = Margin(0.02)


def _roles(names: tuple[str, ...]) -> dict[str, Role]:
    return {name: "none" if name == "none" else "control" if name == "shuffled" else "matched" for name in names}


def _cell(
    scores: dict[str, np.ndarray], *, higher_is_better: bool = True, examples: dict[str, np.ndarray] | None = None
) -> Cell:
    """Scores by seed of every strategy, or by draw and seed; examples have one more dimension."""
    shaped = {name: np.atleast_2d(values) for name, values in scores.items()}
    shape = (max(len(v) for v in shaped.values()), max(v.shape[1] for v in shaped.values()))
    array = np.full((len(scores), *shape), np.nan)
    for row, values in enumerate(shaped.values()):
        array[row, : len(values), : values.shape[1]] = values
    coords = {"strategy": list(scores), "draw": range(shape[0]), "seed": range(10, 10 + shape[1])}
    labelled = xr.DataArray(array, dims=tuple(coords), coords=coords)
    by_example = None
    if examples is not None:
        stacked = np.stack([examples[name] for name in scores])[:, None]
        by_example = xr.DataArray(stacked, dims=(*coords, "example"), coords=coords)
    return Cell("toy", "accuracy", higher_is_better, labelled, _roles(tuple(scores)), by_example)


def _planted(
    means: tuple[float, ...] = EQUAL,
    *,
    n_seeds: int = 6,
    sd: float = 0.003,
    none: float | None = 0.6,
    rng_seed: int = 0,
) -> dict[str, np.ndarray]:
    """Scores of NAMES, of seeds that differ by far more than strategies do."""
    rng = np.random.default_rng(rng_seed)
    seeds = 0.05 * rng.standard_normal(n_seeds)
    scores = {name: mean + seeds + sd * rng.standard_normal(n_seeds) for name, mean in zip(NAMES, means, strict=False)}
    if none is not None:
        scores["none"] = none + seeds + sd * rng.standard_normal(n_seeds)
    return scores


def _with_examples(scores: dict[str, np.ndarray], n: int = 60, sd: float = 0.05, rng_seed: int = 1) -> Cell:
    """Example scores whose means over examples are the scores; what examples are hard is shared."""
    rng = np.random.default_rng(rng_seed)
    hard = 0.2 * rng.standard_normal(n)
    examples = {}
    for name, values in scores.items():
        noise = hard + sd * rng.standard_normal(n) + sd * rng.standard_normal((len(values), n))
        examples[name] = values[:, None] + noise - noise.mean(axis=1, keepdims=True)
    return _cell(scores, examples=examples)


def _numbers(text: str) -> list[float]:
    return [float(found.replace("−", "-")) for found in re.findall(r"(?<![\w.])−?\d+(?:\.\d+)?(?:e[-−]?\d+)?", text)]


def _rounded(*values: float) -> list[float]:
    return [float(f"{value:.3g}") for value in values]


# --- planted truths -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
@pytest.mark.parametrize("rng_seed", range(3))
def test_equal_strategies_are_equivalent(margin: Margin, rng_seed: int) -> None:
    found = judge(_cell(_planted(rng_seed=rng_seed)), margin)
    assert found.outcome == "equivalent"
    assert set(found.pairs["outcome"]) == {"equivalent"}
    assert found.inside > 0.9
    assert found.seeds_needed is None
    assert found.n_seeds == 6
    assert (found.margin, found.alpha, found.power) == (margin, 0.05, 0.8)


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
@pytest.mark.parametrize("rng_seed", range(3))
def test_a_strategy_that_is_worse_by_two_margins_is_named(margin: Margin, rng_seed: int) -> None:
    found = judge(_cell(_planted((0.8, 0.8, 0.76, 0.8), rng_seed=rng_seed)), margin)
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
def test_much_scatter_is_undecided_with_the_seeds_it_would_take(margin: Margin, rng_seed: int) -> None:
    scores = _planted(sd=0.03, rng_seed=rng_seed)
    found = judge(_cell(scores), margin)
    assert found.outcome == "undecided"
    values = np.stack([*scores.values()], axis=1)
    expected = seeds_to_decide(values.mean(axis=0), np.cov(values.T), margin, n_matched=4)
    assert found.seeds_needed == (None if expected is None else expected.seeds)


def test_the_seeds_needed_are_more_than_there_are_and_would_decide() -> None:
    scores = _planted(sd=0.015, rng_seed=2)
    found = judge(_cell(scores), MARGIN, power=0.7, alpha=0.1)
    assert found.outcome == "undecided"
    assert found.seeds_needed is not None
    assert found.seeds_needed > 6
    values = np.stack([*scores.values()], axis=1)
    options = {"n_matched": 4, "alpha": 0.1}
    enough = decision_rates(values.mean(axis=0), np.cov(values.T), found.seeds_needed, MARGIN, **options)
    fewer = decision_rates(values.mean(axis=0), np.cov(values.T), found.seeds_needed - 1, MARGIN, **options)
    assert max(enough.equivalent, enough.different) >= 0.7 > max(fewer.equivalent, fewer.different)


def test_without_a_gain_a_share_of_it_is_never_enough() -> None:
    found = judge(_cell(_planted(sd=1e-4, none=0.9)), Margin(0.5, of_gain=True))
    assert found.outcome != "equivalent"
    assert found.gain.value == pytest.approx(-0.1, abs=1e-3)
    assert found.spread_of_gain.value == math.inf
    assert found.inside == 0


# --- every number ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_table_of_pairs(alpha: float) -> None:
    scores = _planted((0.8, 0.81, 0.83, 0.795), sd=0.01)
    found = judge(_cell(scores), MARGIN, alpha=alpha).pairs
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
def test_the_table_of_strategies(higher_is_better: bool) -> None:
    scores = _planted((0.8, 0.81, 0.83, 0.79), sd=0.01) | {"shuffled": np.array([0.5, 0.6, np.nan, 0.55, 0.5, 0.4])}
    sign = 1 if higher_is_better else -1
    found = judge(_cell(scores, higher_is_better=higher_is_better), MARGIN, alpha=0.1).strategies
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
def test_what_is_said_of_all_strategies_together(higher_is_better: bool) -> None:
    scores = _planted((0.8, 0.81, 0.83, 0.79), sd=0.01)
    cell, sign = _cell(scores, higher_is_better=higher_is_better), 1 if higher_is_better else -1
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


# --- sentences ------------------------------------------------------------------------------------------------


def test_the_sentence_of_an_equivalent_cell() -> None:
    found = judge(_cell(_planted()), MARGIN)
    reach = found.pairs[["low", "high"]].abs().max(axis=1)
    (first, second), row = reach.idxmax(), found.pairs.loc[reach.idxmax()]
    assert f"the 90 % interval that reaches farthest is that of {first} − {second}, " in reason_for(found)
    assert reason_for(found).startswith("All 6 pairs of 4 strategies differ by less than 0.02: ")
    assert _numbers(reason_for(found))[-3:] == _rounded(row["difference"], row["low"], row["high"])


def test_the_sentence_of_two_equivalent_strategies() -> None:
    found = judge(_cell(_planted(EQUAL[:2])), MARGIN, alpha=0.025)
    row = found.pairs.iloc[0]
    start = "forward and reverse differ by less than 0.02: the 95 % interval of forward − reverse is "
    assert reason_for(found).startswith(start)
    assert _numbers(reason_for(found))[-3:] == _rounded(row["difference"], row["low"], row["high"])


@pytest.mark.parametrize("worst", [0, 3])
def test_the_sentence_of_a_different_cell(worst: int) -> None:
    means = [0.8] * 4
    means[worst] = 0.74
    found = judge(_cell(_planted(tuple(means))), MARGIN)
    pair = found.pairs["p_different"].idxmin()
    row = found.pairs.loc[pair]
    better = pair[1] if worst == 0 else pair[0]
    assert reason_for(found).startswith(f"{better} is better than {NAMES[worst]} by ")
    low, high = sorted([abs(row["wide_low"]), abs(row["wide_high"])])
    numbers = _numbers(reason_for(found))
    assert len(numbers) == 7
    assert numbers[:4] == [*_rounded(abs(row["difference"]), low, high), 0.02]
    assert numbers[4] == pytest.approx(row["p_different"], rel=0.06)
    assert numbers[5:] == [3, 6]
    assert reason_for(found).endswith("; 3 of 6 pairs are beyond the margin.")


def test_a_sentence_counts_the_pairs_that_are_beyond() -> None:
    found = judge(_cell(_planted((0.8, 0.8, 0.74))), MARGIN)
    assert reason_for(found).endswith("; 2 of 3 pairs are beyond the margin.")


def test_the_sentences_of_an_undecided_cell() -> None:
    found = judge(_cell(_planted((0.8, 0.81, 0.82, 0.81), sd=0.006)), MARGIN)
    within = (found.pairs["outcome"] == "equivalent").sum()
    assert within not in (0, 3, 6)  # those that are and those that are not can be told apart
    assert reason_for(found).startswith(f"{within} of 6 pairs are within 0.02, and no pair is shown to be beyond it. ")
    assert _numbers(reason_for(found))[3:] == [found.seeds_needed, 6, 0.8]
    assert reason_for(found).endswith("would decide with a probability of 0.8.")


@pytest.mark.parametrize("of_gain", [False, True])
def test_the_sentence_where_no_number_of_seeds_would_decide(of_gain: bool) -> None:
    scatter = np.array([0.03, -0.03, 0.02, -0.02, 0.05, -0.05])
    found = judge(_cell({"a": 0.8 + scatter, "b": 0.8 - scatter, "none": np.full(6, 0.7)}), Margin(1e-3, of_gain))
    assert (found.outcome, found.seeds_needed) == ("undecided", None)
    assert reason_for(found).startswith("0 of 1 pairs are within ")
    why = "some pair lies at the margin, or scores scatter too much for it"
    why += ", or there is hardly a gain to take a share of." if of_gain else "."
    assert reason_for(found).endswith(f"Not even 1,000 seeds would decide if everything is as it seems: {why}")


def test_without_a_margin_nothing_is_decided() -> None:
    found = judge(_cell(_planted()), None)
    assert found.outcome == "undecided"
    assert set(found.pairs["outcome"]) == {"undecided"}
    assert found.pairs[["p_equivalent", "p_different", "inside", "below", "above"]].isna().all(axis=None)
    assert found.pairs[["difference", "low", "high", "p_nonzero"]].notna().all(axis=None)
    assert math.isnan(found.inside)
    assert found.seeds_needed is None
    assert reason_for(found).startswith("No margin was given, so nothing is decided")
    assert _numbers(reason_for(found)) == _rounded(found.spread.value, found.gain.value)


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
def test_one_seed(margin: Margin) -> None:
    found = judge(_cell(_planted(n_seeds=1)), margin, alpha=0.1, power=0.9)
    assert found.outcome == "undecided"
    assert found.seeds_needed is None
    assert found.outcome_for_new_examples is None
    assert math.isnan(found.inside)
    assert found.pairs.drop(columns=["difference", "outcome"]).isna().all(axis=None)
    assert found.pairs["difference"].notna().all()
    for estimate in (found.spread, found.gain, found.spread_of_gain, found.extremes_of_gain):
        assert np.isfinite(estimate.value)
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)
    size = 0.1 * found.gain.value if margin.of_gain else 0.02
    sd = largest_sd(5, size, 4, alpha=0.1, power=0.9)
    sentence = (
        f" 5 seeds would show equal strategies to be within {margin} with a probability of 0.9 only if their paired "
        f"differences scatter over seeds by less than {number(sd)} (sd)."
    )
    assert reason_for(found).startswith("One seed has no interval, so nothing follows from its spread and its gain.")
    assert reason_for(found).endswith(sentence)


def test_one_seed_without_a_gain_has_no_sd_to_ask_for() -> None:
    found = judge(_cell(_planted(n_seeds=1, none=0.9)), Margin(0.1, of_gain=True))
    assert reason_for(found) == "One seed has no interval, so nothing follows from its spread and its gain."


def test_numbers_in_words() -> None:
    assert number(-0.0123456) == "−0.0123"
    assert number(12.345, digits=2) == "12"
    assert number(-math.inf) == "−∞"


# --- what must not change a verdict -----------------------------------------------------------------------------


def _same(ours: Verdict, others: Verdict) -> None:
    assert ours.outcome == others.outcome
    assert ours.seeds_needed == others.seeds_needed
    assert ours.spread == pytest.approx(others.spread)
    assert ours.gain == pytest.approx(others.gain)
    pd.testing.assert_frame_equal(ours.pairs, others.pairs, atol=1e-9)


@pytest.mark.parametrize("means", [EQUAL, (0.8, 0.8, 0.76, 0.8), (0.8, 0.81, 0.8, 0.82)])
@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
def test_lower_is_better_mirrored(means: tuple[float, ...], margin: Margin) -> None:
    scores = _planted(means, sd=0.01)
    ours = judge(_cell(scores), margin)
    others = judge(_cell({name: -values for name, values in scores.items()}, higher_is_better=False), margin)
    _same(ours, others)
    assert ours.spread_of_gain == pytest.approx(others.spread_of_gain)
    assert ours.extremes_of_gain == pytest.approx(others.extremes_of_gain)
    assert others.strategies["gain"].to_numpy() == pytest.approx(ours.strategies["gain"].to_numpy(), nan_ok=True)
    assert others.strategies["score"].to_numpy() == pytest.approx(-ours.strategies["score"].to_numpy())
    assert reason_for(ours) == reason_for(others)


@settings(deadline=None, max_examples=6)
@given(st.permutations(range(4)), st.permutations(range(6)), st.integers(0, 100), st.sampled_from([0.003, 0.01, 0.03]))
def test_neither_order_of_strategies_nor_names_of_seeds_matter(
    strategies: list[int], seeds: list[int], rng_seed: int, sd: float
) -> None:
    scores = _planted((0.8, 0.81, 0.83, 0.795), sd=sd, rng_seed=rng_seed)
    ours = judge(_cell(scores), MARGIN)
    turned = {name: values[seeds] for name, values in scores.items()}
    others = judge(
        _cell({name: turned[name] for name in [NAMES[n] for n in strategies]} | {"none": turned["none"]}), MARGIN
    )
    assert others.outcome == ours.outcome
    assert others.gain == pytest.approx(ours.gain)
    assert others.spread.value == pytest.approx(ours.spread.value)
    for first, second in ours.pairs.index:
        row = ours.pairs.loc[(first, second)]
        if (first, second) in others.pairs.index:
            again, sign = others.pairs.loc[(first, second)], 1
        else:
            again, sign = others.pairs.loc[(second, first)], -1
        assert again["difference"] == pytest.approx(sign * row["difference"])
        for name in ("p_equivalent", "p_different", "p_nonzero", "sd"):
            assert again[name] == pytest.approx(row[name])
        assert again["outcome"] == row["outcome"]
        assert again["above"] == pytest.approx(row["above" if sign > 0 else "below"], abs=0.02)
        assert again["low"] == pytest.approx(row["low"] if sign > 0 else -row["high"])


def test_controls_take_no_part() -> None:
    scores = _planted((0.8, 0.81, 0.8, 0.84), sd=0.005)
    ours = judge(_cell(scores), MARGIN)
    control = np.array([0.1, np.nan, 0.9, 0.5, np.nan, 0.2])
    others = judge(_cell(scores | {"shuffled": control}), MARGIN)
    _same(ours, others)
    assert others.n_seeds == 6
    pd.testing.assert_frame_equal(ours.components, others.components)
    assert others.strategies.loc["shuffled", "score"] == pytest.approx(np.nanmean(control))
    alone = judge(_cell(scores | {"shuffled": np.array([0.1] + [np.nan] * 5)}), MARGIN).strategies.loc["shuffled"]
    assert alone["score"] == 0.1
    assert alone[["sd", "low", "high"]].isna().all()
    missing = judge(_cell(scores | {"shuffled": np.full(6, np.nan)}), MARGIN).strategies.loc["shuffled"]
    assert missing[["score", "sd", "gain"]].isna().all()
    assert missing["n_draws"] == 0


def test_draws_are_averaged_within_a_seed() -> None:
    scores = _planted((0.8, 0.81, 0.8, 0.84), sd=0.005)
    apart = np.array([[0.05], [-0.02], [-0.03]])
    ours = judge(_cell(scores), MARGIN)
    others = judge(_cell(scores | {"random": scores["random"] + apart}), MARGIN)
    _same(ours, others)
    assert others.strategies.loc["random", "n_draws"] == 3
    assert others.components.loc["draw", "sd"] == pytest.approx(np.std(apart, ddof=1), rel=0.1)


def test_seeds_that_are_not_complete_are_left_out() -> None:
    scores = _planted((0.8, 0.81, 0.8, 0.84), sd=0.005)
    ours = judge(_cell(scores), MARGIN)
    more = {name: np.append(values, 0.3 if name != "last" else np.nan) for name, values in scores.items()}
    others = judge(_cell(more), MARGIN)
    _same(ours, others)
    pd.testing.assert_frame_equal(ours.strategies, others.strategies)
    assert others.cell.incomplete_seeds == (16,)


def test_without_none() -> None:
    scores = _planted(none=None)
    found = judge(_cell(scores), MARGIN)
    with_none = judge(_cell(_planted()), MARGIN)
    assert found.outcome == with_none.outcome == "equivalent"
    for name in ("p_equivalent", "p_different", "p_nonzero", "low", "high"):
        assert found.pairs[name].to_numpy() == pytest.approx(with_none.pairs[name].to_numpy())
    for estimate in (found.gain, found.spread_of_gain, found.extremes_of_gain):
        assert all(math.isnan(value) for value in estimate)
    assert found.strategies[["gain", "gain_low", "gain_high"]].isna().all(axis=None)


@pytest.mark.parametrize("score", [0.0, 0.8, 1 / 3])
@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True), None], ids=str)
def test_scores_that_are_equal_to_the_last_digit(score: float, margin: Margin | None) -> None:
    """Two strategies that picked the same students, on a test set that has no ties to break."""
    same = np.full(5, score)
    found = judge(_cell({"a": same, "b": same, "c": same, "none": same - 0.1}), margin)
    assert found.outcome == ("undecided" if margin is None else "equivalent")
    assert found.spread == (0, 0, 0)
    assert found.pairs["p_nonzero"].to_numpy() == pytest.approx(1)
    no_gain = judge(_cell({"a": same, "b": same, "none": same}), margin)
    assert no_gain.outcome == ("equivalent" if margin == MARGIN else "undecided")


# --- new examples ---------------------------------------------------------------------------------------------


def test_intervals_over_examples_have_the_multi_bootstraps_standard_error() -> None:
    scores = _planted((0.8, 0.81, 0.8, 0.84), sd=0.005)
    cell = _with_examples(scores)
    found = judge(cell, MARGIN, alpha=0.1).pairs
    assert cell.examples is not None
    values = cell.examples.sel(draw=0).transpose("strategy", "seed", "example").values
    resampled = multi_bootstrap(values, rng_seed=0)
    for (first, second), row in found.iterrows():
        a, b = list(scores).index(first), list(scores).index(second)
        error = (resampled[:, a] - resampled[:, b]).std(ddof=1) * math.sqrt(6 / 5)
        expected = stats.t.interval(0.8, 5, loc=(scores[first] - scores[second]).mean(), scale=error)
        assert (row["examples_low"], row["examples_high"]) == pytest.approx(expected)
        assert row["examples_high"] - row["examples_low"] > row["high"] - row["low"]


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_outcome_for_new_examples_is_what_its_intervals_say(alpha: float) -> None:
    cell = _with_examples(_planted((0.8, 0.81, 0.8, 0.815), sd=0.005))
    reach = judge(cell, None, alpha=alpha).pairs[["examples_low", "examples_high"]].abs().to_numpy().max()
    for margin, outcome in ((1.01 * reach, "equivalent"), (0.99 * reach, "undecided")):
        assert judge(cell, Margin(float(margin)), alpha=alpha).outcome_for_new_examples == outcome


def test_example_scores_are_averaged_over_draws() -> None:
    cell = _with_examples(_planted((0.8, 0.81, 0.8, 0.84), sd=0.005))
    assert cell.examples is not None
    apart = xr.DataArray([0.05, -0.02, -0.03], coords={"draw": [0, 1, 2]})
    drawn = cell.examples["strategy"] == "random"
    shifts = apart.where(drawn, xr.where(apart["draw"] == 0, 0.0, np.nan))
    examples = (cell.examples.isel(draw=0, drop=True) + shifts).transpose(*cell.examples.dims)
    several = replace(cell, scores=examples.mean("example", skipna=False), examples=examples)
    assert several.draws("random") == (0, 1, 2)
    assert several.draws("forward") == (0,)
    ours, others = judge(cell, MARGIN), judge(several, MARGIN)
    _same(ours, others)
    assert "examples_low" in others.pairs


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
@pytest.mark.parametrize(
    ("means", "sd", "outcome"),
    [(EQUAL, 0.003, "equivalent"), ((0.8, 0.8, 0.74, 0.8), 0.003, "different"), (EQUAL, 0.03, "undecided")],
)
def test_the_outcome_for_new_examples(margin: Margin, means: tuple[float, ...], sd: float, outcome: str) -> None:
    scores = _planted(means, sd=sd)
    many = judge(_with_examples(scores, n=300, sd=0.02), margin)
    assert many.outcome == many.outcome_for_new_examples == outcome
    few = judge(_with_examples(scores, n=20, sd=0.5), margin)
    assert few.outcome == outcome  # of this test set
    assert few.outcome_for_new_examples == "undecided"


def test_new_examples_mirrored_and_without_none() -> None:
    scores = _planted((0.8, 0.8, 0.74, 0.8))
    cell = _with_examples(scores, n=300, sd=0.02)
    assert cell.examples is not None
    mirrored = replace(cell, scores=-cell.scores, examples=-cell.examples, higher_is_better=False)
    ours, others = judge(cell, MARGIN), judge(mirrored, MARGIN)
    assert ours.outcome_for_new_examples == others.outcome_for_new_examples == "different"
    pd.testing.assert_frame_equal(ours.pairs, others.pairs)
    alone = judge(_with_examples({name: scores[name] for name in NAMES}, n=300, sd=0.02), MARGIN)
    assert alone.outcome_for_new_examples == "different"


def test_examples_that_are_not_all_there_say_nothing() -> None:
    cell = _with_examples(_planted())
    assert cell.examples is not None
    holes = cell.examples.copy()
    holes[0, 0, 0, 0] = np.nan
    found = judge(replace(cell, examples=holes), MARGIN)
    assert found.outcome == "equivalent"
    assert found.outcome_for_new_examples is None
    assert "examples_low" not in found.pairs
    without_margin = judge(cell, None)
    assert without_margin.outcome_for_new_examples is None
    assert "examples_low" in without_margin.pairs


# --- what is not allowed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "top"), [("alpha", 0.5), ("power", 1)])
@pytest.mark.parametrize("value", [0.0, -1.0, 1.0, math.nan])
def test_rates_that_are_none(name: str, top: float, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} is {value}; allowed are numbers between 0 and {top}\."):
        judge(_cell(_planted()), MARGIN, **{name: value})


def test_an_alpha_of_a_half_leaves_no_interval() -> None:
    with pytest.raises(InputError, match=r"alpha is 0\.5"):
        judge(_cell(_planted()), MARGIN, alpha=0.5)
    assert judge(_cell(_planted()), MARGIN, power=0.5).power == 0.5


def test_too_few_strategies() -> None:
    scores = _planted()
    with pytest.raises(InputError, match=r"the cell toy has 1 matched strategies \(forward\), and strategies can be"):
        judge(_cell({name: scores[name] for name in ("forward", "none")}), MARGIN)
    with pytest.raises(InputError, match=r"has 0 matched strategies \(none\)"):
        judge(_cell({"none": scores["none"]}), MARGIN)


def test_nothing_paired() -> None:
    scores = {"a": np.array([0.5, np.nan]), "b": np.array([np.nan, 0.5])}
    with pytest.raises(InputError, match=r"the cell toy has no seed at which all of a, b have a score, so nothing is"):
        judge(_cell(scores), MARGIN)


def test_a_share_of_no_gain() -> None:
    message = (
        r"the margin is 0\.1 of the gain over none, and the cell toy has no strategy none to gain over\. Give a margin "
        r"in the metric's own unit, or train none\."
    )
    with pytest.raises(InputError, match=message):
        judge(_cell(_planted(none=None)), Margin(0.1, of_gain=True))


# --- tables of verdicts ---------------------------------------------------------------------------------------


def test_a_table_of_verdicts() -> None:
    scores = _planted((0.8, 0.81, 0.83, 0.79), sd=0.01)
    lower = {name: 1 - values for name, values in scores.items()}
    first = judge(_with_examples(scores), MARGIN)
    second = judge(replace(_cell(lower, higher_is_better=False), name="error", metric="error rate"), None)
    unpaired = {"a": np.append(scores["last"], 0.5), "b": np.append(scores["random"], np.nan)}
    third = judge(replace(_cell(unpaired), name="pair"), MARGIN)
    found = verdict_table([first, second, third])
    assert found.index.name == "cell"
    assert list(found.index) == ["toy", "error", "pair"]
    assert list(found.columns) == [
        *("metric", "seeds", "strategies", "none", "worst", "best"),
        *(f"{name}{end}" for name in ("spread", "gain", "spread_of_gain") for end in ("", "_low", "_high")),
        *("margin", "verdict", "seeds_needed", "inside", "verdict_for_new_examples"),
    ]
    for verdict, (_, row) in zip((first, second, third), found.iterrows(), strict=True):
        for name in ("spread", "gain", "spread_of_gain"):
            ends = tuple(row[[name, f"{name}_low", f"{name}_high"]])
            assert ends == pytest.approx(getattr(verdict, name), nan_ok=True)
        assert row["verdict"] == verdict.outcome
        assert row["seeds"] == 6
    means = {name: values.mean() for name, values in scores.items()}
    toy, error, pair = found.loc["toy"], found.loc["error"], found.loc["pair"]
    assert toy[["none", "worst", "best"]].tolist() == pytest.approx([means["none"], means["last"], means["random"]])
    assert error[["none", "worst", "best"]].tolist() == pytest.approx(
        [1 - means["none"], 1 - means["last"], 1 - means["random"]]
    )
    assert math.isnan(pair["none"])
    assert found["metric"].tolist() == ["accuracy", "error rate", "accuracy"]
    assert found["strategies"].tolist() == [4, 4, 2]
    assert found["margin"].fillna("").tolist() == ["0.02", "", "0.02"]
    assert toy["verdict_for_new_examples"] == first.outcome_for_new_examples is not None
    assert pd.isna(error["verdict_for_new_examples"])
    assert toy["inside"] == first.inside
    needed = found["seeds_needed"]
    assert [None if pd.isna(value) else int(value) for value in needed] == [
        verdict.seeds_needed for verdict in (first, second, third)
    ]


def test_from_a_table_of_scores_to_a_verdict() -> None:
    rows = [
        {"cell": "c", "strategy": name, "seed": seed, "score": score}
        for name, values in _planted().items()
        for seed, score in enumerate(values)
    ]
    found = judge(cells_from_frame(pd.DataFrame(rows))[0], MARGIN)
    assert found.outcome == "equivalent"
    _same(found, judge(_cell(_planted()), MARGIN))


# --- what is promised -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_benchmark_keeps_what_is_promised() -> None:
    """A small version of it; bounds are four standard errors of a rate (of the worst of ten, for wrong verdicts)."""
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
    for figure in benchmark.coverage(n, (10,)):
        if "pair known" in figure.what:
            assert figure.rate == pytest.approx(0.95, abs=error(0.95)), figure
    for figure in benchmark.new_examples(n, (3, 10)):
        if figure.what.startswith("coverage"):
            assert figure.rate >= 0.9 - error(0.9), figure
        if figure.what.startswith("false"):
            assert figure.rate <= 0.05 + error(0.05), figure
    assert "strategies" in benchmark.table(benchmark.right_rates(2, (5,), (2,)))
