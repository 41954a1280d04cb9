"""A study's directory, opened: what verdict, report, compare and draw receive."""

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kd_train.outcome.judging import ScoreSource, ScoreTable, judge_all
from kd_train.outcome.scores import StudyScores
from kd_train.study.comparisons import margin_of
from kd_train.study.folder_names import ANGLES, STUDENTS
from kd_train.study.score_logs import EXAMPLES_FILE, METRICS_FILE, read_examples, read_metrics
from kd_train.study.study_file import RESOLVED_FILE, Study, read_study
from layerangles.app.sources import ResultFiles, Student, student_in, version_of_student
from layerangles.equivalence import Cell, Margin, Verdict
from layerangles.equivalence.intervals import t_interval
from layerangles.errors import InputError
from layerangles.files import FileCache, version_of
from layerangles.models.matching_file import MATCHING_FILE
from layerangles.notation import number, with_interval
from layerangles.report.verdict_wording import reason_for
from layerangles.results.angle_result import AngleResult
from layerangles.results.notebook_html import summary_html

if TYPE_CHECKING:
    from layerangles.models.texts import Text

_CONFIDENCE = 0.95


class OpenedStudy:
    """A study's directory, whole or in part, with or without weights; it may still be written.

    Each file is read at its first use, and read again only after it changed. An opened study is a
    :class:`layerangles.app.sources.Source`, so that :func:`layerangles.compare` and the app take it as it is.

    Args:
        path: the directory; see :func:`open_study`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files, self._results = FileCache(), ResultFiles()

    @property
    def study(self) -> Study:
        """The study file's content."""
        return self._files.read(self.path / RESOLVED_FILE, lambda file: read_study(file.parent))

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    @property
    def margin(self) -> Margin | None:
        """The margin that the study file states, if any."""
        return margin_of(self.study)

    def version(self) -> Hashable:
        """A value that differs after scores, students or angles changed."""
        files = [self.path / METRICS_FILE, self.path / EXAMPLES_FILE, *self._angle_files()]
        return (
            tuple((str(file), version_of(file)) for file in files),
            tuple((str(student), version_of_student(student)) for student in self._begun()),
        )

    def directories(self) -> list[Path]:
        """The directories of the finished students, by name; empty if their weights were not kept."""
        return [path for path in self._begun() if (path / MATCHING_FILE).exists()]

    def students(self) -> Sequence[Student]:
        """The finished students with weights, then those of whom only stored angles are left."""
        stored = self._results.stored_in(self._angle_files())
        here = [
            student_in(path, path.name, self._results, stored.get(path.name, lambda: [])) for path in self.directories()
        ]
        names = {student.name for student in here}
        return [*here, *(Student(name, None, read) for name, read in stored.items() if name not in names)]

    def angles(self) -> list[AngleResult]:
        """The results stored in ``angles/``, by file name.

        Raises:
            InputError: a file there is not a result.
        """
        return [self._results.load(file) for file in self._angle_files()]

    def scores(self, metric: str | None = None, split: str | None = None) -> pd.DataFrame:
        """One row per finished student and cell; see :meth:`kd_train.outcome.scores.StudyScores.by_student`.

        Raises:
            InputError: no student is finished, or the split has no score of this metric.
        """
        return self._scored().by_student(metric, split)

    def cells(self, metric: str | None = None, split: str | None = None) -> list[Cell]:
        """The cells that are judged.

        Raises:
            InputError: see :meth:`scores`.
        """
        return self._scored().cells(metric, split)

    def teacher_scores(self, split: str | None = None) -> dict[str, float]:
        """The teacher's scores by metric, by default on test, or on dev if it has no test scores."""
        return self._scored().of_teacher(split)

    def teacher_score(self, cell: Cell, split: str | None = None) -> float:
        """The teacher's score by the cell's metric; NaN if unknown."""
        return self.teacher_scores(split).get(cell.metric, float("nan"))

    def notes_on(self, margin: Margin | None) -> list[str]:
        """A remark if this margin is another than the study file's."""
        stated = self.margin
        if margin is None or margin == stated:
            return []
        said = "states none" if stated is None else f"states {stated}"
        return [f"the margin {margin} was given after the study was run; its file {said}."]

    def verdicts(self, margin: float | None = None) -> list[Verdict]:
        """Whether the strategies of each cell give equally good students.

        Args:
            margin: the smallest difference that matters, in the metric's own unit; the study file's by default.

        Raises:
            InputError: no student is finished, or too few strategies to be compared.
        """
        given = None if margin is None else Margin(margin)
        return [one.verdict for one in judge_all([self], margin=given)]

    def texts(self, n: int | None = None) -> "Sequence[Text]":
        """The first ``n`` texts (by default all) of the dev split, on which angles are measured.

        The data are fetched if need be.
        """
        return self.study.task.load().texts("dev")[:n]

    def _begun(self) -> list[Path]:
        return sorted((self.path / STUDENTS).glob("*"))

    def _angle_files(self) -> list[Path]:
        return sorted((self.path / ANGLES).glob("*.nc"))

    def _scored(self) -> StudyScores:
        return StudyScores(
            source=str(self.path),
            study=self.study,
            measurements=self._files.read(self.path / METRICS_FILE, read_metrics),
            examples=self._files.read(self.path / EXAMPLES_FILE, read_examples).values(),
            unfinished={path.name for path in self._begun() if not (path / MATCHING_FILE).exists()},
        )

    def _repr_html_(self) -> str:
        table, notes = pd.DataFrame(), []
        try:
            table = _strategies(self)
            notes.append(_NOTE)
            notes += [f"{v.cell.name}: {v.outcome}. {reason_for(v)}" for v in self.verdicts()]
        except InputError as error:  # what is missing while the study is young
            notes.append(str(error))
        return summary_html(_facts(self), table, notes)


_NOTE = "Means over seeds with 95 % intervals; several draws of a random map are averaged within a seed."


def open_study(path: str | os.PathLike[str]) -> OpenedStudy:
    """Open the directory of a study that was trained, whole or in part.

    Raises:
        InputError: ``path`` is not a study's directory, or its study file is not valid.
    """
    folder = Path(path)
    if not (folder / RESOLVED_FILE).is_file():
        raise InputError(
            f"{folder} is no study's directory: it holds no {RESOLVED_FILE}. Give what `layerangles train` wrote."
        )
    opened = OpenedStudy(folder)
    _ = opened.study  # what is wrong with the file shows at once
    return opened


def open_scores(path: Path) -> ScoreSource:
    """Open a study's directory, or a CSV file of scores.

    Raises:
        InputError: the path is neither.
    """
    return open_study(path) if path.is_dir() else ScoreTable(path)


def _facts(opened: OpenedStudy) -> str:
    """Teacher, task, students and seeds of a study, in one line."""
    study, students = opened.study, opened.directories()
    teacher = f"teacher {Path(study.teacher.model).name}{', fine-tuned' if study.teacher.finetune else ''}"
    scores = [f"{metric} {number(value, digits=4)}" for metric, value in opened.teacher_scores().items()]
    facts = [
        f"Study {opened.name}",
        f"{study.task.kind}, {study.task.dataset or 'files'}",
        ", ".join([teacher, *scores[:1]]),
        f"students of {study.student.layers} layers, {study.student.init}",
        f"seeds {', '.join(map(str, study.seeds))}",
        f"weights of {len(students)} students" if students else "weights not kept",
    ]
    return "; ".join(facts)


def _strategies(opened: OpenedStudy) -> pd.DataFrame:
    """One row per strategy, the best of each cell first."""
    scores = opened.scores()
    by_seed = scores.groupby(["cell", "strategy", "role", "seed"], sort=False)["score"].mean()
    better = bool(scores["higher_is_better"].iloc[0])
    means = by_seed.groupby(level=["cell", "strategy", "role"], sort=False).mean()
    ordered = means.sort_values(ascending=not better, kind="stable").sort_index(level="cell", sort_remaining=False)
    rows = [
        {
            "strategy": strategy,
            "cell": cell,
            "role": role,
            "seeds": len(of_seeds),
            scores["metric"].iloc[0]: with_interval(*t_interval(of_seeds, _CONFIDENCE), 4),
        }
        for cell, strategy, role in ordered.index
        for of_seeds in [by_seed[cell, strategy, role].to_numpy()]
    ]
    return pd.DataFrame(rows)
