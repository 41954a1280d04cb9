"""Control targets: what takes the place of the teacher's states to find out what matching them does at all.

If a student gains as much from targets that carry no information about its text, matching is regularization.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kd_train.randomness import seeded

TargetKind = Literal["teacher", "random_teacher", "other_text", "shuffled_tokens", "gaussian"]

# ``random_teacher`` is a model of its own; the others are made of the teacher's states.
MADE_OF_STATES: tuple[TargetKind, ...] = ("other_text", "shuffled_tokens", "gaussian")


def control_targets(
    kind: TargetKind,
    states: Sequence[Float[Tensor, "layer _token dim"]],
    examples: Sequence[Int[Tensor, " _token"]],
    *,
    layers: Sequence[int],
    seed: int,
    step: int,
) -> list[Float[Tensor, "layer _token dim"]]:
    """The targets of a control for a whole batch, micro-batch by micro-batch.

    - ``other_text``: the states of another text of the batch: token p gets that of token ``p mod n`` there.
    - ``shuffled_tokens``: the states of the same text in a random order of its tokens.
    - ``gaussian``: random directions with the norms of the states, drawn anew every step.

    Args:
        kind: one of ``MADE_OF_STATES``.
        states: by micro-batch, the teacher's layers at the valid tokens.
        examples: by micro-batch, the number of each token's example within the batch, ascending.
        layers: the numbers of these layers. A layer's targets do not depend on which others are asked for.
        seed: of the run.
        step: of the run; with the seed it decides all that is random.
    """
    sizes = [micro_batch.shape[1] for micro_batch in states]
    whole, example = torch.cat(list(states), dim=1), torch.cat(list(examples))
    made = []
    for layer, of_layer in zip(layers, whole, strict=True):
        # Tokens change places in all layers alike; noise is each layer's own.
        own = (layer,) if kind == "gaussian" else ()
        with seeded(seed, "control", kind, step, *own):
            made.append(_CONTROLS[kind](of_layer, example))
    return list(torch.split(torch.stack(made), sizes, dim=1))


def _other_text(states: Tensor, example: Tensor) -> Tensor:
    counts = torch.bincount(example)
    starts = counts.cumsum(0) - counts
    position = torch.arange(len(example), device=example.device) - starts[example]
    other = (example + 1) % len(counts)
    return states[starts[other] + position % counts[other]]


def _shuffled_tokens(states: Tensor, example: Tensor) -> Tensor:
    # Random keys, sorted within each example: an example's block stays where it is.
    keys = example + torch.rand(len(example), device="cpu").to(example.device)
    return states[keys.argsort()]


def _gaussian(states: Tensor, _example: Tensor) -> Tensor:
    # Drawn on the CPU, so that all devices get the same numbers.
    noise = torch.randn(states.shape, device="cpu").to(states.device)
    scaled: Tensor = noise * (states.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
    return scaled


_CONTROLS: dict[TargetKind, Callable[[Tensor, Tensor], Tensor]] = {
    "other_text": _other_text,
    "shuffled_tokens": _shuffled_tokens,
    "gaussian": _gaussian,
}
