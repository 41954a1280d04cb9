"""Classification: texts, or pairs of texts, each with one of several labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from kd_train.tasks.base import some
from kd_train.tasks.labelled import GLUE, LabelledSplit, LabelledTask, LabelledTaskSpec
from kd_train.tasks.scoring.metrics import LABEL_METRICS, Metric
from layerangles.errors import InputError
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch, transformers = map(lazy_module, ("torch", "transformers"))


@dataclass(frozen=True)
class Classification(LabelledTask):
    """A loaded classification task, with the names of its labels by number."""

    all_metrics: ClassVar[Mapping[str, Metric]] = LABEL_METRICS

    label_names: tuple[str, ...]

    def head(self) -> dict[str, Any]:
        """Number and names of the labels in the data."""
        return {
            "num_labels": len(self.label_names),
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: number for number, name in enumerate(self.label_names)},
            "problem_type": "single_label_classification",
        }

    def fitted_to(self, config: transformers.PretrainedConfig) -> Classification:
        """The same data with the model's numbers for the labels.

        Raises:
            InputError: the labels of the data and of the model differ.
        """
        by_number: Mapping[Any, str] = config.id2label or {}
        names = tuple(by_number[number] for number in sorted(by_number))
        if names == self.label_names:
            return self
        unnamed = all(name == f"LABEL_{i}" for i, name in enumerate(names))
        if unnamed and len(names) == len(self.label_names):
            return self
        if sorted(names) != sorted(self.label_names):
            raise InputError(
                f"the labels do not fit the model: the data have {len(self.label_names)} ({some(self.label_names)}), "
                f"the teacher has {len(names)} ({some(names)}). Fine-tune the teacher on these data "
                "(teacher.finetune), or choose the teacher's own data."
            )
        number = [names.index(name) for name in self.label_names]
        examples = {
            split: LabelledSplit(of_split.texts, [number[int(label)] for label in of_split.labels])
            for split, of_split in self.examples.items()
        }
        return replace(self, label_names=names, examples=examples)

    def read(self, logits: torch.Tensor) -> list[int]:
        """The most likely labels."""
        labels: list[int] = logits.argmax(dim=-1).tolist()
        return labels


class ClassificationTask(LabelledTaskSpec):
    """The study's ``task``: texts, or pairs of texts, each with one label."""

    all_metrics: ClassVar[Mapping[str, Metric]] = LABEL_METRICS

    kind: Literal["classification"] = "classification"
    label_names: tuple[str, ...] | None = Field(
        default=None, min_length=2, description="labels by number; sorted by default"
    )

    @model_validator(mode="after")
    def _labels_fit(self) -> ClassificationTask:
        given = self.label_names or ()
        twice = [name for name in given if given.count(name) > 1]
        if twice:
            raise ValueError(f"label_names has {twice[0]} twice. Every label needs a name of its own")
        n_labels = self._n_labels() or 2
        if "f1" in (self.metrics or ()) and n_labels != 2:
            raise ValueError(f"the metric f1 needs two labels, and these data have {n_labels}. Use f1_macro")
        return self

    def _n_labels(self) -> int | None:
        """The number of labels as far as it is known without data."""
        return len(self.label_names or ()) or (GLUE[self.glue].n_labels if self.glue else None)

    def fit_head(self, config: transformers.PretrainedConfig) -> None:
        """Set the number of labels, where it is known without loading the data."""
        if n_labels := self._n_labels():
            config.num_labels = n_labels

    def load(self) -> Classification:
        """Load all splits of the task."""
        tables, metrics = self.labelled_tables(), self.metrics_or(("accuracy",))
        labels = {split: table.labels(self.label) for split, (_, table) in tables.items()}
        names = self.label_names or tables["train"][1].label_names(self.label)
        if names is None:
            values = set(labels["train"])
            numeric = all(isinstance(value, int) for value in values)
            names = tuple(map(str, sorted(values, key=int if numeric else str)))
        if len(names) < 2:
            raise InputError(f"the train split has only one label, {some(names)}; a classification needs at least two.")
        if "f1" in metrics and len(names) != 2:
            raise InputError(f"the metric f1 needs two labels, these data have {len(names)}. Use f1_macro.")
        examples = {
            split: LabelledSplit(texts, [_number(label, names, table.source) for label in labels[split]])
            for split, (texts, table) in tables.items()
        }
        return Classification(examples, metrics, self.max_length, names)


def _number(label: Any, names: tuple[str, ...], source: str) -> int:
    # In data sets of the hub, whole numbers are the labels' numbers, unless the names are numbers themselves.
    if str(label) in names:
        return names.index(str(label))
    if isinstance(label, int) and 0 <= label < len(names) and not all(name.lstrip("-").isdecimal() for name in names):
        return label
    raise InputError(
        f"{source} has the label {label!r}, which is none of the {len(names)} labels {some(names)}. "
        "Correct it, or list all labels with task.label_names."
    )
