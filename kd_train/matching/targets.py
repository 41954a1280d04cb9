"""The teacher's output on a batch: its predictions, and the hidden states that students are matched to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from kd_train.batches.model_inputs import ModelInputs, labelled
from kd_train.batches.token_choice import Tokens
from kd_train.matching.controls import TARGETS, TEACHER_STATES, TargetKind, control_targets
from layerangles.layers import Tower


class TargetRequest(NamedTuple):
    """The kind, tower and tokens of requested states."""

    kind: TargetKind
    tower: Tower
    tokens: Tokens


StatesByRequest = dict[TargetRequest, dict[int, Float[Tensor, "token dim"]]]


class Targets(NamedTuple):
    """The teacher's output on one micro-batch.

    Attributes:
        predictions: its logits at all labelled positions.
        states: the requested states, by teacher layer; ``[token, dim]``.
    """

    predictions: Float[Tensor, "prediction label"]
    states: StatesByRequest


class TeacherPass:
    """A teacher and, if a control needs it, the same architecture with random weights."""

    def __init__(
        self, teacher: PreTrainedModel, random_teacher: PreTrainedModel | None, accelerator: Accelerator, seed: int
    ) -> None:
        self._teacher, self._random_teacher = teacher, random_teacher
        self.models = [model for model in (teacher, random_teacher) if model is not None]
        self._accelerator, self._seed = accelerator, seed
        for model in self.models:
            torch.nn.Module.to(model, accelerator.device).train(False)

    def targets(
        self,
        batch: Sequence[ModelInputs],
        own: Sequence[int],
        requested: Mapping[TargetRequest, Iterable[int]],
        step: int,
    ) -> Iterator[Targets]:
        """The targets of some micro-batches of a batch, one after the other.

        Args:
            batch: all micro-batches of the batch.
            own: the numbers of the micro-batches whose targets are yielded.
            requested: the states, and the teacher layers of each.
            step: decides all that is random in controls.
        """
        layers = {request: sorted(set(of)) for request, of in requested.items()}
        controls = [request for request in layers if TARGETS[request.kind].transform is not None]
        if not controls:
            for number in own:
                yield self._run(batch[number], layers)
            return
        # Controls mix the texts of the batch, so all of it is needed first.
        needed = {request: set(of) for request, of in layers.items() if request not in controls}
        for request in controls:
            needed.setdefault(_source(request), set()).update(layers[request])
        whole = [self._run(inputs, {request: sorted(of) for request, of in needed.items()}) for inputs in batch]
        for request in controls:
            self._add_control(request, layers[request], batch, whole, step)
        for number in own:
            yield whole[number]

    def _add_control(
        self,
        request: TargetRequest,
        layers: Sequence[int],
        batch: Sequence[ModelInputs],
        whole: Sequence[Targets],
        step: int,
    ) -> None:
        """Add a control's targets to those of all micro-batches."""
        tower = request.tower
        states = [torch.stack([targets.states[_source(request)][layer] for layer in layers]) for targets in whole]
        examples, first = [], 0
        for inputs in batch:
            examples.append(inputs.micro_batch.valid[tower].nonzero()[:, 0] + first)
            first += len(inputs.micro_batch.labels)
        made = control_targets(request.kind, states, examples, layers=layers, seed=self._seed, step=step)
        for inputs, targets, at_valid in zip(batch, whole, made, strict=True):
            at_tokens = at_valid if request.tokens == "valid" else at_valid[:, inputs.first_of_valid(tower)]
            targets.states[request] = dict(zip(layers, at_tokens, strict=True))

    def _run(self, inputs: ModelInputs, layers: Mapping[TargetRequest, Sequence[int]]) -> Targets:
        random = [request for request in layers if TARGETS[request.kind].random_teacher]
        if random and self._random_teacher is None:
            raise ValueError(f"{random[0].kind} targets are requested of a bank without a random teacher.")
        with torch.no_grad(), self._accelerator.autocast():
            logits, states = _states(self._teacher, inputs, {r: of for r, of in layers.items() if r not in random})
            if random and self._random_teacher is not None:
                states |= _states(self._random_teacher, inputs, {r: layers[r] for r in random})[1]
        predictions, _ = labelled(logits, inputs.micro_batch.labels)
        return Targets(predictions, states)


def _source(request: TargetRequest) -> TargetRequest:
    """The teacher's states from which a control's targets are made."""
    return TargetRequest(TEACHER_STATES, request.tower, "valid")


def _states(
    model: PreTrainedModel, inputs: ModelInputs, layers: Mapping[TargetRequest, Sequence[int]]
) -> tuple[Tensor, StatesByRequest]:
    """A model's logits and the requested states."""
    output, by_tower = inputs.run(model, inputs.inputs, layers={layer for of in layers.values() for layer in of})
    states = {request: inputs.states(by_tower, request.tower, of, request.tokens) for request, of in layers.items()}
    return output.logits, {request: dict(zip(layers[request], of, strict=True)) for request, of in states.items()}
