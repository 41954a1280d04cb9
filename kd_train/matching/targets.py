"""What the teacher says on a batch: its predictions, and the hidden states that students are matched to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from kd_train.batches.model_inputs import ModelInputs, labelled
from kd_train.matching.controls import MADE_OF_STATES, TargetKind, control_targets
from kd_train.matching.losses import Tokens
from layerangles.layers import Tower


class TargetRequest(NamedTuple):
    """Which states: of which tower, at which tokens, and what they are made of."""

    kind: TargetKind
    tower: Tower
    tokens: Tokens


class Targets(NamedTuple):
    """What the teacher says on one micro-batch.

    Attributes:
        predictions: its logits wherever something is to be predicted.
        states: what is wanted, by teacher layer; ``[token, dim]``.
    """

    predictions: Float[Tensor, "prediction label"]
    states: dict[TargetRequest, dict[int, Float[Tensor, "token dim"]]]


class TeacherPass:
    """A teacher, and beside it the same architecture with random weights if a control asks for it."""

    def __init__(
        self, teacher: PreTrainedModel, random_teacher: PreTrainedModel | None, accelerator: Accelerator, seed: int
    ) -> None:
        self.models: dict[TargetKind, PreTrainedModel] = {"teacher": teacher}
        if random_teacher is not None:
            self.models["random_teacher"] = random_teacher
        self._accelerator, self._seed = accelerator, seed
        for model in self.models.values():
            torch.nn.Module.to(model, accelerator.device).train(False)

    def targets(
        self, calls: Sequence[ModelInputs], own: Sequence[int], wanted: Mapping[TargetRequest, Iterable[int]], step: int
    ) -> Iterator[Targets]:
        """The targets of some micro-batches of a batch, one after the other.

        Args:
            calls: the whole batch, micro-batch by micro-batch.
            own: the numbers of the micro-batches that are asked for.
            wanted: the states, and which teacher layers of each.
            step: decides what is random in controls.
        """
        layers = {key: sorted(set(of)) for key, of in wanted.items()}
        made = [key for key in layers if key.kind in MADE_OF_STATES]
        if not made:
            for number in own:
                yield self._on(calls[number], layers)
            return
        # Controls mix the texts of the batch: all of it is needed first.
        needed = {key: set(of) for key, of in layers.items() if key not in made}
        for key in made:
            needed.setdefault(TargetRequest("teacher", key.tower, "valid"), set()).update(layers[key])
        whole = [self._on(call, {key: sorted(of) for key, of in needed.items()}) for call in calls]
        for key in made:
            self._control(key, layers[key], calls, whole, step)
        for number in own:
            yield whole[number]

    def _control(
        self,
        key: TargetRequest,
        layers: Sequence[int],
        calls: Sequence[ModelInputs],
        whole: Sequence[Targets],
        step: int,
    ) -> None:
        """Add a control's targets to those of all micro-batches."""
        source = TargetRequest("teacher", key.tower, "valid")
        states = [torch.stack([targets.states[source][layer] for layer in layers]) for targets in whole]
        examples, first = [], 0
        for call in calls:
            examples.append(call.micro_batch.valid[key.tower].nonzero()[:, 0] + first)
            first += len(call.micro_batch.labels)
        made = control_targets(key.kind, states, examples, layers=layers, seed=self._seed, step=step)
        for call, targets, of_micro_batch in zip(calls, whole, made, strict=True):
            at_tokens = of_micro_batch if key.tokens == "valid" else of_micro_batch[:, call.first_of_valid(key.tower)]
            targets.states[key] = dict(zip(layers, at_tokens, strict=True))

    def _on(self, call: ModelInputs, layers: Mapping[TargetRequest, Sequence[int]]) -> Targets:
        states: dict[TargetRequest, dict[int, Tensor]] = {}
        predictions: Tensor | None = None
        with torch.no_grad(), self._accelerator.autocast():
            for kind, model in self.models.items():
                of_kind = {key: of for key, of in layers.items() if key.kind == kind}
                if not of_kind and kind != "teacher":
                    continue
                output, by_tower = call.run(
                    model, call.inputs, layers={layer for of in of_kind.values() for layer in of}
                )
                if kind == "teacher":
                    predictions, _ = labelled(output.logits, call.micro_batch.labels)
                for key, of in of_kind.items():
                    found = call.states(by_tower, key.tower, of, key.tokens)
                    states[key] = dict(zip(of, found, strict=True))
        if predictions is None:
            raise AssertionError("the teacher is always among the models")
        return Targets(predictions, states)
