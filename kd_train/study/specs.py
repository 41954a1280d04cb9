"""Sections of a study file: training runs, the teacher, and the verdict."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from kd_train.optimizers import OptimizerSpec
from kd_train.students.lora import LoraSpec


class RunSpec(OptimizerSpec):
    """One training run: optimizer, batches, evaluation, and saved states.

    The keys ``parts`` and ``min_parts`` of version 0.1 are still read as ``micro_batches`` and ``min_micro_batches``.
    """

    epochs: float | None = Field(default=None, gt=0, description="passes over the training data; 3 by default")
    max_steps: int | None = Field(default=None, ge=1, description="instead of epochs")
    batch_size: int = Field(default=32, ge=1, description="examples per step")
    micro_batches: int = Field(
        default=6,
        ge=1,
        validation_alias=AliasChoices("micro_batches", "parts"),
        description="most micro-batches into which a batch is cut by length: same gradient, less padding",
    )
    min_micro_batches: int = Field(
        default=1,
        ge=1,
        validation_alias=AliasChoices("min_micro_batches", "min_parts"),
        description="fewest micro-batches: as many processes can share a batch",
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="steps between evaluations; ten evaluations per run by default"
    )
    resume_every: int = Field(default=500, ge=1, description="steps between saved states to resume from")
    keep: Literal["last", "best"] = Field(default="last", description="the last state, or the best on the dev split")
    patience: int | None = Field(
        default=None, ge=1, description="stop after this many evaluations on the dev split without improvement"
    )
    lora: LoraSpec | None = Field(default=None, description="train low-rank adapters, merged before a model is saved")

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
        """Number of optimizer steps on this many training examples; three epochs by default."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round((self.epochs or 3.0) * -(-n_examples // self.batch_size)))


class FinetuneSpec(RunSpec):
    """Fine-tuning of the teacher, before the students are trained."""

    learning_rate: float = Field(default=2e-5, gt=0, description="peak learning rate, after the warm-up")
    seed: int = Field(default=0, ge=0, description="seed of the data order, dropout and new weights")


class VerdictSpec(BaseModel):
    """The verdict, specified before the run: the metric, the split, and the difference that matters."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: str | None = Field(default=None, description="the task's first metric by default")
    split: str | None = Field(default=None, description="test by default, or dev if there is no test split")
    margin: float | None = Field(
        default=None, gt=0, description="smallest difference that matters, in the metric's unit"
    )
    margin_of_gain: float | None = Field(
        default=None, gt=0, description="the same, as a share of the gain of matching over none"
    )

    @model_validator(mode="after")
    def _one_margin(self) -> "VerdictSpec":
        if self.margin is not None and self.margin_of_gain is not None:
            raise ValueError(
                f"give either margin or margin_of_gain, not both: {self.margin:g} and {self.margin_of_gain:g}"
            )
        return self


class StudentTraining(RunSpec):
    """Training of the students."""

    learning_rate: float = Field(default=5e-5, gt=0, description="peak learning rate, after the warm-up")
    checkpoints: tuple[float, ...] = Field(
        default=(0.0, 0.01, 0.1, 0.5), description="points of training at which students are saved: shares of all steps"
    )

    @model_validator(mode="after")
    def _shares(self) -> "StudentTraining":
        if not all(0 <= share <= 1 for share in self.checkpoints):
            raise ValueError(f"checkpoints are shares of all steps, from 0 to 1; got {list(self.checkpoints)}")
        return self

    @property
    def in_words(self) -> str:
        """Length, batch size and learning rate, for people."""
        length = f"{self.max_steps} steps" if self.max_steps else f"{self.epochs or 3:g} epochs"
        return f"{length}, batch {self.batch_size}, learning rate {self.learning_rate:g}"

    def checkpoint_steps(self, total_steps: int) -> tuple[int, ...]:
        """Steps at which checkpoints are saved; the last step is left out, since its state is the student itself."""
        return tuple(sorted({round(share * total_steps) for share in self.checkpoints} - {total_steps}))


class TeacherSpec(BaseModel):
    """The study's ``teacher``: a directory, a hub name, or a packaged model, ``embedded/<name>``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(min_length=1, description="a directory, a hub name, or embedded/<name>")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    init: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: use the configuration alone, and train from scratch"
    )
    finetune: FinetuneSpec | None = Field(
        default=None, description="leave out if the model has been trained on the task"
    )

    @model_validator(mode="after")
    def _random_teachers_learn(self) -> "TeacherSpec":
        if self.init == "random" and self.finetune is None:
            raise ValueError(
                "init is random, and such a teacher knows nothing: give finetune, or set init to pretrained"
            )
        return self
