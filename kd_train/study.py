"""The study file: checked at the boundary, all mistakes at once, and resolved once."""

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kd_train.bank import OptimizerSpec
from kd_train.losses import LossSpec
from kd_train.matching import Strategy
from kd_train.students import StudentSpec
from kd_train.tasks.classification import ClassificationTask
from layerangles.errors import InputError
from layerangles.files import replacing

RESOLVED_FILE = "study.resolved.yaml"


class RunSpec(OptimizerSpec):
    """One training run: the optimizer, the batches, and what is written along the way."""

    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1, description="instead of epochs")
    batch_size: int = Field(default=32, ge=1)
    parts: int = Field(
        default=6, ge=1, description="most parts of like length that a batch is cut into: same gradient, less padding"
    )
    evaluate_every: int | None = Field(default=None, ge=1, description="steps; ten times a run by default")
    resume_every: int = Field(default=500, ge=1, description="steps between two states to resume from")

    @model_validator(mode="after")
    def _one_length(self) -> "RunSpec":
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give either epochs or max_steps")
        return self

    def total_steps(self, n_examples: int) -> int:
        """The number of optimizer steps on so many examples; three epochs where nothing is said."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round((self.epochs or 3.0) * -(-n_examples // self.batch_size)))


class FinetuneSpec(RunSpec):
    """How the teacher is fine-tuned before it teaches."""

    learning_rate: float = Field(default=2e-5, gt=0)
    seed: int = Field(default=0, ge=0)


class StudentTraining(RunSpec):
    """How the students are trained."""

    learning_rate: float = Field(default=5e-5, gt=0)
    checkpoints: tuple[float, ...] = Field(
        default=(0.0, 0.01, 0.1, 0.5), description="where students are kept along training: shares of all steps"
    )

    @model_validator(mode="after")
    def _shares(self) -> "StudentTraining":
        if not all(0 <= share <= 1 for share in self.checkpoints):
            raise ValueError("checkpoints are shares of all steps, from 0 to 1")
        return self

    def checkpoint_steps(self, total_steps: int) -> tuple[int, ...]:
        """The steps to keep, without the last, whose state is the student itself."""
        return tuple(sorted({round(share * total_steps) for share in self.checkpoints} - {total_steps}))


class TeacherSpec(BaseModel):
    """The study's ``teacher``: a directory, a hub name, or ``embedded/all-MiniLM-L6-v2``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    revision: str | None = None
    finetune: FinetuneSpec | None = Field(default=None, description="left out where the model knows the task already")


class Study(BaseModel):
    """A study: one teacher, one task, and students that differ in nothing but strategy and seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    output: str | None = Field(default=None, description="the study's directory; runs/<name> by default")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    task: ClassificationTask
    teacher: TeacherSpec
    student: StudentSpec
    strategies: tuple[Strategy, ...] = Field(min_length=1)
    embedding_pair: bool = True
    loss: LossSpec = LossSpec()
    training: StudentTraining = StudentTraining()
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _no_student_twice(self) -> "Study":
        for what, values in (("seed", self.seeds), ("strategy", [s.label for s in self.strategies])):
            repeated = sorted({str(v) for v in values if list(values).count(v) > 1})
            if repeated:
                hint = ". Give the two a name of their own" if what == "strategy" else ""
                raise ValueError(f"the {what} {repeated[0]} occurs twice{hint}")
        return self

    @property
    def folder(self) -> Path:
        """Where the study is written."""
        return Path(self.output or f"runs/{self.name}")


def read_study(path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: a YAML file, or a study's directory (then its ``study.resolved.yaml``).
        overrides: ``key=value`` with dots in the key, such as ``training.max_steps=100``; the value is YAML.

    Raises:
        InputError: no such file, no YAML, or mistakes in it: all of them in one message, each with the valid key
            that is nearest to an unknown one.
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
    if study.task.files and path.is_file():  # relative paths start at the study file
        files = {split: str((file.parent / place).resolve()) for split, place in study.task.files.items()}
        study = study.model_copy(update={"task": study.task.model_copy(update={"files": files})})
    return study


def study_of(student: Path) -> Study | None:
    """The study that a student directory (or one of its checkpoints) belongs to; None if it stands alone."""
    for parent in list(student.resolve().parents)[:4]:
        if (parent / RESOLVED_FILE).is_file():
            return read_study(parent)
    return None


def parse_study(content: dict[str, Any], *, source: str = "the study") -> Study:
    """Check a study's content; see :func:`read_study`."""
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        problems = [f"  - {problem}" for problem in _problems(error)]
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise InputError("\n".join([f"{source} has {count}:", *problems])) from error


def write_resolved(study: Study, folder: Path) -> None:
    """Write the study with all its defaults, as the record of what was run."""
    with replacing(folder / RESOLVED_FILE, overwrite=True) as beside:
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


def _problems(error: ValidationError) -> Iterable[str]:
    details = error.errors()
    for detail in details:
        within = [d["loc"] for d in details if d["loc"][: len(detail["loc"])] == detail["loc"]]
        if detail["type"] == "too_short" and len(within) > 1:
            continue  # pydantic counts the valid items only; each of the others is reported by itself
        location = ".".join(str(part) for part in detail["loc"]) or "study"
        if detail["type"] == "extra_forbidden":
            valid = sorted(_fields_at(Study, detail["loc"][:-1]))
            near = difflib.get_close_matches(str(detail["loc"][-1]), valid, n=1, cutoff=0.5)
            hint = f" did you mean {near[0]}?" if near else ""
            yield f"{location}: unknown key;{hint} valid here: {', '.join(valid)}"
        elif detail["type"] == "missing":
            yield f"{location}: missing"
        else:
            message = detail["msg"].removeprefix("Value error, ")
            got = detail.get("input")
            shown = f" (got {got!r})" if isinstance(got, str | int | float | bool) else ""
            yield f"{location}: {message}{_nearest_choice(detail)}{shown}"


def _nearest_choice(detail: Any) -> str:
    if detail["type"] != "literal_error" or not isinstance(detail.get("input"), str):
        return ""
    choices = [c.strip(" '") for c in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
    near = difflib.get_close_matches(detail["input"], choices, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> set[str]:
    """The keys that are valid at a place of the study, by following the models' own fields."""
    for part in location:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _models_in(model.model_fields[part].annotation)
        model = inner[0] if inner else model
    return set(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
