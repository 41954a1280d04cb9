"""Strategy → layer pairs: which teacher layer each student layer is matched to.

Layer 0 is the embedding output, 1..L are the outputs of the blocks. A pair is ``(student_layer, teacher_layer)``.
The strategies are those of Yu, Wen and Mou (2025, section 3), and of the related work: in-order random of RAIL-KD
(2109.10164), skip and last of Patient KD (1908.09355), attention of ALP-KD (2012.14022), the dynamic map of CoFi
(2204.00408). What changes during training is in :mod:`kd_train.matching.assignments`.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from layerangles.errors import InputError
from layerangles.layers import LayerPair, Tower

Kind = Literal[
    "none",
    "forward",
    "reverse",
    "all_to_one",
    "random",
    "in_order_random",
    "first",
    "last",
    "one_to_one",
    "patient_skip",
    "patient_last",
    "attention",
    "dynamic",
    "explicit",
]

# Which parameter belongs to which kinds; given to another kind it would be ignored, so it is refused.
_PARAMETERS: dict[str, tuple[Kind, ...]] = {
    "teacher_layer": ("all_to_one", "one_to_one"),
    "student_layer": ("one_to_one",),
    "mapping_seed": ("random", "in_order_random"),
    "redraw": ("random", "in_order_random"),
    "pairs": ("explicit",),
}
# What says itself which layers are matched; the others have the embedding output matched too, if so wished.
_SAYS_ITSELF: tuple[Kind, ...] = (
    "none", "first", "last", "one_to_one", "patient_skip", "patient_last", "attention", "explicit",
)  # fmt: skip


class Strategy(BaseModel):
    """One entry of a study's ``strategies``: a kind, and the parameters of that kind.

    Written as a bare kind (``forward``) or as a mapping (``{kind: random, mapping_seed: 3}``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Kind = Field(description="how teacher layers are chosen")
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="of its students; made of the kind by default",
    )
    teacher_layer: int | None = Field(default=None, ge=0, description="all_to_one: the middle by default; one_to_one")
    student_layer: int | None = Field(default=None, ge=0, description="one_to_one")
    mapping_seed: int | None = Field(default=None, ge=0, description="random, in_order_random: seed of the draws")
    redraw: Literal["epoch"] | PositiveInt | None = Field(
        default=None, description="random, in_order_random: draw anew every epoch, or every so many steps (RAIL-KD)"
    )
    pairs: tuple[LayerPair, ...] | dict[Tower, tuple[LayerPair, ...]] | None = Field(
        default=None, description="explicit: [student_layer, teacher_layer], for all towers or by tower"
    )

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
        if self.kind == "one_to_one" and None in (self.student_layer, self.teacher_layer):
            raise ValueError("one_to_one needs student_layer and teacher_layer")
        if self.kind == "all_to_one" and self.teacher_layer == 0:
            raise ValueError("all_to_one needs a teacher_layer from 1; 0 is the embedding output")
        return self

    @property
    def label(self) -> str:
        """What students of this strategy are called: its name, or its kind and the draw where it is not the first."""
        if self.name:
            return self.name
        redrawn = f"-every-{self.redraw}" if self.redraw else ""
        return f"{self.kind}-draw{self.mapping_seed}{redrawn}" if self.mapping_seed else f"{self.kind}{redrawn}"

    @property
    def changes(self) -> bool:
        """Whether the map changes during training."""
        return self.redraw is not None or self.kind in ("attention", "dynamic")


def layer_pairs(
    strategy: Strategy,
    student_layers: int,
    teacher_layers: int,
    *,
    tower: Tower = "encoder",
    embedding_pair: bool = True,
    draw: int = 0,
) -> tuple[LayerPair, ...]:
    """The pairs ``(student_layer, teacher_layer)`` of a strategy in one tower, by student layer.

    Args:
        strategy: which map. ``attention`` gives all pairs that it weighs, ``dynamic`` the map that it starts from.
        student_layers: number of the student's blocks in this tower, L_S.
        teacher_layers: number of the teacher's, L_T.
        tower: random maps of encoder and decoder are drawn independently.
        embedding_pair: match the embedding output too: to the teacher's, or under all-to-one to its one target.
            Does not apply to strategies that say themselves what is matched, such as ``last`` and ``explicit``.
        draw: the number of the draw, for a strategy that draws anew.

    Raises:
        InputError: no such map exists between these depths.

    Example:
        >>> layer_pairs(Strategy(kind="forward"), 3, 12)
        ((0, 0), (1, 4), (2, 8), (3, 12))
        >>> layer_pairs(Strategy(kind="all_to_one"), 3, 12)
        ((0, 6), (1, 6), (2, 6), (3, 6))
        >>> layer_pairs(Strategy(kind="patient_last"), 6, 12)
        ((1, 7), (2, 8), (3, 9), (4, 10), (5, 11))
    """
    if not 1 <= student_layers <= teacher_layers:
        raise InputError(
            f"a student of {student_layers} layers cannot be matched to a teacher of {teacher_layers}: "
            f"the student needs between 1 and {teacher_layers} layers. Set student.layers accordingly."
        )
    asked = _Asked(strategy, student_layers, teacher_layers, tower, draw)
    pairs = _PAIRS[strategy.kind](asked)
    if embedding_pair and strategy.kind not in _SAYS_ITSELF:
        pairs = ((0, pairs[0][1] if strategy.kind == "all_to_one" else 0), *pairs)
    return pairs


class _Asked(NamedTuple):
    """Between which depths a map is asked for."""

    strategy: Strategy
    student_layers: int
    teacher_layers: int
    tower: Tower
    draw: int

    @property
    def generator(self) -> np.random.Generator:
        """The random numbers of this draw: the encoder's first draw is that of the mapping seed alone."""
        seed = [self.strategy.mapping_seed or 0, int(self.tower == "decoder"), self.draw]
        return np.random.default_rng(seed if any(seed[1:]) else seed[0])


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


def _none(_asked: _Asked) -> tuple[LayerPair, ...]:
    return ()


def _forward(asked: _Asked) -> tuple[LayerPair, ...]:
    return _in_order(forward_targets(asked.student_layers, asked.teacher_layers))


def _reverse(asked: _Asked) -> tuple[LayerPair, ...]:
    return _in_order(forward_targets(asked.student_layers, asked.teacher_layers)[::-1])


def _all_to_one(asked: _Asked) -> tuple[LayerPair, ...]:
    target = asked.strategy.teacher_layer or math.ceil(asked.teacher_layers / 2)
    if target > asked.teacher_layers:
        raise InputError(
            f"all_to_one cannot match to teacher layer {target}: the teacher has the layers 1 to "
            f"{asked.teacher_layers}."
        )
    return _in_order((target,) * asked.student_layers)


def _random(asked: _Asked) -> tuple[LayerPair, ...]:
    targets = forward_targets(asked.student_layers, asked.teacher_layers)
    return _in_order(tuple(targets[i] for i in asked.generator.permutation(asked.student_layers)))


def _in_order_random(asked: _Asked) -> tuple[LayerPair, ...]:
    if asked.student_layers > asked.teacher_layers - 1:
        raise InputError(
            f"in_order_random draws {asked.student_layers} different teacher layers from 1 to L_T − 1, but a teacher "
            f"of {asked.teacher_layers} layers has only {asked.teacher_layers - 1}. Use a shallower student, or "
            "another strategy."
        )
    drawn = asked.generator.choice(np.arange(1, asked.teacher_layers), size=asked.student_layers, replace=False)
    return _in_order(tuple(sorted(int(layer) for layer in drawn)))


def _first(_asked: _Asked) -> tuple[LayerPair, ...]:
    return ((1, 1),)


def _last(asked: _Asked) -> tuple[LayerPair, ...]:
    return ((asked.student_layers, asked.teacher_layers),)


def _one_to_one(asked: _Asked) -> tuple[LayerPair, ...]:
    pair = (asked.strategy.student_layer or 0, asked.strategy.teacher_layer or 0)
    return _checked((pair,), asked)


def _patient_skip(asked: _Asked) -> tuple[LayerPair, ...]:
    """Every k-th teacher layer, k = ⌊L_T / L_S⌋; the last student layer is left unmatched (1908.09355)."""
    stride = asked.teacher_layers // asked.student_layers
    return _in_order(tuple(stride * j for j in range(1, _but_the_last(asked) + 1)))


def _patient_last(asked: _Asked) -> tuple[LayerPair, ...]:
    """The last teacher layers but the very last; the last student layer is left unmatched (1908.09355)."""
    start = asked.teacher_layers - asked.student_layers
    return _in_order(tuple(start + j for j in range(1, _but_the_last(asked) + 1)))


def _but_the_last(asked: _Asked) -> int:
    if asked.student_layers < 2:
        raise InputError(
            f"{asked.strategy.kind} leaves the last student layer unmatched, so a student of 1 layer has none to "
            "match. Use a deeper student, or another strategy."
        )
    return asked.student_layers - 1


def _attention(asked: _Asked) -> tuple[LayerPair, ...]:
    """Every student layer with every teacher layer; how much each weighs is found out token by token."""
    return tuple(
        (student_layer, teacher_layer)
        for student_layer in range(1, asked.student_layers + 1)
        for teacher_layer in range(1, asked.teacher_layers + 1)
    )


def _explicit(asked: _Asked) -> tuple[LayerPair, ...]:
    given = asked.strategy.pairs or ()
    pairs = given.get(asked.tower, ()) if isinstance(given, dict) else given
    if len(set(pairs)) < len(pairs):
        raise InputError(f"the pairs {[list(p) for p in pairs]} name one pair twice. Write every pair once.")
    return _checked(tuple(sorted(pairs)), asked)


def _checked(pairs: tuple[LayerPair, ...], asked: _Asked) -> tuple[LayerPair, ...]:
    for student_layer, teacher_layer in pairs:
        if not (0 <= student_layer <= asked.student_layers and 0 <= teacher_layer <= asked.teacher_layers):
            raise InputError(
                f"the pair [{student_layer}, {teacher_layer}] names a layer that does not exist: pairs are "
                f"[student_layer, teacher_layer] with student layers 0 to {asked.student_layers} and teacher layers "
                f"0 to {asked.teacher_layers}."
            )
    return pairs


_PAIRS: dict[Kind, Callable[[_Asked], tuple[LayerPair, ...]]] = {
    "none": _none,
    "forward": _forward,
    "reverse": _reverse,
    "all_to_one": _all_to_one,
    "random": _random,
    "in_order_random": _in_order_random,
    "first": _first,
    "last": _last,
    "one_to_one": _one_to_one,
    "patient_skip": _patient_skip,
    "patient_last": _patient_last,
    "attention": _attention,
    "dynamic": _forward,
    "explicit": _explicit,
}
KINDS: tuple[str, ...] = get_args(Kind)
