"""Sources of the students that are compared: results in memory, result files, student directories."""

import json
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import pandas as pd

from layerangles.errors import InputError
from layerangles.files import FileCache, version_of
from layerangles.models.matching_file import MATCHING_FILE
from layerangles.results.angle_result import SCHEMA_VERSION, AngleResult
from layerangles.results.netcdf import student_names

if TYPE_CHECKING:
    from layerangles.models.texts import Text

# The file in a student's directory that keeps what is measured on demand.
STUDENT_RESULT = "angles.nc"

SCORE_COLUMNS = ("student", "strategy", "seed", "split", "metric", "score", "ci_low", "ci_high", "higher_is_better")

_SEEDED = re.compile(r"(?P<strategy>.+)-seed(?P<seed>\d+)")


def _no_results() -> tuple[AngleResult, ...]:
    return ()


@dataclass(frozen=True)
class Student:
    """A student that can be chosen.

    Attributes:
        name: its name in results.
        directory: the directory of its weights; None if only results are left.
        read_stored: reads the results that were measured with other students, by ``layerangles angles``.
        read_kept: reads the result that was measured on demand and kept in its directory.
    """

    name: str
    directory: Path | None
    read_stored: Callable[[], Sequence[AngleResult]] = _no_results
    read_kept: Callable[[], Sequence[AngleResult]] = _no_results

    @cached_property
    def stored(self) -> tuple[AngleResult, ...]:
        """The results measured with other students, read at their first use."""
        return tuple(self.read_stored())

    @cached_property
    def results(self) -> tuple[AngleResult, ...]:
        """All results of the student, read at their first use: a study may have many students."""
        return (*self.stored, *self.read_kept())

    @property
    def seed(self) -> int | None:
        """The seed at the end of the name, if there is one."""
        found = _SEEDED.fullmatch(self.name)
        return int(found["seed"]) if found else None


def strategy_of(name: str) -> str:
    """A student's name without the seed.

    >>> strategy_of("forward-seed0"), strategy_of("baseline")
    ('forward', 'baseline')
    """
    found = _SEEDED.fullmatch(name)
    return found["strategy"] if found else name


@runtime_checkable
class Source(Protocol):
    """Students with their results, scores and texts. All of it may change while the app runs."""

    @property
    def name(self) -> str:
        """The name of the source, for people."""
        ...

    def version(self) -> Hashable:
        """A value that differs whenever students, results or scores may have changed."""
        ...

    def students(self) -> Sequence[Student]:
        """The students that can be compared now."""
        ...

    def scores(self) -> pd.DataFrame:
        """One row per finished student, with the columns :data:`SCORE_COLUMNS`.

        Raises:
            InputError: no scores are known.
        """
        return no_scores()

    def texts(self) -> "Sequence[Text]":
        """The texts that students are measured on.

        Raises:
            InputError: no texts are known.
        """
        return no_texts()


def no_scores() -> pd.DataFrame:
    """An empty table of scores."""
    return pd.DataFrame(columns=list(SCORE_COLUMNS))


def no_texts() -> "Sequence[Text]":
    """Raise an :class:`InputError`: a student of no study has no texts to be measured on."""
    raise InputError("no texts to measure on: this student belongs to no study. Name a file of texts with --data.")


@dataclass(frozen=True)
class InMemory(Source):
    """The students of a result that was measured or loaded before."""

    result: AngleResult
    name: str = "this result"

    def version(self) -> Hashable:
        """A constant: results do not change."""
        return id(self.result)

    def students(self) -> Sequence[Student]:
        """The students of the result."""
        return [Student(name, None, lambda: [self.result]) for name in self.result.students]


class ResultFiles:
    """Result files, each read at its first use and again only after it changed."""

    def __init__(self) -> None:
        self._results, self._names = FileCache(), FileCache()

    def load(self, path: Path) -> AngleResult:
        """See :meth:`layerangles.AngleResult.load`."""
        return self._results.read(path, AngleResult.load)

    def load_whole(self, paths: Sequence[Path]) -> list[AngleResult]:
        """The results in these files; files that are being written, or of another schema, are left out."""
        found = []
        for path in paths:
            try:
                found.append(self.load(path))
            except InputError:
                continue
        return found

    def students_in(self, path: Path) -> list[str]:
        """The students' names in a file, without reading its angles; empty where :meth:`load` would fail."""
        try:
            return self._names.read(path, lambda file: student_names(file, SCHEMA_VERSION))
        except (OSError, KeyError, ValueError, RuntimeError):
            return []

    def stored_in(self, paths: Sequence[Path]) -> dict[str, Callable[[], list[AngleResult]]]:
        """For each student in these files, a function that reads its results."""
        files: dict[str, list[Path]] = {}
        for path in paths:
            for name in self.students_in(path):
                files.setdefault(name, []).append(path)
        return {name: partial(self.load_whole, some) for name, some in files.items()}


class ResultFile(Source):
    """The students of a file that ``layerangles angles`` wrote.

    Args:
        path: the file.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, ResultFiles()
        self._files.load(path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    def version(self) -> Hashable:
        """The file's version."""
        return version_of(self._path)

    def students(self) -> Sequence[Student]:
        """The students of the result."""
        return [Student(name, None, read) for name, read in self._files.stored_in([self._path]).items()]


class StudentDirectories(Source):
    """Student directories that were named one by one.

    Args:
        paths: the directories.
        texts: returns the texts that the students are measured on.
    """

    def __init__(self, paths: Sequence[Path], texts: "Callable[[], Sequence[Text]]" = no_texts) -> None:
        self._paths, self._texts, self._files = tuple(paths), texts, ResultFiles()

    @property
    def name(self) -> str:
        """The only directory's name, or their number."""
        return self._paths[0].name if len(self._paths) == 1 else f"{len(self._paths)} students"

    def version(self) -> Hashable:
        """The versions of all files in the directories."""
        return tuple(map(version_of_student, self._paths))

    def students(self) -> Sequence[Student]:
        """The finished students."""
        finished = [path for path in self._paths if (path / MATCHING_FILE).exists()]
        return [student_in(path, path.resolve().name, self._files) for path in finished]

    def texts(self) -> "Sequence[Text]":
        """The texts that were given."""
        return self._texts()


def student_in(
    directory: Path, name: str, files: ResultFiles, read_stored: Callable[[], Sequence[AngleResult]] = _no_results
) -> Student:
    """The student in a directory, with the result that is kept there unless its weights have changed since."""

    def read_kept() -> list[AngleResult]:
        kept = files.load_whole([directory / STUDENT_RESULT])
        return [result for result in kept if name in result.students and not _is_stale(result, name, directory)]

    return Student(name, directory, read_stored, read_kept)


def _is_stale(result: AngleResult, name: str, directory: Path) -> bool:
    """Whether the student has other weights than those that were measured, or none."""
    from layerangles.models.weights import weights_sha256

    measured = result.at_step().dataset["weights_sha256"].sel(student=name).item()
    try:
        return str(measured) != weights_sha256(directory)
    except (OSError, InputError):  # they were removed, or are being written
        return True


def steps_in(directory: Path) -> set[int]:
    """The training steps of a student's checkpoints, with its final state; empty without checkpoints."""
    names = [file.parent.name.removeprefix("step-") for file in directory.glob(f"checkpoints/step-*/{MATCHING_FILE}")]
    along = {int(name) for name in names if name.isascii() and name.isdecimal()}
    try:
        final = json.loads((directory / MATCHING_FILE).read_bytes()).get("step")
    except (OSError, ValueError, AttributeError):
        final = None
    # As in `StudentCheckpoint.checkpoints`: steps after the final state are left over from a longer training.
    return {*(step for step in along if step < final), final} if along and isinstance(final, int) else along


def version_of_student(path: Path) -> Hashable:
    """A value that differs after a student was finished, trained further, or measured."""
    along = sorted(str(file) for file in path.glob(f"checkpoints/step-*/{MATCHING_FILE}"))
    return version_of(path / MATCHING_FILE), version_of(path / STUDENT_RESULT), tuple(along)
