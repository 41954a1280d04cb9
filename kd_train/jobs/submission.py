"""Training of studies in jobs, in local processes or on Slurm, through submitit.

The results in a study's directory decide which jobs remain, so submitting again goes on where jobs failed or ran out of
time, and trains nothing twice. The directory also holds, in ``jobs/``, one JSON record per job (its last submission)
and submitit's folders with the logs. Only the job itself reads the pickle that was written for it.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kd_train.jobs.job import Executor, Job, sole_command
from kd_train.jobs.job_options import JobOptions
from kd_train.jobs.job_status import JobStatus, refuse_active_jobs_in, status_of
from kd_train.study.plan import plan_study, teacher_path
from kd_train.study.study_file import Study
from kd_train.training import study_directory
from layerangles.errors import InputError
from layerangles.extras import require_extra
from layerangles.models.weights import check_weights


def submit(
    studies: Sequence[Study],
    *,
    executor: Executor,
    device: str = "auto",
    options: JobOptions | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    report: Callable[[JobStatus], None] = lambda _status: None,
) -> list[JobStatus]:
    """Train studies in jobs: the teacher of each, then the students of each seed.

    Locally this returns when all jobs have ended, on Slurm when all are queued. Jobs that are done, queued or running
    are left alone: call it again to see their state and to go on with those that failed. The students are those of
    :func:`kd_train.training.train_study.train_study` on the same number of threads; see ``cpus``.

    Args:
        studies: what to train, each into a directory of its own.
        executor: ``"local"`` for processes of this machine, ``"slurm"`` for jobs of the cluster that it belongs to.
        device: ``"auto"`` or ``"cpu"``, as for :func:`kd_train.training.train_study.train_study`.
        options: the resources of a job.
        overwrite: delete existing studies and start anew.
        dry_run: return the state of the jobs, and start none.
        report: called whenever a job has changed its state; on Slurm once for every job.

    Returns:
        The state of all jobs.

    Raises:
        InputError: a study that cannot be trained, no Slurm, or jobs that are active elsewhere; before any work.
    """
    options = options or JobOptions()
    _check(studies, executor, device)
    jobs = Job.all_of(studies)
    if dry_run:
        return list(status_of(jobs).values())
    require_extra("slurm", "training in jobs")
    from kd_train.jobs.local_processes import run_locally
    from kd_train.jobs.slurm import submit_to_slurm

    claims: list[dict[str, Any]] = [
        {"resume": not overwrite, "overwrite": overwrite, "inputs": [_fetch(study)]} for study in studies
    ]
    for study, claim in zip(studies, claims, strict=True):  # all, before the first is deleted
        study_directory.check_claim(study, **claim)
    with ExitStack() as stack:
        for study in studies if overwrite else ():
            refuse_active_jobs_in(study)
        for study, claim in zip(studies, claims, strict=True):
            study_directory.claim_study(study, **claim)
            stack.enter_context(sole_command(study))
        run = submit_to_slurm if executor == "slurm" else run_locally
        return run(status_of(jobs), device, options, report)


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
    """Fetch and check model and data, since the nodes of many clusters have no network; the model's path."""
    base = teacher_path(study.teacher)
    check_weights(base)
    study.task.load()
    return base
