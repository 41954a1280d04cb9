"""Texts, or pairs of texts, with one label or number each: the parts common to classification and regression."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float
from pydantic import Field, model_validator

from kd_train.data.tables import Table, Text
from kd_train.tasks.base import Feature, KnownDataset, MicroBatch, Task, TaskSpec, encode_texts
from kd_train.tasks.scoring.metrics import Predictions
from layerangles.layers import Tower
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import accelerate
    import torch
    import transformers
else:
    accelerate, torch, transformers = map(lazy_module, ("accelerate", "torch", "transformers"))


class _Glue(NamedTuple):
    """Columns, kind, metrics, number of labels (1 for numbers) and development splits of a task of GLUE."""

    text: str | tuple[str, str]
    metrics: tuple[str, ...] = ("accuracy",)
    n_labels: int = 2
    dev: Mapping[str, str] = {"dev": "validation"}
    kind: str = "classification"


# Columns and metrics of the GLUE benchmark (Wang et al. 2019), whose test labels are not public.
GLUE: Mapping[str, _Glue] = {
    "cola": _Glue("sentence", ("matthews_correlation",)),
    "mnli": _Glue(
        ("premise", "hypothesis"),
        n_labels=3,
        dev={"dev": "validation_matched", "dev_mismatched": "validation_mismatched"},
    ),
    "mrpc": _Glue(("sentence1", "sentence2"), ("accuracy", "f1")),
    "qnli": _Glue(("question", "sentence")),
    "qqp": _Glue(("question1", "question2"), ("accuracy", "f1")),
    "rte": _Glue(("sentence1", "sentence2")),
    "sst2": _Glue("sentence"),
    "stsb": _Glue(("sentence1", "sentence2"), ("pearson", "spearman"), n_labels=1, kind="regression"),
    "wnli": _Glue(("sentence1", "sentence2")),
}
_GLUE_ALIASES = {"sts-b": "stsb", "sst-2": "sst2"}


@dataclass(frozen=True)
class LabelledSplit:
    """Examples of one split: texts (or pairs of texts), and the numbers of their labels, or their values."""

    texts: list[Text]
    labels: Sequence[float]


@dataclass(frozen=True)
class LabelledTask(Task):
    """A loaded task of texts with labels or numbers, which are read from the logits of a sequence classifier."""

    examples: Mapping[str, LabelledSplit]
    metrics: tuple[str, ...]
    max_length: int

    @abstractmethod
    def read(self, logits: Float[torch.Tensor, "example label"]) -> list[int] | list[float]:
        """One answer per example."""

    def texts(self, split: str) -> list[Text]:
        """The texts, or pairs of texts, of a split."""
        return self.examples[split].texts

    def encode(
        self, split: str, tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig
    ) -> list[Feature]:
        """Token ids, and the number of the label (or the number itself) as ``label``."""
        features = encode_texts(self.texts(split), tokenizer, config, self.max_length)
        labels = self.examples[split].labels
        return [feature | {"label": label} for feature, label in zip(features, labels, strict=True)]

    def collate(self, features: Sequence[Feature], tokenizer: transformers.PreTrainedTokenizerBase) -> MicroBatch:
        """Pad examples; ``labels`` has one label or number per example."""
        from layerangles.models.texts import pad

        inputs = pad(tokenizer, [{k: v for k, v in feature.items() if k != "label"} for feature in features])
        labels = torch.tensor([feature["label"] for feature in features])
        return MicroBatch(inputs, labels, {"encoder": inputs["attention_mask"].bool()})

    def predict(
        self,
        model: transformers.PreTrainedModel,
        split: str,
        features: Sequence[Feature],
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> dict[str, Predictions]:
        """Correct and predicted labels or numbers, the same for every metric."""
        from kd_train.tasks.scoring.evaluation import over_batches

        def answer(rows: list[int]) -> list[int] | list[float]:
            inputs = self.collate([features[i] for i in rows], tokenizer).inputs
            return self.read(model(**{name: value.to(accelerator.device) for name, value in inputs.items()}).logits)

        lengths = [len(feature["input_ids"]) for feature in features]
        answers = over_batches(lengths, answer, model, accelerator)
        return dict.fromkeys(self.metrics, Predictions(self.examples[split].labels, answers))


class LabelledTaskSpec(TaskSpec):
    """The study's ``task``: texts, or pairs of texts, each with one label or number."""

    text: str | tuple[str, str] | None = Field(default=None, description="the column, or two columns, of the text")
    label: str = Field(default="label", description="the column of the label or number")

    @property
    def glue(self) -> str | None:
        """The task's name in ``glue/<task>``, in the hub's spelling; None for other data sets."""
        name = (self.dataset or "").lower()
        return _GLUE_ALIASES.get(name[5:], name[5:]) if name.startswith("glue/") else None

    @property
    def known(self) -> KnownDataset | None:
        """The hub's entry of a task of GLUE; None for other data sets."""
        if self.glue is None:
            return None
        splits = {"train": "train", **GLUE[self.glue].dev}
        return KnownDataset(hub_name="nyu-mll/glue", subset=self.glue, splits=splits)

    @model_validator(mode="after")
    def _known_glue(self) -> LabelledTaskSpec:
        if self.glue is None:
            return self
        if self.glue not in GLUE:
            fitting = [name for name, known in GLUE.items() if known.kind == self.kind]
            raise ValueError(f"unknown GLUE task {self.glue}; allowed are {', '.join(fitting)}")
        if (kind := GLUE[self.glue].kind) != self.kind:
            raise ValueError(f"glue/{self.glue} is a {kind} task: set task.kind to {kind}")
        return self

    def metrics_or(self, default: tuple[str, ...]) -> tuple[str, ...]:
        """The study's metrics, or GLUE's, or the default."""
        return self.metrics or (GLUE[self.glue].metrics if self.glue else default)

    def labelled_tables(self) -> dict[str, tuple[list[Text], Table]]:
        """Texts and rows of every split but a test split without public labels: the hub sets all of these to −1."""
        columns = self.text or (GLUE[self.glue].text if self.glue else "text")
        return {
            split: (table.texts(columns), table)
            for split, table in self.tables().items()
            if split != "test" or any(label != -1 for label in table.column(self.label))
        }

    def auto_model(self) -> Any:
        """A sequence classifier."""
        return transformers.AutoModelForSequenceClassification

    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Encoders."""
        return (("encoder",),)
