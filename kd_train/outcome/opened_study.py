"""A trained study's directory, opened: its students, angles, scores and verdicts, and how a notebook shows it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from kd_train.outcome.scores import finished_students, judge_paths, student_scores, teacher_scores
from kd_train.outcome.study_geometry import stored_angles
from kd_train.study.study_file import RESOLVED_FILE, Study, read_study
from layerangles.equivalence import Margin, Verdict
from layerangles.equivalence.intervals import t_interval
from layerangles.errors import InputError
from layerangles.models.texts import Text
from layerangles.report.verdict_wording import reason_for
from layerangles.results import notebook_html as glance
from layerangles.results.angle_result import AngleResult

if TYPE_CHECKING:
    from kd_train.outcome.comparison_source import StudySource

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class StudyFolder:
    """A study's directory, whole or in part, with or without weights; it may still be written.

    Attributes:
        path: the directory.
        study: what stands in its study file.
    """

    path: Path
    study: Study

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.name

    def students(self) -> list[Path]:
        """The directories of the finished students, by name; none where their weights were not kept."""
        return finished_students(self.path)

    def angles(self) -> list[AngleResult]:
        """What was measured of its students and stored in ``angles/``, by file name."""
        return stored_angles(self.path)

    def scores(self, metric: str | None = None, split: str | None = None) -> pd.DataFrame:
        """One row a finished student and cell, with its score; see :func:`kd_train.outcome.scores.student_scores`.

        Raises:
            InputError: no student is finished, or nothing was scored by that name on that split.
        """
        return student_scores(self.path, metric=metric, split=split)

    def verdicts(self, margin: float | None = None) -> list[Verdict]:
        """Whether the strategies of each cell give equally good students.

        Args:
            margin: the smallest difference that matters, in the metric's own unit; the study file's by default.

        Raises:
            InputError: no student is finished, or fewer strategies than can be compared are.
        """
        given = None if margin is None else Margin(margin)
        return [one.verdict for one in judge_paths([self.path], margin=given)]

    def texts(self, n: int) -> list[Text]:
        """The first ``n`` texts of the dev split, on which angles are measured; the data are fetched if need be."""
        return self.study.task.load().texts("dev")[:n]

    def source(self) -> "StudySource":
        """Its students, as :func:`layerangles.compare` reads them."""
        from kd_train.outcome.comparison_source import StudySource

        return StudySource(self.path)

    def _repr_html_(self) -> str:
        parts = [glance.line(f"Study {self.name}"), glance.table(_about(self))]
        try:
            parts += [glance.table(_strategies(self)), glance.line(_NOTE)]
            parts += [glance.line(f"{v.cell.name}: {v.outcome}. {reason_for(v)}") for v in self.verdicts()]
        except InputError as error:  # what is missing while the study is young
            parts.append(glance.line(str(error)))
        results = self.angles()
        return glance.block([*parts, glance.heat_maps(results[0], 1) if results else ""])


_NOTE = "Means over seeds with 95 % intervals; several draws of a random map are averaged within a seed."


def open_study(path: str | os.PathLike[str]) -> StudyFolder:
    """Open the directory of a study that was trained, whole or in part.

    Raises:
        InputError: ``path`` is no such directory.
    """
    folder = Path(path)
    if not (folder / RESOLVED_FILE).is_file():
        raise InputError(
            f"{folder} is no study's directory: it holds no {RESOLVED_FILE}. Give what `layerangles train` wrote."
        )
    return StudyFolder(folder, read_study(folder))


def _about(folder: StudyFolder) -> list[dict[str, str]]:
    """One row of facts."""
    study = folder.study
    finetuned = ", fine-tuned" if study.teacher.finetune else ""
    scores = [f"{metric} {value:.4g}" for metric, value in teacher_scores(folder.path).items()]
    return [
        {
            "task": f"{study.task.kind}, {study.task.dataset or 'files'}",
            "teacher": "; ".join([f"{Path(study.teacher.model).name}{finetuned}", *scores[:1]]),
            "students": f"{study.student.layers} layers, {study.student.init}",
            "seeds": ", ".join(map(str, study.seeds)),
            "weights": f"of {len(folder.students())} students" if folder.students() else "not kept",
        }
    ]


def _strategies(folder: StudyFolder) -> list[dict[str, str]]:
    """One row a strategy, the best of each cell first."""
    scores = folder.scores()
    by_seed = scores.groupby(["cell", "strategy", "role", "seed"], sort=False)["score"].mean()
    better = bool(scores["higher_is_better"].iloc[0])
    means = by_seed.groupby(level=["cell", "strategy", "role"], sort=False).mean()
    ordered = means.sort_values(ascending=not better, kind="stable").sort_index(level="cell", sort_remaining=False)
    rows = []
    for cell, strategy, role in ordered.index:
        of_seeds = by_seed[cell, strategy, role].to_numpy()
        rows.append(
            {
                "strategy": str(strategy),
                "cell": str(cell),
                "role": str(role),
                "seeds": str(len(of_seeds)),
                str(scores["metric"].iloc[0]): glance.interval(*t_interval(of_seeds, _CONFIDENCE), digits=4),
            }
        )
    return rows
