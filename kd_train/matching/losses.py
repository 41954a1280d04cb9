"""Losses on hidden states, labels and predictions. ``HIDDEN_LOSSES`` holds all that is known of each hidden loss.

A batch is computed in micro-batches of like length (see :mod:`kd_train.training.bank`). So that these add up to the
loss of the batch, every loss here is a sum of terms over tokens or examples, divided by the count of the *whole* batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_train.batches.token_choice import Tokens
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch.nn import functional
else:
    torch, functional = lazy_module("torch"), lazy_module("torch.nn.functional")


@dataclass(frozen=True)
class HiddenLossKind:
    """All that is known of one kind of hidden loss.

    Attributes:
        formula: the error of one token with student state S and target T.
        per_token: computes the errors from ``[token, dim]`` states, as ``[token]``.
        meaning: how the errors become the loss, for documentation, as far as it is not the mean over the matched
            tokens and over the pairs; its source.
        tokens: the only tokens that it is defined on; None if they can be chosen.
        averaged_tokens: the tokens that its mean is over, if these are not the matched ones.
        adds_pairs: whether the losses of a tower's pairs are added, not averaged.
        per_example: whether the mean is divided once more by the number of examples.
    """

    formula: str
    per_token: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    meaning: str = ""
    tokens: Tokens | None = None
    averaged_tokens: Tokens | None = None
    adds_pairs: bool = False
    per_example: bool = False


def mean_squared_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """``‖S − T‖² / dim`` of every token."""
    return (student - teacher).square().mean(dim=-1)


def _layer_norm_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    shape = student.shape[-1:]
    return mean_squared_error(functional.layer_norm(student, shape), functional.layer_norm(teacher, shape))


def _joint_layer_norm_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return mean_squared_error(
        functional.layer_norm(student, student.shape), functional.layer_norm(teacher, teacher.shape)
    )


def _unit_squared_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    # A state of length 0 stays 0: the embedding of PAD is 0 in many models.
    return (functional.normalize(student, dim=-1) - functional.normalize(teacher, dim=-1)).square().sum(dim=-1)


HIDDEN_LOSSES: dict[str, HiddenLossKind] = {
    "mse": HiddenLossKind("‖S − T‖²/dim", mean_squared_error),
    "layer_norm": HiddenLossKind("‖LN(S) − LN(T)‖²/dim, LN over the dimensions of each token", _layer_norm_error),
    "unit": HiddenLossKind("‖S/‖S‖ − T/‖T‖‖² = 2 (1 − cos)", _unit_squared_error),
    "cosine": HiddenLossKind("1 − cos(S, T)", lambda s, t: 1 - functional.cosine_similarity(s, t, dim=-1)),
    "patient": HiddenLossKind(
        "‖S/‖S‖ − T/‖T‖‖²",
        _unit_squared_error,
        "on the first token of every text; pairs are added (Sun et al. 2019, 1908.09355, equation 7)",
        tokens="first",
        adds_pairs=True,
    ),
    "paper_bert": HiddenLossKind(
        "‖S − T‖²",
        lambda s, t: (s - t).square().sum(dim=-1),
        "the mean is divided once more by the number of examples, so it depends on the batch size",
        per_example=True,
    ),
    "paper_bart": HiddenLossKind("‖S − T‖²/dim", mean_squared_error, "pairs are added", adds_pairs=True),
    "paper_t5": HiddenLossKind(
        "‖LN(S) − LN(T)‖²/dim, one LN over batch, position and dimension together, PAD included",
        _joint_layer_norm_error,
        "the mean leaves PAD out; pairs are added",
        tokens="all",
        averaged_tokens="valid",
        adds_pairs=True,
    ),
    "paper_qwen": HiddenLossKind("‖S/‖S‖ − T/‖T‖‖²", _unit_squared_error, "the mean includes PAD", tokens="all"),
}


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) of log probabilities, summed."""
    return functional.kl_div(q, p, reduction="sum", log_target=True)


def _jensen_shannon(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    mixture = torch.logaddexp(ours, theirs) - math.log(2)
    return (_kl(ours, mixture) + _kl(theirs, mixture)) / 2


class DivergenceKind(NamedTuple):
    """A divergence between log probabilities of student and teacher, ``[prediction, label]``, summed."""

    meaning: str
    total: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


DIVERGENCES: dict[str, DivergenceKind] = {
    "forward_kl": DivergenceKind("KL(teacher ‖ student)", lambda student, teacher: _kl(teacher, student)),
    "reverse_kl": DivergenceKind("KL(student ‖ teacher)", _kl),
    "jensen_shannon": DivergenceKind("the mean of both KLs to their mixture", _jensen_shannon),
}

if TYPE_CHECKING:
    HiddenLoss = str
    Divergence = str
else:
    HiddenLoss = Literal[tuple(HIDDEN_LOSSES)]
    Divergence = Literal[tuple(DIVERGENCES)]


class LossSpec(BaseModel):
    """The study's loss: ``L = ce · CE + kl · D(teacher, student) + hidden · L_hidden``.

    The weights (1, 1, 3) are those of Yu, Wen and Mou (2025). Without pairs the last term is 0: "none" is
    distillation of the predictions, not plain fine-tuning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    hidden: HiddenLoss = Field(default="mse", description="how states are compared")
    tokens: Literal["valid", "first"] | None = Field(
        default=None,
        description="match all valid tokens, or the first of every text ([CLS]); the loss's own by default",
    )
    divergence: Divergence = Field(default="forward_kl", description="how predictions are compared")
    ce_weight: float = Field(default=1.0, ge=0, description="of the cross-entropy with the labels")
    kl_weight: float = Field(default=1.0, ge=0, description="of the divergence from the teacher's predictions")
    hidden_weight: float = Field(default=3.0, ge=0, description="of the hidden loss")
    temperature: float = Field(default=1.0, gt=0, description="of both predictions in the divergence")

    @property
    def formula(self) -> str:
        """The terms with their weights."""
        return f"{self.ce_weight:g} CE + {self.kl_weight:g} {self.divergence} + {self.hidden_weight:g} {self.hidden}"

    @model_validator(mode="after")
    def _tokens_fit_the_loss(self) -> LossSpec:
        if self.tokens is not None and HIDDEN_LOSSES[self.hidden].tokens is not None:
            raise ValueError(f"tokens cannot be chosen for {self.hidden}, which is defined on {self.matched_tokens}")
        return self

    @property
    def matched_tokens(self) -> Tokens:
        """The tokens whose states are matched; ``all`` includes PAD."""
        return HIDDEN_LOSSES[self.hidden].tokens or self.tokens or "valid"

    @property
    def averaged_tokens(self) -> Tokens:
        """The tokens that the mean is over: the matched ones, unless the loss leaves PAD out of its mean."""
        return HIDDEN_LOSSES[self.hidden].averaged_tokens or self.matched_tokens


def hidden_loss(
    kind: HiddenLoss,
    student: Float[torch.Tensor, "token dim"],
    teacher: Float[torch.Tensor, "token dim"],
    *,
    n_tokens: int,
    n_examples: int,
    valid: Bool[torch.Tensor, " token"] | None = None,
) -> Float[torch.Tensor, ""]:
    """The loss of one pair of layers: the mean over the batch's matched tokens, of which these are some.

    Args:
        kind: a key of ``HIDDEN_LOSSES``; ``paper_…`` are the losses in the code of Yu, Wen and Mou (2025).
        student: the matched tokens of a micro-batch (:attr:`LossSpec.matched_tokens`), in teacher space.
        teacher: the targets of the same tokens.
        n_tokens: the tokens of the whole batch that the mean is over (:attr:`LossSpec.averaged_tokens`).
        n_examples: the examples of the whole batch.
        valid: which of the tokens are not PAD; needed where PAD is matched.
    """
    loss = HIDDEN_LOSSES[kind]
    errors = loss.per_token(student, teacher)
    if loss.averaged_tokens == "valid" and valid is not None:
        errors = errors[valid]
    total = errors.sum() / n_tokens
    return total / n_examples if loss.per_example else total


def over_pairs(kind: HiddenLoss, losses: Sequence[Float[torch.Tensor, ""]]) -> Float[torch.Tensor, ""]:
    """Combine the losses of a tower's pairs: their mean, or their sum where the loss is defined so."""
    stacked = torch.stack(list(losses))
    return stacked.sum() if HIDDEN_LOSSES[kind].adds_pairs else stacked.mean()


def label_loss(
    logits: Float[torch.Tensor, "prediction label"],
    labels: Int[torch.Tensor, " prediction"] | Float[torch.Tensor, " prediction"],
    n_predictions: int,
) -> Float[torch.Tensor, ""]:
    """Cross-entropy with classes or tokens, squared error with numbers: the sum, divided by the batch's predictions."""
    if labels.is_floating_point():
        total = (logits.squeeze(-1) - labels).square().sum()
    else:
        total = functional.cross_entropy(logits, labels, reduction="sum")
    return total / n_predictions


def prediction_divergence(
    student: Float[torch.Tensor, "prediction label"],
    teacher: Float[torch.Tensor, "prediction label"],
    loss: LossSpec,
    n_predictions: int,
) -> Float[torch.Tensor, ""]:
    """``T² · D`` between the softmaxes of ``teacher/T`` and ``student/T`` (Hinton 2015), over a batch's predictions.

    With one logit (regression) it is the squared difference, whatever the divergence.
    """
    if student.shape[-1] == 1:
        return (student - teacher).square().sum() / n_predictions
    ours = (student / loss.temperature).log_softmax(dim=-1)
    theirs = (teacher / loss.temperature).log_softmax(dim=-1)
    return DIVERGENCES[loss.divergence].total(ours, theirs) * loss.temperature**2 / n_predictions
