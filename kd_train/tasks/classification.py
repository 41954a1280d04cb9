"""Text classification: files, data sets of the hub, GLUE, and the embedded data, as texts and label numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from accelerate import Accelerator
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kd_train.data.tables import Table
from kd_train.tasks.base import Feature, MicroBatch, Task, TaskSpec, encode_texts, some
from kd_train.tasks.metrics import LABEL_METRICS, Answer, Metric, Predictions, over_batches
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.models.texts import Text, pad


@dataclass(frozen=True)
class Split:
    """Examples: texts (or pairs of texts) and the numbers of their labels."""

    texts: list[Text]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Classification(Task):
    """A loaded classification: its labels by number, and its splits."""

    all_metrics: ClassVar[Mapping[str, Metric]] = LABEL_METRICS

    label_names: tuple[str, ...]
    examples: dict[str, Split]
    metrics: tuple[str, ...]
    max_length: int

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.examples)

    def head(self) -> dict[str, Any]:
        """As many labels as the data have, under their names."""
        return {
            "num_labels": len(self.label_names),
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: number for number, name in enumerate(self.label_names)},
            "problem_type": "single_label_classification",
        }

    def fitted_to(self, config: PretrainedConfig) -> "Classification":
        """The same data with the labels numbered as the model numbers them.

        Raises:
            InputError: the labels do not fit.
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
        examples = {k: Split(s.texts, [number[label] for label in s.labels]) for k, s in self.examples.items()}
        return replace(self, label_names=names, examples=examples)

    def texts(self, split: str) -> list[Text]:
        """The texts, or pairs of texts, that are classified."""
        return self.examples[split].texts

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> list[Feature]:
        """Token ids, and the label's number as ``label``."""
        features = encode_texts(self.texts(split), tokenizer, config, self.max_length)
        labels = self.examples[split].labels
        return [feature | {"label": label} for feature, label in zip(features, labels, strict=True)]

    def collate(self, features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase) -> MicroBatch:
        """One label an example."""
        return labelled_micro_batch(features, tokenizer)

    def predict(
        self,
        model: PreTrainedModel,
        split: str,
        features: Sequence[Feature],
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
    ) -> dict[str, Predictions]:
        """The right labels and the most likely ones."""

        def likeliest(logits: Tensor) -> list[int]:
            labels: list[int] = logits.argmax(dim=-1).tolist()
            return labels

        answers = answers_of(likeliest, self, model, features, tokenizer, accelerator)
        return dict.fromkeys(self.metrics, Predictions(self.examples[split].labels, answers))


def answers_of(
    read: Callable[[Float[Tensor, "example label"]], list[Answer]],
    task: Task,
    model: PreTrainedModel,
    features: Sequence[Feature],
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator,
) -> list[Answer]:
    """What ``read`` makes of a model's logits, one answer an example, in the order of ``features``."""

    def answer(rows: list[int]) -> list[Answer]:
        inputs = task.collate([features[i] for i in rows], tokenizer).inputs
        return read(model(**{name: value.to(accelerator.device) for name, value in inputs.items()}).logits)

    return over_batches([len(feature["input_ids"]) for feature in features], answer, model, accelerator)


def labelled_micro_batch(features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase) -> MicroBatch:
    """Padded token ids, with the ``label`` of every example beside them."""
    inputs = pad(tokenizer, [{k: v for k, v in feature.items() if k != "label"} for feature in features])
    labels = torch.tensor([feature["label"] for feature in features])
    return MicroBatch(inputs, labels, {"encoder": inputs["attention_mask"].bool()})


@dataclass(frozen=True)
class _Glue:
    text: str | tuple[str, str]
    metrics: tuple[str, ...] = ("accuracy",)
    n_labels: int = 2
    dev: str = "validation"


# The columns and the metrics of the GLUE benchmark (Wang et al. 2019). Its test labels are not public.
GLUE: dict[str, _Glue] = {
    "cola": _Glue("sentence", ("matthews_correlation",)),
    "mnli": _Glue(("premise", "hypothesis"), n_labels=3, dev="validation_matched"),
    "mrpc": _Glue(("sentence1", "sentence2"), ("accuracy", "f1")),
    "qnli": _Glue(("question", "sentence")),
    "qqp": _Glue(("question1", "question2"), ("accuracy", "f1")),
    "rte": _Glue(("sentence1", "sentence2")),
    "sst2": _Glue("sentence"),
    "wnli": _Glue(("sentence1", "sentence2")),
}
GLUE_HUB_NAME = "nyu-mll/glue"
_GLUE_ALIASES = {"sts-b": "stsb", "sst-2": "sst2"}


class ClassificationTask(TaskSpec):
    """The study's ``task``: texts, or pairs of texts, each with one label."""

    all_metrics: ClassVar[Mapping[str, Metric]] = LABEL_METRICS

    kind: Literal["classification"] = "classification"
    text: str | tuple[str, str] | None = Field(default=None, description="the column, or two columns, of the text")
    label: str = Field(default="label", description="the column of the label")
    label_names: tuple[str, ...] | None = Field(
        default=None, min_length=2, description="labels by number; sorted by default"
    )

    @model_validator(mode="after")
    def _known_glue(self) -> "ClassificationTask":
        if self.glue == "stsb":
            raise ValueError("glue/stsb is a regression task: set task.kind to regression")
        if self.glue is not None and self.glue not in GLUE:
            raise ValueError(f"unknown GLUE task {self.glue}; allowed are {', '.join(GLUE)}")
        twice = [name for name in self.label_names or () if (self.label_names or ()).count(name) > 1]
        if twice:
            raise ValueError(f"label_names has {twice[0]} twice. Every label needs a name of its own")
        n_labels = len(self.label_names or ()) or (GLUE[self.glue].n_labels if self.glue else 2)
        if "f1" in (self.metrics or ()) and n_labels != 2:
            raise ValueError(f"the metric f1 needs two labels, and these data have {n_labels}. Use f1_macro")
        return self

    def auto_model(self) -> Any:
        """A classifier of sequences."""
        return AutoModelForSequenceClassification

    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Encoders alone."""
        return (("encoder",),)

    @property
    def glue(self) -> str | None:
        """The GLUE task's name, if this is one."""
        return glue_name(self.dataset)

    def fit_head(self, config: PretrainedConfig) -> None:
        """As many labels as there are, where that is known without loading the data."""
        if self.label_names:
            config.num_labels = len(self.label_names)
        elif self.glue:
            config.num_labels = GLUE[self.glue].n_labels

    def load(self) -> Classification:
        """Load all splits of the task."""
        glue = GLUE[self.glue] if self.glue else None
        if glue is None:
            tables = self.tables()
        else:
            splits = {"train": "train", "dev": glue.dev}
            if glue.dev == "validation_matched":  # MNLI has two development sets
                splits["dev_mismatched"] = "validation_mismatched"
            tables = self.model_copy(update={"subset": self.glue}).tables(hub_name=GLUE_HUB_NAME, default_splits=splits)
        columns = self.text or (glue.text if glue else "text")
        return _assemble(self, tables, columns, self.metrics or (glue.metrics if glue else ("accuracy",)))


def glue_name(dataset: str | None) -> str | None:
    """The task's name in ``glue/<task>``, in the hub's spelling; None for other data sets."""
    name = (dataset or "").lower()
    if not name.startswith("glue/"):
        return None
    return _GLUE_ALIASES.get(name[5:], name[5:])


def _assemble(
    task: ClassificationTask,
    tables: Mapping[str, Table],
    columns: str | tuple[str, str],
    metrics: tuple[str, ...],
) -> Classification:
    names = task.label_names or tables["train"].label_names(task.label)
    raw = {split: (table.texts(columns), table.labels(task.label)) for split, table in tables.items()}
    if names is None:
        values = set(raw["train"][1])
        numeric = all(isinstance(value, int) for value in values)
        names = tuple(map(str, sorted(values, key=int if numeric else str)))
    if len(names) < 2:
        raise InputError(f"the train split has only one label, {some(names)}; a classification needs at least two.")
    examples = {}
    for split, (texts, labels) in raw.items():
        if split == "test" and all(label == -1 for label in labels):
            continue  # the hub's way to say that the labels of a test split are secret
        examples[split] = Split(texts, [_number(label, names, tables[split].source) for label in labels])
    if "f1" in metrics and len(names) != 2:
        raise InputError(f"the metric f1 needs two labels, these data have {len(names)}. Use f1_macro.")
    return Classification(names, examples, metrics, task.max_length)


def _number(label: Any, names: tuple[str, ...], source: str) -> int:
    # A whole number is a label's number where the names are not numbers themselves, as in data sets of the hub.
    if str(label) in names:
        return names.index(str(label))
    if isinstance(label, int) and 0 <= label < len(names) and not all(name.lstrip("-").isdecimal() for name in names):
        return label
    raise InputError(
        f"{source} has the label {label!r}, which is none of the {len(names)} labels {some(names)}. "
        "Correct it, or list all labels with task.label_names."
    )
