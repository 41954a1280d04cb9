"""Angles and scores of studies side by side: the input of :mod:`layerangles.equivalence.gap_prediction`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kd_train.outcome.judging import Judged
from kd_train.outcome.opened_study import OpenedStudy
from kd_train.study.comparisons import Arm, arms_of
from layerangles.equivalence.gap_prediction import PREDICTORS, Prediction, predict_gaps, student_geometry
from layerangles.results.angle_result import AngleResult


def predict_from(judged: Sequence[Judged]) -> Prediction | None:
    """Predict the gaps of these cells from their studies' stored angles; None if no student was measured.

    A cell's geometry is that of its students without matching at their last step, the mean over seeds: the state that
    matching starts from, not the one that it leads to. In cells without such students it is that of the matched ones.
    The gap is the spread between best and worst strategy; if cells have different metrics, the spread ÷ gain.
    """
    studies = {id(one.source): one.source for one in judged if isinstance(one.source, OpenedStudy)}
    measured_of = {key: study.angles() for key, study in studies.items()}
    geometry = {key: _geometry(results) for key, results in measured_of.items() if results}
    one_metric = len({one.verdict.cell.metric for one in judged}) == 1
    cells: dict[str, dict[str, float]] = {}
    strategies: dict[tuple[str, str], dict[str, float]] = {}
    for one in judged:
        if id(one.source) not in geometry:
            continue
        cell, of_students = one.verdict.cell, geometry[id(one.source)]
        arms = [arm for arm in arms_of(studies[id(one.source)].study) if arm.cell == cell.name]
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
    """One row per student, at its last step; of several results the first that has a value."""
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
