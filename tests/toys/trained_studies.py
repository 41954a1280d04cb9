"""Studies that are trained once for many tests, and comparisons of their files."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd_train.study.score_logs import METRICS_FILE
from kd_train.study.study_file import Study
from toys.training import toy_study

# A student that diverges at once.
WILD = {"kind": "forward", "name": "wild", "learning_rate": 1e25}
# Students whose maps change, or whose targets are controls.
CHANGING: list[Any] = [
    "attention",
    "dynamic",
    {"kind": "random", "mapping_seed": 3, "redraw": 3},
    {"kind": "in_order_random", "redraw": "epoch"},
    {"kind": "last", "targets": "gaussian"},
    {"kind": "forward", "targets": "random_teacher"},
]
EVERY_STEP = [step / 8 for step in range(9)]
TRAINING: dict[str, Any] = {
    "max_steps": 8,
    "batch_size": 8,
    "micro_batches": 2,
    "learning_rate": 1e-3,
    "checkpoints": EVERY_STEP,
    "evaluate_every": 1,
    "resume_every": 2,
}


@dataclass(frozen=True)
class TrainedStudy:
    """A base model, the task's files, and a study that was trained on them without interruption."""

    root: Path
    base: Path
    files: dict[str, str]
    folder: Path

    def study(self, folder: Path, **changes: Any) -> Study:
        strategies = ["none", "forward", {"kind": "random", "mapping_seed": 1}]
        return toy_study(folder, self.files, self.base, **{"strategies": strategies} | changes)

    def as_it_is(self, folder: Path, teacher: Path, **changes: Any) -> Study:
        """A study of a teacher that is not fine-tuned."""
        return self.study(folder, teacher={"model": str(teacher)}, **changes)


@dataclass(frozen=True)
class TaughtTask:
    """A teacher that knows its task, and the task's files."""

    root: Path
    teacher: Path
    files: dict[str, str]

    def study(self, folder: Path, *strategies: Any, training: dict[str, Any] | None = None, **changes: Any) -> Study:
        """A study of 8 steps that keeps the state after each of them."""
        content = {"teacher": {"model": str(self.teacher)}, "strategies": list(strategies)} | changes
        return toy_study(folder, self.files, self.teacher, training=TRAINING | (training or {}), **content)


def student_folder(study: Study, student: str, step: int | None = None) -> Path:
    """The directory of a student of seed 0, or of its checkpoint."""
    place = study.folder / "students" / f"{student}-seed0"
    return place if step is None else place / "checkpoints" / f"step-{step}"


def matching_of(study: Study, student: str, step: int | None = None) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((student_folder(study, student, step) / "matching.json").read_text())
    return content


def model_files(folder: Path) -> dict[str, bytes]:
    """Every file of the teacher and the students, by its path."""
    files = [file for place in ("teacher", "students") for file in (folder / place).rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def measured_lines(folder: Path, *, of: str = "") -> Counter[str]:
    """The lines of the metrics file without those of the clock, which never repeats."""
    lines = (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines()
    return Counter(line for line in lines if "seconds_per_step" not in line and of in line)


def assert_same_study(got: Path, expected: Path) -> None:
    """Equal to the bit, measured once, and nothing left to resume from."""
    ours, theirs = model_files(got), model_files(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert measured_lines(got) == measured_lines(expected)
    assert set(measured_lines(got).values()) == {1}
    assert not [file for file in got.rglob("*") if "partial" in file.name]
    assert not [*(got / "resume").rglob("*")]
