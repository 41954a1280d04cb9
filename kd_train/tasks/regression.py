"""Regression: texts, or pairs of texts, each with one number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from kd_train.tasks.base import Feature, KnownDataset, MicroBatch, Task, TaskSpec
from kd_train.tasks.labelled import (
    GLUE,
    LabelledSplit,
    glue_dataset,
    glue_name,
    is_secret,
    labelled_features,
    labelled_micro_batch,
    labelled_tables,
    read_logits,
)
from kd_train.tasks.scoring.metrics import NUMBER_METRICS, Metric, Predictions
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import accelerate
    import torch
    import transformers

    from kd_train.data.tables import Text
else:
    accelerate, torch, transformers = map(lazy_module, ("accelerate", "torch", "transformers"))

_HEAD: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}


@dataclass(frozen=True)
class Regression(Task):
    """A loaded regression task."""

    all_metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS

    examples: dict[str, LabelledSplit]
    metrics: tuple[str, ...]
    max_length: int

    def head(self) -> dict[str, Any]:
        """One output."""
        return dict(_HEAD)

    def fitted_to(self, config: transformers.PretrainedConfig) -> Regression:
        """These data, for a teacher with one output.

        Raises:
            InputError: the teacher has several outputs.
        """
        if config.num_labels != 1:
            raise InputError(
                f"a regression needs a model with one output; the teacher has {config.num_labels}. Fine-tune the "
                "teacher on these data (teacher.finetune), or set task.kind to classification."
            )
        return self

    def texts(self, split: str) -> list[Text]:
        """The texts, or pairs of texts, to rate."""
        return self.examples[split].texts

    def encode(
        self, split: str, tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig
    ) -> list[Feature]:
        """Token ids, and the number as ``label``."""
        return labelled_features(self.examples[split], tokenizer, config, self.max_length)

    def collate(self, features: Sequence[Feature], tokenizer: transformers.PreTrainedTokenizerBase) -> MicroBatch:
        """Pad examples; ``labels`` has one number per example."""
        return labelled_micro_batch(features, tokenizer)

    def predict(
        self,
        model: transformers.PreTrainedModel,
        split: str,
        features: Sequence[Feature],
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> dict[str, Predictions]:
        """Correct and predicted numbers, the same for every metric."""

        def numbers_of(logits: torch.Tensor) -> list[float]:
            numbers: list[float] = logits.squeeze(-1).float().tolist()
            return numbers

        answers = read_logits(numbers_of, self, model, features, tokenizer, accelerator)
        return dict.fromkeys(self.metrics, Predictions(self.examples[split].labels, answers))


class RegressionTask(TaskSpec):
    """The study's ``task``: texts, or pairs of texts, each with one number."""

    all_metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS

    kind: Literal["regression"] = "regression"
    text: str | tuple[str, str] | None = Field(default=None, description="the column, or two columns, of the text")
    label: str = Field(default="label", description="the column of the number")

    @model_validator(mode="after")
    def _known_glue(self) -> RegressionTask:
        glue, rated = glue_name(self.dataset), [name for name, known in GLUE.items() if known.n_labels == 1]
        if glue is not None and glue not in rated:
            raise ValueError(
                f"glue/{glue} is no regression: set task.kind to classification; allowed here is "
                f"{', '.join(f'glue/{name}' for name in rated)}"
            )
        return self

    @property
    def known(self) -> KnownDataset | None:
        """GLUE's entry, for its tasks."""
        return glue_dataset(self.dataset)

    def auto_model(self) -> Any:
        """A sequence classifier, with one output."""
        return transformers.AutoModelForSequenceClassification

    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Encoders."""
        return (("encoder",),)

    def fit_head(self, config: transformers.PretrainedConfig) -> None:
        """Set one output."""
        for name, value in _HEAD.items():
            setattr(config, name, value)

    def load(self) -> Regression:
        """Load all splits of the task."""
        tables, columns, metrics = labelled_tables(self, self.text, ("pearson", "spearman"))
        examples = {
            split: LabelledSplit(table.texts(columns), table.numbers(self.label))
            for split, table in tables.items()
            if not is_secret(split, table.column(self.label))
        }
        return Regression(examples, metrics, self.max_length)
