"""Texts, or pairs of texts, with one label or number each: the parts common to classification and regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from jaxtyping import Float

from kd_train.data.tables import Table, Text
from kd_train.tasks.base import Feature, KnownDataset, MicroBatch, Task, TaskSpec, encode_texts
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import accelerate
    import torch
    import transformers
else:
    accelerate, torch, transformers = map(lazy_module, ("accelerate", "torch", "transformers"))

Label = TypeVar("Label", int, float)


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


def glue_name(dataset: str | None) -> str | None:
    """The task's name in ``glue/<task>``, in the hub's spelling; None for other data sets."""
    name = (dataset or "").lower()
    if not name.startswith("glue/"):
        return None
    return _GLUE_ALIASES.get(name[5:], name[5:])


def glue_dataset(dataset: str | None) -> KnownDataset | None:
    """GLUE on the hub, for ``glue/<task>``; None for other data sets."""
    name = glue_name(dataset)
    if name is None:
        return None
    return KnownDataset(hub_name="nyu-mll/glue", subset=name, splits={"train": "train", **GLUE[name].dev})


def labelled_tables(
    spec: TaskSpec, text: str | tuple[str, str] | None, metrics: tuple[str, ...]
) -> tuple[dict[str, Table], str | tuple[str, str], tuple[str, ...]]:
    """Tables by split, the columns of the texts, and the metrics; GLUE's where the study names none."""
    glue = glue_name(spec.dataset)
    known = _Glue("text", metrics) if glue is None else GLUE[glue]
    return spec.tables(), text or known.text, spec.metrics or known.metrics


def is_secret(split: str, labels: Sequence[object]) -> bool:
    """Whether these are the labels of a test split without public labels; the hub sets all of them to −1."""
    return split == "test" and all(label == -1 for label in labels)


def labelled_features(
    split: LabelledSplit,
    tokenizer: transformers.PreTrainedTokenizerBase,
    config: transformers.PretrainedConfig,
    max_length: int,
) -> list[Feature]:
    """Token ids of every example, with its ``label``."""
    features = encode_texts(split.texts, tokenizer, config, max_length)
    return [feature | {"label": label} for feature, label in zip(features, split.labels, strict=True)]


def labelled_micro_batch(features: Sequence[Feature], tokenizer: transformers.PreTrainedTokenizerBase) -> MicroBatch:
    """Padded token ids, with the ``label`` of every example beside them."""
    from layerangles.models.texts import pad

    inputs = pad(tokenizer, [{k: v for k, v in feature.items() if k != "label"} for feature in features])
    labels = torch.tensor([feature["label"] for feature in features])
    return MicroBatch(inputs, labels, {"encoder": inputs["attention_mask"].bool()})


def read_logits(
    read: Callable[[Float[torch.Tensor, "example label"]], list[Label]],
    task: Task,
    model: transformers.PreTrainedModel,
    features: Sequence[Feature],
    tokenizer: transformers.PreTrainedTokenizerBase,
    accelerator: accelerate.Accelerator,
) -> list[Label]:
    """One answer per example, in the order of ``features``, read from a model's logits."""
    from kd_train.tasks.scoring.evaluation import over_batches

    def answer(rows: list[int]) -> list[Label]:
        inputs = task.collate([features[i] for i in rows], tokenizer).inputs
        return read(model(**{name: value.to(accelerator.device) for name, value in inputs.items()}).logits)

    return over_batches([len(feature["input_ids"]) for feature in features], answer, model, accelerator)
