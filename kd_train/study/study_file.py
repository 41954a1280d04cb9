"""The study file: checked at the boundary, all mistakes at once, and resolved once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from kd_train.matching.controls import TARGETS, TargetKind
from kd_train.matching.losses import LossSpec
from kd_train.matching.strategies import Strategy
from kd_train.optimizers import OptimizerSpec
from kd_train.students.lora import LoraSpec
from kd_train.students.student_spec import StudentSpec
from kd_train.study.validation_errors import validation_errors
from kd_train.tasks.classification import ClassificationTask
from kd_train.tasks.language_modelling import LanguageModellingTask
from kd_train.tasks.regression import RegressionTask
from kd_train.tasks.sequence_to_sequence import SequenceToSequenceTask
from layerangles.errors import InputError
from layerangles.files import atomic_write
from layerangles.layers import Tower

RESOLVED_FILE = "study.resolved.yaml"
TASKS: dict[str, type[BaseModel]] = {
    "classification": ClassificationTask,
    "regression": RegressionTask,
    "sequence_to_sequence": SequenceToSequenceTask,
    "language_modelling": LanguageModellingTask,
}
Tracker = Literal["wandb", "tensorboard", "trackio"]


class RunSpec(OptimizerSpec):
    """One training run: the optimizer, the batches, and what is written along the way.

    ``parts`` and ``min_parts`` are the names that ``micro_batches`` and ``min_micro_batches`` had in version 0.1.
    """

    epochs: float | None = Field(default=None, gt=0, description="passes over the training data; 3 by default")
    max_steps: int | None = Field(default=None, ge=1, description="instead of epochs")
    batch_size: int = Field(default=32, ge=1, description="examples a step")
    micro_batches: int = Field(
        default=6,
        ge=1,
        validation_alias=AliasChoices("micro_batches", "parts"),
        description="most micro-batches of like length that a batch is cut into: same gradient, less padding",
    )
    min_micro_batches: int = Field(
        default=1,
        ge=1,
        validation_alias=AliasChoices("min_micro_batches", "min_parts"),
        description="fewest micro-batches: as many processes can share a batch",
    )
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
            raise ValueError(f"give either epochs or max_steps, not both: {self.epochs:g} and {self.max_steps}")
        if self.min_micro_batches > self.micro_batches:
            raise ValueError(
                f"min_micro_batches is {self.min_micro_batches}, more than micro_batches, "
                f"{self.micro_batches}; raise micro_batches to it"
            )
        if self.min_micro_batches > self.batch_size:
            raise ValueError(
                f"min_micro_batches is {self.min_micro_batches}, more than the examples of a batch, "
                f"{self.batch_size}; raise batch_size"
            )
        return self

    def total_steps(self, n_examples: int) -> int:
        """The number of optimizer steps on so many examples; three epochs where nothing is said."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round((self.epochs or 3.0) * -(-n_examples // self.batch_size)))


class FinetuneSpec(RunSpec):
    """How the teacher is fine-tuned before it teaches."""

    learning_rate: float = Field(default=2e-5, gt=0, description="at its highest, after the warm-up")
    seed: int = Field(default=0, ge=0, description="of the data's order, dropout and new weights")


class VerdictSpec(BaseModel):
    """How the study is to be judged, said before it is run: on what, and which difference would matter."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: str | None = Field(default=None, description="the task's deciding one by default")
    split: str | None = Field(default=None, description="test, or dev where there is none, by default")
    margin: float | None = Field(
        default=None, gt=0, description="the smallest difference that matters, in the metric's own unit"
    )
    margin_of_gain: float | None = Field(
        default=None, gt=0, description="the same, as a share of what matching gains over none"
    )

    @model_validator(mode="after")
    def _one_margin(self) -> "VerdictSpec":
        if self.margin is not None and self.margin_of_gain is not None:
            raise ValueError(
                f"give either margin or margin_of_gain, not both: {self.margin:g} and {self.margin_of_gain:g}"
            )
        return self


class StudentTraining(RunSpec):
    """How the students are trained."""

    learning_rate: float = Field(default=5e-5, gt=0, description="at its highest, after the warm-up")
    checkpoints: tuple[float, ...] = Field(
        default=(0.0, 0.01, 0.1, 0.5), description="where students are kept along training: shares of all steps"
    )

    @model_validator(mode="after")
    def _shares(self) -> "StudentTraining":
        if not all(0 <= share <= 1 for share in self.checkpoints):
            raise ValueError(f"checkpoints are shares of all steps, from 0 to 1; got {list(self.checkpoints)}")
        return self

    @property
    def in_words(self) -> str:
        """How long, in which batches, and at which rate."""
        length = f"{self.max_steps} steps" if self.max_steps else f"{self.epochs or 3:g} epochs"
        return f"{length}, batch {self.batch_size}, learning rate {self.learning_rate:g}"

    def checkpoint_steps(self, total_steps: int) -> tuple[int, ...]:
        """The steps to keep, without the last, whose state is the student itself."""
        return tuple(sorted({round(share * total_steps) for share in self.checkpoints} - {total_steps}))


class TeacherSpec(BaseModel):
    """The study's ``teacher``: a directory, a hub name, or one that a package ships, ``embedded/<name>``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(min_length=1, description="a directory, a hub name, or embedded/<name>")
    revision: str | None = Field(default=None, description="of the hub: a branch, tag or commit")
    init: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: take the configuration alone, and train from nothing"
    )
    finetune: FinetuneSpec | None = Field(default=None, description="left out where the model knows the task already")

    @model_validator(mode="after")
    def _random_teachers_learn(self) -> "TeacherSpec":
        if self.init == "random" and self.finetune is None:
            raise ValueError(
                "init is random, and such a teacher knows nothing: give finetune, or set init to pretrained"
            )
        return self


class Variant(Strategy):
    """One entry of a study's ``strategies``: a strategy, and what its students do differently from the others.

    ``student`` and ``loss`` hold only what differs; what the study says is filled in.
    """

    student: StudentSpec | None = None
    loss: LossSpec | None = None
    learning_rate: float | None = Field(default=None, gt=0, description="instead of training.learning_rate")
    targets: TargetKind = Field(default="teacher", description="control targets in place of the teacher's states")
    cell: str | None = Field(
        default=None, min_length=1, description="the comparison it belongs to; by default what begins alike"
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
        """Whether its students are matched to something else than the teacher's states."""
        return TARGETS[self.targets].is_control

    @property
    def label(self) -> str:
        """What students of this strategy are called: its name, or its kind, its draw and its targets."""
        return super().label if self.name or not self.is_control else f"{super().label}-{self.targets}"


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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = Field(default=1, description="of this format")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="letters, digits, '_', '.' and '-'")
    output: str | None = Field(default=None, min_length=1, description="the study's directory; runs/<name> by default")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,), min_length=1, description="every strategy has a student of each"
    )
    task: AnyTask
    teacher: TeacherSpec
    student: StudentSpec
    strategies: tuple[Variant, ...] = Field(min_length=1)
    embedding_pair: bool = Field(default=True, description="match the embedding outputs, too: 0 to 0")
    towers: tuple[Tower, ...] | None = Field(
        default=None, min_length=1, description="match only these of an encoder-decoder; all by default"
    )
    loss: LossSpec = LossSpec()
    training: StudentTraining = StudentTraining()
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of activations; weights are float32"
    )
    compile: bool = Field(default=False, description="torch.compile the blocks of teacher and students")
    report_to: tuple[Tracker, ...] = Field(default=(), description="trackers beside metrics.jsonl")
    verdict: VerdictSpec = VerdictSpec()

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


def study_folder_of(student: Path) -> Path | None:
    """The directory of the study that a student (or one of its checkpoints) belongs to; None if it stands alone."""
    parents = list(student.resolve().parents)[:4]
    return next((parent for parent in parents if (parent / RESOLVED_FILE).is_file()), None)


def study_of(student: Path) -> Study | None:
    """The study that a student directory (or one of its checkpoints) belongs to; None if it stands alone."""
    folder = study_folder_of(student)
    return None if folder is None else read_study(folder)


def parse_study(content: dict[str, Any], *, source: str = "the study") -> Study:
    """Check a study's content; see :func:`read_study`."""
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        problems = [f"  - {mistake}" for mistake in validation_errors(error, content, Study, TASKS)]
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise InputError("\n".join([f"{source} has {count}:", *problems])) from error


def write_resolved(study: Study, folder: Path) -> None:
    """Write the study with all its defaults, as the record of what was run."""
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
