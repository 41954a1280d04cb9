"""Tokenized texts and the padded batches made of them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from layerangles.errors import InputError
from layerangles.geometry.shared_space import Tokens
from layerangles.layers import Tower
from layerangles.models.states import n_positions, towers_of

# A tokenizer's output is many times larger than the token ids that are kept of it.
_TEXTS_AT_A_TIME = 256
# Shuffled examples are sorted by length again within chunks of this many batches: a fair sample with little padding.
_BATCHES_A_CHUNK = 8

Item = TypeVar("Item")
Text = str | tuple[str, str]
Feature = dict[str, list[int]]


@dataclass(frozen=True)
class Batch:
    """Examples in whole groups, padded on the right.

    Attributes:
        inputs: the models' inputs; every tensor is ``[example, position]``.
        valid: the positions that take part in the measurement, by tower; never PAD.
        numbers: the number of each example, in the order of :class:`EncodedTexts`.
    """

    inputs: dict[str, Tensor]
    valid: dict[Tower, Bool[Tensor, "example position"]]
    numbers: Int[Tensor, " example"]

    def __len__(self) -> int:
        return len(self.numbers)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        valid = {tower: mask.to(device) for tower, mask in self.valid.items()}
        return Batch(inputs, valid, self.numbers.to(device))

    def tokens(self, tower: Tower) -> Tokens:
        """The valid tokens of a tower in reading order, each with a partner in another text, at another position.

        Token p of an example is paired with token ``(p + L // 2) mod L`` of the next example in its group (the
        first follows the last), where L is the number of valid tokens there. If that example has none, or is alone,
        partners are within the example itself. Partners depend on the texts alone, since no batch and no shard splits
        a group.
        """
        counts = self.valid[tower].sum(dim=1)
        starts = counts.cumsum(0) - counts
        example = self.valid[tower].nonzero()[:, 0]
        position = torch.arange(len(example), device=example.device) - starts[example]
        other = _next_in_group(len(self)).to(example.device)[example]
        other = torch.where(counts[other] > 0, other, example)
        partner = starts[other] + (position + counts[other] // 2) % counts[other]
        return Tokens(example, partner, self.numbers.to(example.device)[example], position)


def _next_in_group(n_examples: int) -> Int[Tensor, " example"]:
    """For each row, the next row in its group, where the first follows the last."""
    rows = list(range(n_examples))
    return torch.tensor([row for group in _groups(rows) for row in (*group[1:], group[0])])


def _groups(examples: Sequence[int]) -> list[Sequence[int]]:
    """Consecutive examples in groups of two; with an odd number, the last group has three."""
    starts = [*range(0, max(len(examples) - 1, 1), 2)]
    return [examples[start:end] for start, end in zip(starts, [*starts[1:], len(examples)], strict=True)]


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids of texts, without padding and in the given order, with the facts that a result records about them."""

    features: list[Feature]
    tokenizer: PreTrainedTokenizerBase
    special_tokens: bool
    n_truncated: int
    data_sha256: str
    towers: tuple[Tower, ...] = ("encoder",)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[Text],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        max_target_length: int | None = None,
        special_tokens: bool = True,
        config: PretrainedConfig | None = None,
    ) -> "EncodedTexts":
        """Tokenize texts or pairs of texts, cut to ``max_length`` tokens.

        For an encoder-decoder a pair is a source and its target, and the decoder's input is the target shifted right:
        the start token, then all of the target's tokens but the last.

        Args:
            texts: one string or pair of strings per example.
            tokenizer: the teacher's.
            max_length: in tokens, special tokens included; there must be room for at least one other token.
            max_target_length: the same for targets of an encoder-decoder; ``max_length`` by default.
            special_tokens: whether special tokens such as [CLS] and [SEP] are valid. The models read them either way.
            config: the teacher's; by default that of an encoder.

        Raises:
            InputError: there are no texts, they mix strings and pairs, or a text has no token.
        """
        is_pair = _are_pairs(texts)
        has_target = config is not None and config.is_encoder_decoder
        begin = _decoder_start(config, texts) if config is not None and has_target else None
        n_special = tokenizer.num_special_tokens_to_add(pair=is_pair and not has_target)
        target_length = max_length if max_target_length is None else max_target_length
        for name, length in (("max_length", max_length), ("max_target_length", target_length)):
            if length <= n_special:
                raise InputError(
                    f"{name} is {length}, of which this tokenizer needs {n_special} for special tokens. "
                    f"Allowed are {n_special + 1} and more."
                )
        features: list[Feature] = []
        n_truncated = 0
        for some in _in_chunks(texts, _TEXTS_AT_A_TIME):
            first = [text if isinstance(text, str) else text[0] for text in some]
            second = [text[1] for text in some] if is_pair else None
            if begin is not None:
                encoded, too_long = _encode(tokenizer, max_length, text=first)
                targets, target_too_long = _encode(tokenizer, target_length, text_target=second)
                encoded = [f | _shifted_right(target, begin) for f, target in zip(encoded, targets, strict=True)]
                too_long = [a or b for a, b in zip(too_long, target_too_long, strict=True)]
            else:
                encoded, too_long = _encode(tokenizer, max_length, text=first, text_pair=second)
            features += encoded
            n_truncated += sum(too_long)
        empty = next((i for i, feature in enumerate(features) if not feature["input_ids"]), None)
        if empty is not None:
            raise InputError(
                f"text {empty} is {texts[empty]!r}, of which this tokenizer makes no token. Allowed are texts of at "
                "least one token. Leave it out."
            )
        digest = hashlib.sha256()
        for text in texts:
            for part in (text,) if isinstance(text, str) else text:
                digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
            digest.update(b"\n")
        towers = towers_of(config) if config is not None else ("encoder",)
        return cls(features, tokenizer, special_tokens, n_truncated, digest.hexdigest(), towers)

    def __len__(self) -> int:
        return len(self.features)

    def check_fits(self, configs: Iterable[PretrainedConfig]) -> None:
        """Raise an :class:`InputError` if a text, once cut, is longer than a model has positions."""
        names = ("input_ids", "decoder_input_ids")
        longest = max(len(feature[name]) for feature in self.features for name in names if name in feature)
        check_length(longest, self.tokenizer, configs)

    def batches(self, batch_size: int, *, shard: tuple[int, int] = (0, 1), seed: int | None = None) -> Iterator[Batch]:
        """All examples once, in batches of similar length.

        Examples are ordered by length and token ids, whatever order they were given in, and taken in groups of two (the
        last of three if their number is odd) that no batch splits.

        Args:
            batch_size: examples per batch, rounded up to whole groups.
            shard: ``(i, n)`` takes the groups i, i + n, i + 2 n, …; the n shards partition the examples.
            seed: take the batches in random order, so that a pass that stops early has seen a fair sample.
        """
        which, n_shards = shard
        if not 0 <= which < n_shards:
            raise ValueError(f"shard is {shard}; allowed are (i, n) with 0 ≤ i < n.")
        order = sorted(range(len(self)), key=lambda i: _length_and_ids(self.features[i]))
        groups = _groups(range(len(self)))
        chosen = range(which, len(groups), n_shards)
        groups_a_batch = max(1, -(-batch_size // 2))
        for batch in _in_chunks(chosen, groups_a_batch) if seed is None else _shuffled(chosen, groups_a_batch, seed):
            numbers = [number for group in batch for number in groups[group]]
            yield self._collate([self.features[order[number]] for number in numbers], numbers)

    def _collate(self, features: list[Feature], numbers: list[int]) -> Batch:
        inputs: dict[str, Tensor] = {}
        valid: dict[Tower, Tensor] = {}
        for tower in self.towers:
            # What the decoder of two towers reads has a name of its own.
            prefix = "decoder_" if len(self.towers) > 1 and tower == "decoder" else ""
            own = [_of_tower(feature, prefix) for feature in features]
            special = [feature.pop("special_tokens_mask") for feature in own]
            padded = pad(self.tokenizer, own)
            valid[tower] = padded["attention_mask"].bool()
            if not self.special_tokens:
                for row, mask in enumerate(special):
                    valid[tower][row, : len(mask)] &= ~torch.tensor(mask, dtype=torch.bool)
            inputs |= {prefix + name: values for name, values in padded.items()}
        return Batch(inputs, valid, torch.tensor(numbers))


def check_length(n_tokens: int, tokenizer: PreTrainedTokenizerBase, configs: Iterable[PretrainedConfig]) -> None:
    """Raise an :class:`InputError` if a tokenizer or a model cannot take this many tokens."""
    limits = [n_positions(config) for config in configs]
    limit = min([tokenizer.model_max_length, *(n for n in limits if n is not None)])
    if n_tokens > limit:
        raise InputError(
            f"a text has {n_tokens} tokens, more than the {limit} that these models can take. "
            f"Cut the texts with a max_length of at most {limit}."
        )


def target_ids(targets: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> list[list[int]]:
    """Token ids of each target, special tokens included, cut to ``max_length``: the labels of a decoder.

    Its inputs are the start token and all of these but the last (see :meth:`EncodedTexts.from_texts`).
    """
    ids = []
    for some in _in_chunks(targets, _TEXTS_AT_A_TIME):
        ids += [target["input_ids"] for target in _encode(tokenizer, max_length, text_target=list(some))[0]]
    return ids


def _encode(
    tokenizer: PreTrainedTokenizerBase, max_length: int, **texts: list[str] | None
) -> tuple[list[Feature], list[bool]]:
    """Token ids of texts, and whether each was cut; ``texts`` are arguments of the tokenizer."""
    encoded = tokenizer(**texts, truncation=False, return_special_tokens_mask=True)
    too_long = [len(ids) > max_length for ids in encoded["input_ids"]]
    if any(too_long):
        encoded = tokenizer(**texts, truncation=True, max_length=max_length, return_special_tokens_mask=True)
    names = [name for name in encoded if name != "attention_mask"]
    columns = (encoded[name] for name in names)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)], too_long


def _decoder_start(config: PretrainedConfig, texts: Sequence[Text]) -> int:
    """The decoder's start token; raise an :class:`InputError` if there is none, or if the texts have no targets."""
    if isinstance(texts[0], str):
        raise InputError(
            f"{config.model_type} is an encoder-decoder, whose decoder reads a target text; got one string an "
            f"example, {texts[0]!r}. Allowed are pairs (source, target). Give every example its target."
        )
    start: int | None = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise InputError(
            f"the configuration of this {config.model_type} has no decoder_start_token_id, so there is nothing for "
            "its decoder to begin with. Put the id into its config.json (T5: that of PAD; BART: that of </s>)."
        )
    return start


def _shifted_right(target: Feature, start: int) -> Feature:
    """The decoder's inputs whose labels are ``target``."""
    return {
        "decoder_input_ids": [start, *target["input_ids"][:-1]],
        "decoder_special_tokens_mask": [1, *target["special_tokens_mask"][:-1]],
    }


def _of_tower(feature: Feature, prefix: str) -> Feature:
    """The entries with a prefix, without it; for an empty prefix those that do not belong to the decoder."""
    if prefix:
        return {k.removeprefix(prefix): v for k, v in feature.items() if k.startswith(prefix)}
    return {k: v for k, v in feature.items() if not k.startswith("decoder_")}


def _length_and_ids(feature: Feature) -> tuple[list[int], list[list[int]]]:
    values = list(feature.values())
    return [len(value) for value in values], values


def _in_chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _shuffled(groups: Sequence[int], groups_a_batch: int, seed: int) -> Iterator[Sequence[int]]:
    """Batches of groups in random order, sorted by length within chunks of batches."""
    rng = torch.Generator().manual_seed(seed)
    order = [groups[i] for i in torch.randperm(len(groups), generator=rng).tolist()]
    for chunk in _in_chunks(order, groups_a_batch * _BATCHES_A_CHUNK):
        batches = _in_chunks(sorted(chunk), groups_a_batch)
        for i in torch.randperm(len(batches), generator=rng).tolist():
            yield batches[i]


def _are_pairs(texts: Sequence[Text]) -> bool:
    """Whether the texts are pairs; raise an :class:`InputError` unless all or none are."""
    if isinstance(texts, str):
        raise InputError(f"the texts must be a list; got one string, {texts[:40]!r}. Put it into a list.")
    if not texts:
        raise InputError("there are no texts to measure on: got an empty list. Give at least one text.")
    is_pair = not isinstance(texts[0], str)
    for i, text in enumerate(texts):
        if isinstance(text, str) == is_pair or (is_pair and len(text) != 2):
            raise InputError(
                f"text {i} does not fit the first: got {text!r} after {texts[0]!r}. Allowed are strings throughout, "
                "or pairs of strings throughout."
            )
    return is_pair


def evenly(texts: Sequence[Text], most: int) -> list[Text]:
    """At most ``most`` texts, evenly spaced, so that a sorted file is not cut to its first class."""
    if len(texts) <= most:
        return list(texts)
    return [texts[i * len(texts) // most] for i in range(most)]


def pad(tokenizer: PreTrainedTokenizerBase, features: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad to the longest example, on the right whatever the tokenizer prefers.

    Padding on the right shifts no position, in encoders and in causal decoders alike.
    """
    length = max(len(feature["input_ids"]) for feature in features)
    # A decoder without a PAD token may be padded with anything: no real token looks to its right.
    fill = {"input_ids": tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0}
    padded = {
        name: torch.tensor([f[name] + [fill.get(name, 0)] * (length - len(f[name])) for f in features])
        for name in features[0]
    }
    lengths = torch.tensor([len(feature["input_ids"]) for feature in features])
    padded["attention_mask"] = (torch.arange(length) < lengths[:, None]).long()
    return padded
