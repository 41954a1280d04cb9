"""The metrics file of a study: one JSON line a student, step, split and metric; appended to, and safe to resume."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from layerangles.files import replacing

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Measurement:
    """One number: a metric of a student (or ``teacher``) on a split, after so many steps."""

    student: str
    step: int
    split: str
    metric: str
    value: float


class MetricsLog:
    """The measurements of a study, on disk as they are made."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / METRICS_FILE

    def append(self, measurements: Iterable[Measurement]) -> None:
        """Add lines at the end."""
        with self._file.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(m)) + "\n" for m in measurements)

    def read(self) -> list[Measurement]:
        """All measurements; a last line that was cut off by a kill is left out."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").split("\n")[:-1]
        return [Measurement(**json.loads(line)) for line in lines]

    def forget_after(self, step: int, students: Iterable[str], *, splits: Iterable[str] | None = None) -> None:
        """Drop what these students measured after ``step`` (on these splits): a resumed run measures it again."""
        named, on = set(students), None if splits is None else set(splits)
        kept = [m for m in self.read() if m.student not in named or m.step <= step or (on and m.split not in on)]
        with replacing(self._file, overwrite=True) as beside:
            beside.write_text("".join(json.dumps(asdict(m)) + "\n" for m in kept), encoding="utf-8")

    def best(self, student: str, metric: str) -> Measurement | None:
        """The best value of a metric on the dev split, the earliest where several are equal."""
        values = [m for m in self.read() if (m.student, m.split, m.metric) == (student, "dev", metric)]
        return max(values, key=lambda m: (m.value, -m.step), default=None)
