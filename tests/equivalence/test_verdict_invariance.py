"""Changes of the input that must not change a verdict: direction, order, controls, draws, incomplete seeds."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys.planted import EQUAL, MARGIN, NAMES, assert_same_verdict, planted_cell, planted_scores

from layerangles.equivalence.cells import cells_from_frame
from layerangles.equivalence.decision import Margin
from layerangles.equivalence.verdict import judge
from layerangles.report.verdict_wording import reason_for


@pytest.mark.parametrize("means", [EQUAL, (0.8, 0.8, 0.76, 0.8), (0.8, 0.81, 0.8, 0.82)])
@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
def test_mirrored_scores_with_lower_is_better_give_the_same_verdict(means: tuple[float, ...], margin: Margin) -> None:
    scores = planted_scores(means, sd=0.01)
    ours = judge(planted_cell(scores), margin)
    others = judge(planted_cell({name: -values for name, values in scores.items()}, higher_is_better=False), margin)
    assert_same_verdict(ours, others)
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
    scores = planted_scores((0.8, 0.81, 0.83, 0.795), sd=sd, rng_seed=rng_seed)
    ours = judge(planted_cell(scores), MARGIN)
    turned = {name: values[seeds] for name, values in scores.items()}
    others = judge(
        planted_cell({name: turned[name] for name in [NAMES[n] for n in strategies]} | {"none": turned["none"]}), MARGIN
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
    scores = planted_scores((0.8, 0.81, 0.8, 0.84), sd=0.005)
    ours = judge(planted_cell(scores), MARGIN)
    control = np.array([0.1, np.nan, 0.9, 0.5, np.nan, 0.2])
    others = judge(planted_cell(scores | {"shuffled": control}), MARGIN)
    assert_same_verdict(ours, others)
    assert others.n_seeds == 6
    pd.testing.assert_frame_equal(ours.components, others.components)
    assert others.strategies.loc["shuffled", "score"] == pytest.approx(np.nanmean(control))
    alone = judge(planted_cell(scores | {"shuffled": np.array([0.1] + [np.nan] * 5)}), MARGIN).strategies.loc[
        "shuffled"
    ]
    assert alone["score"] == 0.1
    assert alone[["sd", "low", "high"]].isna().all()
    missing = judge(planted_cell(scores | {"shuffled": np.full(6, np.nan)}), MARGIN).strategies.loc["shuffled"]
    assert missing[["score", "sd", "gain"]].isna().all()
    assert missing["n_draws"] == 0


def test_draws_are_averaged_within_a_seed() -> None:
    scores = planted_scores((0.8, 0.81, 0.8, 0.84), sd=0.005)
    apart = np.array([[0.05], [-0.02], [-0.03]])
    ours = judge(planted_cell(scores), MARGIN)
    others = judge(planted_cell(scores | {"random": scores["random"] + apart}), MARGIN)
    assert_same_verdict(ours, others)
    assert others.strategies.loc["random", "n_draws"] == 3
    assert others.components.loc["draw", "sd"] == pytest.approx(np.std(apart, ddof=1), rel=0.1)


def test_seeds_that_are_not_complete_are_left_out() -> None:
    scores = planted_scores((0.8, 0.81, 0.8, 0.84), sd=0.005)
    ours = judge(planted_cell(scores), MARGIN)
    more = {name: np.append(values, 0.3 if name != "last" else np.nan) for name, values in scores.items()}
    others = judge(planted_cell(more), MARGIN)
    assert_same_verdict(ours, others)
    pd.testing.assert_frame_equal(ours.strategies, others.strategies)
    assert others.cell.incomplete_seeds == (16,)


def test_without_none_only_the_gain_is_unknown() -> None:
    scores = planted_scores(none=None)
    found = judge(planted_cell(scores), MARGIN)
    with_none = judge(planted_cell(planted_scores()), MARGIN)
    assert found.outcome == with_none.outcome == "equivalent"
    for name in ("p_equivalent", "p_different", "p_nonzero", "low", "high"):
        assert found.pairs[name].to_numpy() == pytest.approx(with_none.pairs[name].to_numpy())
    for estimate in (found.gain, found.spread_of_gain, found.extremes_of_gain):
        assert all(math.isnan(value) for value in estimate)
    assert found.strategies[["gain", "gain_low", "gain_high"]].isna().all(axis=None)


@pytest.mark.parametrize("score", [0.0, 0.8, 1 / 3])
@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True), None], ids=str)
def test_scores_equal_to_the_last_digit_are_equivalent(score: float, margin: Margin | None) -> None:
    """Strategies whose students are the same have no variance to test with."""
    same = np.full(5, score)
    found = judge(planted_cell({"a": same, "b": same, "c": same, "none": same - 0.1}), margin)
    assert found.outcome == ("undecided" if margin is None else "equivalent")
    assert found.spread == (0, 0, 0)
    assert found.pairs["p_nonzero"].to_numpy() == pytest.approx(1)
    no_gain = judge(planted_cell({"a": same, "b": same, "none": same}), margin)
    assert no_gain.outcome == ("equivalent" if margin == MARGIN else "undecided")


def test_a_table_of_scores_gives_the_same_verdict() -> None:
    rows = [
        {"cell": "c", "strategy": name, "seed": seed, "score": score}
        for name, values in planted_scores().items()
        for seed, score in enumerate(values)
    ]
    found = judge(cells_from_frame(pd.DataFrame(rows))[0], MARGIN)
    assert found.outcome == "equivalent"
    assert_same_verdict(found, judge(planted_cell(planted_scores()), MARGIN))
