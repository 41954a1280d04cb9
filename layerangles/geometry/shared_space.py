"""States of student and teacher layers in one space, and the identity of their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float, Int

from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


class Tokens(NamedTuple):
    """Identity of the tokens of a batch.

    Attributes:
        example: the row of each token's example in the batch, counted from 0.
        partner: for every token, the index of another token among these.
        key: the number of each token's example in the data, independent of the batch.
        position: each token's position among the valid tokens of its example.
    """

    example: Int[torch.Tensor, " token"]
    partner: Int[torch.Tensor, " token"]
    key: Int[torch.Tensor, " token"]
    position: Int[torch.Tensor, " token"]

    def to(self, device: torch.device) -> Tokens:
        """The same tokens on another device."""
        return Tokens(*(values.to(device) for values in self))


class SharedSpace(NamedTuple):
    """Layers of a student and all teacher layers, in the space in which angles between them are taken.

    Attributes:
        rows: these layers as rows among all that are measured.
        teacher: states of all teacher layers.
        vertex: states of the student's layers in the same space.
        untrained: the same layers of an untrained student, for nulls that need them.
    """

    rows: slice
    teacher: Float[torch.Tensor, "teacher_layer token dim"]
    vertex: Float[torch.Tensor, "student_layer token dim"]
    untrained: Float[torch.Tensor, "student_layer token dim"] | None = None
