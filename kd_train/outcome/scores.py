"""What came out of a study: its scores as cells for the verdict, and the geometry of its students."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from kd_train.study.comparisons import arms_of, margin_of
from kd_train.study.score_logs import ExamplesLog, Measurement, MetricsLog
from kd_train.study.study_file import read_study
from kd_train.training.teachers import TEACHER
from layerangles.equivalence import Margin, Verdict, judge
from layerangles.equivalence.cells import Cell, cells_from_frame, read_scores, read_table
from layerangles.equivalence.intervals import t_interval
from layerangles.errors import InputError
from layerangles.models.matching_file import MATCHING_FILE

STUDENTS = "students"
SCORE_COLUMNS = (
    *("student", "label", "strategy", "cell", "role", "draw", "seed"),
    *("split", "metric", "score", "ci_low", "ci_high", "higher_is_better"),
)
_CONFIDENCE = 0.95


def study_cells(folder: Path, *, metric: str | None = None, split: str | None = None) -> list[Cell]:
    """The cells of a study that was trained, whole or in part; ``metric`` and ``split`` as in :func:`student_scores`.

    Raises:
        InputError: no study, no finished student, or nothing was scored by that name on that split.
    """
    rows = student_scores(folder, metric=metric, split=split)
    examples = _example_scores(folder, *_scored_as(rows))
    cells = cells_from_frame(rows, source=str(folder))
    return [_with_examples(cell, rows[rows["cell"] == cell.name], examples) for cell in cells]


def student_scores(folder: Path, *, metric: str | None = None, split: str | None = None) -> pd.DataFrame:
    """One row a finished student and cell that it is compared in, with the score of its final state.

    Columns: ``student``, ``label`` (what students of this entry are called, without the seed), ``strategy`` (what its
    cell calls it), ``cell``, ``role``, ``draw``, ``seed``, ``split``, ``metric``, ``score``, ``ci_low`` and ``ci_high``
    (95 %, Student's t over the examples of the split; NaN where they were not kept one by one), and
    ``higher_is_better``. See :class:`kd_train.study.comparisons.Arm` and :class:`layerangles.equivalence.Cell`.

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
    examples = _example_scores(folder, split, metric)
    rows = []
    for arm in arms_of(study):
        for seed in study.seeds:
            student = f"{arm.label}-seed{seed}"
            if student not in scores:
                continue
            interval = t_interval(examples.get(student, np.empty(0)), _CONFIDENCE)
            rows.append(
                {
                    "student": student,
                    **arm._asdict(),
                    "seed": seed,
                    "split": split,
                    "metric": metric,
                    "score": scores[student],
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "higher_is_better": study.task.all_metrics[metric].higher_is_better,
                }
            )
    if not rows:
        raise InputError(f"{folder} has no finished student. Train it: layerangles train {folder} --resume")
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def finished_students(folder: Path) -> list[Path]:
    """The directories of a study's finished students, by name; none where the weights were not kept."""
    return sorted(path.parent for path in (folder / STUDENTS).glob(f"*/{MATCHING_FILE}"))


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


def _scored_as(rows: pd.DataFrame) -> tuple[str, str]:
    """The split and the metric of the rows, which share them."""
    return str(rows["split"].iloc[0]), str(rows["metric"].iloc[0])


def _example_scores(folder: Path, split: str, metric: str) -> dict[str, np.ndarray]:
    """What each student got on every example, where it was kept."""
    logged = ExamplesLog(folder, writes=False).read().values()
    return {s.student: np.array(s.values) for s in logged if (s.split, s.metric) == (split, metric)}


def _with_examples(cell: Cell, rows: pd.DataFrame, scores: Mapping[str, np.ndarray]) -> Cell:
    """The cell with what its students got on every example; ``rows`` are the cell's, ``scores`` are by student."""
    there = rows[rows["student"].isin(list(scores))]
    if not len(there):
        return cell
    n_examples = max(len(scores[student]) for student in there["student"])
    array = xr.DataArray(
        np.full((*cell.scores.shape, n_examples), np.nan),
        dims=("strategy", "draw", "seed", "example"),
        coords=cell.scores.coords,
    )
    for row in there.itertuples():
        array.loc[{"strategy": row.strategy, "draw": row.draw, "seed": row.seed}] = scores[str(row.student)]
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
