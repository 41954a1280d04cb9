"""Jobs in processes of this machine."""

import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from submitit import LocalExecutor, LocalJob
from submitit.helpers import environment_variables

from kd_train.jobs.job import Job, JobRecord, write_record
from kd_train.jobs.job_options import JobOptions
from kd_train.jobs.job_status import JobStatus, last_line, refuse_active
from layerangles.errors import InputError

# submitit requires a limit for local jobs too; its default is two minutes.
_NO_LIMIT_MINUTES = 60 * 24 * 365


def run_locally(
    before: Mapping[Job, JobStatus], device: str, options: JobOptions, report: Callable[[JobStatus], None]
) -> list[JobStatus]:
    """Run the remaining jobs, at most ``at_once`` in parallel, each after its teacher."""
    refuse_active(before, "would be trained twice")
    gpus = _gpus(device, options)
    now = dict(before)
    waiting = [job for job, status in now.items() if status.state != "done"]
    running: dict[Job, tuple[LocalJob[None], int]] = {}
    free = list(range(options.at_once or 1))

    def become(job: Job, **changes: Any) -> None:
        now[job] = replace(now[job], **changes)
        report(now[job])

    try:
        while waiting or running:
            for job in [job for job, (process, _) in running.items() if process.done()]:
                process, slot = running.pop(job)
                free.append(slot)
                # Judged by the results, since submitit reports success in a pickle alone.
                if job.is_done():
                    become(job, state="done")
                else:
                    become(job, state="failed", why=last_line(process.paths.stdout))
            for job in list(waiting):
                teacher = now[job.teacher]
                is_ready = job == job.teacher or teacher.state == "done"
                if is_ready and free:
                    waiting.remove(job)
                    slot = free.pop(0)
                    process, record = _start(job, device, options, gpus[slot])
                    running[job] = process, slot
                    become(job, state="running", job_id=record.job, log=record.log_of(job), why=None)
                elif not is_ready and job.teacher not in waiting and job.teacher not in running:
                    waiting.remove(job)
                    become(job, state="failed", job_id=None, log=teacher.log, why="its teacher failed")
            time.sleep(0.1)
    finally:
        _stop([process for process, _ in running.values()])
    return list(now.values())


def _start(job: Job, device: str, options: JobOptions, gpus: Sequence[int]) -> tuple[LocalJob[None], JobRecord]:
    logs = job.new_logs()
    executor = LocalExecutor(logs)
    executor.update_parameters(
        timeout_min=_NO_LIMIT_MINUTES, stderr_to_stdout=True, gpus_per_node=len(gpus), visible_gpus=gpus
    )
    threads = options.cpus or max(1, torch.get_num_threads() // (options.at_once or 1))
    # A terminal sends Ctrl-C to all its processes. The caller alone receives it, and then stops the others.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with environment_variables(OMP_NUM_THREADS=threads):
            process = job.submit_to(executor, device)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return process, write_record(job, "local", process.job_id, logs)


def _gpus(device: str, options: JobOptions) -> list[list[int]]:
    """The GPUs of each slot for a parallel job; shared if there are too few."""
    count = torch.cuda.device_count() if device == "auto" else 0
    wanted = min(1, count) if options.gpus is None else options.gpus
    if wanted > count:
        raise InputError(f"{wanted} GPUs per job are more than the {count} of this machine.")
    named = os.environ.get("CUDA_VISIBLE_DEVICES") if count else None
    if named and not re.fullmatch(r"\d+(,\d+)*", named):
        raise InputError(f"CUDA_VISIBLE_DEVICES is {named}; give the GPUs by their numbers, such as 0,1.")
    numbers = [int(number) for number in named.split(",")] if named else list(range(count))
    return [
        [numbers[(slot * wanted + i) % len(numbers)] for i in range(wanted)] for slot in range(options.at_once or 1)
    ]


def _stop(processes: Sequence[LocalJob[None]]) -> None:
    """End processes: submitit's controller passes SIGTERM on to its task, and ends after it."""
    for attempt in range(100):
        alive = [process for process in processes if not process.done()]
        if not alive:
            return
        for process in alive:
            os.kill(int(process.job_id), signal.SIGTERM if attempt < 99 else signal.SIGKILL)
        time.sleep(0.1)
