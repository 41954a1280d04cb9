"""A batch without padding: an encoder gets the tokens of all texts as one long text; only attention tells them apart.

Linear layers, norms and dropout work token by token, so they need no rectangle. Attention does, and gets it: queries,
keys and values are laid out in rectangles of texts of like length, and what comes out is packed again.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from layerangles.states import blocks, first_position, towers_of

_NAME = "layerangles_packed"


class Packing:
    """Where the tokens of a padded batch are in the packed one.

    Args:
        counted: which positions hold tokens; they stand at the beginning of every row.
        first_position: the number that a model gives to the first position of a text.
    """

    def __init__(self, counted: Bool[Tensor, "example position"], first_position: int = 0) -> None:
        self._first_position = first_position
        self.counted = counted
        self.index = counted.flatten().nonzero().squeeze(1)
        self.shape = (counted.shape[0], counted.shape[1])
        self.mask = None if bool(counted.all()) else counted[:, None, None, :]

    def packed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a model, ``[1, token]``, without a mask but with every token's position in its text."""
        positions = self._first_position + torch.arange(self.shape[1], device=self.index.device).expand(self.shape)
        rows = {name: value for name, value in inputs.items() if name != "attention_mask"} | {"position_ids": positions}
        return {name: value.flatten(0, 1).index_select(0, self.index)[None] for name, value in rows.items()}

    def pad(self, tokens: Float[Tensor, "token *rest"]) -> Float[Tensor, "example position *rest"]:
        """A rectangle of these tokens, 0 where there is none."""
        padded: Tensor = _Pad.apply(tokens, self.index, self.counted.numel())  # type: ignore[no-untyped-call]
        return padded.view(*self.shape, *tokens.shape[1:])

    def unpad(self, padded: Float[Tensor, "example position *rest"]) -> Float[Tensor, "token *rest"]:
        """The tokens of a rectangle."""
        tokens: Tensor = _Unpad.apply(padded.flatten(0, 1), self.index)  # type: ignore[no-untyped-call]
        return tokens


class _Pad(torch.autograd.Function):
    """torch's own backward of an index is a sum over indices, which costs more than a copy and has nothing to sum."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(index)
        return tokens.new_zeros(n, *tokens.shape[1:]).index_copy_(0, index, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradient.index_select(0, index), None, None


class _Unpad(torch.autograd.Function):
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
    attention_mask: None,  # noqa: ARG001 (transformers gives it by position; the packing has its own)
    *,
    packing: Packing,
    **options: Any,
) -> tuple[Float[Tensor, "1 token head dim"], None]:
    q, k, v = (packing.pad(tensor[0].transpose(0, 1)).transpose(1, 2) for tensor in (query, key, value))
    out, _ = sdpa_attention_forward(module, q, k, v, packing.mask, **options)
    return packing.unpad(out)[None], None


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)


def can_be_packed(model: PreTrainedModel) -> bool:
    """Whether an encoder gives the same for packed inputs as for padded ones; found out by trying three short texts.

    Encoders with attention in windows are left out: texts short enough to try would not show the window.
    """
    config = model.config
    windows = ("sliding_window", "local_attention", "attention_window", "layer_types")
    if towers_of(config) != ("encoder",) or any(getattr(config, name, None) for name in windows):
        return False
    device = next(model.parameters()).device
    counted = torch.arange(7, device=device) < torch.tensor([[7], [1], [4]], device=device)
    ids = torch.arange(21, device=device).view(3, 7) % (config.vocab_size - 1) + 1
    if config.pad_token_id is not None:
        ids[ids == config.pad_token_id] = (config.pad_token_id + 1) % config.vocab_size
    inputs = {"input_ids": ids, "attention_mask": counted.long()}
    packing = Packing(counted, first_position(config))
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            padded = model(**inputs).logits
            with attending_packed(model, packing):
                packed = model(**packing.packed(inputs), packing=packing).logits
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False  # it takes no positions, or has an attention of its own
    finally:
        model.train(was_training)
    return torch.allclose(padded, packed, rtol=1e-3, atol=1e-4)


@contextmanager
def attending_packed(model: PreTrainedModel, packing: Packing) -> Iterator[None]:
    """Within the block, the model takes packed inputs; its head gets padded states, as it expects them."""

    def pad_again(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = packing.pad(output.last_hidden_state[0])
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
