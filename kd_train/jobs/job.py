"""A study in pieces that are one job each: what such a cell does, where it is, and what is on record of its jobs."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from submitit.helpers import DelayedSubmission

from kd_train.study.study_file import Study, read_study
from kd_train.training import train_study as train
from layerangles.errors import InputError, RunError
from layerangles.files import atomic_write

Executor = Literal["local", "slurm"]
State = Literal["done", "missing", "queued", "running", "submitted", "failed"]

_JOBS = "jobs"
# A look at a lock takes it for a moment.
_PATIENCE_SECONDS = 2
# squeue's and sacct's words for a job that is over. Whatever else they say is a job that may still write.
_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)


@dataclass(frozen=True)
class Cell:
    """A piece of a study that is one job: its teacher (no seed), or the students of a seed."""

    place: Path
    seed: int | None
    study: Study = field(compare=False, repr=False)

    @classmethod
    def all_of(cls, studies: Sequence[Study]) -> "list[Cell]":
        """The cells of studies: the teachers first, since the others wait for them."""
        teachers = [cls(study.folder, None, study) for study in studies]
        return teachers + [cls(study.folder, seed, study) for study in studies for seed in study.seeds]

    @property
    def teacher(self) -> "Cell":
        """The cell that must be done before this one; a teacher's is itself."""
        return replace(self, seed=None)

    @property
    def name(self) -> str:
        """``teacher`` or ``seed<k>``."""
        return _name(self.seed)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.study.name} {self.name}"

    @property
    def jobs(self) -> Path:
        """Where records, locks and logs are."""
        return self.place / _JOBS

    def is_done(self) -> bool:
        """Whether everything that this cell makes is there."""
        if self.seed is None:
            return train.teacher_is_done(self.study)
        return train.is_done(self.study, self.seed)

    def new_logs(self) -> Path:
        """A folder for submitit that is new: job ids come again, and a job runs the pickle that bears its id."""
        number = 1
        while (folder := self.jobs / "logs" / f"{self.name}-{number}").exists():
            number += 1
        folder.mkdir(parents=True)
        return folder


@dataclass(frozen=True)
class CellStatus:
    """Where a cell is.

    Attributes:
        study: the study's directory.
        cell: ``teacher`` or ``seed<k>``.
        state: ``missing`` has never been begun; ``submitted`` has been queued just now, ``queued`` was before.
        job: Slurm's job id, or the local process.
        log: what the job prints; it may not have begun.
        why: what it failed of, or what the job before this one did.
    """

    study: str
    cell: str
    state: State
    job: str | None = None
    log: Path | None = None
    why: str | None = None


class JobRecord(BaseModel):
    """Which job a cell was last given to; text alone is kept, and nothing of it is run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    executor: Executor
    job: str = Field(pattern=r"^\d+$")
    logs: str = Field(pattern=r"^[a-z0-9-]+$", description="submitit's folder, within jobs/logs")
    submitted: str

    def log_of(self, cell: Cell) -> Path:
        """What the job prints, standard error included."""
        return cell.jobs / "logs" / self.logs / f"{self.job}_0_log.out"


class RunCell:
    """What a job does."""

    def __call__(self, place: str, seed: int | None, device: str) -> None:
        """Train a cell of the study in a directory."""
        with ExitStack() as stack:
            if os.environ.get("SUBMITIT_EXECUTOR") == "local":
                # submitit has a job ignore SIGTERM, but it is by this that the caller ends its processes.
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                # Held as long as this process lives, whatever becomes of the caller. Slurm knows its jobs itself.
                lock = Path(place) / _JOBS / f"{_name(seed)}.lock"
                stack.enter_context(held(lock, f"another process is training {_name(seed)} of {place}."))
            seeds = () if seed is None else (seed,)
            train.train_study(read_study(place), resume=True, device=device, seeds=seeds)

    def checkpoint(self, place: str, seed: int | None, device: str) -> DelayedSubmission:
        """What submitit has started again after a preemption or a time limit: the same, which resumes by itself."""
        return DelayedSubmission(self, place, seed, device)


def _name(seed: int | None) -> str:
    return "teacher" if seed is None else f"seed{seed}"


# ---- on record -----------------------------------------------------------------------------------------------------


def write_record(cell: Cell, executor: Executor, job: str, logs: Path) -> JobRecord:
    """Note which job a cell has been given to."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = JobRecord(executor=executor, job=job, logs=logs.name, submitted=now)
    with atomic_write(cell.jobs / f"{cell.name}.json", overwrite=True) as beside:
        beside.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def read_record(cell: Cell) -> JobRecord | None:
    """Which job a cell was last given to, if any."""
    file = cell.jobs / f"{cell.name}.json"
    if not file.is_file():
        return None
    try:
        return JobRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InputError(f"{file} is not what this command wrote. Delete it if no job is at work on it.") from error


# ---- locks ---------------------------------------------------------------------------------------------------------


@contextmanager
def held(lock: Path, otherwise: str) -> Iterator[None]:
    """Hold a lock that ends with this process.

    Raises:
        InputError: another process has it; the message is ``otherwise``.
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
    """See to it that one command at a time gives a study's cells away."""
    jobs = study.folder / _JOBS
    jobs.mkdir(exist_ok=True)
    with held(jobs / "lock", f"another command is at work on {study.folder}. Wait for its end, or stop it first."):
        yield


def _is_held(lock: Path) -> bool:
    try:
        with held(lock, ""):
            return False
    except InputError:
        return True


# ---- where cells are -----------------------------------------------------------------------------------------------


def look(cells: Sequence[Cell]) -> dict[Cell, CellStatus]:
    """Where the cells are.

    Their jobs are asked for before their files: what a job writes that ends in between is then seen.
    """
    records = {cell: record for cell in cells if (record := read_record(cell)) is not None}
    on_slurm = ask_slurm([record.job for record in records.values() if record.executor == "slurm"])
    found: dict[Cell, CellStatus] = {}
    for cell in cells:
        status, record = CellStatus(str(cell.place), cell.name, "missing"), records.get(cell)
        if record is not None:
            log = record.log_of(cell)
            if record.executor == "slurm":
                state = on_slurm.get(record.job, "ended")
            else:
                state = "running" if _is_held(cell.jobs / f"{cell.name}.lock") else "ended"
            status = replace(status, job=record.job, log=log)
            if state in ("queued", "running"):
                found[cell] = replace(status, state="queued" if state == "queued" else "running")
                continue
            status = replace(status, state="failed", why=f"{state}: {last_line(log)}")
        found[cell] = replace(status, state="done", why=None) if cell.is_done() else status
    return found


def refuse_active(found: Mapping[Cell, CellStatus], why: str) -> None:
    """Raise if a cell is queued or running: it ``would be trained twice``, for example."""
    for cell, status in found.items():
        if status.state in ("queued", "running"):
            record = read_record(cell)
            stop = "kill" if record is not None and record.executor == "local" else "scancel"
            raise InputError(
                f"{cell.title} is {status.state} and {why}. Wait for its end, or stop it first: {stop} {status.job}"
            )


def refuse_active_jobs_in(study: Study) -> None:
    """Raise if jobs would lose the directory that they write to, of whatever study that is there."""
    if not (jobs := study.folder / _JOBS).is_dir():
        return
    seeds = [int(file.stem.removeprefix("seed")) for file in jobs.glob("seed*.json")]
    with sole_command(study):
        refuse_active(look([Cell(study.folder, seed, study) for seed in (None, *seeds)]), "would lose its directory")


def last_line(log: Path) -> str:
    """What a job said last, which is what it failed of; srun's own word on that says less."""
    if not log.is_file():
        return "no log"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("srun: ")] or lines
    return said[-1] if said else "an empty log"


def ask_slurm(jobs: Sequence[str]) -> dict[str, str]:
    """``queued``, ``running`` or how it ended, for each of the jobs that Slurm remembers.

    squeue forgets a job some minutes after its end; sacct does not, but many clusters do not keep accounts.

    Raises:
        InputError: there is no Slurm here.
        RunError: it does not answer.
    """
    if not jobs:
        return {}
    if not shutil.which("squeue"):
        raise InputError(
            f"Slurm was given jobs of this study ({', '.join(jobs)}), but it cannot be asked here: no squeue. Start "
            "this on the cluster's login node."
        )
    states: dict[str, str] = {}
    ids = ",".join(jobs)
    if shutil.which("sacct"):
        said = _said(["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", "--jobs", ids])
        told = [line.partition("|") for line in said.stdout.splitlines()]
        # "CANCELLED by 1000"
        states = {job: state.split()[0] for job, _, state in told if state and state.split()[0] in _ENDED}
    said = _said(["squeue", "--noheader", "--states=all", "--format=%i|%T|%r", "--jobs", ids])
    if said.returncode and "Invalid job id" not in said.stderr:
        raise RunError(f"Slurm does not say where its jobs are, so none is submitted: {said.stderr.strip()}")
    for line in said.stdout.splitlines():
        job, state, reason = line.split("|", 2)
        if state in _ENDED:
            states[job] = state
        elif reason == "DependencyNeverSatisfied":  # Slurm cancels it when it comes to that
            states[job] = "its teacher failed"
        else:
            states[job] = "queued" if state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else "running"
    return states


def _said(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)
