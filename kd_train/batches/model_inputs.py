"""The inputs of models on a micro-batch, padded or packed, and their states at the matched tokens."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from transformers import PreTrainedModel

from kd_train.batches.packing import Packing, attending_packed
from kd_train.batches.token_choice import Tokens, chosen_tokens
from kd_train.tasks.base import IGNORED, MicroBatch
from layerangles.layers import Tower
from layerangles.models.states import forward_with_states, known_inputs, valid_states


class ModelInputs:
    """A micro-batch on its device, padded or packed.

    Attributes:
        micro_batch: the micro-batch, padded.
        inputs: the arguments of models: the micro-batch's own, or packed ones.
        packing: the packing of the tokens; None if they are padded.
    """

    def __init__(self, micro_batch: MicroBatch, device: torch.device, *, pack: bool, first_position: int = 0) -> None:
        self.micro_batch = MicroBatch(
            {name: value.to(device) for name, value in micro_batch.inputs.items()},
            micro_batch.labels.to(device),
            {tower: mask.to(device) for tower, mask in micro_batch.valid.items()},
        )
        self.packing = Packing(self.micro_batch.valid["encoder"], first_position) if pack else None
        self.inputs = self.packing.packed(self.micro_batch.inputs) if self.packing else self.micro_batch.inputs

    def run(
        self, model: PreTrainedModel, inputs: Mapping[str, Tensor], *, layers: Collection[int]
    ) -> tuple[Any, dict[str, tuple[Tensor | None, ...]]]:
        """A model's output, and the states of these layers by tower; ``[1, token, dim]`` each if packed."""
        options: dict[str, Any] = {} if self.packing is None else {"packing": self.packing}
        with nullcontext() if self.packing is None else attending_packed(model, self.packing):
            if layers:
                return forward_with_states(model, inputs, layers=layers, **options)
            return model(**known_inputs(model, inputs), **options), {}

    def states(
        self, by_tower: Mapping[str, Sequence[Tensor | None]], tower: Tower, layers: Iterable[int], tokens: Tokens
    ) -> Float[Tensor, "layer token dim"]:
        """The states of some layers, from :meth:`run`, at the matched tokens."""
        states = [state for layer in layers if (state := by_tower[tower][layer]) is not None]
        if self.packing is None:
            return valid_states(states, chosen_tokens(self.micro_batch.valid[tower], tokens)).float()
        flat = torch.cat(states).float()
        return flat if tokens == "valid" else flat[:, self.first_of_valid(tower)]

    def first_of_valid(self, tower: Tower) -> Bool[Tensor, " token"]:
        """Mask of the valid tokens that begin a text."""
        valid = self.micro_batch.valid[tower]
        return chosen_tokens(valid, "first")[valid]


def labelled(
    logits: Float[Tensor, "*where label"], labels: Shaped[Tensor, "*where"]
) -> tuple[Float[Tensor, "prediction label"], Shaped[Tensor, " prediction"]]:
    """The logits and labels of the predictions: one per example, or one per labelled position."""
    if labels.ndim == 1:
        return logits.float(), labels
    index = (labels.flatten() != IGNORED).nonzero().squeeze(1)
    return logits.flatten(0, 1).index_select(0, index).float(), labels.flatten()[index]
