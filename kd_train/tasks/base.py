"""Interface between tasks and training: specification, loaded data, micro-batches, and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from kd_train.data import embedded
from kd_train.data.tables import Table, Text, read_embedded, read_file, read_hub
from kd_train.tasks.scoring.metrics import Metric, Predictions
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import accelerate
    import torch
    import transformers
else:
    accelerate, torch, transformers = map(lazy_module, ("accelerate", "torch", "transformers"))

SplitName = Literal["train", "dev", "test"]
Feature = dict[str, Any]
IGNORED = -100
"""Label of a position without prediction."""


class MicroBatch(NamedTuple):
    """Examples of similar length from one batch, padded to the longest of them.

    Attributes:
        inputs: keyword arguments of the models; every tensor is ``[example, position]``.
        labels: targets of the logits in the same place: a class (int) or a value (float) per example, or a token per
            position (int ``[example, position]``, ``IGNORED`` where nothing is predicted).
        valid: mask of the tokens whose hidden states may be matched, by tower. Never PAD.
    """

    inputs: dict[str, torch.Tensor]
    labels: Shaped[torch.Tensor, example * position]
    valid: dict[Tower, Bool[torch.Tensor, "example position"]]


class KnownDataset(NamedTuple):
    """A data set of the hub that a task knows, so that a study need not describe it.

    Attributes:
        hub_name: its name on the hub, where studies use another name.
        subset: its configuration on the hub.
        revision: its branch, where that is not the main one.
        splits: our names → the data set's; by default ``validation`` or ``dev`` is our ``dev``.
        columns: key of the task → column.
        prepare: makes a task's columns of other columns.
    """

    hub_name: str | None = None
    subset: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] | None = None
    columns: Mapping[str, str] = {}
    prepare: Callable[[Table], Table] = lambda table: table


class TaskSpec(BaseModel, ABC):
    """The study's ``task``: the source of the data, their columns, and the metrics.

    Either ``files`` (JSONL, CSV, TSV or Parquet, one per split), or ``dataset``: ``embedded/<name>``, or the name of a
    data set on the hub.

    Attributes:
        all_metrics: every metric that can be scored, by name.
        embedded_columns: columns that a packaged data set must have.
        known_datasets: data sets of the hub that need no description in a study.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    all_metrics: ClassVar[Mapping[str, Metric]]
    embedded_columns: ClassVar[tuple[str, str]] = ("text", "label")
    known_datasets: ClassVar[Mapping[str, KnownDataset]] = {}

    kind: str
    dataset: str | None = Field(default=None, min_length=1, description="embedded/<name>, or a name on the hub")
    subset: str | None = Field(default=None, description="the hub data set's configuration")
    files: dict[SplitName, str] | None = Field(
        default=None, description="by split; .jsonl, .csv, .tsv, .parquet or .txt, relative to the study file"
    )
    splits: dict[SplitName, str] | None = Field(default=None, description="the data set's names of our splits")
    metrics: tuple[str, ...] | None = Field(default=None, description="the first decides which checkpoint is best")
    max_length: int = Field(default=128, ge=4, description="in tokens, special tokens included")
    test_from_train: PositiveInt | None = Field(
        default=None,
        description="number of training examples that become test examples, besides the test split if there is one",
    )
    limit: dict[SplitName, PositiveInt] = Field(
        default_factory=dict, description="use only this many examples of a split"
    )

    @model_validator(mode="after")
    def _one_source(self) -> TaskSpec:
        if (self.dataset is None) == (self.files is None):
            got = f"both, {self.dataset} and {len(self.files or ())} files" if self.dataset else "neither"
            raise ValueError(f"give either dataset or files; got {got}")
        if self.files is not None and not {"train", "dev"} <= self.files.keys():
            raise ValueError(f"files needs train and dev; got {', '.join(self.files) or 'none'}. Name a file for each")
        is_embedded = self.dataset is not None and embedded.is_embedded(self.dataset)
        for name in ("subset", "splits"):
            if (self.files is not None or is_embedded) and (got := getattr(self, name)) is not None:
                raise ValueError(f"{name} is {got!r}, and belongs to data sets of the hub alone. Leave it out")
        if self.dataset and is_embedded:
            self._check_embedded(self.dataset)
        repeated = [metric for metric in self.metrics or () if (self.metrics or ()).count(metric) > 1]
        if repeated:
            raise ValueError(f"metrics names {repeated[0]} twice. Write it once")
        unknown = [metric for metric in self.metrics or () if metric not in self.all_metrics]
        if unknown or self.metrics == ():
            got = some(unknown) if unknown else "none"
            raise ValueError(f"unknown metric {got}; allowed are {', '.join(self.all_metrics)}")
        return self

    def _check_embedded(self, dataset: str) -> None:
        columns = embedded.dataset_columns(dataset)
        if columns != self.embedded_columns:
            fitting = [n for n in embedded.EMBEDDED_DATASETS if embedded.dataset_columns(n) == self.embedded_columns]
            raise ValueError(
                f"{dataset} has the columns {' and '.join(columns)}, and the kind {self.kind} needs "
                f"{' and '.join(self.embedded_columns)}; allowed for it are "
                f"{', '.join(embedded.PREFIX + name for name in fitting)}"
            )

    @abstractmethod
    def auto_model(self) -> Any:
        """The class of transformers that builds models with this task's head, such as ``AutoModelForCausalLM``."""

    @abstractmethod
    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Towers of the models that can do the task; one tuple for each kind of model."""

    def fit_head(self, config: transformers.PretrainedConfig) -> None:
        """Set the options of this task's head in a configuration, as far as they are known without data."""

    @abstractmethod
    def load(self) -> Task:
        """Load all splits.

        Raises:
            InputError: a missing file or column, an empty split, or an example that cannot be used.
        """

    @property
    def known(self) -> KnownDataset | None:
        """The entry of this study's data set among the known ones; None if it is not among them."""
        return self.known_datasets.get(self.dataset or "")

    def tables(self) -> dict[str, Table]:
        """The rows of every split, by our names of the splits, cut to ``limit``.

        Raises:
            InputError: data that cannot be read, a split that does not exist, or an empty one.
        """
        if self.files is not None:
            tables = {str(split): read_file(Path(path)) for split, path in self.files.items()}
        elif self.dataset and embedded.is_embedded(self.dataset):
            tables = read_embedded(self.dataset)
        else:
            tables = self._from_hub(self.known or KnownDataset())
        if self.test_from_train is not None:
            tables |= _with_more_tests(tables["train"], tables.get("test"), self.test_from_train)
        limits = {str(split): n for split, n in self.limit.items()}
        for split, table in tables.items():
            # MNLI has a second development set, which shares the limit of the first.
            limit = limits.get(split.removesuffix("_mismatched"))
            rows = table.head(limit)
            # The limit counts rows as well as the examples that are made of them.
            tables[split] = self.known.prepare(rows).head(limit) if self.known else rows
            if not len(tables[split]):
                raise InputError(f"{table.source} is empty: it holds no example for the {split} split.")
        return tables

    def _from_hub(self, known: KnownDataset) -> dict[str, Table]:
        name = known.hub_name or str(self.dataset)
        tables = read_hub(name, self.subset or known.subset, revision=known.revision)
        splits = {str(ours): theirs for ours, theirs in (self.splits or known.splits or _splits_of(tables)).items()}
        if not {"train", "dev"} <= splits.keys() or not set(splits.values()) <= tables.keys():
            raise InputError(
                f'"{name}" has the splits {", ".join(tables)}; wanted were {splits}. '
                "Name a train and a dev split with task.splits, such as {train: train, dev: test}."
            )
        return {ours: tables[theirs] for ours, theirs in splits.items()}


class Task(ABC):
    """A task with its data: examples by split, their batches, and the scores of a model's answers.

    Attributes:
        all_metrics: every metric that can be scored, by name.
        examples: the examples of each split.
        metrics: names of the metrics that are scored; the first decides.
    """

    all_metrics: ClassVar[Mapping[str, Metric]]
    examples: Mapping[str, Any]
    metrics: tuple[str, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, ``train`` and ``dev`` among them."""
        return tuple(self.examples)

    def head(self) -> dict[str, Any]:
        """Options of ``from_pretrained`` that give a teacher a new head for this task; empty if it keeps its own."""
        return {}

    def fitted_to(self, config: transformers.PretrainedConfig) -> Task:  # noqa: ARG002 (most heads fit all data)
        """The same data for a teacher that has been trained on the task.

        Raises:
            InputError: the teacher's head does not fit the data.
        """
        return self

    @abstractmethod
    def texts(self, split: str) -> list[Text]:
        """The texts of a split, in the form that :func:`layerangles.measure_angles` takes."""

    @abstractmethod
    def encode(
        self, split: str, tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig
    ) -> list[Feature]:
        """Tokenized examples of a split, in its order; ``config`` is the teacher's."""

    @abstractmethod
    def collate(self, features: Sequence[Feature], tokenizer: transformers.PreTrainedTokenizerBase) -> MicroBatch:
        """Pad examples into one micro-batch of a batch."""

    def lengths(self, feature: Feature) -> tuple[int, ...]:
        """Numbers of tokens of an example, by tower; padding depends on them."""
        return (len(feature["input_ids"]),)

    @abstractmethod
    def predict(
        self,
        model: transformers.PreTrainedModel,
        split: str,
        features: Sequence[Feature],
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> Mapping[str, Predictions]:
        """References and a model's answers by metric; ``features`` are those of the split, from :meth:`encode`."""

    def values(self, predictions: Mapping[str, Predictions]) -> dict[str, float]:
        """Values of the metrics of these predictions."""
        return {name: self.all_metrics[name].compute(*predictions[name]) for name in self.metrics}


def encode_texts(
    texts: Sequence[Text],
    tokenizer: transformers.PreTrainedTokenizerBase,
    config: transformers.PretrainedConfig,
    max_length: int,
    max_target_length: int | None = None,
) -> list[Feature]:
    """Token ids of texts (or pairs), truncated to ``max_length`` and checked to fit a model of this configuration."""
    from layerangles.models.texts import EncodedTexts

    encoded = EncodedTexts.from_texts(
        texts, tokenizer, max_length=max_length, max_target_length=max_target_length, config=config
    )
    encoded.check_fits([config])
    return [{k: v for k, v in f.items() if not k.endswith("special_tokens_mask")} for f in encoded.features]


def token_labels(features: Sequence[Feature]) -> Int[torch.Tensor, "example position"]:
    """The ``labels`` of examples, one per token, padded on the right with ``IGNORED``."""
    rows = [torch.tensor(feature["labels"]) for feature in features]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)


def some(values: Sequence[Any], most: int = 5) -> str:
    """The first few values as text, for an error."""
    shown = ", ".join(map(str, list(values)[:most]))
    return f"{shown}, …" if len(values) > most else shown


def _with_more_tests(train: Table, test: Table | None, n: int) -> dict[str, Table]:
    """Both splits after moving ``n`` training examples to the test split, drawn with a fixed seed."""
    if n >= len(train):
        raise InputError(f"task.test_from_train is {n}, and {train.source} has {len(train)} examples. Take fewer.")
    chosen = set(np.random.default_rng(0).permutation(len(train))[:n].tolist())
    taken, left = train.rows(sorted(chosen)), train.rows([row for row in range(len(train)) if row not in chosen])
    return {"train": left, "test": taken if test is None else test.followed_by(taken)}


def _splits_of(tables: Mapping[str, Table]) -> dict[str, str]:
    splits = {"train": "train", "dev": "validation" if "validation" in tables else "dev"}
    return splits | ({"test": "test"} if "test" in tables else {})
