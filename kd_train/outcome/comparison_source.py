"""A study's directory as a source of the interactive comparison."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import pandas as pd

from kd_train.outcome.opened_study import open_study
from kd_train.outcome.scores import STUDENTS
from kd_train.outcome.study_geometry import ANGLES
from kd_train.study.score_logs import EXAMPLES_FILE, METRICS_FILE
from layerangles.app.sources import ResultFiles, Student, no_scores, student_in, version_of, version_of_student
from layerangles.errors import InputError
from layerangles.models.texts import Text


class StudySource:
    """The finished students of a study and its stored angles, while it is written too.

    Args:
        path: the study's directory.
    """

    def __init__(self, path: Path) -> None:
        self._folder, self._files = open_study(path), ResultFiles()

    @property
    def name(self) -> str:
        """The study's."""
        return self._folder.name

    def version(self) -> Hashable:
        """Of its scores, its students and its angles."""
        path = self._folder.path
        files = [path / METRICS_FILE, path / EXAMPLES_FILE, *sorted((path / ANGLES).glob("*.nc"))]
        students = sorted((path / STUDENTS).glob("*")) if (path / STUDENTS).is_dir() else []
        return (
            tuple((str(file), version_of(file)) for file in files),
            tuple((str(student), version_of_student(student)) for student in students),
        )

    def students(self) -> Sequence[Student]:
        """Those whose weights are there, then those of whom only angles are stored."""
        paths = sorted((self._folder.path / ANGLES).glob("*.nc"))
        results = [result for path in paths if (result := self._files.load_if_whole(path)) is not None]
        of = {name: [r for r in results if name in r.students] for result in results for name in result.students}
        directories = self._folder.students()
        here = [student_in(path, path.name, of.get(path.name, ()), self._files) for path in directories]
        names = {student.name for student in here}
        return [*here, *(Student(name, None, tuple(of[name])) for name in of if name not in names)]

    def scores(self) -> pd.DataFrame:
        """By the metric that the study decides by; empty until a student is finished."""
        try:
            return self._folder.scores()
        except InputError:
            return no_scores()

    def texts(self) -> Sequence[Text]:
        """Those of the dev split."""
        return self._folder.study.task.load().texts("dev")
