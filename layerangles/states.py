"""The hidden states of a teacher and its students, batch by batch."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from layerangles.errors import InputError

# A tokenizer's answer is many times larger than the token ids that are kept of it.
_TEXTS_AT_A_TIME = 256

FinalNorm = Literal["pre", "post"]
Text = str | tuple[str, str]


@dataclass(frozen=True)
class Batch:
    """Some examples, padded on the right.

    Attributes:
        inputs: what the models are called with; every tensor is ``[example, position]``.
        counted: which positions take part in the measurement. Never PAD.
    """

    inputs: dict[str, Tensor]
    counted: Bool[Tensor, "example position"]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch({k: v.to(device) for k, v in self.inputs.items()}, self.counted.to(device))

    @property
    def example(self) -> Int[Tensor, " token"]:
        """For every counted token, in reading order, the row of its example."""
        return self.counted.nonzero()[:, 0]


@dataclass(frozen=True)
class EncodedTexts:
    """Tokenized texts: token ids without padding, and what to record about them."""

    features: list[dict[str, list[int]]]
    tokenizer: PreTrainedTokenizerBase
    special_tokens: bool
    n_truncated: int
    data_sha256: str

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[Text],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        special_tokens: bool = True,
    ) -> "EncodedTexts":
        """Tokenize texts, or pairs of texts, cut to ``max_length`` tokens.

        Args:
            texts: one string, or a pair of strings, an example.
            tokenizer: the teacher's.
            max_length: in tokens, special tokens included; at least one more than there are of those.
            special_tokens: whether [CLS], [SEP] and their like count in the measurement. They are fed either way.

        Raises:
            InputError: there are no texts, they are not of one kind, or nothing is left of them.
        """
        is_pair = _are_pairs(texts)
        n_special = tokenizer.num_special_tokens_to_add(pair=is_pair)
        if max_length <= n_special:
            raise InputError(
                f"max_length is {max_length}, of which this tokenizer needs {n_special} for special tokens. "
                f"Allowed are {n_special + 1} and more."
            )
        features: list[dict[str, list[int]]] = []
        n_truncated = 0
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            some = texts[start : start + _TEXTS_AT_A_TIME]
            first = [text[0] if is_pair else text for text in some]
            second = [text[1] for text in some] if is_pair else None
            encoded = tokenizer(first, second, truncation=False, return_special_tokens_mask=True)
            too_long = sum(len(ids) > max_length for ids in encoded["input_ids"])
            if too_long:
                cut = {"truncation": True, "max_length": max_length}
                encoded = tokenizer(first, second, **cut, return_special_tokens_mask=True)
            names = [name for name in encoded if name != "attention_mask"]
            columns = (encoded[name] for name in names)
            features += [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
            n_truncated += too_long
        digest = hashlib.sha256()
        for text in texts:
            for part in (text,) if isinstance(text, str) else text:
                digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
            digest.update(b"\n")
        return cls(features, tokenizer, special_tokens, n_truncated, digest.hexdigest())

    def __len__(self) -> int:
        return len(self.features)

    def check_fits(self, configs: Iterable[PretrainedConfig]) -> None:
        """Raise an :class:`InputError` if a text, once cut, is longer than a model has positions."""
        longest = max(len(feature["input_ids"]) for feature in self.features)
        positions = [getattr(config, "max_position_embeddings", None) for config in configs]
        limit = min([self.tokenizer.model_max_length, *(n for n in positions if n is not None)])
        if longest > limit:
            raise InputError(
                f"a text has {longest} tokens, more than the {limit} that these models can take. "
                f"Cut the texts with a max_length of at most {limit}."
            )

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All examples once, in batches of like length: the order of examples does not enter a mean."""
        by_length = sorted(self.features, key=lambda feature: len(feature["input_ids"]))
        for start in range(0, len(by_length), batch_size):
            yield self._collate(by_length[start : start + batch_size])

    def _collate(self, features: list[dict[str, list[int]]]) -> Batch:
        padded = pad(self.tokenizer, [{k: v for k, v in f.items() if k != "special_tokens_mask"} for f in features])
        counted = padded["attention_mask"].bool()
        if not self.special_tokens:
            for row, feature in enumerate(features):
                special = torch.tensor(feature["special_tokens_mask"], dtype=torch.bool)
                counted[row, : len(special)] &= ~special
        return Batch(padded, counted)


def _are_pairs(texts: Sequence[Text]) -> bool:
    """Whether these are pairs of texts; raise unless all are, or none."""
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


def check_finite(states: Tensor, name: str) -> None:
    """Raise an :class:`InputError` if a model gave NaN or infinite states."""
    if not states.isfinite().all():
        raise InputError(
            f"the states of {name} are not finite: its training diverged, or its weights are damaged. Leave it out, "
            "or train it anew."
        )


def pad(tokenizer: PreTrainedTokenizerBase, features: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Pad to the longest of these examples, on the right, whatever side the tokenizer prefers.

    The right side is the one on which padding moves no position, in encoders and in causal decoders alike.
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


def tower_of(config: PretrainedConfig) -> str:
    """The name of a model's one tower: ``"encoder"`` for BERT-like, ``"decoder"`` for GPT-like models.

    Raises:
        InputError: the model is an encoder-decoder, which this version cannot measure.
    """
    if config.is_encoder_decoder:
        raise InputError(
            f"{config.model_type} is an encoder-decoder model; this version measures models of one tower "
            "(encoders such as BERT, decoders such as GPT-2)."
        )
    causal_only = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return "decoder" if causal_only and config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "encoder"


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """A model's list of transformer blocks, found by its length rather than by its name.

    Raises:
        InputError: there is no list of ``config.num_hidden_layers`` modules.
    """
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            return module
    raise InputError(
        f"{type(model).__name__} keeps no list of its {model.config.num_hidden_layers} blocks, so they cannot be "
        'told apart (ALBERT shares one block among all layers). Choose another model, or use final_norm="post".'
    )


def forward_with_states(
    model: PreTrainedModel, inputs: dict[str, Tensor], *, final_norm: FinalNorm = "pre"
) -> tuple[Any, tuple[Float[Tensor, "example position dim"], ...]]:
    """Run a model and return its output and its states: the embedding output, then one state a block.

    transformers hands out the last state of a pre-norm model after the final norm, the others before theirs.
    ``final_norm="pre"`` takes the last block's own output instead, so that all are alike; ``"post"`` takes what
    transformers gives. For post-norm models such as BERT the two are the same tensor.
    """
    if final_norm == "post":
        output = model(**inputs, output_hidden_states=True)
        return output, tuple(output.hidden_states)
    captured: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, result: Any) -> None:
        captured.append(result[0] if isinstance(result, tuple) else result)

    handle = blocks(model)[-1].register_forward_hook(keep)
    try:
        output = model(**inputs, output_hidden_states=True)
    finally:
        handle.remove()
    return output, (*output.hidden_states[:-1], captured[-1])


def counted_states(
    states: Sequence[Float[Tensor, "example position dim"]], counted: Bool[Tensor, "example position"]
) -> Float[Tensor, "layer token dim"]:
    """The states of the counted tokens only, examples and positions flattened in reading order."""
    index = counted.flatten().nonzero().squeeze(1)
    return torch.stack([state.flatten(0, 1).index_select(0, index) for state in states])
