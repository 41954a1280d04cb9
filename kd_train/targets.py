"""What the teacher says on a batch: its predictions, and the hidden states that students are matched to."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from transformers import PreTrainedModel

from kd_train.controls import MADE_OF_STATES, TargetKind, control_targets
from kd_train.losses import Tokens
from kd_train.tasks.base import IGNORED, Part
from layerangles.states import Tower, counted_states, forward_with_states


class Wanted(NamedTuple):
    """Which states: of which tower, at which tokens, and what they are made of."""

    kind: TargetKind
    tower: Tower
    tokens: Tokens


class Targets(NamedTuple):
    """What the teacher says on one part.

    Attributes:
        predictions: its logits wherever something is to be predicted.
        states: what is wanted, by teacher layer; ``[token, dim]``.
    """

    predictions: Float[Tensor, "prediction label"]
    states: dict[Wanted, dict[int, Float[Tensor, "token dim"]]]


def labelled(
    logits: Float[Tensor, "*where label"], labels: Shaped[Tensor, "*where"]
) -> tuple[Float[Tensor, "prediction label"], Shaped[Tensor, " prediction"]]:
    """The logits and the labels of an example each, or of the positions at which something is predicted."""
    if labels.ndim == 1:
        return logits.float(), labels
    index = (labels.flatten() != IGNORED).nonzero().squeeze(1)
    return logits.flatten(0, 1).index_select(0, index).float(), labels.flatten()[index]


def chosen_tokens(part: Part, tower: Tower, tokens: Tokens) -> Bool[Tensor, "example position"]:
    """Where the matched tokens of a part are: all that are no PAD, the first of each example, or PAD as well."""
    counted = part.counted[tower]
    if tokens == "all":
        return torch.ones_like(counted)
    if tokens == "first":
        return counted & (counted.cumsum(dim=1) == 1)
    return counted


class TeacherPass:
    """A teacher, and beside it the same architecture with random weights if a control asks for it."""

    def __init__(
        self, teacher: PreTrainedModel, random_teacher: PreTrainedModel | None, accelerator: Accelerator, seed: int
    ) -> None:
        self._models: dict[TargetKind, PreTrainedModel] = {"teacher": teacher}
        if random_teacher is not None:
            self._models["random_teacher"] = random_teacher
        self._accelerator, self._seed = accelerator, seed
        for model in self._models.values():
            torch.nn.Module.to(model, accelerator.device).train(False)

    def targets(
        self, parts: Sequence[Part], own: Sequence[int], wanted: Mapping[Wanted, Iterable[int]], step: int
    ) -> Iterator[Targets]:
        """The targets of some parts of a batch, one after the other.

        Args:
            parts: the whole batch.
            own: the numbers of the parts that are asked for.
            wanted: the states, and which teacher layers of each.
            step: decides what is random in controls.
        """
        layers = {key: sorted(set(of)) for key, of in wanted.items()}
        made = [key for key in layers if key.kind in MADE_OF_STATES]
        if not made:
            for number in own:
                yield self._on(parts[number], layers)
            return
        # Controls mix the texts of the batch: all of it is needed first.
        needed = {key: set(of) for key, of in layers.items() if key not in made}
        for key in made:
            needed.setdefault(Wanted("teacher", key.tower, "valid"), set()).update(layers[key])
        whole = [self._on(part, {key: sorted(of) for key, of in needed.items()}) for part in parts]
        for key in made:
            self._control(key, layers[key], parts, whole, step)
        for number in own:
            yield whole[number]

    def _control(
        self, key: Wanted, layers: Sequence[int], parts: Sequence[Part], whole: Sequence[Targets], step: int
    ) -> None:
        """Add a control's targets to those of all parts."""
        source = Wanted("teacher", key.tower, "valid")
        states = [torch.stack([targets.states[source][layer] for layer in layers]) for targets in whole]
        examples, first = [], 0
        for part in parts:
            examples.append(part.counted[key.tower].nonzero()[:, 0] + first)
            first += len(part.labels)
        made = control_targets(key.kind, states, examples, seed=self._seed, step=step)
        for part, targets, of_part in zip(parts, whole, made, strict=True):
            at = chosen_tokens(part, key.tower, key.tokens)[part.counted[key.tower]]
            targets.states[key] = dict(zip(layers, of_part[:, at], strict=True))

    def _on(self, part: Part, layers: Mapping[Wanted, Sequence[int]]) -> Targets:
        kinds = {key.kind for key in layers}
        states: dict[Wanted, dict[int, Tensor]] = {}
        by_tower: dict[str, tuple[Tensor, ...]] = {}
        predictions: Tensor | None = None
        with torch.no_grad(), self._accelerator.autocast():
            for kind, model in self._models.items():
                if kind not in kinds and kind != "teacher":
                    continue
                if kind not in kinds:
                    output = model(**part.inputs)
                else:
                    output, by_tower = forward_with_states(model, part.inputs)
                if kind == "teacher":
                    predictions, _ = labelled(output.logits, part.labels)
                for key, of in layers.items():
                    if key.kind == kind:
                        at = chosen_tokens(part, key.tower, key.tokens)
                        found = counted_states([by_tower[key.tower][layer] for layer in of], at).float()
                        states[key] = dict(zip(of, found, strict=True))
        if predictions is None:
            raise AssertionError("the teacher is always among the models")
        return Targets(predictions, states)
