"""The seeds of a study follow from the scatter of a pilot."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from layerangles.equivalence import Cell, Margin, cells_from_frame, seeds_to_plan
from layerangles.equivalence.pilot import plan_from_pilot
from layerangles.errors import InputError


def _cell(scores: np.ndarray, **columns: object) -> Cell:
    rows = [
        {"cell": "pilot", "strategy": name, "seed": seed, "score": float(scores[seed, i])} | columns
        for i, name in enumerate(("none", "a", "b", "c")[: scores.shape[1]])
        for seed in range(len(scores))
    ]
    (cell,) = cells_from_frame(pd.DataFrame(rows))
    return cell


def _scores(n_seeds: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.05, (n_seeds, 1)) + rng.normal(0, 0.01, (n_seeds, 4)) + [0.7, 0.75, 0.75, 0.76]


def test_the_sd_is_pooled_over_all_pairs() -> None:
    scores = _scores()
    pairs = [scores[:, i] - scores[:, j] for i in (1, 2, 3) for j in (1, 2, 3) if i < j]
    pooled = math.sqrt(np.mean([np.var(of_pair, ddof=1) for of_pair in pairs]))
    plan = plan_from_pilot(_cell(scores), Margin(0.02), 3)
    assert plan.sd == pytest.approx(pooled)


def test_the_bound_holds_in_four_of_five_pilots() -> None:
    """The true sd of a difference is 0.01·√2."""
    plans = [plan_from_pilot(_cell(_scores(seed=seed)), Margin(1.0), 2) for seed in range(400)]
    share = np.mean([plan.sd_at_most >= 0.01 * math.sqrt(2) for plan in plans])
    assert stats.binomtest(round(share * 400), 400, 0.8).pvalue > 1e-3
    assert np.mean([plan.sd**2 for plan in plans]) == pytest.approx(2e-4, rel=0.1)


def test_seeds_follow_from_the_sd() -> None:
    plan = plan_from_pilot(_cell(_scores()), Margin(0.02), 5, power=0.7)
    assert plan.seeds == seeds_to_plan(plan.sd, 0.02, 5, power=0.7)
    assert plan.seeds_at_most == seeds_to_plan(plan.sd_at_most, 0.02, 5, power=0.7)
    assert plan.seeds_at_most is not None
    assert plan.seeds is not None
    assert plan.seeds_at_most > plan.seeds


def test_a_margin_of_the_gain_is_a_share_of_the_pilots_gain() -> None:
    scores = _scores()
    gain = float((scores[:, 1:].mean(axis=1) - scores[:, 0]).mean())
    of_gain = plan_from_pilot(_cell(scores), Margin(0.4, of_gain=True), 3)
    assert of_gain == plan_from_pilot(_cell(scores), Margin(0.4 * gain), 3)
    turned = plan_from_pilot(_cell(-scores, higher_is_better=False), Margin(0.4, of_gain=True), 3)
    assert turned.seeds == of_gain.seeds


@pytest.mark.parametrize(
    ("cell", "margin", "message"),
    [
        (_cell(_scores(1)), Margin(0.1), "has 3 matched strategies and 1 seeds"),
        (_cell(_scores()[:, :2]), Margin(0.1), "has 1 matched strategies and 4 seeds"),
        (_cell(-_scores()), Margin(0.1, of_gain=True), r"shows no gain \(−0\.0"),
    ],
)
def test_pilots_without_scatter_or_gain_are_refused(cell: Cell, margin: Margin, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_from_pilot(cell, margin, 3)
