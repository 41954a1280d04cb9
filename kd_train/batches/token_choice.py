"""The tokens of a batch at which states are matched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jaxtyping import Bool

from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

Tokens = Literal["valid", "first", "all"]
"""All tokens but PAD, the first of every text, or PAD as well."""


def chosen_tokens(
    valid: Bool[torch.Tensor, "example position"], tokens: Tokens
) -> Bool[torch.Tensor, "example position"]:
    """Mask of the matched tokens, given the mask of the valid ones."""
    if tokens == "all":
        return torch.ones_like(valid)
    if tokens == "first":
        return valid & (valid.cumsum(dim=1) == 1)
    return valid
