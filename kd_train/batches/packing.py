"""Packing of batches without padding: an encoder reads all texts as one, and only its attention tells them apart.

Linear layers, norms and dropout work token by token, so they need no rectangle. Attention does: queries, keys and
values are laid out in rectangles of texts of like length, and its output is packed again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kd_train.batches.order import cut_of_least_cost
from layerangles.models.states import blocks, first_position, forward_with_states, towers_of

_NAME = "layerangles_packed"
# The most rectangles of a batch: more save little, and each costs some calls per layer.
_RECTANGLES = 4


class _Rectangle(NamedTuple):
    """Consecutive texts of like length.

    Attributes:
        tokens: the slice of the packed batch that holds their tokens.
        shape: the number of texts, and the length of the longest.
        places: the place of each token in the rectangle, row by row.
        mask: the places that hold tokens, ``[text, 1, 1, place]``; None if all do.
    """

    tokens: slice
    shape: tuple[int, int]
    places: Int[Tensor, " token"]
    mask: Bool[Tensor, "text 1 1 place"] | None

    @classmethod
    def of(cls, valid: Bool[Tensor, "text place"], first_token: int) -> "_Rectangle":
        places = valid.flatten().nonzero().squeeze(1)
        mask = None if len(places) == valid.numel() else valid[:, None, None, :]
        n_texts, longest = valid.shape
        return cls(slice(first_token, first_token + len(places)), (n_texts, longest), places, mask)

    def laid_out(self, tokens: Float[Tensor, "1 head token dim"]) -> Float[Tensor, "text head place dim"]:
        """The packed tokens of these texts, padded with 0."""
        rows = tokens[0, :, self.tokens].transpose(0, 1)
        padded: Tensor = _Pad.apply(rows, self.places, self.shape[0] * self.shape[1])  # type: ignore[no-untyped-call]
        return padded.view(*self.shape, *rows.shape[1:]).transpose(1, 2)


class Packing:
    """The positions of a padded batch's tokens in the packed one.

    Args:
        valid: which positions hold tokens; they stand at the beginning of every row.
        first_position: the number of a text's first position in the model.
    """

    def __init__(self, valid: Bool[Tensor, "example position"], first_position: int = 0) -> None:
        self._first_position = first_position
        self._shape = (valid.shape[0], valid.shape[1])
        self._whole = _Rectangle.of(valid, 0)
        lengths = valid.sum(dim=1).tolist()
        self.rectangles, token = [], 0
        for start, end in pairwise((0, *cut_of_least_cost(_attention_costs(lengths), _RECTANGLES))):
            rectangle = _Rectangle.of(valid[start:end, : max(lengths[start:end])], token)
            self.rectangles.append(rectangle)
            token = rectangle.tokens.stop

    def packed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a model, ``[1, token]``, with the position of every token in its text in place of a mask."""
        index = self._whole.places
        positions = self._first_position + torch.arange(self._shape[1], device=index.device).expand(self._shape)
        rows = {name: value for name, value in inputs.items() if name != "attention_mask"} | {"position_ids": positions}
        return {name: value.flatten(0, 1).index_select(0, index)[None] for name, value in rows.items()}

    def padded(self, tokens: Float[Tensor, "1 token dim"]) -> Float[Tensor, "example position dim"]:
        """The packed tokens of all texts, padded with 0."""
        return self._whole.laid_out(tokens[None]).squeeze(1)


def _attention_costs(lengths: Sequence[int]) -> npt.NDArray[np.float64]:
    """The cost of attention in a rectangle of texts start … end - 1: their number times the longest length squared."""
    n = len(lengths)
    costs = np.full((n, n + 1), np.inf)
    for start in range(n):
        longest = np.maximum.accumulate(np.asarray(lengths[start:], dtype=np.float64))
        costs[start, start + 1 :] = np.arange(1, n - start + 1) * longest**2
    return costs


class _Pad(torch.autograd.Function):
    """Scatter tokens into zeros. torch's own backward of an index sums over indices, which costs more than a copy."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(index)
        return tokens.new_zeros(n, *tokens.shape[1:]).index_copy_(0, index, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradient.index_select(0, index), None, None


class _Unpad(torch.autograd.Function):
    """The inverse of :class:`_Pad`."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.n = len(padded)
        return padded.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.n, *gradient.shape[1:]).index_copy_(0, index, gradient), None


def _attention(
    module: nn.Module,
    query: Float[Tensor, "1 head token dim"],
    key: Float[Tensor, "1 head token dim"],
    value: Float[Tensor, "1 head token dim"],
    attention_mask: None,  # noqa: ARG001 (transformers passes it by position; the packing has its own)
    *,
    packing: Packing,
    **options: Any,
) -> tuple[Float[Tensor, "1 token head dim"], None]:
    attended = []
    for rectangle in packing.rectangles:
        q, k, v = (rectangle.laid_out(tensor) for tensor in (query, key, value))
        out, _ = sdpa_attention_forward(module, q, k, v, rectangle.mask, **options)
        attended.append(_Unpad.apply(out.flatten(0, 1), rectangle.places))  # type: ignore[no-untyped-call]
    return torch.cat(attended)[None], None


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)


def can_be_packed(model: PreTrainedModel) -> bool:
    """Whether an encoder has the same states for packed as for padded inputs, tried on three short texts.

    Encoders with windowed attention are excluded: texts short enough to try would not show the window.
    """
    config = model.config
    windows = ("sliding_window", "local_attention", "attention_window", "layer_types")
    if towers_of(config) != ("encoder",) or any(getattr(config, name, None) for name in windows):
        return False
    device = next(model.parameters()).device
    valid = torch.arange(7, device=device) < torch.tensor([[7], [1], [4]], device=device)
    ids = torch.arange(21, device=device).view(3, 7) % (config.vocab_size - 1) + 1
    if config.pad_token_id is not None:
        ids[ids == config.pad_token_id] = (config.pad_token_id + 1) % config.vocab_size
    inputs = {"input_ids": ids, "attention_mask": valid.long()}
    packing = Packing(valid, first_position(config))
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            _, states = forward_with_states(model, inputs)
            with attending_packed(model, packing):
                _, packed_states = forward_with_states(model, packing.packed(inputs), packing=packing)
        padded = torch.stack([state[valid] for state in states["encoder"]])
        packed = torch.cat(packed_states["encoder"])
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError):
        return False  # the model takes no positions, or implements its own attention
    finally:
        model.train(was_training)
    # Up to rounding and no more: the states of an untrained model hardly depend on their neighbours.
    return padded.shape == packed.shape and bool((padded - packed).abs().max() <= 1e-5 * padded.abs().max())


@contextmanager
def attending_packed(model: PreTrainedModel, packing: Packing) -> Iterator[None]:
    """Let a model take packed inputs within the block; its head receives padded states, as it expects."""

    def pad_again(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = packing.padded(output.last_hidden_state)
        return output

    ours = blocks(model)
    (container,) = (module for module in model.modules() if any(child is ours for child in module.children()))
    before = model.config._attn_implementation
    hook = container.register_forward_hook(pad_again)
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        hook.remove()
