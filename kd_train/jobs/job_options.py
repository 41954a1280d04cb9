"""The resources of a job: parallelism, cores, GPUs, and the options of Slurm."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Options that would break the order of jobs, their logs, their paths or the signal that warns them.
_RESERVED = (
    *("array", "chdir", "dependency", "error", "job-name"),
    *("kill-on-invalid-dep", "open-mode", "output", "signal"),
)


class JobOptions(BaseModel):
    """The resources of a job: ``at_once``, ``cpus`` and ``gpus`` for both executors, the others for Slurm alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_once: int | None = Field(
        default=None, ge=1, description="most jobs in parallel; by default 1 locally, and no limit on Slurm"
    )
    cpus: int | None = Field(
        default=None,
        ge=1,
        description="cores of a job, hence its threads; by default an even share locally, Slurm's own default there",
    )
    gpus: int | None = Field(
        default=None, ge=0, description="GPUs of a job; by default 1 locally if there is any, none on Slurm"
    )
    minutes: int = Field(default=24 * 60, ge=1, description="time limit of a job; a job that reaches it is restarted")
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
            if key in _RESERVED:
                raise ValueError(f"{key} is set by this command, as are {', '.join(_RESERVED)}")
        return options
