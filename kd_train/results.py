"""What came out of a study: its scores as cells for the verdict, and the geometry of its students."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from kd_train.design import Arm, arms_of, margin_of
from kd_train.metrics import ExamplesLog, Measurement, MetricsLog
from kd_train.study import read_study
from kd_train.teachers import TEACHER
from layerangles.checkpoints import MATCHING_FILE
from layerangles.equivalence import Margin, Verdict, judge
from layerangles.equivalence.cells import Cell, cells_from_frame, read_scores, read_table
from layerangles.errors import InputError

STUDENTS = "students"


def study_cells(folder: Path, *, metric: str | None = None, split: str | None = None) -> list[Cell]:
    """The cells of a study that was trained, whole or in part.

    Args:
        folder: the study's.
        metric: what is compared; what the study file says, or the task's deciding one, by default.
        split: on which split; what the study file says, or test, or dev where there is no test, by default.

    Raises:
        InputError: no study, no finished student, or nothing was scored by that name on that split.
    """
    study = read_study(folder)
    log = MetricsLog(folder, writes=False).read()
    split = split or study.verdict.split or ("test" if any(m.split == "test" for m in log) else "dev")
    scored = list(dict.fromkeys(m.metric for m in log if m.split == split))
    if not scored:
        splits = sorted({m.split for m in log} - {"train"})
        raise InputError(
            f"{folder} has no score on the split {split}; there are scores on {', '.join(splits) or 'none'}. Train the "
            "study first, or name another split with --split."
        )
    metric = metric or study.verdict.metric or scored[0]
    if metric not in scored:
        raise InputError(
            f"{folder} has no {metric} on the split {split}; scored are {', '.join(scored)}. Name one of them with "
            "--metric."
        )
    scores = _final_scores(folder, [m for m in log if (m.split, m.metric) == (split, metric)])
    better = study.task.all_metrics[metric].higher_is_better
    arms = arms_of(study)
    rows = [
        {
            "cell": arm.cell,
            "strategy": arm.strategy,
            "role": arm.role,
            "draw": arm.draw,
            "seed": seed,
            "score": scores[student],
            "metric": metric,
            "higher_is_better": better,
        }
        for arm in arms
        for seed in study.seeds
        if (student := f"{arm.label}-seed{seed}") in scores
    ]
    if not rows:
        raise InputError(f"{folder} has no finished student. Train it: layerangles train {folder} --resume")
    cells = cells_from_frame(pd.DataFrame(rows), source=str(folder))
    logged = ExamplesLog(folder, writes=False).read().values()
    examples = {s.student: np.array(s.values) for s in logged if (s.split, s.metric) == (split, metric)}
    return [
        _with_examples(cell, [arm for arm in arms if arm.cell == cell.name], study.seeds, examples) for cell in cells
    ]


def teacher_scores(folder: Path, *, split: str | None = None) -> dict[str, float]:
    """The teacher's scores by metric, on test, or on dev where there is no test, by default."""
    log = [m for m in MetricsLog(folder, writes=False).read() if m.student == TEACHER and m.split != "train"]
    split = split or ("test" if any(m.split == "test" for m in log) else "dev")
    return {m.metric: m.value for m in sorted(log, key=lambda m: m.step) if m.split == split}


def _final_scores(folder: Path, log: list[Measurement]) -> dict[str, float]:
    """The score of every finished student's final state."""
    found: dict[str, float] = {}
    # A study may come without its students' weights; while it is trained, those that are not written are not finished.
    students = folder / STUDENTS
    unfinished = (
        {p.name for p in students.iterdir() if not (p / MATCHING_FILE).exists()} if students.is_dir() else set()
    )
    for m in sorted(log, key=lambda m: m.step):
        if m.student != TEACHER and m.student not in unfinished and np.isfinite(m.value):
            found[m.student] = m.value
    return found


def _with_examples(cell: Cell, arms: Sequence[Arm], seeds: Sequence[int], scores: Mapping[str, np.ndarray]) -> Cell:
    """The cell with what its students got on every example; ``scores`` are by student."""
    found = {
        (arm.strategy, arm.draw, seed): scores[student]
        for arm in arms
        for seed in seeds
        if (student := f"{arm.label}-seed{seed}") in scores and arm.strategy in cell.roles
    }
    if not found:
        return cell
    n_examples = max(map(len, found.values()))
    array = xr.DataArray(
        np.full((*cell.scores.shape, n_examples), np.nan),
        dims=("strategy", "draw", "seed", "example"),
        coords=cell.scores.coords,
    )
    for (strategy, draw, seed), values in found.items():
        if draw in array["draw"] and seed in array["seed"]:
            array.loc[{"strategy": strategy, "draw": draw, "seed": seed}] = values
    return replace(cell, examples=array)


class Judged(NamedTuple):
    """A verdict, and what belongs to it.

    Attributes:
        verdict: on one cell.
        teacher: its teacher's score; NaN where it is not known.
        notes: what whoever reads the verdict should know.
        source: the study's directory, or the file of scores.
    """

    verdict: Verdict
    teacher: float
    notes: list[str]
    source: Path


def read_cells(path: Path, *, metric: str | None = None, split: str | None = None) -> list[Cell]:
    """The cells of a study's directory (:func:`study_cells`), or of a CSV file of scores.

    Raises:
        InputError: neither; or a metric or a split was named for a file, which has but one.
    """
    if path.is_dir():
        return study_cells(path, metric=metric, split=split)
    if metric is not None or split is not None:
        raise InputError(f"{path} is a table of scores: --metric and --split choose among a study's. Leave them out.")
    return read_scores(path)


def chosen_margin(margin: float | None, margin_of_gain: float | None) -> Margin | None:
    """The margin that was given in one of two ways, if it was.

    Raises:
        InputError: it was given in both.
    """
    if margin is not None and margin_of_gain is not None:
        raise InputError(f"give either --margin or --margin-of-gain, not both: {margin:g} and {margin_of_gain:g}.")
    if margin is not None:
        return Margin(margin)
    return None if margin_of_gain is None else Margin(margin_of_gain, of_gain=True)


def judge_paths(
    paths: Sequence[Path],
    *,
    margin: Margin | None = None,
    metric: str | None = None,
    split: str | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> list[Judged]:
    """The verdicts on all cells of some studies, and of files of scores.

    Args:
        paths: study directories, and CSV files (:func:`layerangles.equivalence.read_scores`).
        margin: instead of what the studies say; noted as given after the run.
        metric: see :func:`study_cells`.
        split: see :func:`study_cells`.
        alpha: see :func:`layerangles.equivalence.judge`.
        power: see :func:`layerangles.equivalence.judge`.

    Raises:
        InputError: a path that is neither, or scores that cannot be judged.
    """
    found = []
    for path in paths:
        stated = margin_of(read_study(path)) if path.is_dir() else None
        late = []
        if path.is_dir() and margin is not None and margin != stated:
            said = "states none" if stated is None else f"states {stated}"
            late = [f"the margin {margin} was given after the study was run; its file {said}."]
        cells = read_cells(path, metric=metric, split=split)
        teachers = _teachers(path, split)
        # A cell of one strategy has nothing to compare; where it is alone, judge says so.
        for cell in [cell for cell in cells if len(cell.matched) > 1] or cells:
            verdict = judge(cell, margin or stated, alpha=alpha, power=power)
            found.append(Judged(verdict, teachers(cell), late + _notes(verdict), path))
    return found


def _teachers(path: Path, split: str | None) -> Callable[[Cell], float]:
    """The teacher's score for a cell: the study's, or that of a file with such a column; NaN where it is not known."""
    if path.is_dir():
        of_study = teacher_scores(path, split=split)
        return lambda cell: of_study.get(cell.metric, math.nan)
    frame = read_table(path)
    if "teacher" not in frame:
        return lambda _cell: math.nan
    scores = pd.to_numeric(frame["teacher"], errors="coerce")
    of_cell = scores.groupby(frame["cell"].astype(str).str.strip()).first()
    return lambda cell: float(of_cell[cell.name])


def _notes(verdict: Verdict) -> list[str]:
    notes = []
    if verdict.cell.incomplete_seeds:
        left_out = ", ".join(map(str, verdict.cell.incomplete_seeds))
        notes.append(f"left out are the seeds {left_out}, at which some strategy has no student.")
    if verdict.spread_of_gain.value == math.inf:
        notes.append("matching gains nothing over none here, so a spread cannot be put in relation to it.")
    return notes
