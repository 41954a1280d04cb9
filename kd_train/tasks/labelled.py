"""Texts, or pairs of texts, with one label or number each: the parts common to classification and regression."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxtyping import Float
from pydantic import Field

from kd_train.data.tables import Text
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
    """Columns, metrics, number of labels (1 for numbers) and development splits of a task of GLUE."""

    text: str | tuple[str, str]
    metrics: tuple[str, ...] = ("accuracy",)
    n_labels: int = 2
    dev: Mapping[str, str] = {"dev": "validation"}


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
    "stsb": _Glue(("sentence1", "sentence2"), ("pearson", "spearman"), n_labels=1),
    "wnli": _Glue(("sentence1", "sentence2")),
}
_GLUE_ALIASES = {"sts-b": "stsb", "sst-2": "sst2"}


@dataclass(frozen=True)
class LabelledSplit:
    """Examples of one split: texts (or pairs of texts), and the numbers of their labels, or their values."""

    texts: list[Text]
    labels: Sequence[float]


def is_secret(split: str, labels: Sequence[object]) -> bool:
    """Whether these are the labels of a test split without public labels; the hub sets all of them to −1."""
    return split == "test" and all(label == -1 for label in labels)


class LabelledTask(Task):
    """A loaded task of texts with labels or numbers, which are read from the logits of a sequence classifier."""

    examples: Mapping[str, LabelledSplit]
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

    def described(self, metrics: tuple[str, ...]) -> tuple[str | tuple[str, str], tuple[str, ...]]:
        """Columns of the texts, and metrics: the study's, or GLUE's, or ``text`` and these metrics."""
        known = GLUE[self.glue] if self.glue else _Glue("text", metrics)
        return self.text or known.text, self.metrics or known.metrics

    def auto_model(self) -> Any:
        """A sequence classifier."""
        return transformers.AutoModelForSequenceClassification

    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Encoders."""
        return (("encoder",),)
