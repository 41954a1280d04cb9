"""Jobs on a Slurm cluster."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import clean_env, environment_variables

from kd_train.jobs.job import Job, JobRecord, read_record, write_record
from kd_train.jobs.job_options import JobOptions
from kd_train.jobs.job_status import JobStatus, refuse_active
from layerangles.errors import InputError

# How often Slurm restarts a job that reached its time limit; each time it goes on from its last saved state.
_RESTARTS = 10


def submit_to_slurm(
    before: Mapping[Job, JobStatus], device: str, options: JobOptions, report: Callable[[JobStatus], None]
) -> list[JobStatus]:
    """Queue the remaining jobs; students start when their teacher has succeeded."""
    local = [job for job in before if (record := read_record(job)) is not None and record.executor == "local"]
    refuse_active({job: before[job] for job in local}, "would be trained twice")
    now = dict(before)
    submitted = 0
    for job, status in before.items():
        if status.state in ("missing", "failed"):
            teacher = now[job.teacher]
            is_ready = job == job.teacher or teacher.state == "done"
            record = _submit(job, device, options, submitted, after=None if is_ready else teacher.job_id)
            submitted += 1
            now[job] = replace(status, state="submitted", job_id=record.job, log=record.log_of(job))
        report(now[job])
    return list(now.values())


def _submit(job: Job, device: str, options: JobOptions, number: int, *, after: str | None) -> JobRecord:
    name, depends = f"{job.study.name}-{job.name}", [] if after is None else [f"afterok:{after}"]
    if options.at_once is not None:
        # Slurm runs singleton jobs of one name and user one at a time, so the number of names limits the parallel jobs.
        name = f"layerangles-lane{number % options.at_once}"
        depends.append("singleton")
    logs = job.new_logs()
    executor = SlurmExecutor(logs, max_num_timeout=_RESTARTS)
    executor.update_parameters(
        job_name=name,
        comment=job.title,
        time=options.minutes,
        mem=None if options.memory_gb is None else f"{math.ceil(options.memory_gb * 1024)}M",
        cpus_per_task=options.cpus,
        gpus_per_node=options.gpus,
        partition=options.partition,
        account=options.account,
        wckey=None,
        dependency=",".join(depends) or None,
        stderr_to_stdout=True,
        # Since Slurm 22.05 srun does not inherit this from sbatch.
        srun_args=None if options.cpus is None else [f"--cpus-per-task={options.cpus}"],
        # Where the allocation is not enforced, threads would use all cores of the node.
        setup=["export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}"],
        additional_parameters={"requeue": True, **options.slurm, "kill-on-invalid-dep": "yes"},
    )
    # A job submitted from within another, such as an interactive one, would inherit its limits.
    kept = {key: value for key, value in os.environ.items() if key == "SLURM_CONF" or key.startswith("SBATCH_")}
    try:
        with clean_env(), environment_variables(**kept):
            submitted = job.submit_to(executor, device)
    except FailedJobError as error:
        raise InputError(f"Slurm refused the job of {job.title}: {error}") from error
    return write_record(job, "slurm", submitted.job_id, logs)
