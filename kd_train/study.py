"""The study file: checked at the boundary, all mistakes at once, and resolved once."""

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from kd_train.controls import MADE_OF_STATES, TargetKind
from kd_train.lora import LoraSpec
from kd_train.losses import LossSpec
from kd_train.matching import Strategy
from kd_train.optimizers import OptimizerSpec
from kd_train.students import StudentSpec
from kd_train.tasks.classification import ClassificationTask
from kd_train.tasks.language_modelling import LanguageModellingTask
from kd_train.tasks.regression import RegressionTask
from kd_train.tasks.sequence_to_sequence import SequenceToSequenceTask
from layerangles.errors import InputError
from layerangles.files import replacing
from layerangles.states import Tower

RESOLVED_FILE = "study.resolved.yaml"
TASKS: dict[str, type[BaseModel]] = {
    "classification": ClassificationTask,
    "regression": RegressionTask,
    "sequence_to_sequence": SequenceToSequenceTask,
    "language_modelling": LanguageModellingTask,
}
Tracker = Literal["wandb", "tensorboard", "trackio"]


class RunSpec(OptimizerSpec):
    """One training run: the optimizer, the batches, and what is written along the way."""

    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1, description="instead of epochs")
    batch_size: int = Field(default=32, ge=1)
    parts: int = Field(
        default=6, ge=1, description="most parts of like length that a batch is cut into: same gradient, less padding"
    )
    min_parts: int = Field(default=1, ge=1, description="fewest parts: as many processes can share a batch")
    evaluate_every: int | None = Field(default=None, ge=1, description="steps; ten times a run by default")
    resume_every: int = Field(default=500, ge=1, description="steps between two states to resume from")
    keep: Literal["last", "best"] = Field(default="last", description="the last state, or the best on the dev split")
    patience: int | None = Field(
        default=None, ge=1, description="stop after so many evaluations on the dev split without a better one"
    )
    lora: LoraSpec | None = Field(default=None, description="train low-rank adapters; merged before anything is saved")

    @model_validator(mode="after")
    def _one_length(self) -> "RunSpec":
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give either epochs or max_steps")
        if self.min_parts > self.parts:
            raise ValueError(f"min_parts is {self.min_parts}, more than parts, {self.parts}")
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
    """The study's ``teacher``: a directory, a hub name, or one that a package ships, ``embedded/<name>``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    revision: str | None = None
    init: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: take the configuration alone, and train from nothing"
    )
    finetune: FinetuneSpec | None = Field(default=None, description="left out where the model knows the task already")

    @model_validator(mode="after")
    def _random_teachers_learn(self) -> "TeacherSpec":
        if self.init == "random" and self.finetune is None:
            raise ValueError("a teacher with random weights knows nothing: give finetune, or set init to pretrained")
        return self


class Variant(Strategy):
    """One entry of a study's ``strategies``: a strategy, and what its students do differently from the others.

    ``student`` and ``loss`` hold only what differs; what the study says is filled in.
    """

    student: StudentSpec | None = None
    loss: LossSpec | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    targets: TargetKind = Field(default="teacher", description="control targets in place of the teacher's states")

    @model_validator(mode="after")
    def _controls_are_matched(self) -> "Variant":
        if self.targets != "teacher" and self.kind == "none":
            raise ValueError(f"targets is {self.targets}, but the kind none matches no states. Choose another kind")
        return self

    @property
    def label(self) -> str:
        """What students of this strategy are called: its name, or its kind, its draw and its targets."""
        return super().label if self.name or self.targets == "teacher" else f"{super().label}-{self.targets}"


def _kind_of(task: Any) -> str:
    kind = task.get("kind", "classification") if isinstance(task, dict) else getattr(task, "kind", "")
    return str(kind)


AnyTask = Annotated[
    Annotated[ClassificationTask, Tag("classification")]
    | Annotated[RegressionTask, Tag("regression")]
    | Annotated[SequenceToSequenceTask, Tag("sequence_to_sequence")]
    | Annotated[LanguageModellingTask, Tag("language_modelling")],
    Discriminator(
        _kind_of,
        custom_error_type="unknown_kind",
        custom_error_message=f"unknown kind of task; allowed for task.kind are {', '.join(TASKS)}",
    ),
]


class Study(BaseModel):
    """A study: one teacher, one task, and students that differ in strategy and seed, or in what is said of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    output: str | None = Field(default=None, description="the study's directory; runs/<name> by default")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    task: AnyTask
    teacher: TeacherSpec
    student: StudentSpec
    strategies: tuple[Variant, ...] = Field(min_length=1)
    embedding_pair: bool = True
    towers: tuple[Tower, ...] | None = Field(
        default=None, min_length=1, description="match only these of an encoder-decoder; all by default"
    )
    loss: LossSpec = LossSpec()
    training: StudentTraining = StudentTraining()
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = Field(default=False, description="torch.compile the blocks of teacher and students")
    report_to: tuple[Tracker, ...] = Field(default=(), description="trackers beside metrics.jsonl")

    @model_validator(mode="before")
    @classmethod
    def _fill_in_variants(cls, content: Any) -> Any:
        """What a strategy says of its students is laid over what the study says of all."""
        if not isinstance(content, dict) or not isinstance(content.get("strategies"), list | tuple):
            return content
        filled = []
        for entry in content["strategies"]:
            if isinstance(entry, dict):
                whole = {
                    name: content[name] | entry[name]
                    for name in ("student", "loss")
                    if isinstance(entry.get(name), dict) and isinstance(content.get(name), dict)
                }
                filled.append(entry | whole)
            else:
                filled.append(entry)
        return content | {"strategies": filled}

    @model_validator(mode="after")
    def _no_student_twice(self) -> "Study":
        for what, values in (("seed", self.seeds), ("strategy", [s.label for s in self.strategies])):
            repeated = sorted({str(v) for v in values if list(values).count(v) > 1})
            if repeated:
                hint = ". Give the two a name of their own" if what == "strategy" else ""
                raise ValueError(f"the {what} {repeated[0]} occurs twice{hint}")
        return self

    @model_validator(mode="after")
    def _losses_fit_the_batches(self) -> "Study":
        for strategy in self.strategies:
            loss = strategy.loss or self.loss
            if loss.matched_tokens == "all" and strategy.kind != "none":
                if self.training.parts != 1:
                    raise ValueError(
                        f"loss.hidden is {loss.hidden}, which counts PAD, so a batch cannot be cut into parts of like "
                        f"length: set training.parts to 1 (it is {self.training.parts})"
                    )
                if strategy.targets in MADE_OF_STATES:
                    raise ValueError(
                        f"the targets {strategy.targets} are made for valid tokens, and loss.hidden {loss.hidden} "
                        "counts PAD: choose another loss, such as mse or unit"
                    )
            if strategy.targets == "other_text" and self.training.batch_size < 2:
                raise ValueError("the targets other_text need another text: set training.batch_size to 2 or more")
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
    if path.is_dir():  # it may have been moved since
        return study.model_copy(update={"output": str(path)})
    # Relative paths start at the study file.
    if study.task.files:
        files = {split: str((file.parent / place).resolve()) for split, place in study.task.files.items()}
        study = study.model_copy(update={"task": study.task.model_copy(update={"files": files})})
    if (beside := file.parent / study.teacher.model).is_dir():
        teacher = study.teacher.model_copy(update={"model": str(beside.resolve())})
        study = study.model_copy(update={"teacher": teacher})
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
        problems = [f"  - {problem}" for problem in _problems(error, content)]
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


def _problems(error: ValidationError, content: Any) -> Iterable[str]:
    """One line a place in the file: the path, what is wrong, what was got."""
    details = error.errors()
    by_place: dict[str, list[str]] = {}
    for detail in details:
        within = [d["loc"] for d in details if d["loc"][: len(detail["loc"])] == detail["loc"]]
        if detail["type"] == "too_short" and len(within) > 1:
            continue  # pydantic counts the valid items only; each of the others is reported by itself
        place = _place(detail["loc"], content)
        if detail["type"] == "extra_forbidden":
            valid = sorted(_fields_at(Study, detail["loc"][:-1]))
            near = difflib.get_close_matches(str(detail["loc"][-1]), valid, n=1, cutoff=0.5)
            hint = f" did you mean {near[0]}?" if near else ""
            message = f"unknown key;{hint} valid here: {', '.join(valid)}"
        elif detail["type"] == "missing":
            message = "missing"
        else:
            got = detail.get("input")
            shown = f" (got {got!r})" if isinstance(got, str | int | float | bool | list | tuple) else ""
            message = f"{detail['msg'].removeprefix('Value error, ')}{_nearest_choice(detail)}{shown}"
        by_place.setdefault(place, []).append(message)
    for place, messages in by_place.items():
        # A value that may be of several types is wrong in as many ways.
        yield f"{place}: {', or '.join(dict.fromkeys(messages))}"


def _place(location: Sequence[int | str], content: Any) -> str:
    """A mistake's path in the file. pydantic's also names types and tags, which are nowhere in the content."""
    path: list[str] = []
    for number, part in enumerate(location):
        inside = isinstance(content, dict) and part in content
        inside = inside or (isinstance(content, list | tuple) and isinstance(part, int) and part < len(content))
        if inside:
            content = content[part]
            path.append(str(part))
        elif number == len(location) - 1 and isinstance(content, dict) and part not in TASKS:
            path.append(str(part))  # a key that is missing
    return ".".join(path) or "study"


def _nearest_choice(detail: Any) -> str:
    if detail["type"] != "literal_error" or not isinstance(detail.get("input"), str):
        return ""
    choices = [c.strip(" '") for c in detail["ctx"]["expected"].replace(" or ", ", ").split(",")]
    near = difflib.get_close_matches(detail["input"], choices, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> set[str]:
    """The keys that are valid at a place of the study, by following the models' own fields."""
    for part in location:
        if part in TASKS:
            model = TASKS[str(part)]
            continue
        if isinstance(part, int) or part not in model.model_fields:
            continue
        inner = _models_in(model.model_fields[part].annotation)
        model = inner[0] if inner else model
    return set(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
