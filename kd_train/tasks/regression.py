"""Regression: texts, or pairs of texts, each with one number. STS-B of GLUE is the one that is known by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from accelerate import Accelerator
from pydantic import Field, model_validator
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kd_train.data.tables import Table
from kd_train.tasks.base import Feature, MicroBatch, Task, TaskSpec, encode_texts
from kd_train.tasks.classification import GLUE_HUB_NAME, answers_of, glue_name, labelled_micro_batch
from kd_train.tasks.metrics import NUMBER_METRICS, Metric, Predictions
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.models.texts import Text

_HEAD: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}


@dataclass(frozen=True)
class Split:
    """Examples: texts (or pairs of texts) and their numbers."""

    texts: list[Text]
    numbers: list[float]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Regression(Task):
    """A loaded regression."""

    all_metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS

    examples: dict[str, Split]
    metrics: tuple[str, ...]
    max_length: int

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.examples)

    def head(self) -> dict[str, Any]:
        """One output."""
        return dict(_HEAD)

    def fitted_to(self, config: PretrainedConfig) -> "Regression":
        """These data, for a teacher with one output.

        Raises:
            InputError: it has several.
        """
        if config.num_labels != 1:
            raise InputError(
                f"a regression needs a model with one output; the teacher has {config.num_labels}. Fine-tune the "
                "teacher on these data (teacher.finetune), or set task.kind to classification."
            )
        return self

    def texts(self, split: str) -> list[Text]:
        """The texts, or pairs of texts, that are rated."""
        return self.examples[split].texts

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> list[Feature]:
        """Token ids, and the number as ``label``."""
        features = encode_texts(self.texts(split), tokenizer, config, self.max_length)
        numbers = self.examples[split].numbers
        return [feature | {"label": number} for feature, number in zip(features, numbers, strict=True)]

    def collate(self, features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase) -> MicroBatch:
        """One number an example."""
        return labelled_micro_batch(features, tokenizer)

    def predict(
        self,
        model: PreTrainedModel,
        split: str,
        features: Sequence[Feature],
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
    ) -> dict[str, Predictions]:
        """The right numbers and the model's."""

        def numbers_of(logits: Tensor) -> list[float]:
            numbers: list[float] = logits.squeeze(-1).float().tolist()
            return numbers

        answers = answers_of(numbers_of, self, model, features, tokenizer, accelerator)
        return dict.fromkeys(self.metrics, Predictions(self.examples[split].numbers, answers))


class RegressionTask(TaskSpec):
    """The study's ``task``: texts, or pairs of texts, each with one number."""

    all_metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS

    kind: Literal["regression"] = "regression"
    text: str | tuple[str, str] | None = Field(default=None, description="the column, or two columns, of the text")
    label: str = Field(default="label", description="the column of the number")

    @model_validator(mode="after")
    def _known_glue(self) -> "RegressionTask":
        glue = glue_name(self.dataset)
        if glue not in (None, "stsb"):
            raise ValueError(
                f"glue/{glue} is no regression: set task.kind to classification; allowed here is glue/stsb"
            )
        return self

    def auto_model(self) -> Any:
        """A classifier of sequences, with one output."""
        return AutoModelForSequenceClassification

    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Encoders alone."""
        return (("encoder",),)

    def fit_head(self, config: PretrainedConfig) -> None:
        """One output."""
        for name, value in _HEAD.items():
            setattr(config, name, value)

    def load(self) -> Regression:
        """Load all splits of the task."""
        columns: str | tuple[str, str] = self.text or "text"
        if glue_name(self.dataset) is None:
            tables = self.tables()
        else:
            columns = self.text or ("sentence1", "sentence2")
            splits = {"train": "train", "dev": "validation"}
            tables = self.model_copy(update={"subset": "stsb"}).tables(hub_name=GLUE_HUB_NAME, default_splits=splits)
        examples = {
            split: Split(table.texts(columns), table.numbers(self.label))
            for split, table in tables.items()
            if not (split == "test" and _is_secret(table, self.label))
        }
        return Regression(examples, self.metrics or ("pearson", "spearman"), self.max_length)


def _is_secret(table: Table, label: str) -> bool:
    # The hub's way to say that the numbers of a test split are not public.
    return all(value == -1 for value in table.column(label))
