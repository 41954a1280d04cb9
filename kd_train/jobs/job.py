"""A job: the teacher of a study or the students of one seed, and the record of where it was last submitted."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kd_train.study.study_file import Study, read_study
from kd_train.training import study_directory
from layerangles.errors import InputError
from layerangles.files import atomic_write

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

Executor = Literal["local", "slurm"]

_FOLDER = "jobs"
# Asking whether a lock is held takes it for a moment.
_PATIENCE_SECONDS = 2


@dataclass(frozen=True)
class Job:
    """The training of a study's teacher (no seed), or of the students of one seed."""

    place: Path
    seed: int | None
    study: Study = field(compare=False, repr=False)

    @classmethod
    def all_of(cls, studies: Sequence[Study]) -> "list[Job]":
        """The jobs of studies, teachers first, since the others wait for them."""
        teachers = [cls(study.folder, None, study) for study in studies]
        return teachers + [cls(study.folder, seed, study) for study in studies for seed in study.seeds]

    @property
    def teacher(self) -> "Job":
        """The job that must be done before this one; the job itself for a teacher."""
        return replace(self, seed=None)

    @property
    def name(self) -> str:
        """``teacher`` or ``seed<k>``."""
        return _name(self.seed)

    @property
    def title(self) -> str:
        """The study's name and the job's, for messages."""
        return f"{self.study.name} {self.name}"

    @property
    def folder(self) -> Path:
        """The directory of records, locks and logs."""
        return self.place / _FOLDER

    @property
    def lock(self) -> Path:
        """The lock that a local process holds while it trains."""
        return self.folder / f"{self.name}.lock"

    def is_done(self) -> bool:
        """Whether all results of this job are written."""
        if self.seed is None:
            return study_directory.teacher_is_done(self.study)
        return study_directory.is_done(self.study, self.seed)

    def new_logs(self) -> Path:
        """A new folder for submitit: job ids recur, and a job runs the pickle that bears its id."""
        number = 1
        while (folder := self.folder / "logs" / f"{self.name}-{number}").exists():
            number += 1
        folder.mkdir(parents=True)
        return folder

    def submit_to(self, executor: Any, device: str) -> Any:
        """Submit this job to a submitit executor, and return submitit's job."""
        return executor.submit(RunJob(), str(self.place), self.seed, device)


class RunJob:
    """The work of a job, as submitit pickles it."""

    def __call__(self, place: str, seed: int | None, device: str) -> None:
        """Train one job of the study in a directory."""
        from kd_train.training.train_study import train_study

        with ExitStack() as stack:
            if os.environ.get("SUBMITIT_EXECUTOR") == "local":
                # submitit has a job ignore SIGTERM, but that is how the caller ends its processes.
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                # Held as long as this process lives, whatever happens to the caller. Slurm tracks its jobs itself.
                lock = Path(place) / _FOLDER / f"{_name(seed)}.lock"
                stack.enter_context(held(lock, f"another process is training {_name(seed)} of {place}."))
            seeds = () if seed is None else (seed,)
            train_study(read_study(place), resume=True, device=device, seeds=seeds)

    def checkpoint(self, place: str, seed: int | None, device: str) -> "DelayedSubmission":
        """The job that submitit starts after a preemption or a time limit: the same one, since it resumes by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, place, seed, device)


def _name(seed: int | None) -> str:
    return "teacher" if seed is None else f"seed{seed}"


# ---- records -------------------------------------------------------------------------------------------------------


class JobRecord(BaseModel):
    """The submission that a job was last given to. It holds text alone, and nothing in it is executed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    executor: Executor
    job: str = Field(pattern=r"^\d+$", description="Slurm's job id, or that of the local process")
    logs: str = Field(pattern=r"^[a-z0-9-]+$", description="submitit's folder, within jobs/logs")
    submitted: str

    def log_of(self, job: Job) -> Path:
        """The file with the job's output, standard error included."""
        return job.folder / "logs" / self.logs / f"{self.job}_0_log.out"


def write_record(job: Job, executor: Executor, job_id: str, logs: Path) -> JobRecord:
    """Record the submission of a job."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = JobRecord(executor=executor, job=job_id, logs=logs.name, submitted=now)
    with atomic_write(job.folder / f"{job.name}.json", overwrite=True) as beside:
        beside.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def read_record(job: Job) -> JobRecord | None:
    """The record of a job's last submission; None if it was never submitted."""
    file = job.folder / f"{job.name}.json"
    if not file.is_file():
        return None
    try:
        return JobRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InputError(f"{file} is not what this command wrote. Delete it if no job is at work on it.") from error


# ---- locks ---------------------------------------------------------------------------------------------------------


@contextmanager
def held(lock: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock, which ends with this process at the latest.

    Raises:
        InputError: another process holds it; the message is ``otherwise``.
    """
    file_lock = FileLock(lock, timeout=_PATIENCE_SECONDS)
    try:
        file_lock.acquire()
    except Timeout as error:
        raise InputError(otherwise) from error
    try:
        yield
    finally:
        file_lock.release()


@contextmanager
def sole_command(study: Study) -> Iterator[None]:
    """Hold the lock of a study, so that only one command at a time submits its jobs."""
    jobs = study.folder / _FOLDER
    jobs.mkdir(exist_ok=True)
    with held(jobs / "lock", f"another command is at work on {study.folder}. Wait for its end, or stop it first."):
        yield


def is_held(lock: Path) -> bool:
    """Whether another process holds a lock."""
    try:
        with held(lock, ""):
            return False
    except InputError:
        return True
