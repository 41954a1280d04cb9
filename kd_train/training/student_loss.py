"""The loss of one student on one micro-batch, as a share of the loss of the whole batch."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kd_train.batches.model_inputs import ModelInputs, labelled
from kd_train.batches.token_choice import Tokens, chosen_tokens
from kd_train.matching.losses import hidden_loss, label_loss, over_pairs, prediction_divergence
from kd_train.matching.targets import TargetRequest, Targets
from kd_train.students.learned_maps import name_of
from kd_train.tasks.base import IGNORED, MicroBatch
from kd_train.training.member import Member
from layerangles.layers import Tower


class BatchTotals:
    """The counts of a whole batch that its means are divided by."""

    def __init__(self, micro_batches: Sequence[MicroBatch]) -> None:
        self._micro_batches = micro_batches
        labels = [micro_batch.labels for micro_batch in micro_batches]
        self.n_examples = sum(map(len, labels))
        self.n_predictions = sum(len(of) if of.ndim == 1 else int((of != IGNORED).sum()) for of in labels)
        self._tokens: dict[tuple[Tower, Tokens], int] = {}

    def n_tokens(self, tower: Tower, tokens: Tokens) -> int:
        """The number of matched tokens."""
        key = (tower, tokens)
        if key not in self._tokens:
            masks = [micro_batch.valid[tower] for micro_batch in self._micro_batches]
            self._tokens[key] = sum(int(chosen_tokens(mask, tokens).sum()) for mask in masks)
        return self._tokens[key]


def loss_terms(
    member: Member,
    logits: Float[Tensor, "*where label"],
    states: Mapping[str, Sequence[Tensor | None]],
    inputs: ModelInputs,
    targets: Targets | None,
    totals: BatchTotals,
    step: int,
) -> dict[str, Float[Tensor, ""]]:
    """The terms ``ce``, ``kl`` and ``hidden``, unweighted, and their weighted sum ``total``.

    Args:
        member: the student.
        logits: its output on the micro-batch.
        states: its hidden states there, by tower and layer, from :meth:`ModelInputs.run`.
        inputs: the micro-batch.
        targets: the teacher's output there; without it the labels alone count.
        totals: the counts of the whole batch.
        step: the step, which decides the pairs.
    """
    loss = member.loss
    predictions, labels = labelled(logits, inputs.micro_batch.labels)
    terms = {"ce": label_loss(predictions, labels, totals.n_predictions)}
    total = loss.ce_weight * terms["ce"]
    if targets is not None:
        terms["kl"] = prediction_divergence(predictions, targets.predictions, loss, totals.n_predictions)
        total = total + loss.kl_weight * terms["kl"]
        if requests := member.target_requests(step):
            by_tower = [_tower_loss(member, request, states, inputs, targets, totals, step) for request in requests]
            terms["hidden"] = torch.stack(by_tower).sum()
            total = total + loss.hidden_weight * terms["hidden"]
    return terms | {"total": total}


def _tower_loss(
    member: Member,
    request: TargetRequest,
    states: Mapping[str, Sequence[Tensor | None]],
    inputs: ModelInputs,
    targets: Targets,
    totals: BatchTotals,
    step: int,
) -> Float[Tensor, ""]:
    """The hidden loss of one tower."""
    loss, tower = member.loss, request.tower
    assignment = member.assignments[tower]
    layers = assignment.student_layers(step)
    mapped = {
        layer: member.maps[name](state) if (name := name_of(tower, layer)) in member.maps else state
        for layer, state in zip(layers, inputs.states(states, tower, layers, request.tokens), strict=True)
    }
    losses = [
        hidden_loss(
            loss.hidden,
            student,
            teacher,
            n_tokens=totals.n_tokens(tower, loss.averaged_tokens),
            n_examples=totals.n_examples,
            valid=inputs.micro_batch.valid[tower].flatten() if request.tokens == "all" else None,
        )
        for student, teacher in assignment.matched(step, mapped, targets.states[request])
    ]
    return over_pairs(loss.hidden, losses)
