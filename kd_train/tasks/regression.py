"""Regression: texts, or pairs of texts, each with one number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kd_train.tasks.labelled import LabelledSplit, LabelledTask, LabelledTaskSpec
from kd_train.tasks.scoring.metrics import NUMBER_METRICS, Metric
from layerangles.errors import InputError
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch, transformers = map(lazy_module, ("torch", "transformers"))

_HEAD: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}


@dataclass(frozen=True)
class Regression(LabelledTask):
    """A loaded regression task."""

    all_metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS

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

    def read(self, logits: torch.Tensor) -> list[float]:
        """The predicted numbers."""
        numbers: list[float] = logits.squeeze(-1).float().tolist()
        return numbers


class RegressionTask(LabelledTaskSpec):
    """The study's ``task``: texts, or pairs of texts, each with one number."""

    all_metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS

    kind: Literal["regression"] = "regression"

    def fit_head(self, config: transformers.PretrainedConfig) -> None:
        """Set one output."""
        for name, value in _HEAD.items():
            setattr(config, name, value)

    def load(self) -> Regression:
        """Load all splits of the task."""
        examples = {
            split: LabelledSplit(texts, table.numbers(self.label))
            for split, (texts, table) in self.labelled_tables().items()
        }
        return Regression(examples, self.metrics_or(("pearson", "spearman")), self.max_length)
