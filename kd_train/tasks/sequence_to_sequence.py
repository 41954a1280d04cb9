"""Sequence to sequence: source texts with target texts, such as translations or descriptions of records."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from kd_train.data.tables import Table, Text
from kd_train.tasks.base import Feature, KnownDataset, MicroBatch, Task, TaskSpec, encode_texts, token_labels
from kd_train.tasks.scoring.metrics import Metric, Predictions
from kd_train.tasks.scoring.text_metrics import TEXT_METRICS
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import accelerate
    import transformers
else:
    accelerate, transformers = map(lazy_module, ("accelerate", "transformers"))

_log = logging.getLogger(__name__)

# Texts generated at a time; a beam search multiplies them by its beams.
_GENERATED_AT_A_TIME = 64


@dataclass(frozen=True)
class PairedSplit:
    """Examples: sources with one or more targets each; the first is the training target, all are references."""

    sources: list[str]
    targets: list[tuple[str, ...]]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every source with its first target."""
        return [(source, targets[0]) for source, targets in zip(self.sources, self.targets, strict=True)]


@dataclass(frozen=True)
class SequenceToSequence(Task):
    """A loaded sequence-to-sequence task.

    Attributes:
        examples: examples by split; sources include their prefix.
        metrics: names of the metrics that are scored; the first decides.
        max_length: longest source, in tokens.
        max_target_length: longest target, in tokens.
        max_new_tokens: longest generated answer, in tokens.
        beams: number of beams; 1 is greedy search.
    """

    all_metrics: ClassVar[Mapping[str, Metric]] = TEXT_METRICS

    examples: dict[str, PairedSplit]
    metrics: tuple[str, ...]
    max_length: int
    max_target_length: int
    max_new_tokens: int
    beams: int

    def texts(self, split: str) -> list[Text]:
        """Pairs of a source (with its prefix) and its first target."""
        return list(self.examples[split].pairs)

    def encode(
        self, split: str, tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig
    ) -> list[Feature]:
        """Token ids of source and target.

        The decoder reads ``decoder_input_ids``, the target shifted right behind the start token. ``labels`` are the
        target itself, so that logits and labels of a position belong together.

        Raises:
            InputError: an example or an answer is too long for the model, or no target has the model's end token.
        """
        from layerangles.models.states import n_positions
        from layerangles.models.texts import target_ids

        limit = n_positions(config)
        if limit is not None and self.max_new_tokens > limit:
            raise InputError(
                f"max_new_tokens is {self.max_new_tokens}, more than the {limit} tokens that this model can write. "
                f"Allowed are at most {limit}."
            )
        targets = [target for _, target in self.examples[split].pairs]
        features = encode_texts(self.texts(split), tokenizer, config, self.max_length, self.max_target_length)
        labels = target_ids(targets, tokenizer, max_length=self.max_target_length)
        ends = _ends(config)
        if ends and not any(target[-1] in ends for target in labels):
            raise InputError(
                f"this tokenizer ends no target with the model's end token ({ends}), so that no student would learn to "
                "stop. Correct eos_token_id in the model's config.json, or the tokenizer."
            )
        names = ("input_ids", "decoder_input_ids")
        return [{k: f[k] for k in names} | {"labels": target} for f, target in zip(features, labels, strict=True)]

    def collate(self, features: Sequence[Feature], tokenizer: transformers.PreTrainedTokenizerBase) -> MicroBatch:
        """Pad examples; ``labels`` has one token per position of the decoder."""
        from layerangles.models.texts import pad

        encoder = pad(tokenizer, [{"input_ids": feature["input_ids"]} for feature in features])
        decoder = pad(tokenizer, [{"input_ids": feature["decoder_input_ids"]} for feature in features])
        valid: dict[Tower, Any] = {
            "encoder": encoder["attention_mask"].bool(),
            "decoder": decoder["attention_mask"].bool(),
        }
        inputs = encoder | {f"decoder_{name}": values for name, values in decoder.items()}
        return MicroBatch(inputs, token_labels(features), valid)

    def lengths(self, feature: Feature) -> tuple[int, ...]:
        """Numbers of tokens of source and target."""
        return (len(feature["input_ids"]), len(feature["labels"]))

    def predict(
        self,
        model: transformers.PreTrainedModel,
        split: str,
        features: Sequence[Feature],
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> dict[str, Predictions]:
        """Targets and generated texts, the same for every metric."""
        answers = self.generated(model, features, tokenizer, accelerator)
        return dict.fromkeys(self.metrics, Predictions(self.examples[split].targets, answers))

    def generated(
        self,
        model: transformers.PreTrainedModel,
        features: Sequence[Feature],
        tokenizer: transformers.PreTrainedTokenizerBase,
        accelerator: accelerate.Accelerator,
    ) -> list[str]:
        """The text that a model generates for each source, without special tokens."""
        from kd_train.tasks.scoring.evaluation import generated_texts
        from layerangles.models.texts import pad

        return generated_texts(
            [len(feature["input_ids"]) for feature in features],
            lambda rows: pad(tokenizer, [{"input_ids": features[i]["input_ids"]} for i in rows]),
            model,
            tokenizer,
            accelerator,
            batch_size=max(1, _GENERATED_AT_A_TIME // self.beams),
            max_new_tokens=self.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0,
            eos_token_id=_ends(model.config) or None,
            beams=self.beams,
        )


def _ends(config: transformers.PretrainedConfig) -> list[int]:
    """End tokens of a model."""
    ends = config.eos_token_id
    return list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]


def _without_empty_pairs(table: Table) -> Table:
    """Translations without pairs that have a blank side, as aligned corpora contain; ``limit`` counts them as well."""
    pairs = table.column("translation")
    kept = [pair for pair in pairs if all(isinstance(text, str) and text.strip() for text in pair.values())]
    if len(kept) < len(pairs):
        _log.info("%s: %d pairs with a blank side are left out", table.source, len(pairs) - len(kept))
    return Table(table.source, {"translation": kept})


def _with_triples_as_text(table: Table) -> Table:
    """DART's sets of triples as one line each, ``subject : relation : object | …``, with all references together.

    In the training split the lists of references are empty, and each reference is an example of its own.
    """
    sources = [" | ".join(" : ".join(map(str, triple)) for triple in triples) for triples in table.column("tripleset")]
    targets = [
        list(dict.fromkeys([target, *(references or ())]))
        for target, references in zip(table.column("target"), table.column("references"), strict=True)
    ]
    return table.with_columns({"source": sources, "target": targets})


# Columns, subsets and splits as in the data sets' cards; without access to the hub, they could not be tested on the
# data. The paper translates from English. GEM/dart is a loading script, which datasets no longer runs; the hub has the
# same data as Parquet files on a branch that it creates itself.
_KNOWN = {
    "wmt/wmt16": KnownDataset(
        subset="ro-en",
        columns={"source": "translation.en", "target": "translation.ro"},
        prepare=_without_empty_pairs,
    ),
    "GEM/dart": KnownDataset(revision="refs/convert/parquet", prepare=_with_triples_as_text),
}


class SequenceToSequenceTask(TaskSpec):
    """The study's ``task``: source texts with target texts."""

    all_metrics: ClassVar[Mapping[str, Metric]] = TEXT_METRICS
    embedded_columns: ClassVar[tuple[str, str]] = ("source", "target")
    known_datasets: ClassVar[Mapping[str, KnownDataset]] = _KNOWN

    kind: Literal["sequence_to_sequence"] = "sequence_to_sequence"
    source: str | None = Field(
        default=None, description='the column of the source, or a path such as translation.en; "source" by default'
    )
    target: str | None = Field(
        default=None, description='the column of the target, or of a list of references; "target" by default'
    )
    source_prefix: str = Field(default="", description="text before every source, as T5 expects")
    max_target_length: int | None = Field(default=None, ge=4, description="in tokens; max_length by default")
    beams: PositiveInt = Field(default=1, description="beams of the search when answers are scored; 1 is greedy")
    max_new_tokens: PositiveInt | None = Field(
        default=None, description="longest answer that is scored, in tokens; max_target_length by default"
    )

    def auto_model(self) -> Any:
        """An encoder-decoder with a language-modelling head."""
        return transformers.AutoModelForSeq2SeqLM

    def towers(self) -> tuple[tuple[Tower, ...], ...]:
        """Encoder-decoders."""
        return (("encoder", "decoder"),)

    def load(self) -> SequenceToSequence:
        """Load all splits of the task."""
        columns = {"source": "source", "target": "target", **(self.known.columns if self.known else {})}
        source, target = self.source or columns["source"], self.target or columns["target"]
        examples = {
            split: PairedSplit(
                [self.source_prefix + str(text) for text in table.texts(source)], table.several_texts(target)
            )
            for split, table in self.tables().items()
        }
        max_target_length = self.max_target_length or self.max_length
        return SequenceToSequence(
            examples=examples,
            metrics=self.metrics or ("bleu",),
            max_length=self.max_length,
            max_target_length=max_target_length,
            max_new_tokens=self.max_new_tokens or max_target_length,
            beams=self.beams,
        )
