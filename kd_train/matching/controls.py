"""Targets of matching: the teacher's states, or controls in their place. ``TARGETS`` holds all that is known of each.

If a student gains as much from targets that carry no information about its text, matching is regularization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float, Int

from kd_train.randomness import seeded
from layerangles.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")


@dataclass(frozen=True)
class TargetSource:
    """All that is known of one kind of target.

    Attributes:
        meaning: one sentence, for documentation.
        is_control: whether it takes the place of the teacher's states.
        random_teacher: whether the states are those of the teacher's architecture with random weights.
        transform: makes the targets of one layer from the teacher's states ``[token, dim]`` and the example of each
            token, for a whole batch; None if a model's states are taken as they are.
        layers_differ: whether the transform draws other random numbers for each layer.
        needs_other_text: whether it needs a batch of two texts or more.
    """

    meaning: str
    is_control: bool = True
    random_teacher: bool = False
    transform: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    layers_differ: bool = False
    needs_other_text: bool = False


def _other_text(states: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    counts = torch.bincount(example)
    starts = counts.cumsum(0) - counts
    position = torch.arange(len(example), device=example.device) - starts[example]
    other = (example + 1) % len(counts)
    return states[starts[other] + position % counts[other]]


def _shuffled_tokens(states: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    # Random keys, sorted within each example: an example's block stays where it is.
    keys = example + torch.rand(len(example), device="cpu").to(example.device)
    return states[keys.argsort()]


def _gaussian(states: torch.Tensor, _example: torch.Tensor) -> torch.Tensor:
    # Drawn on the CPU, so that all devices get the same numbers.
    noise = torch.randn(states.shape, device="cpu").to(states.device)
    scaled: torch.Tensor = noise * (states.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
    return scaled


TEACHER_STATES = "teacher"

TARGETS: dict[str, TargetSource] = {
    TEACHER_STATES: TargetSource("the teacher's states", is_control=False),
    "random_teacher": TargetSource("the states of the teacher's architecture with random weights", random_teacher=True),
    "other_text": TargetSource(
        "the teacher's states of the next text in the batch: token p gets those of token p mod n there",
        transform=_other_text,
        needs_other_text=True,
    ),
    "shuffled_tokens": TargetSource(
        "the teacher's states of the same text, its tokens in a random order", transform=_shuffled_tokens
    ),
    "gaussian": TargetSource(
        "random directions with the norms of the teacher's states, drawn anew every step",
        transform=_gaussian,
        layers_differ=True,
    ),
}

if TYPE_CHECKING:
    TargetKind = str
else:
    TargetKind = Literal[tuple(TARGETS)]


def control_targets(
    kind: TargetKind,
    states: Sequence[Float[torch.Tensor, "layer _token dim"]],
    examples: Sequence[Int[torch.Tensor, " _token"]],
    *,
    layers: Sequence[int],
    seed: int,
    step: int,
) -> list[Float[torch.Tensor, "layer _token dim"]]:
    """The targets of a control for a whole batch, by micro-batch.

    Args:
        kind: a key of ``TARGETS`` with a transform.
        states: by micro-batch, the teacher's layers at the valid tokens.
        examples: by micro-batch, the number of each token's example within the batch, ascending.
        layers: the numbers of these layers. A layer's targets do not depend on which others are requested.
        seed: of the run.
        step: of the run; with the seed it decides all that is random.

    Raises:
        ValueError: the kind takes a model's states as they are.
    """
    source = TARGETS[kind]
    if source.transform is None:
        raise ValueError(f"{kind} targets are the states of a model, not made of the teacher's.")
    sizes = [states_of_one.shape[1] for states_of_one in states]
    batch, example = torch.cat(list(states), dim=1), torch.cat(list(examples))
    made = []
    for layer, layer_states in zip(layers, batch, strict=True):
        with seeded(seed, "control", kind, step, *((layer,) if source.layers_differ else ())):
            made.append(source.transform(layer_states, example))
    return list(torch.split(torch.stack(made), sizes, dim=1))
