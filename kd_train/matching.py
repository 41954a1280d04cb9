"""Strategy → layer pairs: which teacher layer each student layer is matched to.

Layer 0 is the embedding output, 1..L are the outputs of the blocks. A pair is ``(student_layer, teacher_layer)``.
The strategies are those of Yu, Wen and Mou (2025, section 3), and in-order random of RAIL-KD (Haidar et al. 2022).
"""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from layerangles.checkpoints import LayerPair
from layerangles.errors import InputError

Kind = Literal["none", "forward", "reverse", "all_to_one", "random", "in_order_random", "last", "explicit"]

# Which parameter belongs to which kinds; given to another kind it would be ignored, so it is refused.
_PARAMETERS: dict[str, tuple[Kind, ...]] = {
    "teacher_layer": ("all_to_one",),
    "mapping_seed": ("random", "in_order_random"),
    "pairs": ("explicit",),
}


class Strategy(BaseModel):
    """One entry of a study's ``strategies``: a kind, and the parameters of that kind.

    Written as a bare kind (``forward``) or as a mapping (``{kind: random, mapping_seed: 3}``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    teacher_layer: int | None = Field(default=None, ge=1, description="all_to_one: the target; the middle by default")
    mapping_seed: int | None = Field(default=None, ge=0, description="random, in_order_random: seed of the one draw")
    pairs: tuple[LayerPair, ...] | None = Field(default=None, description="explicit: [student_layer, teacher_layer]")

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _parameters_fit_the_kind(self) -> "Strategy":
        for parameter, kinds in _PARAMETERS.items():
            if getattr(self, parameter) is not None and self.kind not in kinds:
                raise ValueError(f"{parameter} belongs to {' and '.join(kinds)}, not to {self.kind}")
        if self.kind == "explicit" and not self.pairs:
            raise ValueError("explicit needs pairs, such as [[1, 4], [2, 8]]")
        return self

    @property
    def label(self) -> str:
        """What students of this strategy are called: its name, or its kind and the draw where it is not the first."""
        if self.name:
            return self.name
        return f"{self.kind}-draw{self.mapping_seed}" if self.mapping_seed else self.kind


def layer_pairs(
    strategy: Strategy, student_layers: int, teacher_layers: int, *, embedding_pair: bool = True
) -> tuple[LayerPair, ...]:
    """The pairs ``(student_layer, teacher_layer)`` of a strategy, by student layer.

    Args:
        strategy: which map.
        student_layers: number of the student's blocks, L_S.
        teacher_layers: number of the teacher's blocks, L_T.
        embedding_pair: match the embedding output too: to the teacher's, or under all-to-one to its one target.
            Does not apply to ``none``, ``last`` and ``explicit``, which say themselves what is matched.

    Raises:
        InputError: no such map exists between these depths.

    Example:
        >>> layer_pairs(Strategy(kind="forward"), 3, 12)
        ((0, 0), (1, 4), (2, 8), (3, 12))
        >>> layer_pairs(Strategy(kind="all_to_one"), 3, 12)
        ((0, 6), (1, 6), (2, 6), (3, 6))
    """
    if not 1 <= student_layers <= teacher_layers:
        raise InputError(
            f"a student of {student_layers} layers cannot be matched to a teacher of {teacher_layers}: "
            f"the student needs between 1 and {teacher_layers} layers. Set student.layers accordingly."
        )
    pairs = _PAIRS[strategy.kind](strategy, student_layers, teacher_layers)
    if embedding_pair and strategy.kind not in ("none", "last", "explicit"):
        pairs = ((0, pairs[0][1] if strategy.kind == "all_to_one" else 0), *pairs)
    return pairs


def forward_targets(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """``m(j) = ceil(j · L_T / L_S)`` for j = 1..L_S: evenly spaced, in order, the last on the last.

    Example:
        >>> forward_targets(9, 12)
        (2, 3, 4, 6, 7, 8, 10, 11, 12)
    """
    # In integers: the quotient of floats may land above a whole number and be rounded up once too often.
    return tuple(-(-j * teacher_layers // student_layers) for j in range(1, student_layers + 1))


def _in_order(targets: tuple[int, ...]) -> tuple[LayerPair, ...]:
    return tuple(enumerate(targets, start=1))


def _none(_strategy: Strategy, _student_layers: int, _teacher_layers: int) -> tuple[LayerPair, ...]:
    return ()


def _forward(_strategy: Strategy, student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    return _in_order(forward_targets(student_layers, teacher_layers))


def _reverse(_strategy: Strategy, student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    return _in_order(forward_targets(student_layers, teacher_layers)[::-1])


def _all_to_one(strategy: Strategy, student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    target = strategy.teacher_layer or math.ceil(teacher_layers / 2)
    if target > teacher_layers:
        raise InputError(
            f"all_to_one cannot match to teacher layer {target}: the teacher has the layers 1 to {teacher_layers}."
        )
    return _in_order((target,) * student_layers)


def _random(strategy: Strategy, student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    targets = forward_targets(student_layers, teacher_layers)
    order = np.random.default_rng(strategy.mapping_seed or 0).permutation(student_layers)
    return _in_order(tuple(targets[i] for i in order))


def _in_order_random(strategy: Strategy, student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    if student_layers > teacher_layers - 1:
        raise InputError(
            f"in_order_random draws {student_layers} different teacher layers from 1 to L_T − 1, but a teacher of "
            f"{teacher_layers} layers has only {teacher_layers - 1}. Use a shallower student, or another strategy."
        )
    rng = np.random.default_rng(strategy.mapping_seed or 0)
    drawn = rng.choice(np.arange(1, teacher_layers), size=student_layers, replace=False)
    return _in_order(tuple(sorted(int(layer) for layer in drawn)))


def _last(_strategy: Strategy, student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    return ((student_layers, teacher_layers),)


def _explicit(strategy: Strategy, student_layers: int, teacher_layers: int) -> tuple[LayerPair, ...]:
    pairs = strategy.pairs or ()
    for student_layer, teacher_layer in pairs:
        if not (0 <= student_layer <= student_layers and 0 <= teacher_layer <= teacher_layers):
            raise InputError(
                f"the pair [{student_layer}, {teacher_layer}] names a layer that does not exist: pairs are "
                f"[student_layer, teacher_layer] with student layers 0 to {student_layers} and teacher layers "
                f"0 to {teacher_layers}."
            )
    if len(set(pairs)) < len(pairs):
        raise InputError(f"the pairs {[list(p) for p in pairs]} name one pair twice. Write every pair once.")
    return tuple(sorted(pairs))


_PAIRS: dict[Kind, Callable[[Strategy, int, int], tuple[LayerPair, ...]]] = {
    "none": _none,
    "forward": _forward,
    "reverse": _reverse,
    "all_to_one": _all_to_one,
    "random": _random,
    "in_order_random": _in_order_random,
    "last": _last,
    "explicit": _explicit,
}
KINDS: tuple[str, ...] = get_args(Kind)
