"""The losses: hidden states, labels, predictions. All are sums of terms over tokens or examples.

A batch is computed in micro-batches of like length (see :mod:`kd_train.training.bank`). So that they add up to the
loss of the batch, every loss here is a sum, and is divided by what the *whole* batch counts.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional

HiddenLoss = Literal[
    "mse", "layer_norm", "unit", "cosine", "patient", "paper_bert", "paper_bart", "paper_t5", "paper_qwen"
]
Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]
Tokens = Literal["valid", "first", "all"]

# Which tokens a loss is defined on; every other one is on the valid ones, or what ``tokens`` says.
_ITS_TOKENS: dict[HiddenLoss, Tokens] = {"patient": "first", "paper_t5": "all", "paper_qwen": "all"}
_PAIRS_ARE_ADDED: frozenset[HiddenLoss] = frozenset({"patient", "paper_bart", "paper_t5"})


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
    def _tokens_fit_the_loss(self) -> "LossSpec":
        if self.tokens is not None and self.hidden in _ITS_TOKENS:
            raise ValueError(f"tokens cannot be chosen for {self.hidden}, which is defined on {self.matched_tokens}")
        return self

    @property
    def matched_tokens(self) -> Tokens:
        """The tokens whose states are matched; ``all`` includes PAD."""
        return _ITS_TOKENS.get(self.hidden) or self.tokens or "valid"

    @property
    def averaged_tokens(self) -> Tokens:
        """The tokens that the mean is over: the matched ones, but for ``paper_t5``, which leaves PAD out of it."""
        return "valid" if self.hidden == "paper_t5" else self.matched_tokens


class BatchCounts(NamedTuple):
    """What the means of a batch are divided by.

    Attributes:
        examples: of the whole batch.
        predictions: labelled examples, or labelled positions.
    """

    examples: int
    predictions: int


def squared_error(student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]) -> Float[Tensor, " token"]:
    """``‖S − T‖²``, summed over dimensions."""
    return (student - teacher).square().sum(dim=-1)


def mean_squared_error(
    student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]
) -> Float[Tensor, " token"]:
    """``‖S − T‖² / dim``."""
    return (student - teacher).square().mean(dim=-1)


def layer_norm_error(
    student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]
) -> Float[Tensor, " token"]:
    """``‖LN(S) − LN(T)‖² / dim`` with every token's state normalized over its dimensions: layers of one scale."""
    return mean_squared_error(_normalized(student), _normalized(teacher))


def _normalized(states: Float[Tensor, "token dim"]) -> Float[Tensor, "token dim"]:
    return functional.layer_norm(states, states.shape[-1:])


def unit_squared_error(
    student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]
) -> Float[Tensor, " token"]:
    """``‖S/‖S‖ − T/‖T‖‖²``, which is ``2 (1 − cos)``; a state of length 0 stays 0."""
    return squared_error(functional.normalize(student, dim=-1), functional.normalize(teacher, dim=-1))


def cosine_distance(
    student: Float[Tensor, "token dim"], teacher: Float[Tensor, "token dim"]
) -> Float[Tensor, " token"]:
    """``1 − cos(S, T)``."""
    return 1 - functional.cosine_similarity(student, teacher, dim=-1)


def jointly_normalized(states: Float[Tensor, "token dim"]) -> Float[Tensor, "token dim"]:
    """One layer norm over tokens and dimensions together, as in the paper's code for T5."""
    return functional.layer_norm(states, states.shape)


_PER_TOKEN: dict[HiddenLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mean_squared_error,
    "layer_norm": layer_norm_error,
    "unit": unit_squared_error,
    "cosine": cosine_distance,
    "patient": unit_squared_error,
    "paper_bert": squared_error,
    "paper_bart": mean_squared_error,
    "paper_t5": lambda s, t: mean_squared_error(jointly_normalized(s), jointly_normalized(t)),
    "paper_qwen": unit_squared_error,
}


def hidden_loss(
    kind: HiddenLoss,
    student: Float[Tensor, "token dim"],
    teacher: Float[Tensor, "token dim"],
    *,
    n_tokens: int,
    n_examples: int,
    valid: Bool[Tensor, " token"] | None = None,
) -> Float[Tensor, ""]:
    """The loss of one pair of layers: the mean over the batch's matched tokens, of which these are a part.

    ======================= =========================================================================================
    ``mse``                 ``‖S − T‖²/dim``
    ``layer_norm``          the same between states that are normalized token by token
    ``unit``, ``cosine``    ``‖S/‖S‖ − T/‖T‖‖²``; ``1 − cos``
    ``patient``             ``unit`` on the first token of every text (Sun et al. 2019, 1908.09355, equation 7)
    ``paper_bert``          ``‖S − T‖²``, divided once more by the number of examples: it depends on the batch size
    ``paper_bart``          ``mse``; pairs are added, not averaged
    ``paper_t5``            ``paper_bart`` between states normalized jointly over batch, position and dimension, PAD too
    ``paper_qwen``          ``unit``, PAD included
    ======================= =========================================================================================

    Args:
        kind: which loss; ``paper_…`` are what the code of Yu, Wen and Mou (2025) computes.
        student: the matched tokens of a micro-batch (:attr:`LossSpec.matched_tokens`), in teacher space.
        teacher: the same tokens' targets.
        n_tokens: what the mean is over: the matched tokens of the whole batch (for ``paper_t5`` the valid ones).
        n_examples: the examples of the whole batch.
        valid: which of these tokens are not PAD; only ``paper_t5`` needs it.
    """
    errors = _PER_TOKEN[kind](student, teacher)
    if kind == "paper_t5" and valid is not None:
        errors = errors[valid]
    total = errors.sum() / n_tokens
    return total / n_examples if kind == "paper_bert" else total


def over_pairs(kind: HiddenLoss, losses: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The losses of all pairs of a tower in one: their mean, or their sum where the loss is defined so."""
    together = torch.stack(list(losses))
    return together.sum() if kind in _PAIRS_ARE_ADDED else together.mean()


def label_loss(
    logits: Float[Tensor, "prediction label"],
    labels: Int[Tensor, " prediction"] | Float[Tensor, " prediction"],
    batch: BatchCounts,
) -> Float[Tensor, ""]:
    """Cross entropy with labels or tokens; squared error where labels are numbers. Mean over the predictions."""
    if labels.is_floating_point():
        total = (logits.squeeze(-1) - labels).square().sum()
    else:
        total = functional.cross_entropy(logits, labels, reduction="sum")
    return total / batch.predictions


def prediction_divergence(
    student: Float[Tensor, "prediction label"],
    teacher: Float[Tensor, "prediction label"],
    loss: LossSpec,
    batch: BatchCounts,
) -> Float[Tensor, ""]:
    """``T² · D`` between the softmaxes of ``teacher/T`` and ``student/T``, mean over the predictions (Hinton 2015).

    ``forward_kl`` is KL(teacher ‖ student), ``reverse_kl`` KL(student ‖ teacher), ``jensen_shannon`` the mean of both
    KLs to their mixture. With one logit (regression) it is the squared difference, whatever is asked for.
    """
    if student.shape[-1] == 1:
        return (student - teacher).square().sum() / batch.predictions
    ours = (student / loss.temperature).log_softmax(dim=-1)
    theirs = (teacher / loss.temperature).log_softmax(dim=-1)
    return _DIVERGENCES[loss.divergence](ours, theirs) * loss.temperature**2 / batch.predictions


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of log probabilities, summed."""
    return functional.kl_div(q, p, reduction="sum", log_target=True)


def _jensen_shannon(ours: Tensor, theirs: Tensor) -> Tensor:
    mixture = torch.logaddexp(ours, theirs) - math.log(2)
    return (_kl(ours, mixture) + _kl(theirs, mixture)) / 2


_DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": lambda ours, theirs: _kl(theirs, ours),
    "reverse_kl": _kl,
    "jensen_shannon": _jensen_shannon,
}
