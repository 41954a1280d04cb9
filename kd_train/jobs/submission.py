"""Train studies cell by cell, in local processes or on Slurm, through submitit.

What a study's directory holds decides what is left to do, so submitting again goes on where jobs failed or ran out of
time, and trains nothing twice. The directory also holds, in ``jobs/``, one JSON record a cell (which job it was last
given to) and submitit's folders with the logs. Only the job itself reads the pickle that was written for it.
"""

import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from submitit import LocalExecutor, LocalJob, SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import clean_env, environment_variables

from kd_train.jobs.job import (
    Cell,
    CellStatus,
    Executor,
    JobRecord,
    RunCell,
    last_line,
    look,
    read_record,
    refuse_active,
    refuse_active_jobs_in,
    sole_command,
    write_record,
)
from kd_train.study.plan import plan_study, teacher_path
from kd_train.study.study_file import Study
from kd_train.training import train_study as train
from layerangles.errors import InputError
from layerangles.models.weights import check_weights

Report = Callable[[CellStatus], None]

# submitit wants a limit for local jobs too, and its own is two minutes.
_NO_LIMIT_MINUTES = 60 * 24 * 365
# How often Slurm starts a job again that reached its time limit; each time it goes on from its last state.
_RESTARTS = 10
# What would break the cells' order, their logs, their paths or the signal they are warned by.
_OURS = ("array", "chdir", "dependency", "error", "job-name", "kill-on-invalid-dep", "open-mode", "output", "signal")


class ClusterOptions(BaseModel):
    """What a cell is given. ``at_once``, ``cpus`` and ``gpus`` hold for both executors, the others for Slurm alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_once: int | None = Field(
        default=None, ge=1, description="how many cells at the same time; 1 locally, as many as Slurm likes there"
    )
    cpus: int | None = Field(
        default=None, ge=1, description="cores a cell, hence its threads; an even share locally, Slurm's default there"
    )
    gpus: int | None = Field(default=None, ge=0, description="GPUs a cell; one locally if there is any, none on Slurm")
    minutes: int = Field(default=24 * 60, ge=1, description="time limit of a job; it is started again when it ends so")
    memory_gb: float | None = Field(default=None, gt=0)
    partition: str | None = Field(default=None, pattern=r"^[^\s]+$")
    account: str | None = Field(default=None, pattern=r"^[^\s]+$")
    slurm: Mapping[str, str | Literal[True]] = Field(
        default={}, description="other options of sbatch by their long names; True for one without a value"
    )

    @field_validator("slurm")
    @classmethod
    def _no_script(cls, options: Mapping[str, str | Literal[True]]) -> Mapping[str, str | Literal[True]]:
        for key, value in options.items():
            # Each becomes a line of the script that sbatch runs.
            if not re.fullmatch(r"[a-z][a-z-]*", key) or not str(value).isprintable():
                raise ValueError(f"{key!r} is no long option of sbatch with a value on one line, such as qos=low")
            if key in _OURS:
                raise ValueError(f"{key} is set by this command, as are {', '.join(_OURS)}")
        return options


def submit(
    studies: Sequence[Study],
    *,
    executor: Executor,
    device: str = "auto",
    options: ClusterOptions | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    report: Report = lambda _status: None,
) -> list[CellStatus]:
    """Train studies in jobs: the teacher of each, then the students of each seed.

    Locally this returns when all jobs have ended, on Slurm when all are queued. What is done, queued or running is
    left alone: call it again to see where the cells are and to go on with those that failed. The students are those
    of :func:`kd_train.training.train_study.train_study` where the number of threads is the same; see ``cpus``.

    Args:
        studies: what to train, each into a directory of its own.
        executor: ``"local"`` for processes of this machine, ``"slurm"`` for jobs of the cluster that it belongs to.
        device: ``"auto"`` or ``"cpu"``, as for :func:`kd_train.training.train_study.train_study`.
        options: what a cell is given.
        overwrite: delete the studies that are there and start anew.
        dry_run: look where the cells are, and leave it at that.
        report: called whenever a cell has changed its state; on Slurm once a cell.

    Returns:
        Where all cells are now.

    Raises:
        InputError: a study that cannot be trained, no Slurm, or cells that are at work elsewhere; before any work.
    """
    options = options or ClusterOptions()
    _check(studies, executor, device)
    cells = Cell.all_of(studies)
    if dry_run:
        return list(look(cells).values())
    claims: list[dict[str, Any]] = [
        {"resume": not overwrite, "overwrite": overwrite, "inputs": [_fetch(study)]} for study in studies
    ]
    for study, how in zip(studies, claims, strict=True):  # all, before the first is deleted
        train.check_claim(study, **how)
    with ExitStack() as stack:
        for study in studies if overwrite else ():
            refuse_active_jobs_in(study)
        for study, how in zip(studies, claims, strict=True):
            train.claim_study(study, **how)
            stack.enter_context(sole_command(study))
        run = _submit_to_slurm if executor == "slurm" else _run_here
        return run(look(cells), device, options, report)


def _check(studies: Sequence[Study], executor: Executor, device: str) -> None:
    if device not in ("auto", "cpu"):
        raise InputError(f"device is {device!r}; training takes auto (the best present) or cpu.")
    folders = [study.folder.resolve() for study in studies]
    for study, folder in zip(studies, folders, strict=True):
        if folders.count(folder) > 1:
            raise InputError(f"two studies write to {study.folder}. Give each an output of its own.")
    if executor == "slurm" and (missing := [tool for tool in ("sbatch", "squeue", "srun") if not shutil.which(tool)]):
        raise InputError(
            f"there is no Slurm here ({', '.join(missing)} not found). Start this on a cluster's login node, or train "
            "in processes of this machine with --executor local."
        )
    for study in studies:
        plan_study(study)


def _fetch(study: Study) -> Path:
    """See to it that model and data are there and right: many a cluster's nodes reach no network. The model's path."""
    base = teacher_path(study.teacher)
    check_weights(base)
    study.task.load()
    return base


# ---- in local processes --------------------------------------------------------------------------------------------


def _run_here(
    before: Mapping[Cell, CellStatus], device: str, options: ClusterOptions, report: Report
) -> list[CellStatus]:
    """Run what is left, so many cells at a time and none before its teacher, to the end of all."""
    refuse_active(before, "would be trained twice")
    gpus = _gpus(device, options)
    now = dict(before)
    waiting = [cell for cell, status in now.items() if status.state != "done"]
    running: dict[Cell, tuple[LocalJob[None], int]] = {}
    free = list(range(options.at_once or 1))

    def become(cell: Cell, **changes: Any) -> None:
        now[cell] = replace(now[cell], **changes)
        report(now[cell])

    try:
        while waiting or running:
            for cell in [cell for cell, (job, _) in running.items() if job.done()]:
                job, slot = running.pop(cell)
                free.append(slot)
                # By what is there, since submitit tells of success in a pickle alone.
                if cell.is_done():
                    become(cell, state="done")
                else:
                    become(cell, state="failed", why=last_line(job.paths.stdout))
            for cell in list(waiting):
                teacher = now[cell.teacher]
                is_ready = cell == cell.teacher or teacher.state == "done"
                if is_ready and free:
                    waiting.remove(cell)
                    slot = free.pop(0)
                    job, record = _start_here(cell, device, options, gpus[slot])
                    running[cell] = job, slot
                    become(cell, state="running", job=record.job, log=record.log_of(cell), why=None)
                elif not is_ready and cell.teacher not in waiting and cell.teacher not in running:
                    waiting.remove(cell)
                    become(cell, state="failed", job=None, log=teacher.log, why="its teacher failed")
            time.sleep(0.1)
    finally:
        _stop([job for job, _ in running.values()])
    return list(now.values())


def _start_here(
    cell: Cell, device: str, options: ClusterOptions, gpus: Sequence[int]
) -> tuple[LocalJob[None], JobRecord]:
    logs = cell.new_logs()
    executor = LocalExecutor(logs)
    executor.update_parameters(
        timeout_min=_NO_LIMIT_MINUTES, stderr_to_stdout=True, gpus_per_node=len(gpus), visible_gpus=gpus
    )
    threads = options.cpus or max(1, torch.get_num_threads() // (options.at_once or 1))
    # A terminal sends Ctrl-C to all processes on it. The caller alone is to hear it, and then stops the others.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment_variables(OMP_NUM_THREADS=threads):
            job = executor.submit(RunCell(), str(cell.place), cell.seed, device)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    if not isinstance(job, LocalJob):
        raise TypeError(f"submitit's local executor made a {type(job).__name__}")
    return job, write_record(cell, "local", job.job_id, logs)


def _gpus(device: str, options: ClusterOptions) -> list[list[int]]:
    """The GPUs of each of the cells that run at the same time; shared where there are too few for all."""
    count = torch.cuda.device_count() if device == "auto" else 0
    wanted = min(1, count) if options.gpus is None else options.gpus
    if wanted > count:
        raise InputError(f"{wanted} GPUs a cell are more than the {count} of this machine.")
    named = os.environ.get("CUDA_VISIBLE_DEVICES") if count else None
    if named and not re.fullmatch(r"\d+(,\d+)*", named):
        raise InputError(f"CUDA_VISIBLE_DEVICES is {named}; give the GPUs by their numbers, such as 0,1.")
    numbers = [int(number) for number in named.split(",")] if named else list(range(count))
    return [
        [numbers[(slot * wanted + i) % len(numbers)] for i in range(wanted)] for slot in range(options.at_once or 1)
    ]


def _stop(jobs: Sequence[LocalJob[None]]) -> None:
    """End processes: submitit's controller passes SIGTERM on to its task, and ends when that has ended."""
    for attempt in range(100):
        alive = [job for job in jobs if not job.done()]
        if not alive:
            return
        for job in alive:
            os.kill(int(job.job_id), signal.SIGTERM if attempt < 99 else signal.SIGKILL)
        time.sleep(0.1)


# ---- on Slurm ------------------------------------------------------------------------------------------------------


def _submit_to_slurm(
    before: Mapping[Cell, CellStatus], device: str, options: ClusterOptions, report: Report
) -> list[CellStatus]:
    """Queue what is left; students start when their teacher has ended well."""
    local = [cell for cell in before if (record := read_record(cell)) is not None and record.executor == "local"]
    refuse_active({cell: before[cell] for cell in local}, "would be trained twice")
    now = dict(before)
    submitted = 0
    for cell, status in before.items():
        if status.state in ("missing", "failed"):
            teacher = now[cell.teacher]
            is_ready = cell == cell.teacher or teacher.state == "done"
            record = _submit_cell(cell, device, options, submitted, after=None if is_ready else teacher.job)
            submitted += 1
            now[cell] = replace(status, state="submitted", job=record.job, log=record.log_of(cell))
        report(now[cell])
    return list(now.values())


def _submit_cell(cell: Cell, device: str, options: ClusterOptions, number: int, *, after: str | None) -> JobRecord:
    name, depends = f"{cell.study.name}-{cell.name}", [] if after is None else [f"afterok:{after}"]
    if options.at_once is not None:
        # Of the jobs of one name and user that ask for it, Slurm runs one at a time: so many names, so many cells.
        name = f"layerangles-lane{number % options.at_once}"
        depends.append("singleton")
    logs = cell.new_logs()
    executor = SlurmExecutor(logs, max_num_timeout=_RESTARTS)
    executor.update_parameters(
        job_name=name,
        comment=cell.title,
        time=options.minutes,
        mem=None if options.memory_gb is None else f"{math.ceil(options.memory_gb * 1024)}M",
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus,
        partition=options.partition,
        account=options.account,
        wckey=None,
        dependency=",".join(depends) or None,
        stderr_to_stdout=True,
        # Since Slurm 22.05 srun does not take this over from sbatch.
        srun_args=None if options.cpus is None else [f"--cpus-per-task={options.cpus}"],
        # Where the allocation is not enforced, threads would take all cores of the node.
        setup=["export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}"],
        additional_parameters={"requeue": True, **options.slurm, "kill-on-invalid-dep": "yes"},
    )
    # Submitted from within a job, such as an interactive one, it would inherit that one's limits.
    kept = {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or key.startswith("SBATCH_")}
    try:
        with clean_env(), environment_variables(**kept):
            job = executor.submit(RunCell(), str(cell.place), cell.seed, device)
    except FailedJobError as error:
        raise InputError(f"Slurm refused the job of {cell.title}: {error}") from error
    return write_record(cell, "slurm", job.job_id, logs)
