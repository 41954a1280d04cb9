"""Gap predictions agree with known lines, refits and written-out permutations."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys.predictions import cells_of, random_cells, strategies_of, text_of
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError, measure_angles
from layerangles.equivalence.gap_prediction import LABELS, PREDICTORS, predict_gaps, student_geometry

FIT = ["slope", "slope_low", "slope_high", "r_squared", "error", "error_of_mean", "spearman", "p"]


def fit_of(gap: Sequence[float], excess: Sequence[float]) -> dict[str, float]:
    return predict_gaps(cells_of(gap, excess_deg=excess)).fits.loc["excess_deg"].to_dict()


# --- across cells ---------------------------------------------------------------------------------------------


def test_a_perfect_line_is_found() -> None:
    prediction = predict_gaps(cells_of([7, 1, 3, 5], excess_deg=[40, 10, 20, 30]))
    fit = prediction.fits.loc["excess_deg"].to_dict()
    assert fit["n_cells"] == 4
    assert [fit[name] for name in ("slope", "slope_low", "slope_high")] == pytest.approx([0.2, 0.2, 0.2])
    assert (fit["r_squared"], fit["spearman"]) == (pytest.approx(1), pytest.approx(1))
    assert fit["error"] == pytest.approx(0, abs=1e-12)
    # The others' mean is off by n / (n − 1) times the distance from the mean of all: 4 / 3 of √5.
    assert fit["error_of_mean"] == pytest.approx(4 / 3 * 5**0.5)
    assert fit["p"] == 2 / 24
    assert prediction.left_out["excess_deg"].to_dict() == pytest.approx({"a": 7, "b": 1, "c": 3, "d": 5})
    line = prediction.lines.loc["excess_deg"]
    assert line["x"].iloc[[0, -1]].tolist() == [10, 40]
    for name in ("fitted", "low", "high"):
        assert line[name].tolist() == pytest.approx((line["x"] / 5 - 1).tolist())


def test_a_line_agrees_with_one_computed_by_hand() -> None:
    fit = fit_of([1, 2, 3, 5], [10, 20, 30, 40])
    # Residuals 0.2, −0.1, −0.4, 0.3; leverages 0.7, 0.3, 0.3, 0.7; s² = 0.3 / 2, and Sxx = 500.
    half = stats.t.ppf(0.975, 2) * (0.15 / 500) ** 0.5
    expected = {"slope": 0.13, "slope_low": 0.13 - half, "slope_high": 0.13 + half, "r_squared": 1 - 0.3 / 8.75}
    left_out = [0.2 / 0.3, -0.1 / 0.7, -0.4 / 0.7, 0.3 / 0.3]
    expected["error"] = float(np.sqrt(np.mean(np.square(left_out))))
    assert {name: fit[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 4, 9])
def test_errors_are_those_of_refits(n: int) -> None:
    cells = random_cells(n)
    x, y = cells["excess_deg"].to_numpy(), cells["gap"].to_numpy()
    predicted, of_mean = [], []
    for left_out in range(n):
        others = np.arange(n) != left_out
        design = np.column_stack([np.ones(n), x])
        line = np.linalg.lstsq(design[others], y[others], rcond=None)[0]
        predicted.append(design[left_out] @ line)
        of_mean.append(y[others].mean())
    prediction = predict_gaps(cells)
    fit = prediction.fits.loc["excess_deg"]
    np.testing.assert_allclose(prediction.left_out["excess_deg"], predicted)
    assert fit["error"] == pytest.approx(np.sqrt(np.mean((y - predicted) ** 2)))
    assert fit["error_of_mean"] == pytest.approx(np.sqrt(np.mean((y - of_mean) ** 2)))


def test_the_band_is_that_of_the_mean_gap() -> None:
    cells = random_cells(8)
    x, y = cells["excess_deg"].to_numpy(), cells["gap"].to_numpy()
    line = predict_gaps(cells).lines.loc["excess_deg"]
    fitted = stats.linregress(x, y)
    variance = np.sum((y - fitted.intercept - fitted.slope * x) ** 2) / 6
    at = line["x"].to_numpy()
    half = stats.t.ppf(0.975, 6) * np.sqrt(variance * (1 / 8 + (at - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2)))
    np.testing.assert_allclose(line["fitted"], fitted.intercept + fitted.slope * at)
    np.testing.assert_allclose(line["high"] - line["fitted"], half)
    np.testing.assert_allclose(line["fitted"] - line["low"], half)


def _reference_p(x: Sequence[float], y: Sequence[float]) -> float:
    """The share of all orders of x with a rank correlation at least as far from 0."""
    observed = abs(stats.spearmanr(x, y).statistic)
    found = [abs(stats.spearmanr(order, y).statistic) for order in permutations(x)]
    return float(np.mean([value >= observed - 1e-9 for value in found]))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 2, 3], [1, 3, 2]),
        ([1, 2, 3, 4], [10, 30, 20, 40]),
        ([1, 2, 3, 4, 5], [5, 3, 4, 1, 2]),
        ([1, 1, 2, 3, 4], [1, 2, 2, 2, 5]),  # ties
        ([1, 2, 3, 4, 5], [3, 1, 4, 1, 3]),
        ([1, 2, 3, 4], [2, 4, 1, 3]),  # no correlation at all
    ],
)
def test_spearman_and_its_exact_p(x: list[float], y: list[float]) -> None:
    fit = fit_of(y, x)
    assert fit["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert fit["p"] == pytest.approx(_reference_p(x, y))


def test_p_is_exact_up_to_8_cells_and_sampled_beyond() -> None:
    assert fit_of([*range(8)], [*range(8)])["p"] == pytest.approx(2 / 40320)
    cells = random_cells(12, seed=3)
    fit = predict_gaps(cells).fits.loc["excess_deg"]
    assert fit["p"] == pytest.approx(stats.spearmanr(cells["excess_deg"], cells["gap"]).pvalue, abs=0.01)
    assert fit["p"] == predict_gaps(cells).fits.loc["excess_deg", "p"]  # the same at every call


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.booleans(), st.floats(-100, 100))
def test_the_unit_of_a_predictor_does_not_matter(seed: int, scale: float, turned: bool, shift: float) -> None:
    cells = random_cells(6, seed)
    before = predict_gaps(cells)
    scale = -scale if turned else scale
    after = predict_gaps(cells.assign(excess_deg=scale * cells["excess_deg"] + shift))
    one, other = before.fits.loc["excess_deg"], after.fits.loc["excess_deg"]
    for name in ("n_cells", "r_squared", "error", "error_of_mean", "p"):
        assert other[name] == pytest.approx(one[name], rel=1e-6)
    assert other["spearman"] == pytest.approx(np.sign(scale) * one["spearman"])
    assert other["slope"] * scale == pytest.approx(one["slope"], rel=1e-6)
    np.testing.assert_allclose(after.left_out, before.left_out, rtol=1e-6)


def test_values_far_from_zero_lose_no_digits() -> None:
    assert fit_of([1, 2, 3, 5], [1e8 + x for x in (1, 2, 3, 4)])["error"] == pytest.approx(
        fit_of([1, 2, 3, 5], [1, 2, 3, 4])["error"], rel=1e-9
    )


def test_the_order_of_cells_does_not_matter() -> None:
    cells = random_cells(7)
    turned = predict_gaps(cells[::-1])
    pd.testing.assert_frame_equal(turned.fits, predict_gaps(cells).fits)
    pd.testing.assert_frame_equal(turned.left_out[::-1], predict_gaps(cells).left_out)


# --- too little to go by --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_cells_fit_nothing(n: int) -> None:
    prediction = predict_gaps(cells_of([1.0, 2.0][:n], excess_deg=[10.0, 20.0][:n]))
    assert prediction.fits["n_cells"].tolist() == [n]
    assert prediction.fits[FIT].isna().all(axis=None)
    assert prediction.left_out.shape == (n, 1)
    assert prediction.left_out.isna().all(axis=None)
    assert len(prediction.lines) == 0
    assert list(prediction.lines.columns) == ["x", "fitted", "low", "high"]


@pytest.mark.parametrize(
    ("gap", "excess"),
    [
        ([1, 2, 3, 4], [0.3, 0.3, 0.3, 0.1 + 0.2]),  # the same up to rounding
        ([2, 2, 2, 2], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [0, 0, 0, 0]),
    ],
)
def test_a_constant_fits_nothing(gap: list[float], excess: list[float]) -> None:
    prediction = predict_gaps(cells_of(gap, excess_deg=excess))
    assert prediction.fits["n_cells"].tolist() == [4]
    assert prediction.fits[FIT].isna().all(axis=None)
    assert "the same in all of 4 cells" in text_of(prediction)
    assert "No measure could be tried on a cell left out." in text_of(prediction)


def test_one_cell_that_differs_from_all_others_has_a_line_but_no_error() -> None:
    prediction = predict_gaps(cells_of([1, 2, 3, 9], excess_deg=[1, 1, 1, 2]))
    fit = prediction.fits.loc["excess_deg"]
    assert fit["slope"] == pytest.approx(7)
    assert np.isnan(fit["error"])
    # Of the last cell, the others say nothing; of the others, two and the last one do.
    np.testing.assert_allclose(prediction.left_out["excess_deg"], [2.5, 2, 1.5, np.nan])
    assert "error for a cell left out not defined" in text_of(prediction)


def test_unknown_values_are_left_out_and_counted() -> None:
    whole = random_cells(7)
    holes = whole.assign(common_mode_ratio=[1.0, 2, 3, np.nan, np.inf, np.nan, np.nan])
    holes.loc["b", "excess_deg"] = -np.inf
    holes.loc["c", "gap"] = np.nan
    prediction = predict_gaps(holes)
    assert prediction.fits["n_cells"].to_dict() == {"excess_deg": 5, "common_mode_ratio": 2}
    pd.testing.assert_frame_equal(
        prediction.fits.loc[["excess_deg"]], predict_gaps(whole.drop(index=["b", "c"])).fits, check_names=True
    )
    assert prediction.fits.loc["common_mode_ratio", FIT].isna().all()
    assert prediction.left_out["excess_deg"].notna().to_list() == [True, False, False, True, True, True, True]
    assert np.isnan(prediction.cells.loc["b", "excess_deg"])
    assert "Common-mode ratio: not fitted, being known with the gap of 2 cells only." in text_of(prediction)


def test_absent_predictors_and_other_columns_are_left_out() -> None:
    cells = random_cells(5).assign(recoverability_gap=[0.5, 0.1, 0.2, 0.7, 0.3], depth="6")
    prediction = predict_gaps(cells)
    assert prediction.predictors == ("excess_deg", "recoverability_gap")
    assert list(prediction.cells.columns) == ["gap", "excess_deg", "recoverability_gap"]
    assert prediction.fits.index.name == "predictor"
    assert prediction.cells.index.name == prediction.left_out.index.name == "cell"
    assert len(prediction.strategies) == len(prediction.ranks) == len(prediction.deviations) == 0
    assert prediction.ranks.index.names == ["cell", "predictor"]
    assert set(cells.columns) == {"gap", "excess_deg", "recoverability_gap", "depth"}  # the caller's is as it was


def test_tables_that_cannot_be_used_are_refused() -> None:
    cells, excess = random_cells(4), {"a": [1, 2, 3]}
    of_strategies = strategies_of({"a": [1, 2, 3]}, excess_deg=excess)
    with pytest.raises(InputError, match=r"cells has the columns excess_deg; wanted are gap and at least one of exce"):
        predict_gaps(cells.drop(columns="gap"))
    with pytest.raises(InputError, match=r"cells has the columns gap; wanted are .*which student_geometry measures"):
        predict_gaps(cells[["gap"]])
    with pytest.raises(InputError, match=r"cells has the columns none; wanted"):
        predict_gaps(cells[[]])
    with pytest.raises(InputError, match=r"the column gap of cells is not of numbers \(.*Allowed are numbers"):
        predict_gaps(cells.assign(gap=["1", "2", "three", "4"]))
    with pytest.raises(InputError, match=r"cells has more than one row of 'a'\. Average"):
        predict_gaps(pd.concat([cells, cells]))
    with pytest.raises(InputError, match=r"index of cells has 2 levels; wanted is cell\. Set it with set_index"):
        predict_gaps(of_strategies.rename(columns={"score": "gap"}))
    with pytest.raises(InputError, match=r"index of strategies has 1 level; wanted is cell and strategy"):
        predict_gaps(cells, of_strategies.droplevel(1))
    with pytest.raises(InputError, match=r"strategies has the columns excess_deg; wanted are score and"):
        predict_gaps(cells, of_strategies.drop(columns="score"))
    with pytest.raises(InputError, match=r"strategies has the cell 'z', which cells has not; it has a, b, c, d"):
        predict_gaps(cells, of_strategies.rename(index={"a": "z"}, level=0))


# --- within cells ---------------------------------------------------------------------------------------------


def test_ranks_within_cells_agree_with_scipy() -> None:
    strategies = strategies_of(
        {"a": [1, 2, 3, 4], "b": [5, 5, 7], "c": [1, 2]},
        excess_deg={"a": [10, 20, 30, 40], "b": [1, 2, 0], "c": [1, 2]},
        recoverability_gap={"a": [4, 3, 1, 2], "b": [1, 1, 1], "c": [np.nan, 2]},
    )
    prediction = predict_gaps(random_cells(3), strategies)
    ranks = prediction.ranks["spearman"].unstack()
    assert ranks.loc["a"].to_dict() == pytest.approx({"excess_deg": 1, "recoverability_gap": -0.8})
    assert ranks.loc["b", "excess_deg"] == pytest.approx(stats.spearmanr([1, 2, 0], [5, 5, 7]).statistic)
    assert np.isnan(ranks.loc["b", "recoverability_gap"])
    assert ranks.loc["c"].isna().all()
    assert prediction.ranks.loc["a", "p"].to_dict() == pytest.approx(
        {"excess_deg": 2 / 24, "recoverability_gap": 1 / 3}
    )
    assert prediction.ranks.loc[("b", "excess_deg"), "p"] == _reference_p([1, 2, 0], [5, 5, 7])
    assert prediction.ranks["n_strategies"].tolist() == [4, 4, 3, 3, 2, 1]
    assert prediction.strategies["score_rank"].tolist() == [4, 3, 2, 1, 2.5, 2.5, 1, 2, 1]
    assert prediction.deviations["excess_deg"].tolist() == [-15, -5, 5, 15, 0, 1, -1, -0.5, 0.5]
    assert np.isnan(prediction.deviations.loc[("c", "s0"), "recoverability_gap"])


def test_one_measure_in_five_that_says_nothing_beats_the_mean() -> None:
    rng = np.random.default_rng(0)
    for n in (4, 8, 12, 16):
        x, y = (values - values.mean(axis=1, keepdims=True) for values in rng.normal(size=(2, 20000, n)))
        sxx = (x**2).sum(axis=1, keepdims=True)
        residual = y - x * (x * y).sum(axis=1, keepdims=True) / sxx
        errors = (residual / (1 - 1 / n - x**2 / sxx)) ** 2
        of_mean = (y * n / (n - 1)) ** 2
        assert np.mean(errors.sum(axis=1) < of_mean.sum(axis=1)) == pytest.approx(0.2, abs=0.02)


# --- from a result --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stepped(study_with_steps: list[Path], study: ToyStudy) -> AngleResult:
    return measure_angles(
        study_with_steps, study.texts, steps=True, nulls=("N1", "N5"), alternatives="all", device="cpu"
    )


def test_student_geometry_averages_the_results_variables(stepped: AngleResult) -> None:
    frame = student_geometry(stepped, null="N5", step=10)
    assert frame.index.tolist() == stepped.students
    assert frame.index.name == "student"
    assert list(frame.columns) == list(PREDICTORS) == list(LABELS)
    for student in stepped.students:
        data = stepped.dataset.sel(student=student, step=10, tower="encoder")
        assert frame.loc[student].tolist() == pytest.approx(
            [
                data["student_excess_deg"].sel(null="N5").item(),
                data["student_common_mode_ratio"].item(),
                np.nanmean(data["recoverability_gap"].values),
            ]
        )
    assert frame.notna().all(axis=None)


def test_the_last_step_is_taken_by_default(stepped: AngleResult) -> None:
    frame = student_geometry(stepped)
    pd.testing.assert_frame_equal(frame, student_geometry(stepped, step=30))
    pd.testing.assert_frame_equal(frame, student_geometry(stepped.at_step(30)))
    assert frame.loc["early"].isna().all()  # it ends at step 20
    assert frame.loc["late"].notna().all()


def test_measures_that_are_missing_are_nan(result: AngleResult) -> None:
    frame = student_geometry(result)  # no alternatives
    assert frame["excess_deg"].notna().all()
    assert frame[["common_mode_ratio", "recoverability_gap"]].isna().all(axis=None)
    unmeasured = AngleResult(result.dataset.drop_vars("student_excess_deg"))
    with pytest.raises(
        InputError, match=r"holds no excess over a null, no common-mode ratio and no recov.*--alternatives"
    ):
        student_geometry(unmeasured)
    with pytest.raises(InputError, match=r"null 'N3' was not measured"):
        student_geometry(result, null="N3")
    with pytest.raises(InputError, match=r"step is 10, but this result has no step axis"):
        student_geometry(result, step=10)


def test_unknown_steps_are_refused(stepped: AngleResult) -> None:
    with pytest.raises(InputError, match=r"step 11 was not measured"):
        student_geometry(stepped, step=11)


def test_towers_weigh_the_same() -> None:
    gap = np.full((1, 2, 3, 2), np.nan)
    gap[0, 0] = 1.0  # of 6 pairs of layers
    gap[0, 1, 0, 0] = 4.0  # of one
    dataset = xr.Dataset(
        {
            "recoverability_gap": (("student", "tower", "student_layer", "layer_a"), gap),
            "student_common_mode_ratio": (("student", "tower"), [[2.0, np.nan]]),
        },
        coords={"student": ["s"], "tower": ["encoder", "decoder"]},
    )
    frame = student_geometry(AngleResult(dataset))
    assert frame.loc["s", ["common_mode_ratio", "recoverability_gap"]].tolist() == [2, 2.5]
    assert np.isnan(frame.loc["s", "excess_deg"])
