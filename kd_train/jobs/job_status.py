"""The state of jobs, from their records, their locks, Slurm and the files that they write."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kd_train.jobs.job import Job, is_held, read_record, sole_command
from kd_train.study.study_file import Study
from layerangles.errors import InputError, RunError

State = Literal["done", "missing", "queued", "running", "submitted", "failed"]

# The words of squeue and sacct for a job that is over. A job in any other state may still write.
_ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
)


@dataclass(frozen=True)
class JobStatus:
    """The state of a job.

    Attributes:
        study: the study's directory.
        name: ``teacher`` or ``seed<k>``.
        state: ``missing`` was never begun; ``submitted`` has been queued by this command, ``queued`` before it.
        job_id: Slurm's job id, or that of the local process.
        log: the file with its output, which may not exist yet.
        why: the reason of a failure.
    """

    study: str
    name: str
    state: State
    job_id: str | None = None
    log: Path | None = None
    why: str | None = None


def status_of(jobs: Sequence[Job]) -> dict[Job, JobStatus]:
    """The state of jobs.

    Running jobs are asked for before the files are read, so that the results of a job that ends in between are seen.
    """
    records = {job: record for job in jobs if (record := read_record(job)) is not None}
    on_slurm = ask_slurm([record.job for record in records.values() if record.executor == "slurm"])
    found: dict[Job, JobStatus] = {}
    for job in jobs:
        status, record = JobStatus(str(job.place), job.name, "missing"), records.get(job)
        if record is not None:
            log = record.log_of(job)
            if record.executor == "slurm":
                state = on_slurm.get(record.job, "ended")
            else:
                state = "running" if is_held(job.lock) else "ended"
            status = replace(status, job_id=record.job, log=log)
            if state in ("queued", "running"):
                found[job] = replace(status, state="queued" if state == "queued" else "running")
                continue
            status = replace(status, state="failed", why=f"{state}: {last_line(log)}")
        found[job] = replace(status, state="done", why=None) if job.is_done() else status
    return found


def refuse_active(found: Mapping[Job, JobStatus], why: str) -> None:
    """Raise if a job is queued or running.

    Args:
        found: the state of some jobs.
        why: the end of the message's first sentence, such as "would be trained twice".
    """
    for job, status in found.items():
        if status.state in ("queued", "running"):
            record = read_record(job)
            stop = "kill" if record is not None and record.executor == "local" else "scancel"
            raise InputError(
                f"{job.title} is {status.state} and {why}. Wait for its end, or stop it first: {stop} {status.job_id}"
            )


def refuse_active_jobs_in(study: Study) -> None:
    """Raise if the directory of a study, of whatever content, has jobs that would lose it."""
    folder = Job(study.folder, None, study).folder
    if not folder.is_dir():
        return
    seeds = [int(file.stem.removeprefix("seed")) for file in folder.glob("seed*.json")]
    jobs = [Job(study.folder, seed, study) for seed in (None, *seeds)]
    with sole_command(study):
        refuse_active(status_of(jobs), "would lose its directory")


def last_line(log: Path) -> str:
    """The last line of a job's output, usually its error; lines of srun itself say less."""
    if not log.is_file():
        return "no log"
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("srun: ")] or lines
    return said[-1] if said else "an empty log"


def ask_slurm(job_ids: Sequence[str]) -> dict[str, str]:
    """``queued``, ``running`` or the final state of each job that Slurm remembers, by job id.

    squeue forgets a job some minutes after its end; sacct does not, but many clusters do not keep accounts.

    Raises:
        InputError: Slurm is not installed here.
        RunError: Slurm does not answer.
    """
    if not job_ids:
        return {}
    if not shutil.which("squeue"):
        raise InputError(
            f"Slurm was given jobs of this study ({', '.join(job_ids)}), but it cannot be asked here: no squeue. Start "
            "this on the cluster's login node."
        )
    states: dict[str, str] = {}
    ids = ",".join(job_ids)
    if shutil.which("sacct"):
        output = _output_of(
            ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", "--jobs", ids]
        )
        told = [line.partition("|") for line in output.stdout.splitlines()]
        # "CANCELLED by 1000"
        states = {job: state.split()[0] for job, _, state in told if state and state.split()[0] in _ENDED}
    output = _output_of(["squeue", "--noheader", "--states=all", "--format=%i|%T|%r", "--jobs", ids])
    if output.returncode and "Invalid job id" not in output.stderr:
        raise RunError(f"Slurm does not say where its jobs are, so none is submitted: {output.stderr.strip()}")
    for line in output.stdout.splitlines():
        job, state, reason = line.split("|", 2)
        if state in _ENDED:
            states[job] = state
        elif reason == "DependencyNeverSatisfied":  # Slurm will cancel it
            states[job] = "its teacher failed"
        else:
            states[job] = "queued" if state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else "running"
    return states


def _output_of(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)
