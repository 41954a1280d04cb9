"""The sections of a study file that describe training runs, the teacher and the verdict."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from kd_train.optimizers import OptimizerSpec
from kd_train.students.lora import LoraSpec


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
