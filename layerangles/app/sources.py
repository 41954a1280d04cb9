"""Where the students that are compared come from: results, result files, student directories."""

import json
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import pandas as pd

from layerangles.errors import InputError
from layerangles.files import FileCache, version_of
from layerangles.models.matching_file import MATCHING_FILE
from layerangles.results.angle_result import AngleResult

if TYPE_CHECKING:
    from layerangles.models.texts import Text

# What is measured of a student on demand is kept in its own directory, under this name.
STUDENT_RESULT = "angles.nc"

SCORE_COLUMNS = ("student", "strategy", "seed", "split", "metric", "score", "ci_low", "ci_high", "higher_is_better")

_SEEDED = re.compile(r"(?P<strategy>.+)-seed(?P<seed>\d+)")


@dataclass(frozen=True)
class Student:
    """One student that can be chosen.

    Attributes:
        name: of the student; its results know it by this name.
        directory: where its weights are; None where there is only a result.
        stored: what has been measured of it, read already.
        kept: reads what is kept in its directory, measured on demand in teacher space; None where nothing is.
    """

    name: str
    directory: Path | None
    stored: tuple[AngleResult, ...]
    kept: Callable[[], AngleResult | None] = lambda: None

    @cached_property
    def results(self) -> tuple[AngleResult, ...]:
        """All that has been measured of it. What is kept is read when first asked for: there may be many students."""
        kept = self.kept()
        return self.stored if kept is None else (*self.stored, kept)

    @property
    def strategy(self) -> str:
        """The name without the seed."""
        return strategy_of(self.name)

    @property
    def seed(self) -> int | None:
        """The seed that the name ends in, if it does."""
        found = _SEEDED.fullmatch(self.name)
        return int(found["seed"]) if found else None


def strategy_of(name: str) -> str:
    """A student's name without the seed.

    >>> strategy_of("forward-seed0"), strategy_of("mine")
    ('forward', 'mine')
    """
    found = _SEEDED.fullmatch(name)
    return found["strategy"] if found else name


@runtime_checkable
class Source(Protocol):
    """What the catalogue is made of. All of it may change while the app runs."""

    @property
    def name(self) -> str:
        """Of the source, told to people."""
        ...

    def version(self) -> Hashable:
        """Differs whenever anything else here may."""
        ...

    def students(self) -> Sequence[Student]:
        """The students there are now."""
        ...

    def scores(self) -> pd.DataFrame:
        """One row a finished student, with the columns :data:`SCORE_COLUMNS`.

        Raises:
            InputError: nothing is scored yet.
        """
        ...

    def texts(self) -> "Sequence[Text]":
        """What students are measured on.

        Raises:
            InputError: nothing is known.
        """
        ...


def no_scores() -> pd.DataFrame:
    """A table of scores without a row."""
    return pd.DataFrame(columns=list(SCORE_COLUMNS))


def no_texts() -> "Sequence[Text]":
    """Stands where no texts are known."""
    raise InputError("no texts to measure on: this student belongs to no study. Name a file of texts with --data.")


@dataclass(frozen=True)
class InMemory:
    """A result that is at hand."""

    result: AngleResult
    name: str = "this result"

    def version(self) -> Hashable:
        """It never changes."""
        return id(self.result)

    def students(self) -> Sequence[Student]:
        """Those of the result."""
        return [Student(name, None, (self.result,)) for name in self.result.students]

    def scores(self) -> pd.DataFrame:
        """None are known."""
        return no_scores()

    def texts(self) -> "Sequence[Text]":
        """None are known."""
        return no_texts()


class ResultFiles:
    """Reads result files, and reads one again only where it changed."""

    def __init__(self) -> None:
        self._files = FileCache()

    def load(self, path: Path) -> AngleResult:
        """See :meth:`AngleResult.load`."""
        return self._files.read(path, AngleResult.load)

    def load_if_whole(self, path: Path) -> AngleResult | None:
        """None where there is no result, or one that this version does not read."""
        try:
            return self.load(path)
        except InputError:
            return None


class ResultFile:
    """A file that ``layerangles angles`` wrote."""

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, ResultFiles()
        self._files.load(path)  # what is wrong with it shows at once

    @property
    def name(self) -> str:
        """The file's."""
        return self._path.name

    def version(self) -> Hashable:
        """Of the file."""
        return version_of(self._path)

    def students(self) -> Sequence[Student]:
        """Those of the result."""
        result = self._files.load_if_whole(self._path)
        return [] if result is None else [Student(name, None, (result,)) for name in result.students]

    def scores(self) -> pd.DataFrame:
        """None are known."""
        return no_scores()

    def texts(self) -> "Sequence[Text]":
        """None are known."""
        return no_texts()


class StudentDirectories:
    """Student directories that were named one by one.

    Args:
        paths: the directories.
        texts: what they are measured on.
    """

    def __init__(self, paths: Sequence[Path], texts: "Callable[[], Sequence[Text]]" = no_texts) -> None:
        self._paths, self._texts, self._files = tuple(paths), texts, ResultFiles()

    @property
    def name(self) -> str:
        """Their number, or the name of the only one."""
        return self._paths[0].name if len(self._paths) == 1 else f"{len(self._paths)} students"

    def version(self) -> Hashable:
        """Of what is in the directories."""
        return tuple(map(version_of_student, self._paths))

    def students(self) -> Sequence[Student]:
        """Those that are finished."""
        return [
            student_in(path, path.resolve().name, (), self._files)
            for path in self._paths
            if (path / MATCHING_FILE).exists()
        ]

    def scores(self) -> pd.DataFrame:
        """None are known."""
        return no_scores()

    def texts(self) -> "Sequence[Text]":
        """What was given."""
        return self._texts()


def student_in(directory: Path, name: str, results: Sequence[AngleResult], files: ResultFiles) -> Student:
    """A student with what others have measured of it, and what is kept in its directory."""

    def kept() -> AngleResult | None:
        own = files.load_if_whole(directory / STUDENT_RESULT)
        return own if own is not None and name in own.students and not _is_stale(own, name, directory) else None

    return Student(name, directory, tuple(results), kept)


def _is_stale(result: AngleResult, name: str, directory: Path) -> bool:
    """Whether the student has other weights than those that were measured, or none."""
    from layerangles.models.weights import weights_sha256

    measured = result.at_step().dataset["weights_sha256"].sel(student=name).item()
    try:
        return str(measured) != weights_sha256(directory)
    except (OSError, InputError):  # they are gone, or just being written
        return True


def steps_in(directory: Path) -> set[int]:
    """The training steps of a student's checkpoints, its final state among them; none without checkpoints."""
    names = [file.parent.name.removeprefix("step-") for file in directory.glob(f"checkpoints/step-*/{MATCHING_FILE}")]
    along = {int(name) for name in names if name.isascii() and name.isdecimal()}
    try:
        final = json.loads((directory / MATCHING_FILE).read_bytes()).get("step")
    except (OSError, ValueError, AttributeError):
        final = None
    # As `StudentCheckpoint.checkpoints` has it: what lies behind the final state is left over from a longer training.
    return {*(step for step in along if step < final), final} if along and isinstance(final, int) else along


def version_of_student(path: Path) -> Hashable:
    """Differs after a student was finished, trained further, or measured."""
    along = sorted(str(file) for file in path.glob(f"checkpoints/step-*/{MATCHING_FILE}"))
    return version_of(path / MATCHING_FILE), version_of(path / STUDENT_RESULT), tuple(along)
