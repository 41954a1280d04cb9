"""Verdicts for new test examples: intervals and outcomes from example scores."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from toys.planted import EQUAL, MARGIN, NAMES, assert_same_verdict, planted_scores, with_examples

from layerangles.equivalence.decision import Margin
from layerangles.equivalence.intervals import multi_bootstrap
from layerangles.equivalence.verdict import judge


def test_intervals_over_examples_have_the_multi_bootstraps_standard_error() -> None:
    scores = planted_scores((0.8, 0.81, 0.8, 0.84), sd=0.005)
    cell = with_examples(scores)
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
    cell = with_examples(planted_scores((0.8, 0.81, 0.8, 0.815), sd=0.005))
    reach = judge(cell, None, alpha=alpha).pairs[["examples_low", "examples_high"]].abs().to_numpy().max()
    for margin, outcome in ((1.01 * reach, "equivalent"), (0.99 * reach, "undecided")):
        assert judge(cell, Margin(float(margin)), alpha=alpha).outcome_for_new_examples == outcome


def test_example_scores_are_averaged_over_draws() -> None:
    cell = with_examples(planted_scores((0.8, 0.81, 0.8, 0.84), sd=0.005))
    assert cell.examples is not None
    apart = xr.DataArray([0.05, -0.02, -0.03], coords={"draw": [0, 1, 2]})
    drawn = cell.examples["strategy"] == "random"
    shifts = apart.where(drawn, xr.where(apart["draw"] == 0, 0.0, np.nan))
    examples = (cell.examples.isel(draw=0, drop=True) + shifts).transpose(*cell.examples.dims)
    several = replace(cell, scores=examples.mean("example", skipna=False), examples=examples)
    assert several.draws("random") == (0, 1, 2)
    assert several.draws("forward") == (0,)
    ours, others = judge(cell, MARGIN), judge(several, MARGIN)
    assert_same_verdict(ours, others)
    assert "examples_low" in others.pairs


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
@pytest.mark.parametrize(
    ("means", "sd", "outcome"),
    [(EQUAL, 0.003, "equivalent"), ((0.8, 0.8, 0.74, 0.8), 0.003, "different"), (EQUAL, 0.03, "undecided")],
)
def test_few_noisy_examples_leave_new_examples_undecided(
    margin: Margin, means: tuple[float, ...], sd: float, outcome: str
) -> None:
    scores = planted_scores(means, sd=sd)
    many = judge(with_examples(scores, n=300, sd=0.02), margin)
    assert many.outcome == many.outcome_for_new_examples == outcome
    few = judge(with_examples(scores, n=20, sd=0.5), margin)
    assert few.outcome == outcome  # of this test set
    assert few.outcome_for_new_examples == "undecided"


def test_mirroring_and_missing_none_leave_the_outcome_for_new_examples() -> None:
    scores = planted_scores((0.8, 0.8, 0.74, 0.8))
    cell = with_examples(scores, n=300, sd=0.02)
    assert cell.examples is not None
    mirrored = replace(cell, scores=-cell.scores, examples=-cell.examples, higher_is_better=False)
    ours, others = judge(cell, MARGIN), judge(mirrored, MARGIN)
    assert ours.outcome_for_new_examples == others.outcome_for_new_examples == "different"
    pd.testing.assert_frame_equal(ours.pairs, others.pairs)
    alone = judge(with_examples({name: scores[name] for name in NAMES}, n=300, sd=0.02), MARGIN)
    assert alone.outcome_for_new_examples == "different"


def test_incomplete_example_scores_give_no_outcome_for_new_examples() -> None:
    cell = with_examples(planted_scores())
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
