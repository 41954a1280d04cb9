"""What is scored in a study, on disk as it is made, and safe to resume.

``metrics.jsonl`` has a line for every student, step, split and metric; ``examples.jsonl`` has what a finished student
got on every single example.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from layerangles.files import atomic_write

METRICS_FILE = "metrics.jsonl"
EXAMPLES_FILE = "examples.jsonl"


@dataclass(frozen=True)
class Measurement:
    """One number: a metric of a student (or ``teacher``) on a split, after so many steps."""

    student: str
    step: int
    split: str
    metric: str
    value: float


class MetricsLog:
    """The measurements of a study, on disk as they are made.

    Several jobs may write to one file: lines are appended whole, and what a job drops are its own students' lines.

    Args:
        folder: the study's.
        writes: whether this process writes; of several that train together, one does.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._file, self._writes = folder / METRICS_FILE, writes
        self._lock = FileLock(folder / f".{METRICS_FILE}.lock")
        self._known: list[Measurement] = self.read()

    def append(self, measurements: Iterable[Measurement]) -> None:
        """Add lines at the end."""
        new = list(measurements)
        self._known += new
        if self._writes:
            with self._lock, self._file.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(asdict(m)) + "\n" for m in new))

    def read(self) -> list[Measurement]:
        """All measurements in the file; a last line that was cut off by a kill is left out."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").split("\n")[:-1]
        return [Measurement(**json.loads(line)) for line in lines]

    def forget_after(self, step: int, students: Iterable[str], *, splits: Iterable[str] | None = None) -> None:
        """Drop what these students measured after ``step`` (on these splits): a resumed run measures it again."""
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
        """What a student reached on the dev split, by step. NaN is left out."""
        mine = [m for m in self._known if (m.student, m.split, m.metric) == (student, "dev", metric)]
        return sorted((m for m in mine if m.value == m.value), key=lambda m: m.step)

    def best(self, student: str, metric: str, *, higher_is_better: bool = True) -> Measurement | None:
        """The best value of a metric on the dev split, the earliest where several are equal."""
        sign = 1 if higher_is_better else -1
        return max(self.dev(student, metric), key=lambda m: (sign * m.value, -m.step), default=None)


@dataclass(frozen=True)
class ExampleScores:
    """What a finished student got on every example of a split, in the split's order; the metric is their mean."""

    student: str
    step: int
    split: str
    metric: str
    values: tuple[float, ...]


class ExamplesLog:
    """The example scores of a study; several jobs may write to one file.

    Args:
        folder: the study's.
        writes: whether this process writes.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._file, self._writes = folder / EXAMPLES_FILE, writes
        self._lock = FileLock(folder / f".{EXAMPLES_FILE}.lock")

    def append(self, scores: Iterable[ExampleScores]) -> None:
        """Add lines at the end. Whole numbers are written without a point."""
        lines = [
            json.dumps(asdict(s) | {"values": [int(v) if v == int(v) else v for v in s.values]}) + "\n" for s in scores
        ]
        if self._writes and lines:
            with self._lock, self._file.open("a", encoding="utf-8") as file:
                file.write("".join(lines))

    def read(self) -> dict[tuple[str, str, str], ExampleScores]:
        """By student, split and metric, the last that was written: a resumed run may score a student again."""
        if not self._file.exists():
            return {}
        found = {}
        for line in self._file.read_text(encoding="utf-8").split("\n")[:-1]:
            content = json.loads(line)
            scores = ExampleScores(**content | {"values": tuple(map(float, content["values"]))})
            found[scores.student, scores.split, scores.metric] = scores
        return found
