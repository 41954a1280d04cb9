"""The logs of a study's scores, written as scores are made, and safe to resume.

``metrics.jsonl`` has a line for every student, step, split and metric; ``examples.jsonl`` has a finished student's
scores on all examples of a split.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from layerangles.files import atomic_write

METRICS_FILE = "metrics.jsonl"
EXAMPLES_FILE = "examples.jsonl"


@dataclass(frozen=True)
class Measurement:
    """The value of one metric of a student (or of ``teacher``) on a split, after ``step`` optimizer steps."""

    student: str
    step: int
    split: str
    metric: str
    value: float


class MetricsLog:
    """The log of a study's measurements.

    Several jobs may write to one file: lines are appended whole, and a job drops only lines of its own students.

    Args:
        folder: the study's directory.
        writes: whether this process writes; among processes that train together, one does.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._file, self._writes = folder / METRICS_FILE, writes
        self._lock = FileLock(folder / f".{METRICS_FILE}.lock")
        self._known: list[Measurement] = self.read()

    def append(self, measurements: Iterable[Measurement]) -> None:
        """Append measurements."""
        new = list(measurements)
        self._known += new
        if self._writes:
            with self._lock, self._file.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(asdict(m)) + "\n" for m in new))

    def read(self) -> list[Measurement]:
        """All measurements in the file; see :func:`read_metrics`."""
        return read_metrics(self._file)

    def forget_after(self, step: int, students: Iterable[str], *, splits: Iterable[str] | None = None) -> None:
        """Drop these students' measurements after ``step`` (on these splits): a resumed run repeats them."""
        named, on = set(students), None if splits is None else set(splits)

        def kept(m: Measurement) -> bool:
            return m.student not in named or m.step <= step or (on is not None and m.split not in on)

        self._known = [m for m in self._known if kept(m)]
        if self._writes:
            with self._lock:
                lines = [json.dumps(asdict(m)) + "\n" for m in self.read() if kept(m)]
                with atomic_write(self._file, overwrite=True) as beside:
                    beside.write_text("".join(lines), encoding="utf-8")

    def dev(self, student: str, metric: str) -> list[Measurement]:
        """A student's values of a metric on the dev split, by step; NaN are left out."""
        found = [m for m in self._known if (m.student, m.split, m.metric) == (student, "dev", metric)]
        return sorted((m for m in found if m.value == m.value), key=lambda m: m.step)

    def best(self, student: str, metric: str, *, higher_is_better: bool = True) -> Measurement | None:
        """The best value of a metric on the dev split, the earliest of equal ones; None if there is none."""
        sign = 1 if higher_is_better else -1
        return max(self.dev(student, metric), key=lambda m: (sign * m.value, -m.step), default=None)


@dataclass(frozen=True)
class ExampleScores:
    """A finished student's scores on all examples of a split, in the split's order; the metric is their mean."""

    student: str
    step: int
    split: str
    metric: str
    values: tuple[float, ...]


class ExamplesLog:
    """The log of a study's example scores; several jobs may write to one file.

    Args:
        folder: the study's directory.
        writes: whether this process writes.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._file, self._writes = folder / EXAMPLES_FILE, writes
        self._lock = FileLock(folder / f".{EXAMPLES_FILE}.lock")

    def append(self, scores: Iterable[ExampleScores]) -> None:
        """Append scores; whole numbers are written without a decimal point."""
        lines = [
            json.dumps(asdict(s) | {"values": [int(v) if v == int(v) else v for v in s.values]}) + "\n" for s in scores
        ]
        if self._writes and lines:
            with self._lock, self._file.open("a", encoding="utf-8") as file:
                file.write("".join(lines))


def read_metrics(file: Path) -> list[Measurement]:
    """All measurements in ``metrics.jsonl``, except a last line cut off by a kill; empty if there is no such file."""
    return [Measurement(**content) for content in _whole_lines(file)]


def read_examples(file: Path) -> dict[tuple[str, str, str], ExampleScores]:
    """The scores in ``examples.jsonl`` by student, split and metric; of several the last, from a resumed run."""
    found = {}
    for content in _whole_lines(file):
        scores = ExampleScores(**content | {"values": tuple(map(float, content["values"]))})
        found[scores.student, scores.split, scores.metric] = scores
    return found


def _whole_lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        yield from map(json.loads, file.read_text(encoding="utf-8").split("\n")[:-1])
