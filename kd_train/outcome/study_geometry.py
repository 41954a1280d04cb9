"""Geometry beside scores: what :func:`layerangles.equivalence.gap_prediction.predict_gaps` compares."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kd_train.outcome.scores import Judged
from kd_train.study.comparisons import Arm, arms_of
from kd_train.study.study_file import read_study
from layerangles.equivalence.gap_prediction import PREDICTORS, Prediction, predict_gaps, student_geometry
from layerangles.results.angle_result import AngleResult

ANGLES = "angles"


def stored_angles(folder: Path) -> list[AngleResult]:
    """The results that lie in a study's ``angles/``, by name."""
    return [AngleResult.load(path) for path in sorted((folder / ANGLES).glob("*.nc"))]


def predict_from(judged: Sequence[Judged], angles: Mapping[Path, Sequence[AngleResult]]) -> Prediction | None:
    """Whether geometry predicts the gaps of these cells; None where no student of theirs was measured.

    A cell's geometry is that of its students without matching at their last step, the mean over seeds: what matching
    would have to work with, not what it has made. In cells without such students it is that of the matched ones. The
    gap is the spread between best and worst strategy; where cells have different metrics, the spread ÷ gain.

    Args:
        judged: the cells of studies.
        angles: by study directory, what was measured of its students.
    """
    geometry = {source: _geometry(results) for source, results in angles.items() if results}
    one_metric = len({one.verdict.cell.metric for one in judged}) == 1
    cells: dict[str, dict[str, float]] = {}
    strategies: dict[tuple[str, str], dict[str, float]] = {}
    for one in judged:
        if one.source not in geometry:
            continue
        cell, of_students = one.verdict.cell, geometry[one.source]
        arms = [arm for arm in arms_of(read_study(one.source)) if arm.cell == cell.name]
        measured = {
            strategy: _mean(of_students, [arm for arm in arms if arm.strategy == strategy], cell.seeds)
            for strategy in (*cell.matched, *([cell.none] if cell.none else []))
        }
        basis = [measured[cell.none]] if cell.none else [measured[strategy] for strategy in cell.matched]
        spread = one.verdict.spread.value if one_metric else one.verdict.spread_of_gain.value
        gap = spread if np.isfinite(spread) else np.nan
        cells[cell.name] = {"gap": gap, **_by_name(pd.DataFrame(basis).mean())}
        sign = 1 if cell.higher_is_better else -1
        for strategy in cell.matched:
            score = sign * float(one.verdict.strategies.loc[strategy, "score"])  # type: ignore[arg-type]
            strategies[cell.name, strategy] = {"score": score, **_by_name(measured[strategy])}
    if not cells:
        return None
    index = pd.MultiIndex.from_tuples(strategies, names=["cell", "strategy"])
    return predict_gaps(
        pd.DataFrame.from_dict(cells, orient="index").rename_axis("cell"),
        pd.DataFrame(list(strategies.values()), index=index),
    )


def _geometry(results: Sequence[AngleResult]) -> pd.DataFrame:
    """One row a student, at its last step; of several results the first that knows a value."""
    whole = pd.DataFrame(columns=list(PREDICTORS), dtype=float)
    for result in results:
        frame = student_geometry(result)
        whole = frame if whole.empty else whole.combine_first(frame)
    return whole


def _by_name(values: "pd.Series[float]") -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}


def _mean(geometry: pd.DataFrame, arms: Sequence[Arm], seeds: Sequence[int]) -> "pd.Series[float]":
    """The mean over the students of some arms; NaN where none was measured."""
    names = [f"{arm.label}-seed{seed}" for arm in arms for seed in seeds]
    return geometry.reindex(names)[list(PREDICTORS)].mean()
