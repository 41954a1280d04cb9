"""The losses: hidden states, labels, predictions. All are sums of terms over tokens or examples.

A batch is computed in parts of like length (see :mod:`kd_train.bank`). So that the parts add up to the loss of the
batch, every loss here is a sum, and is divided by what the *whole* batch counts.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

HiddenLoss = Literal["mse", "paper_bert", "unit", "cosine"]


class LossSpec(BaseModel):
    """The study's loss: ``L = ce · CE + kl · KL(teacher ‖ student) + hidden · L_hidden``.

    The weights (1, 1, 3) are those of Yu, Wen and Mou (2025). Without pairs the last term is 0: "none" is
    distillation of the predictions, not plain fine-tuning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: HiddenLoss = "mse"
    ce_weight: float = Field(default=1.0, ge=0)
    kl_weight: float = Field(default=1.0, ge=0)
    hidden_weight: float = Field(default=3.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)


class BatchCounts(NamedTuple):
    """What the means of a batch are divided by: all its examples, all its valid tokens."""

    examples: int
    tokens: int


def squared_error(student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]) -> Float[Tensor, " token"]:
    """``‖S − T‖²``, summed over dimensions."""
    return (student - teacher).square().sum(dim=-1)


def mean_squared_error(
    student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]
) -> Float[Tensor, " token"]:
    """``‖S − T‖² / dim``."""
    return (student - teacher).square().mean(dim=-1)


def unit_squared_error(
    student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]
) -> Float[Tensor, " token"]:
    """``‖S/‖S‖ − T/‖T‖‖²``, which is ``2 (1 − cos)``: the paper's loss for Qwen, without its PAD tokens."""
    return squared_error(student / student.norm(dim=-1, keepdim=True), teacher / teacher.norm(dim=-1, keepdim=True))


def cosine_distance(
    student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]
) -> Float[Tensor, " token"]:
    """``1 − cos(S, T)``."""
    return 1 - torch.nn.functional.cosine_similarity(student, teacher, dim=-1)


_PER_TOKEN: dict[HiddenLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mean_squared_error,
    "paper_bert": squared_error,
    "unit": unit_squared_error,
    "cosine": cosine_distance,
}


def hidden_loss(
    kind: HiddenLoss, student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"], batch: BatchCounts
) -> Float[Tensor, ""]:
    """The loss of one pair of layers, over valid tokens only.

    The mean over the batch's valid tokens of ``mse``: ``‖S − T‖²/dim``; ``unit``: ``‖S/‖S‖ − T/‖T‖‖²``; ``cosine``:
    ``1 − cos``. ``paper_bert`` is what the paper's code computes for BERT: the mean of ``‖S − T‖²`` divided once more
    by the number of examples, which makes it depend on the batch size.

    Args:
        kind: which loss.
        student: valid tokens of a part of the batch, in teacher space.
        teacher: the same tokens' targets.
        batch: the counts of the whole batch.
    """
    total = _PER_TOKEN[kind](student, teacher).sum() / batch.tokens
    return total / batch.examples if kind == "paper_bert" else total


def cross_entropy(
    logits: Float[Tensor, "example label"], labels: Int[Tensor, " example"], batch: BatchCounts
) -> Float[Tensor, ""]:
    """Cross entropy with the labels, mean over the batch's examples."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / batch.examples


def prediction_divergence(
    student: Float[Tensor, "example label"],
    teacher: Float[Tensor, "example label"],
    temperature: float,
    batch: BatchCounts,
) -> Float[Tensor, ""]:
    """``T² · KL(softmax(teacher/T) ‖ softmax(student/T))``, mean over the batch's examples (Hinton et al. 2015)."""
    log_student = (student / temperature).log_softmax(dim=-1)
    log_teacher = (teacher / temperature).log_softmax(dim=-1)
    divergence = torch.nn.functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return divergence * temperature**2 / batch.examples
