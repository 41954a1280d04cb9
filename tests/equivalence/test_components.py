"""Variance components against statsmodels' analysis of variance, and against planted ones."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from layerangles.equivalence.cells import Cell, cells_from_frame
from layerangles.equivalence.components import SOURCES, variance_components


def _cell(scores: dict[tuple[str, int], np.ndarray]) -> Cell:
    """A cell from the scores by seed of each strategy and draw."""
    rows = [
        {"cell": "c", "strategy": strategy, "draw": draw, "seed": seed, "score": float(score)}
        for (strategy, draw), of_arm in scores.items()
        for seed, score in enumerate(of_arm)
        if np.isfinite(score)
    ]
    return cells_from_frame(pd.DataFrame(rows))[0]


def _frame(cell: Cell) -> pd.DataFrame:
    frame = cell.scores.to_dataframe(name="score").dropna().reset_index()
    frame["arm"] = frame["strategy"] + frame["draw"].astype(str)
    return frame


def _mean_squares(cell: Cell, formula: str) -> pd.Series:
    table = anova_lm(ols(formula, _frame(cell)).fit())
    return table["sum_sq"] / table["df"]


def _standard(values: np.ndarray, axis: int) -> np.ndarray:
    """Values scaled to a sample variance of 1."""
    return values / values.std(axis=axis, ddof=1, keepdims=True)


def test_crossed_components_agree_with_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    seeds = rng.standard_normal(5)
    cell = _cell({(name, 0): 2 * n + seeds + 0.5 * rng.standard_normal(5) for n, name in enumerate("abcd")})
    squares = _mean_squares(cell, "score ~ C(strategy) + C(seed)")
    found = variance_components(cell)
    assert tuple(found.index) == SOURCES
    assert found.index.name == "source"
    variance = found["variance"]
    assert variance["strategy × seed"] == pytest.approx(squares["Residual"])
    assert variance["strategy"] == pytest.approx((squares["C(strategy)"] - squares["Residual"]) / 5)
    assert variance["seed"] == pytest.approx((squares["C(seed)"] - squares["Residual"]) / 4)
    assert math.isnan(variance["draw"])
    assert found["sd"].to_numpy() == pytest.approx(np.sqrt(variance.to_numpy()), nan_ok=True)
    assert found["share"].to_numpy() == pytest.approx((variance / variance.sum()).to_numpy(), nan_ok=True)
    assert found["share"].sum() == pytest.approx(1)


def test_nested_components_agree_with_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(1)
    seeds = rng.standard_normal(4)
    arms = {
        (name, draw): 3 * n + 1.5 * rng.standard_normal() + seeds + 0.5 * rng.standard_normal(4)
        for n, name in enumerate("abc")
        for draw in range(3)
    }
    cell = _cell(arms)
    frame = _frame(cell)
    of_arms = _mean_squares(cell, "score ~ C(arm) + C(seed)")
    of_strategies = _mean_squares(cell, "score ~ C(strategy) + C(seed)")["C(strategy)"]
    nested = anova_lm(ols("score ~ C(strategy) + C(seed)", frame).fit(), ols("score ~ C(arm) + C(seed)", frame).fit())
    of_draws = (nested["ss_diff"] / nested["df_diff"])[1]
    found = variance_components(cell)["variance"]
    assert found["strategy × seed"] == pytest.approx(of_arms["Residual"])
    assert found["draw"] == pytest.approx((of_draws - of_arms["Residual"]) / 4)
    assert found["strategy"] == pytest.approx((of_strategies - of_draws) / (3 * 4))
    assert found["seed"] == pytest.approx((of_arms["C(seed)"] - of_arms["Residual"]) / 9)


@pytest.mark.parametrize(
    "draws",
    [
        {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1},
        {"a": 3, "b": 3, "c": 3, "d": 3},
        {"a": 1, "b": 1, "c": 1, "d": 1, "random": 3},  # the usual study
        {"a": 1, "b": 1, "random": 4, "sorted": 2},
    ],
    ids=["single", "balanced", "one random", "unbalanced"],
)
def test_planted_components_come_out_on_average(draws: dict[str, int]) -> None:
    """Estimates would be unbiased if none were clipped; so that clipping is rare, the planted ones are large.

    Strategies and draws are drawn without the loss of a strategy's few degrees of freedom: their effects are made to
    have exactly the planted variance in every study where they can, which keeps the error of the mean small.
    """
    strategy_sd, draw_sd, seed_sd, noise_sd = 3.0, 1.0, 1.0, 0.3
    n_seeds, n = 6, 100
    rng = np.random.default_rng(2)
    blank = _cell({(s, draw): np.ones(n_seeds) for s, n_draws in draws.items() for draw in range(n_draws)})
    random = np.array([[n_draws > 1] for n_draws in draws.values()])
    estimates = []
    for _ in range(n):
        of_strategy = _standard(rng.standard_normal((len(draws), 1, 1)), axis=0)
        of_draw = rng.standard_normal((len(draws), blank.scores.sizes["draw"], 1)) * random[..., None]
        seeds = _standard(rng.standard_normal(n_seeds), axis=0)
        effects = strategy_sd * of_strategy + draw_sd * of_draw + seed_sd * seeds
        scores = blank.scores * (effects + noise_sd * rng.standard_normal(blank.scores.shape))
        estimates.append(variance_components(replace(blank, scores=scores))["variance"].to_numpy())
    found, error = np.mean(estimates, axis=0), np.std(estimates, axis=0) / math.sqrt(n)
    expected = [strategy_sd**2, draw_sd**2 if max(draws.values()) > 1 else math.nan, seed_sd**2, noise_sd**2]
    for name, got, wanted, of_one in zip(SOURCES, found, expected, error, strict=True):
        assert got == pytest.approx(wanted, abs=3.5 * of_one, nan_ok=True), name


def test_draws_are_pooled_by_their_degrees_of_freedom() -> None:
    rng = np.random.default_rng(3)
    arms = {
        (name, draw): level + 1.5 * rng.standard_normal() + 0.3 * rng.standard_normal(4)
        for name, n, level in (("a", 4, 0), ("b", 2, 4), ("c", 1, -4))
        for draw in range(n)
    }
    found = variance_components(_cell(arms))["variance"]
    means = {name: [of_arm.mean() for (s, _), of_arm in arms.items() if s == name] for name in "abc"}
    within = {name: np.var(of_one, ddof=1) for name, of_one in means.items() if len(of_one) > 1}
    noise = found["strategy × seed"]
    assert found["draw"] == pytest.approx(max(0, (3 * within["a"] + within["b"]) / 4 - noise / 4))
    between = np.var([np.mean(of_one) for of_one in means.values()], ddof=1)
    expected = between - (within["a"] / 4 + within["b"] / 2 + noise / 4) / 3
    assert found["strategy"] == pytest.approx(max(0, expected))
    assert 0 < found["draw"] != found["strategy"] > 0


def test_negative_estimates_are_set_to_zero() -> None:
    cell = _cell({("a", 0): np.array([0.0, 1.0]), ("b", 0): np.array([1.0, 0.0])})  # equal means, all of it interaction
    found = variance_components(cell)
    assert found["variance"].to_dict() == pytest.approx(
        {"strategy": 0, "draw": math.nan, "seed": 0, "strategy × seed": 1}, nan_ok=True
    )
    assert found.loc["strategy × seed", "share"] == 1


def test_scores_without_variance_have_components_of_zero() -> None:
    found = variance_components(_cell({("a", 0): np.ones(3), ("b", 0): np.ones(3)}))
    assert found["variance"].drop("draw").tolist() == [0, 0, 0]
    assert found["share"].isna().all()


@pytest.mark.parametrize(
    "arms",
    [
        {("a", 0): np.array([1.0]), ("b", 0): np.array([2.0])},  # one seed
        {("a", 0): np.array([1.0, 2.0, 4.0])},  # one strategy
        {("a", 0): np.array([1.0, np.nan]), ("b", 0): np.array([np.nan, 2.0])},  # nothing paired
        {("a", 0): np.array([1.0, 2.0]), ("b", 0): np.array([1.0, np.nan]), ("b", 1): np.array([np.nan, 3.0])},
    ],
    ids=["one seed", "one strategy", "nothing paired", "draws and seeds confounded"],
)
def test_a_single_seed_or_arm_has_unknown_components(arms: dict[tuple[str, int], np.ndarray]) -> None:
    found = variance_components(_cell(arms))
    assert found.isna().all(axis=None)


def test_seeds_and_draws_that_are_not_complete_are_left_out() -> None:
    rng = np.random.default_rng(5)
    whole = {arm: rng.standard_normal(4) for arm in (("a", 0), ("b", 0), ("b", 1))}
    holes = {arm: np.append(of_arm, 9.0) for arm, of_arm in whole.items()}
    holes["b", 1][4] = np.nan  # the fifth seed lacks a draw
    expected = variance_components(_cell(whole))
    pd.testing.assert_frame_equal(variance_components(_cell(holes)), expected)
    holes["a", 0][4] = np.nan  # it is not paired at all, and has the only student of a third draw
    holes["b", 2] = np.array([np.nan] * 4 + [1.0])
    pd.testing.assert_frame_equal(variance_components(_cell(holes)), expected)


def test_none_and_controls_play_no_part_in_the_components() -> None:
    rng = np.random.default_rng(6)
    arms = {("a", 0): rng.standard_normal(4), ("b", 0): rng.standard_normal(4)}
    rows = [
        {"cell": "c", "strategy": s, "role": role, "seed": seed, "score": score}
        for s, role, scores in [
            ("none", "none", rng.standard_normal(4) - 9),
            ("a", "matched", arms["a", 0]),
            ("b", "matched", arms["b", 0]),
            ("shuffled", "control", rng.standard_normal(4) + 9),
        ]
        for seed, score in enumerate(scores)
    ]
    with_others = cells_from_frame(pd.DataFrame(rows))[0]
    pd.testing.assert_frame_equal(variance_components(with_others), variance_components(_cell(arms)))
