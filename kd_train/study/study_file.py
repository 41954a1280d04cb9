"""The study file: read with overrides, checked with all validation errors in one message, and written resolved."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kd_train.matching.controls import TARGETS, TargetKind
from kd_train.matching.losses import LossSpec
from kd_train.matching.strategies import Strategy
from kd_train.students.student_spec import StudentSpec
from kd_train.study.specs import StudentTraining, TeacherSpec, VerdictSpec
from kd_train.study.validation_errors import validation_errors
from kd_train.tasks.kinds import TASKS, AnyTask
from layerangles.errors import InputError
from layerangles.files import atomic_write
from layerangles.layers import Tower

RESOLVED_FILE = "study.resolved.yaml"
Tracker = Literal["wandb", "tensorboard", "trackio"]


class Variant(Strategy):
    """One entry of a study's ``strategies``: a strategy, and settings of its students that override the study's.

    ``student`` and ``loss`` hold only the keys that differ; the others are the study's.
    """

    student: StudentSpec | None = None
    loss: LossSpec | None = None
    learning_rate: float | None = Field(default=None, gt=0, description="instead of training.learning_rate")
    targets: TargetKind = Field(
        default="teacher", description="the teacher's states, or control targets in their place"
    )
    cell: str | None = Field(
        default=None,
        min_length=1,
        description="the comparison that it belongs to; by default that of all students that begin alike",
    )

    @model_validator(mode="after")
    def _controls_are_matched(self) -> "Variant":
        if self.is_control and not self.matches:
            raise ValueError(
                f"targets is {self.targets}, but the kind {self.kind} matches no states. Choose another kind"
            )
        return self

    @property
    def is_control(self) -> bool:
        """Whether its students are matched to targets other than the teacher's states."""
        return TARGETS[self.targets].is_control

    @property
    def label(self) -> str:
        """Name of its students: the entry's name, or its kind, draw and targets."""
        return super().label if self.name or not self.is_control else f"{super().label}-{self.targets}"


class Study(BaseModel):
    """A study: one teacher, one task, and students that differ in strategy, seed, or settings of their strategy."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = Field(default=1, description="version of this format")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="letters, digits, '_', '.' and '-'")
    output: str | None = Field(default=None, min_length=1, description="the study's directory; runs/<name> by default")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, description="every strategy gets one student per seed"
    )
    task: AnyTask
    teacher: TeacherSpec
    student: StudentSpec
    strategies: tuple[Variant, ...] = Field(min_length=1)
    embedding_pair: bool = Field(default=True, description="match the embedding outputs as well: 0 to 0")
    towers: tuple[Tower, ...] | None = Field(
        default=None, min_length=1, description="towers of an encoder-decoder to match; all by default"
    )
    loss: LossSpec = LossSpec()
    training: StudentTraining = StudentTraining()
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of activations; weights are float32"
    )
    compile: bool = Field(default=False, description="torch.compile the blocks of teacher and students")
    report_to: tuple[Tracker, ...] = Field(default=(), description="trackers to use besides metrics.jsonl")
    verdict: VerdictSpec = VerdictSpec()

    @model_validator(mode="before")
    @classmethod
    def _fill_in_variants(cls, content: Any) -> Any:
        """A strategy's ``student`` and ``loss`` override the study's, key by key."""
        if not isinstance(content, dict) or not isinstance(content.get("strategies"), list | tuple):
            return content
        filled = []
        for entry in content["strategies"]:
            if isinstance(entry, dict):
                merged = {
                    name: content[name] | entry[name]
                    for name in ("student", "loss")
                    if isinstance(entry.get(name), dict) and isinstance(content.get(name), dict)
                }
                filled.append(entry | merged)
            else:
                filled.append(entry)
        return content | {"strategies": filled}

    @model_validator(mode="after")
    def _no_student_twice(self) -> "Study":
        for key, values in (("seeds", self.seeds), ("towers", self.towers or ()), ("report_to", self.report_to)):
            repeated = sorted({str(v) for v in values if list(values).count(v) > 1})
            if repeated:
                raise ValueError(f"{key}: {repeated[0]} occurs twice. Write it once")
        # Some file systems do not tell Forward from forward.
        labels = [strategy.label.lower() for strategy in self.strategies]
        for number, strategy in enumerate(self.strategies):
            first = labels.index(labels[number])
            if first < number:
                raise ValueError(
                    f"strategies.{number}: {strategy.label} occurs twice, first as strategies.{first}. Give one of "
                    "them another name"
                )
        return self

    @model_validator(mode="after")
    def _verdict_is_scored(self) -> "Study":
        metric, scored = self.verdict.metric, self.task.metrics or tuple(self.task.all_metrics)
        if metric is not None and metric not in scored:
            raise ValueError(f"verdict.metric: {metric} is not scored; scored are {', '.join(scored)}")
        return self

    @model_validator(mode="after")
    def _losses_fit_the_batches(self) -> "Study":
        for number, strategy in enumerate(self.strategies):
            loss, place = strategy.loss or self.loss, f"strategies.{number}"
            targets = TARGETS[strategy.targets]
            if loss.matched_tokens == "all" and strategy.matches:
                if self.training.micro_batches != 1:
                    raise ValueError(
                        f"{place}: loss.hidden is {loss.hidden}, which counts PAD, so a batch cannot be cut into "
                        f"micro-batches of like length: set training.micro_batches to 1 (it is "
                        f"{self.training.micro_batches})"
                    )
                if targets.transform is not None:
                    raise ValueError(
                        f"{place}.targets: {strategy.targets} are made for valid tokens, and loss.hidden {loss.hidden} "
                        "counts PAD: choose another loss, such as mse or unit"
                    )
            if targets.needs_other_text and self.training.batch_size < 2:
                raise ValueError(
                    f"{place}.targets: {strategy.targets} needs another text in the batch: set training.batch_size to "
                    f"2 or more (it is {self.training.batch_size})"
                )
        return self

    @property
    def folder(self) -> Path:
        """The study's directory."""
        return Path(self.output or f"runs/{self.name}")


def read_study(path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: a YAML file, or a study's directory (then its ``study.resolved.yaml``).
        overrides: ``key=value`` with dots in the key, such as ``training.max_steps=100``; the value is YAML.

    Raises:
        InputError: no such file, no YAML, or an invalid study: all validation errors in one message, each unknown key
            with the nearest valid one.
    """
    path = Path(path)
    file = path / RESOLVED_FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{file} does not exist. Give a study file (YAML); examples/studies/ holds some to start from."
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{file} holds {type(content).__name__}, not a mapping of keys to values. It is no study file."
        )
    for override in overrides:
        _set(content, override)
    study = parse_study(content, source=str(file))
    if path.is_dir():  # the directory may have been moved since it was written
        return study.model_copy(update={"output": str(path)})
    # Relative paths start at the study file.
    if study.task.files:
        files = {split: str((file.parent / place).resolve()) for split, place in study.task.files.items()}
        study = study.model_copy(update={"task": study.task.model_copy(update={"files": files})})
    if (beside := file.parent / study.teacher.model).is_dir():
        teacher = study.teacher.model_copy(update={"model": str(beside.resolve())})
        study = study.model_copy(update={"teacher": teacher})
    return study


def study_folder_of(student: Path) -> Path | None:
    """The study directory that contains a student or one of its checkpoints; None if there is none."""
    parents = list(student.resolve().parents)[:4]
    return next((parent for parent in parents if (parent / RESOLVED_FILE).is_file()), None)


def study_of(student: Path) -> Study | None:
    """The study whose directory contains a student or one of its checkpoints; None if there is none."""
    folder = study_folder_of(student)
    return None if folder is None else read_study(folder)


def parse_study(content: dict[str, Any], *, source: str = "the study") -> Study:
    """Check the content of a study file; ``source`` names it in errors. See :func:`read_study`."""
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        lines = [f"  - {line}" for line in validation_errors(error, content, Study, TASKS)]
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise InputError("\n".join([f"{source} has {count}:", *lines])) from error


def write_resolved(study: Study, folder: Path) -> None:
    """Write the study with all defaults filled in, as the record of the run."""
    with atomic_write(folder / RESOLVED_FILE, overwrite=True) as beside:
        header = (
            f"# Written by layerangles: the study with every default. Run it again: layerangles train {RESOLVED_FILE}\n"
        )
        beside.write_text(header + yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _set(content: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {override}: wanted key=value, such as training.max_steps=100.")
    *parents, last = key.split(".")
    for parent in parents:
        if content.get(parent) is None:
            content[parent] = {}
        content = content[parent]
        if not isinstance(content, dict):
            raise InputError(f"--set {override}: {parent} is not a mapping, so it has no key {last}.")
    try:
        content[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: the value is not valid YAML.") from error
