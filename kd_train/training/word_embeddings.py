"""The word embeddings of a batch, looked up once for all its micro-batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from kd_train.batches.model_inputs import ModelInputs
from layerangles.models.states import towers_of


@dataclass(frozen=True)
class WordEmbeddings:
    """The word embeddings of one batch for one student.

    The gradient of an embedding matrix is as large as the matrix, whatever the batch. Looked up by micro-batch, it
    would be filled with zeros and added up as often, which costs more than a tenth of a step. (With a head tied to the
    embeddings every micro-batch fills it anyway, so this is for encoders.)
    """

    vocabulary: Int[Tensor, " word"]
    looked_up: Float[Tensor, "word dim"]
    leaf: Float[Tensor, "word dim"]

    @classmethod
    def look_up(cls, model: PreTrainedModel, batch: Sequence[ModelInputs]) -> "WordEmbeddings | None":
        """The embeddings of the words of some micro-batches; None if they are better looked up in each."""
        if towers_of(model.config) != ("encoder",) or not batch:
            return None
        tokens = torch.cat([inputs.inputs["input_ids"].flatten() for inputs in batch])
        vocabulary: Tensor = tokens.unique()  # type: ignore[no-untyped-call]
        looked_up = model.get_input_embeddings()(vocabulary)
        return cls(vocabulary, looked_up, looked_up.detach().requires_grad_(looked_up.requires_grad))

    def embedded(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a micro-batch with vectors in place of token ids."""
        rows = torch.searchsorted(self.vocabulary, inputs["input_ids"])
        others = {name: value for name, value in inputs.items() if name != "input_ids"}
        return others | {"inputs_embeds": torch.nn.functional.embedding(rows, self.leaf)}

    def backward(self) -> None:
        """Pass the gradient of all micro-batches on to the embedding matrix."""
        if self.leaf.grad is not None:
            torch.autograd.backward(self.looked_up, self.leaf.grad)
