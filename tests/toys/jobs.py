"""Stand-ins for jobs: they train nothing, and their traces."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import kd_train.jobs.job
from kd_train.jobs import submission
from kd_train.jobs.job_status import JobStatus
from kd_train.study.study_file import Study
from kd_train.training import study_directory
from kd_train.training.study_directory import claim_study
from kd_train.training.train_study import train_study
from toys.models import write_model
from toys.training import toy_study, toy_teacher, write_task

# Pickled by value, so that a job imports nothing else and starts in a fraction of a second.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class StandIn:
    """A job that trains nothing: it records its times, and fails or hangs if a file tells it to."""

    def __call__(self, place: str, seed: int | None, device: str) -> None:
        import os
        import pathlib
        import signal
        import time

        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        folder, name = pathlib.Path(place), "teacher" if seed is None else f"seed{seed}"
        began = time.time()
        (folder / f"pid-{name}").write_text(str(os.getpid()))
        while (folder / "hang").exists():
            time.sleep(0.05)
        if (folder / f"fail-{name}").exists():
            raise ValueError(f"{name} is not to be")
        time.sleep(0.5)
        with (folder / "ran").open("a") as file:
            file.write(f"{name} {began} {time.time()} {os.environ['OMP_NUM_THREADS']}\n")
        (folder / f"done-{name}").touch()


def play(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the work of jobs by stand-ins."""
    monkeypatch.setattr(kd_train.jobs.job, "RunJob", StandIn)
    monkeypatch.setattr(submission, "plan_study", lambda study: None)
    monkeypatch.setattr(submission, "_fetch", lambda study: Path("base"))
    monkeypatch.setattr(study_directory, "is_done", lambda study, seed: (study.folder / f"done-seed{seed}").exists())
    monkeypatch.setattr(study_directory, "teacher_is_done", lambda study: (study.folder / "done-teacher").exists())


def a_study(folder: Path, **changes: Any) -> Study:
    return toy_study(folder, {"train": "t.jsonl", "dev": "d.jsonl"}, Path("base"), **{"seeds": [0, 1]} | changes)


def claimed(study: Study) -> Path:
    """Begin a study, as an earlier call did."""
    claim_study(study, resume=True)
    (study.folder / "jobs").mkdir(exist_ok=True)
    return study.folder


def states(found: list[JobStatus]) -> list[tuple[str, str]]:
    return [(status.name, status.state) for status in found]


def ran(folder: Path) -> dict[str, tuple[float, float, str]]:
    """When each job began and ended, and on how many threads."""
    lines = [line.split() for line in (folder / "ran").read_text().splitlines()]
    assert len({line[0] for line in lines}) == len(lines)
    return {name: (float(began), float(ended), threads) for name, began, ended, threads in lines}


@dataclass(frozen=True)
class Trained:
    """A real study of two seeds, trained in one go."""

    files: dict[str, str]
    base: Path
    folder: Path

    def study(self, folder: Path, **changes: Any) -> Study:
        return toy_study(folder, self.files, self.base, **changes)

    def longer_study(self, folder: Path) -> Study:
        """Of two seeds that train for some seconds, so that they can be interrupted."""
        study = self.study(folder, seeds=[0, 1], strategies=["forward"])
        steps = {"max_steps": 400, "evaluate_every": 200, "resume_every": 20}
        return study.model_copy(update={"training": study.training.model_copy(update=steps)})


def trained(root: Path) -> Trained:
    made = Trained(write_task(root / "task"), write_model(root / "base", toy_teacher()), root / "study")
    train_study(made.study(made.folder, seeds=[0, 1]), device="cpu")
    return made
