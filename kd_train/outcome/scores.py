"""A study's logs as tables of scores: one row per finished student, and one cell per comparison."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr

from kd_train.study.comparisons import arms_of
from kd_train.study.folder_names import TEACHER
from kd_train.study.score_logs import ExampleScores, Measurement
from kd_train.study.study_file import Study
from layerangles.equivalence.cells import Cell, cells_from_frame
from layerangles.equivalence.intervals import t_interval
from layerangles.errors import InputError

SCORE_COLUMNS = (
    *("student", "label", "strategy", "cell", "role", "draw", "seed"),
    *("split", "metric", "score", "ci_low", "ci_high", "higher_is_better"),
)
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class StudyScores:
    """Everything that was scored in a study.

    Attributes:
        source: the study's directory, as messages name it.
        study: the study file.
        measurements: the metrics of all students and of the teacher, over all steps.
        examples: the scores of finished students on single examples, where they were kept.
        unfinished: the students that are still being trained; a study may come without its students' weights, so that
            those without a directory count as finished.
    """

    source: str
    study: Study
    measurements: Sequence[Measurement]
    examples: Collection[ExampleScores]
    unfinished: Collection[str]

    def by_student(self, metric: str | None = None, split: str | None = None) -> pd.DataFrame:
        """One row per finished student and cell that it is compared in, with the score of its final state.

        Columns: ``student``, ``label`` (the student's name without its seed), ``strategy`` (its name within the cell),
        ``cell``, ``role``, ``draw``, ``seed``, ``split``, ``metric``, ``score``, ``ci_low`` and ``ci_high`` (95 %,
        Student's t over the examples of the split; NaN where no example scores were kept), and ``higher_is_better``.
        See :class:`kd_train.study.comparisons.Arm` and :class:`layerangles.equivalence.Cell`.

        Args:
            metric: the study file's by default, or else the task's first one.
            split: the study file's by default, or else test, or dev in a study without test scores.

        Raises:
            InputError: no student is finished, or the split has no score of this metric.
        """
        split = split or self.study.verdict.split or self._deciding_split(self.measurements)
        scored = list(dict.fromkeys(m.metric for m in self.measurements if m.split == split))
        if not scored:
            splits = sorted({m.split for m in self.measurements} - {"train"})
            raise InputError(
                f"{self.source} has no score on the split {split}; there are scores on {', '.join(splits) or 'none'}. "
                "Train the study first, or name another split with --split."
            )
        metric = metric or self.study.verdict.metric or scored[0]
        if metric not in scored:
            raise InputError(
                f"{self.source} has no {metric} on the split {split}; scored are {', '.join(scored)}. Name one of them "
                "with --metric."
            )
        scores, examples = self._final_scores(split, metric), self._example_scores(split, metric)
        rows = []
        for arm in arms_of(self.study):
            for seed in self.study.seeds:
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
                        "higher_is_better": self.study.task.all_metrics[metric].higher_is_better,
                    }
                )
        if not rows:
            raise InputError(
                f"{self.source} has no finished student. Train it: layerangles train {self.source} --resume"
            )
        return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))

    def cells(self, metric: str | None = None, split: str | None = None) -> list[Cell]:
        """The cells of the verdict, with example scores where they were kept.

        Args:
            metric: see :meth:`by_student`.
            split: see :meth:`by_student`.

        Raises:
            InputError: see :meth:`by_student`.
        """
        rows = self.by_student(metric, split)
        examples = self._example_scores(str(rows["split"].iloc[0]), str(rows["metric"].iloc[0]))
        cells = cells_from_frame(rows, source=self.source)
        return [_with_examples(cell, rows[rows["cell"] == cell.name], examples) for cell in cells]

    def of_teacher(self, split: str | None = None) -> dict[str, float]:
        """The teacher's scores by metric, by default on test, or on dev if it has no test scores."""
        log = [m for m in self.measurements if m.student == TEACHER and m.split != "train"]
        split = split or self._deciding_split(log)
        return {m.metric: m.value for m in sorted(log, key=lambda m: m.step) if m.split == split}

    @staticmethod
    def _deciding_split(log: Sequence[Measurement]) -> str:
        return "test" if any(m.split == "test" for m in log) else "dev"

    def _final_scores(self, split: str, metric: str) -> dict[str, float]:
        """The score of every finished student's final state."""
        found: dict[str, float] = {}
        for m in sorted(self.measurements, key=lambda m: m.step):
            wanted = (m.split, m.metric) == (split, metric) and m.student != TEACHER
            if wanted and m.student not in self.unfinished and np.isfinite(m.value):
                found[m.student] = m.value
        return found

    def _example_scores(self, split: str, metric: str) -> dict[str, np.ndarray]:
        """By student, its scores on all examples of a split."""
        return {s.student: np.array(s.values) for s in self.examples if (s.split, s.metric) == (split, metric)}


def _with_examples(cell: Cell, rows: pd.DataFrame, scores: Mapping[str, np.ndarray]) -> Cell:
    """Add example scores to a cell; ``rows`` are its students, ``scores`` are by student."""
    present = rows[rows["student"].isin(list(scores))]
    if not len(present):
        return cell
    n_examples = max(len(scores[student]) for student in present["student"])
    array = xr.DataArray(
        np.full((*cell.scores.shape, n_examples), np.nan),
        dims=("strategy", "draw", "seed", "example"),
        coords=cell.scores.coords,
    )
    for row in present.itertuples():
        array.loc[{"strategy": row.strategy, "draw": row.draw, "seed": row.seed}] = scores[str(row.student)]
    return replace(cell, examples=array)
