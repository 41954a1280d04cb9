"""Verdicts on everything that has scores: opened studies, and CSV tables."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import pandas as pd

from layerangles.equivalence import Margin, Verdict, judge
from layerangles.equivalence.cells import Cell, cells_from_frame, read_table
from layerangles.errors import InputError


@runtime_checkable
class ScoreSource(Protocol):
    """Scores to be judged: an opened study or a table."""

    @property
    def path(self) -> Path:
        """The study's directory, or the table's file."""
        ...

    @property
    def margin(self) -> Margin | None:
        """The margin that was stated beforehand, if any."""
        ...

    def cells(self, metric: str | None = None, split: str | None = None) -> list[Cell]:
        """The cells of one metric on one split."""
        ...

    def teacher_score(self, cell: Cell, split: str | None = None) -> float:
        """The score of the cell's teacher; NaN if unknown."""
        ...

    def notes_on(self, margin: Margin | None) -> list[str]:
        """Remarks on a margin that was given with the command instead."""
        ...


class ScoreTable:
    """A CSV file of scores; see :func:`layerangles.equivalence.read_scores`. A column ``teacher`` may stand in it.

    Raises:
        InputError: no such file, or no CSV.
    """

    margin = None

    def __init__(self, path: Path) -> None:
        self.path, self._frame = path, read_table(path)

    def cells(self, metric: str | None = None, split: str | None = None) -> list[Cell]:
        """The table's cells.

        Raises:
            InputError: a metric or a split is named, of which a table has only one; or the table is not valid.
        """
        if metric is not None or split is not None:
            raise InputError(
                f"{self.path} is a table of scores: --metric and --split choose among a study's. Leave them out."
            )
        return cells_from_frame(self._frame, source=str(self.path))

    def teacher_score(self, cell: Cell, split: str | None = None) -> float:  # noqa: ARG002 - a table has one split
        """The first number in the column ``teacher`` among the cell's rows; NaN without one."""
        if "teacher" not in self._frame:
            return math.nan
        rows = self._frame[self._frame["cell"].astype(str).str.strip() == cell.name]
        scores = pd.to_numeric(rows["teacher"], errors="coerce").dropna()
        return float(scores.iloc[0]) if len(scores) else math.nan

    def notes_on(self, margin: Margin | None) -> list[str]:  # noqa: ARG002
        """None: a table states no margin of its own."""
        return []


class Judged(NamedTuple):
    """A verdict with its context.

    Attributes:
        verdict: on one cell.
        teacher: the score of the cell's teacher; NaN if unknown.
        notes: remarks for readers of the verdict.
        source: the opened study or the table that the cell belongs to.
    """

    verdict: Verdict
    teacher: float
    notes: list[str]
    source: ScoreSource


def judge_all(
    sources: Sequence[ScoreSource],
    *,
    margin: Margin | None = None,
    metric: str | None = None,
    split: str | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
) -> list[Judged]:
    """Judge all cells of some studies and tables.

    Args:
        sources: opened studies and tables (:func:`kd_train.outcome.opened_study.open_scores`).
        margin: overrides the studies' own margins; noted as given after the run.
        metric: see :meth:`kd_train.outcome.scores.StudyScores.by_student`.
        split: see :meth:`kd_train.outcome.scores.StudyScores.by_student`.
        alpha: see :func:`layerangles.equivalence.judge`.
        power: see :func:`layerangles.equivalence.judge`.

    Raises:
        InputError: the scores cannot be judged.
    """
    found = []
    for source in sources:
        cells = source.cells(metric, split)
        notes = source.notes_on(margin)
        # A cell of one strategy has nothing to compare; where it is alone, judge says so.
        for cell in [cell for cell in cells if len(cell.matched) > 1] or cells:
            verdict = judge(cell, margin or source.margin, alpha=alpha, power=power)
            found.append(Judged(verdict, source.teacher_score(cell, split), notes + _notes(verdict), source))
    return found


def chosen_margin(margin: float | None, margin_of_gain: float | None) -> Margin | None:
    """The margin given as ``--margin`` or as ``--margin-of-gain``, if any.

    Raises:
        InputError: both were given.
    """
    if margin is not None and margin_of_gain is not None:
        raise InputError(f"give either --margin or --margin-of-gain, not both: {margin:g} and {margin_of_gain:g}.")
    if margin is not None:
        return Margin(margin)
    return None if margin_of_gain is None else Margin(margin_of_gain, of_gain=True)


def _notes(verdict: Verdict) -> list[str]:
    notes = []
    if verdict.cell.incomplete_seeds:
        left_out = ", ".join(map(str, verdict.cell.incomplete_seeds))
        notes.append(f"left out are the seeds {left_out}, at which some strategy has no student.")
    if verdict.spread_of_gain.value == math.inf:
        notes.append("matching gains nothing over none here, so a spread cannot be put in relation to it.")
    return notes
