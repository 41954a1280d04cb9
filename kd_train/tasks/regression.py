"""Regression: texts, or pairs of texts, each with one number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import model_validator

from kd_train.tasks.labelled import GLUE, LabelledSplit, LabelledTask, LabelledTaskSpec, is_secret
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

    def read(self, logits: torch.Tensor) -> list[float]:
        """The predicted numbers."""
        numbers: list[float] = logits.squeeze(-1).float().tolist()
        return numbers


class RegressionTask(LabelledTaskSpec):
    """The study's ``task``: texts, or pairs of texts, each with one number."""

    all_metrics: ClassVar[Mapping[str, Metric]] = NUMBER_METRICS

    kind: Literal["regression"] = "regression"

    @model_validator(mode="after")
    def _known_glue(self) -> RegressionTask:
        glue, rated = self.glue, [name for name, known in GLUE.items() if known.n_labels == 1]
        if glue is not None and glue not in rated:
            raise ValueError(
                f"glue/{glue} is no regression: set task.kind to classification; allowed here is "
                f"{', '.join(f'glue/{name}' for name in rated)}"
            )
        return self

    def fit_head(self, config: transformers.PretrainedConfig) -> None:
        """Set one output."""
        for name, value in _HEAD.items():
            setattr(config, name, value)

    def load(self) -> Regression:
        """Load all splits of the task."""
        columns, metrics = self.described(("pearson", "spearman"))
        examples = {
            split: LabelledSplit(table.texts(columns), table.numbers(self.label))
            for split, table in self.tables().items()
            if not is_secret(split, table.column(self.label))
        }
        return Regression(examples, metrics, self.max_length)
