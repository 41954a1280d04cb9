"""Gaps between strategies, predicted from angles and other measures of geometry, cell by cell.

If strategies are equally good because the teacher's layers look alike from the student, the gap between strategies
should be larger where they look less alike: it should rise with the angle's excess over its null and fall with the
common-mode ratio. In the alternative explanation it rises with the recoverability gap. A line through all cells always
fits to some degree; the test is whether it predicts the gap of a cell left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from layerangles.errors import InputError
from layerangles.notation import counted
from layerangles.results.angle_result import AngleResult
from layerangles.results.variables import VARIABLES

# The measures of geometry and their labels in sentences and figures.
LABELS = {
    name: VARIABLES[name].label.format(null="the null")
    for name in ("excess_deg", "common_mode_ratio", "recoverability_gap")
}
PREDICTORS = tuple(LABELS)

# A line through two points always fits, and two ranks always agree or disagree perfectly.
FEWEST = 3
# Of 4 cells, even a perfect rank correlation has p = 2 / 4! = 0.083.
FEWEST_TO_CONCLUDE = 5

_CONFIDENCE = 0.95
_N_POINTS = 41  # of a line and its band
_N_PERMUTATIONS = factorial(8)  # all up to 8 cells; as many at random for more
_FIT = ("slope", "slope_low", "slope_high", "r_squared", "error", "error_of_mean", "spearman", "p")
_LINE = ("x", "fitted", "low", "high")
_RANKS = {"n_strategies": int, "spearman": float, "p": float}

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """How well measures of geometry predict the gap between strategies, and which strategy is best.

    All p values are two-sided, take the cells (or strategies) as exchangeable, and are not adjusted for the number of
    measures. NaN: fewer than 3 cells (or strategies) have both numbers, or one of the two is the same in all of them.

    Attributes:
        cells: one row per cell (index ``cell``): ``gap`` and the predictors; NaN if unknown.
        fits: one row per predictor (index ``predictor``) over all cells: ``n_cells`` that have gap and predictor;
            ``slope`` of the least-squares line with the 95 % t interval ``slope_low``, ``slope_high``, in units of
            the gap per unit of the predictor; ``r_squared``; ``error``, the root mean squared error of each cell's
            gap predicted by the line through the other cells, in units of the gap; ``error_of_mean``, that of the mean
            of the other cells' gaps, which a predictor must beat; ``spearman``, −1 to 1, and its permutation ``p``,
            exact up to 8 cells. ``error`` is also NaN if all cells but one have the same predictor.
        strategies: one row per cell and matched strategy (index ``cell``, ``strategy``): ``score``, larger is better;
            ``score_rank`` within the cell, 1 is the best, ties share the mean of their ranks; and the predictors.
        ranks: one row per cell and predictor (index ``cell``, ``predictor``): within the cell, rank by geometry against
            rank by score: ``n_strategies`` that have both, ``spearman``, positive where larger values go with better
            scores, and its permutation ``p``, exact up to 8 strategies.
        lines: the fitted lines, one row per point (index ``predictor``, ``point``), from the smallest to the largest
            value of the predictor: ``x``, ``fitted``, and ``low``, ``high``, the 95 % interval of the mean gap there.
        left_out: one row per cell (index ``cell``), one column per predictor: the gap predicted by the line through the
            other cells.
        deviations: one row per cell and matched strategy, as in ``strategies``, one column per predictor: its value
            minus the mean of the cell's strategies, since cells differ more than the strategies in them.
    """

    cells: pd.DataFrame
    fits: pd.DataFrame
    strategies: pd.DataFrame
    ranks: pd.DataFrame
    lines: pd.DataFrame
    left_out: pd.DataFrame
    deviations: pd.DataFrame

    @property
    def predictors(self) -> tuple[str, ...]:
        """The predictors that were fitted, in the order of :data:`PREDICTORS`."""
        return tuple(str(name) for name in self.fits.index)


def student_geometry(result: AngleResult, *, null: str = "N1", step: int | None = None) -> pd.DataFrame:
    """The predictors of every student.

    Args:
        result: measured with a null, with alternatives, or with both.
        null: the null of the excess.
        step: the training step; the last by default, or the only state measured.

    Returns:
        One row per student (index ``student``): ``excess_deg``, the mean excess of the angle over the null, degrees;
        ``common_mode_ratio``, 0 and more; ``recoverability_gap``, 0 if all of the teacher's layers are recoverable
        from the student. The first two are means over tokens and layers, the last over student layers and teacher
        layers; all towers weigh the same. NaN if not measured, as for a student without a checkpoint at this step.

    Raises:
        InputError: none of the three was measured, or not with this null, or not at this step.
    """
    if step is not None and not result.steps:
        raise InputError(
            f"step is {step}, but this result has no step axis. Leave step out, or measure with steps=True (--steps)."
        )
    if result.nulls:
        result.check_null(null)
    data = result.at_step(step).dataset
    columns = {}
    for column, name in (
        ("excess_deg", "student_excess_deg"),
        ("common_mode_ratio", "student_common_mode_ratio"),
        ("recoverability_gap", "recoverability_gap"),
    ):
        if name in data:
            values = data[name].sel(null=null) if "null" in data[name].dims else data[name]
            columns[column] = _mean_of_students(values)
    if not columns:
        raise InputError(
            "this result holds no excess over a null, no common-mode ratio and no recoverability gap, so that there is "
            'no geometry to predict by. Measure with nulls=("N1",) and alternatives="all" (--null N1 '
            "--alternatives all), in teacher space."
        )
    return pd.DataFrame(columns, index=pd.Index(result.students, name="student"), columns=list(PREDICTORS), dtype=float)


def _mean_of_students(values: xr.DataArray) -> Values:
    # Layers first, so that a tower with more layers does not weigh more.
    of_layers = values.mean([dim for dim in ("student_layer", "layer_a") if dim in values.dims])
    return np.asarray(of_layers.mean("tower").values, dtype=float)


def predict_gaps(cells: pd.DataFrame, strategies: pd.DataFrame | None = None) -> Prediction:
    """Predict the gap between strategies across cells, and their ranks within cells, by measures of geometry.

    Across cells, each measure has a least-squares line of its own, ``gap = a + b · measure``: cells are too few for
    several measures in one line. Leave-one-cell-out predictions follow from the residuals e and leverages h of the
    line, ``gap − e / (1 − h)``, and equal those of lines through the other cells.

    Args:
        cells: one row per cell (its name is the index): ``gap``, any distance between the matched strategies, such as
            best − worst, or that ÷ the gain over none; and any of :data:`PREDICTORS`, such as the mean over the cell's
            students. NaN if unknown. Other columns are ignored.
        strategies: one row per matched strategy (the index is cell and strategy): ``score``, larger is better
            (negate an error or a perplexity); and any of :data:`PREDICTORS`.

    Raises:
        InputError: a column is missing or not numeric, a row occurs twice, or a strategy belongs to no cell in
            ``cells``.

    >>> cells = pd.DataFrame(
    ...     {"gap": [1.0, 2.0, 3.0, 5.0], "excess_deg": [10.0, 20.0, 30.0, 40.0]}, index=["a", "b", "c", "d"]
    ... )
    >>> fit = predict_gaps(cells).fits.loc["excess_deg"]
    >>> print(f"{fit.slope:.2f} a degree, error {fit.error:.2f} against {fit.error_of_mean:.2f} of the mean")
    0.13 a degree, error 0.67 against 1.97 of the mean
    """
    cells = _checked(cells, "cells", "gap", ["cell"])
    if strategies is None:
        nothing = pd.MultiIndex.from_arrays([[], []], names=["cell", "strategy"])
        strategies = pd.DataFrame({"score": pd.Series(dtype=float)}, index=nothing)
    else:
        strategies = _checked(strategies, "strategies", "score", ["cell", "strategy"])
        unknown = [str(cell) for cell in strategies.index.unique("cell") if cell not in cells.index]
        if unknown:
            raise InputError(
                f"strategies has the cell {unknown[0]!r}, which cells has not; it has {_listed(list(cells.index))}. "
                "Name cells alike in both."
            )
    geometry = strategies.drop(columns="score")
    strategies.insert(1, "score_rank", strategies.groupby("cell")["score"].rank(ascending=False))
    lines = {str(name): _Line.of(cells, str(name)) for name in cells.columns[1:]}
    ranks = [
        (cell, name, *_rank_correlation(*_known(of_cell, name, "score")))
        for cell, of_cell in strategies.groupby("cell", sort=False)
        for name in strategies.columns[2:]
    ]
    return Prediction(
        cells=cells,
        fits=pd.DataFrame([line.fit for line in lines.values()], index=pd.Index(lines, name="predictor")),
        strategies=strategies,
        ranks=pd.DataFrame(ranks, columns=["cell", "predictor", *_RANKS])
        .set_index(["cell", "predictor"])
        .astype(_RANKS),
        lines=pd.concat([line.points for line in lines.values()], keys=lines, names=["predictor", "point"]),
        left_out=pd.DataFrame({name: line.left_out for name, line in lines.items()}, index=cells.index),
        deviations=geometry - geometry.groupby("cell").transform("mean"),
    )


def _checked(frame: pd.DataFrame, what: str, target: str, index: list[str]) -> pd.DataFrame:
    """The columns of the target and of the predictors, as numbers; non-finite ones become NaN."""
    if frame.index.nlevels != len(index):
        raise InputError(
            f"the index of {what} has {counted(frame.index.nlevels, 'level')}; wanted is {' and '.join(index)}. "
            f"Set it with set_index({index})."
        )
    present = [name for name in PREDICTORS if name in frame]
    if target not in frame or not present:
        raise InputError(
            f"{what} has the columns {_listed(list(frame.columns)) or 'none'}; wanted are {target} and at least one of "
            f"{_listed(list(PREDICTORS))}, which student_geometry measures."
        )
    frame = frame.rename_axis(index=index)
    if frame.index.has_duplicates:
        raise InputError(
            f"{what} has more than one row of {frame.index[frame.index.duplicated()][0]!r}. Average them, or leave all "
            "but one out."
        )
    checked = pd.DataFrame(index=frame.index)
    for name in [target, *present]:
        try:
            checked[name] = pd.to_numeric(frame[name]).astype(float)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the column {name} of {what} is not of numbers ({error}). Allowed are numbers, and NaN for none."
            ) from error
    return checked.where(np.isfinite(checked))


def _known(frame: pd.DataFrame, x: str, y: str) -> tuple[Values, Values]:
    """Two columns, restricted to the rows that have both."""
    both = frame[[x, y]].dropna()
    return both[x].to_numpy(), both[y].to_numpy()


def _same(values: Values) -> bool:
    """Whether all are the same, up to the rounding of a mean."""
    return len(values) == 0 or bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


class _Line(NamedTuple):
    """The fit of one predictor across cells: its row of ``fits``, and its parts of ``lines`` and ``left_out``."""

    fit: dict[str, float]
    points: pd.DataFrame
    left_out: pd.Series

    @classmethod
    def of(cls, cells: pd.DataFrame, predictor: str) -> "_Line":
        known = cells[["gap", predictor]].dropna()
        x, y = _known(cells, predictor, "gap")
        n, spearman, p = _rank_correlation(x, y)
        if np.isnan(spearman):
            nothing = pd.DataFrame(columns=list(_LINE), dtype=float)
            return cls({"n_cells": n} | dict.fromkeys(_FIT, np.nan), nothing, known["gap"] * np.nan)
        from scipy import special, stats

        fitted = stats.linregress(x, y)
        residuals = y - y.mean() - fitted.slope * (x - x.mean())
        quantile = float(special.stdtrit(n - 2, 0.5 + _CONFIDENCE / 2))

        def leverage(values: Values) -> Values:
            return np.asarray(1 / n + ((values - x.mean()) / np.linalg.norm(x - x.mean())) ** 2)

        # If all others have one value, no line goes through them, and the leverage of the one left out is 1.
        has_line = np.array([not _same(np.delete(x, left_out)) for left_out in range(n)])
        predicted = y - residuals / np.where(has_line, 1 - leverage(x), np.nan)
        row = {
            "n_cells": n,
            "slope": fitted.slope,
            "slope_low": fitted.slope - quantile * fitted.stderr,
            "slope_high": fitted.slope + quantile * fitted.stderr,
            "r_squared": fitted.rvalue**2,
            "error": np.sqrt(np.mean((y - predicted) ** 2)),
            "error_of_mean": np.sqrt(np.mean((y - (y.sum() - y) / (n - 1)) ** 2)),
            "spearman": spearman,
            "p": p,
        }
        at = np.linspace(x.min(), x.max(), _N_POINTS)
        on_line = y.mean() + fitted.slope * (at - x.mean())
        # Of the mean gap there, not of a new cell's gap.
        half = quantile * np.sqrt(residuals @ residuals / (n - 2) * leverage(at))
        points = pd.DataFrame({"x": at, "fitted": on_line, "low": on_line - half, "high": on_line + half})
        return cls(row, points, pd.Series(predicted, index=known.index))


def _rank_correlation(x: Values, y: Values) -> tuple[int, float, float]:
    """The number of pairs, Spearman's correlation, and its permutation p-value.

    NaN for fewer than 3 pairs, or if all x or all y are the same.
    """
    n = len(x)
    if n < FEWEST or _same(x) or _same(y):
        return n, np.nan, np.nan
    from scipy import stats

    # Twice the ranks from their mean are whole numbers: sums of them are exact, so that equal ones are seen to be.
    ranks = [2 * stats.rankdata(values) - (n + 1) for values in (x, y)]

    def size(of_x: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.asarray(np.abs((of_x * ranks[1]).sum(axis=axis)))

    test = stats.permutation_test(
        (ranks[0],),
        size,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_N_PERMUTATIONS,
        alternative="greater",
        random_state=np.random.default_rng(0),  # called rng from scipy 1.15 on, which takes both
    )
    return n, float(ranks[0] @ ranks[1] / np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))), float(test.pvalue)


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names))
