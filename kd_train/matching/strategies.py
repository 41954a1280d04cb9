"""Strategies: which teacher layer each student layer is matched to. ``STRATEGIES`` holds all that is known of each.

Layer 0 is the embedding output, 1..L are the outputs of the blocks. A pair is ``(student_layer, teacher_layer)``.
The strategies are those of Yu, Wen and Mou (2025, section 3) and of related work: in-order random from RAIL-KD
(2109.10164), skip and last from Patient KD (1908.09355), attention from ALP-KD (2012.14022), dynamic from CoFi
(2204.00408).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from kd_train.matching.assignments import Assignment, Attention, DynamicAssignment, Fixed, Redrawn
from layerangles.errors import InputError
from layerangles.layers import LayerPair, Tower


class _PairsRequest(NamedTuple):
    """The depths, tower and draw for which a strategy's pairs are requested."""

    strategy: "Strategy"
    student_layers: int
    teacher_layers: int
    tower: Tower
    embedding_pair: bool
    draw: int

    @property
    def generator(self) -> np.random.Generator:
        """The generator of this draw; the encoder's first draw depends on the mapping seed alone."""
        seed = [self.strategy.mapping_seed or 0, int(self.tower == "decoder"), self.draw]
        return np.random.default_rng(seed if any(seed[1:]) else seed[0])

    def in_order(self, targets: Sequence[int], *, embedding_target: int = 0) -> tuple[LayerPair, ...]:
        """Match student layers 1, 2, … to these targets, and the embedding output where that is requested."""
        pairs = tuple(enumerate(targets, start=1))
        return ((0, embedding_target), *pairs) if self.embedding_pair else pairs


def _valid(_strategy: "Strategy") -> None:
    """Accept the parameters of a strategy as they are."""


@dataclass(frozen=True)
class StrategyKind:
    """All that is known of one kind of strategy.

    Attributes:
        meaning: the definition in one sentence, for documentation.
        pairs: the layer pairs for given depths. A kind that follows ``embedding_pair`` adds it by ``in_order``.
        parameters: the fields of :class:`Strategy` that it takes.
        problem: an error in these fields, as the end of a sentence that begins with the kind; None if they are valid.
        matches: whether it matches anything.
        assignment: builds, from the pairs, what changes or does not change during training.
        change: how the targets change during training, in a few words; empty if they do not.
    """

    meaning: str
    pairs: Callable[[_PairsRequest], tuple[LayerPair, ...]]
    parameters: tuple[str, ...] = ()
    problem: Callable[["Strategy"], str | None] = _valid
    matches: bool = True
    assignment: Callable[[tuple[LayerPair, ...]], Assignment] = Fixed
    change: str = ""


def forward_targets(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """``m(j) = ceil(j · L_T / L_S)`` for j = 1..L_S: evenly spaced, in order, the last on the last.

    Example:
        >>> forward_targets(9, 12)
        (2, 3, 4, 6, 7, 8, 10, 11, 12)
    """
    # In integers: a quotient of floats may land just above a whole number and be rounded up once too often.
    return tuple(-(-j * teacher_layers // student_layers) for j in range(1, student_layers + 1))


def _forward(request: _PairsRequest) -> tuple[LayerPair, ...]:
    return request.in_order(forward_targets(request.student_layers, request.teacher_layers))


def _reverse(request: _PairsRequest) -> tuple[LayerPair, ...]:
    return request.in_order(forward_targets(request.student_layers, request.teacher_layers)[::-1])


def _all_to_one(request: _PairsRequest) -> tuple[LayerPair, ...]:
    target = request.strategy.teacher_layer or math.ceil(request.teacher_layers / 2)
    if target > request.teacher_layers:
        raise InputError(
            f"all_to_one cannot match to teacher layer {target}: the teacher has the layers 1 to "
            f"{request.teacher_layers}."
        )
    return request.in_order((target,) * request.student_layers, embedding_target=target)


def _random(request: _PairsRequest) -> tuple[LayerPair, ...]:
    targets = forward_targets(request.student_layers, request.teacher_layers)
    return request.in_order([targets[i] for i in request.generator.permutation(request.student_layers)])


def _in_order_random(request: _PairsRequest) -> tuple[LayerPair, ...]:
    if request.student_layers > request.teacher_layers - 1:
        raise InputError(
            f"in_order_random draws {request.student_layers} different teacher layers from 1 to L_T − 1, but a teacher "
            f"of {request.teacher_layers} layers has only {request.teacher_layers - 1}. Use a shallower student, or "
            "another strategy."
        )
    drawn = request.generator.choice(np.arange(1, request.teacher_layers), size=request.student_layers, replace=False)
    return request.in_order(sorted(int(layer) for layer in drawn))


def _patient_skip(request: _PairsRequest) -> tuple[LayerPair, ...]:
    stride = request.teacher_layers // request.student_layers
    return tuple((j, stride * j) for j in range(1, _all_but_last(request) + 1))


def _patient_last(request: _PairsRequest) -> tuple[LayerPair, ...]:
    offset = request.teacher_layers - request.student_layers
    return tuple((j, offset + j) for j in range(1, _all_but_last(request) + 1))


def _all_but_last(request: _PairsRequest) -> int:
    if request.student_layers < 2:
        raise InputError(
            f"{request.strategy.kind} leaves the last student layer unmatched, so a student of 1 layer has none to "
            "match. Use a deeper student, or another strategy."
        )
    return request.student_layers - 1


def _all_pairs(request: _PairsRequest) -> tuple[LayerPair, ...]:
    return tuple(
        (student_layer, teacher_layer)
        for student_layer in range(1, request.student_layers + 1)
        for teacher_layer in range(1, request.teacher_layers + 1)
    )


def _one_to_one(request: _PairsRequest) -> tuple[LayerPair, ...]:
    strategy = request.strategy
    return _existing(((strategy.student_layer or 0, strategy.teacher_layer or 0),), request)


def _explicit(request: _PairsRequest) -> tuple[LayerPair, ...]:
    given = request.strategy.pairs or ()
    pairs = given.get(request.tower, ()) if isinstance(given, dict) else given
    if len(set(pairs)) < len(pairs):
        raise InputError(f"the pairs {[list(p) for p in pairs]} name one pair twice. Write every pair once.")
    return _existing(tuple(sorted(pairs)), request)


def _existing(pairs: tuple[LayerPair, ...], request: _PairsRequest) -> tuple[LayerPair, ...]:
    for student_layer, teacher_layer in pairs:
        if not (0 <= student_layer <= request.student_layers and 0 <= teacher_layer <= request.teacher_layers):
            raise InputError(
                f"the pair [{student_layer}, {teacher_layer}] names a layer that does not exist: pairs are "
                f"[student_layer, teacher_layer] with student layers 0 to {request.student_layers} and teacher layers "
                f"0 to {request.teacher_layers}."
            )
    return pairs


def _starts_at_block(strategy: "Strategy") -> str | None:
    return "needs a teacher_layer from 1; 0 is the embedding output" if strategy.teacher_layer == 0 else None


def _names_both_layers(strategy: "Strategy") -> str | None:
    return "needs student_layer and teacher_layer" if None in (strategy.student_layer, strategy.teacher_layer) else None


def _has_pairs(strategy: "Strategy") -> str | None:
    return None if strategy.pairs else "needs pairs, such as [[1, 4], [2, 8]]"


STRATEGIES: dict[str, StrategyKind] = {
    "none": StrategyKind(
        "no layer is matched; the student learns from labels and predictions", lambda _request: (), matches=False
    ),
    "forward": StrategyKind("student layer j to teacher layer ⌈j · L_T / L_S⌉", _forward),
    "reverse": StrategyKind("the targets of forward in reverse order", _reverse),
    "all_to_one": StrategyKind(
        "every student layer to one teacher layer, ⌈L_T / 2⌉ by default",
        _all_to_one,
        parameters=("teacher_layer",),
        problem=_starts_at_block,
    ),
    "random": StrategyKind(
        "one permutation of the targets of forward, drawn from the mapping seed",
        _random,
        parameters=("mapping_seed", "redraw"),
    ),
    "in_order_random": StrategyKind(
        "L_S of the teacher layers 1..L_T − 1, drawn from the mapping seed and sorted (RAIL-KD, 2109.10164)",
        _in_order_random,
        parameters=("mapping_seed", "redraw"),
    ),
    "first": StrategyKind("the first student layer to the first teacher layer", lambda _request: ((1, 1),)),
    "last": StrategyKind(
        "the last student layer to the last teacher layer",
        lambda request: ((request.student_layers, request.teacher_layers),),
    ),
    "one_to_one": StrategyKind(
        "one named student layer to one named teacher layer",
        _one_to_one,
        parameters=("student_layer", "teacher_layer"),
        problem=_names_both_layers,
    ),
    "patient_skip": StrategyKind(
        "student layer j to teacher layer ⌊L_T / L_S⌋ · j, the last one unmatched (Patient KD, 1908.09355)",
        _patient_skip,
    ),
    "patient_last": StrategyKind(
        "student layer j to teacher layer L_T − L_S + j, the last one unmatched (Patient KD, 1908.09355)",
        _patient_last,
    ),
    "attention": StrategyKind(
        "every student layer to a mixture of all teacher layers, weighted token by token (ALP-KD, 2012.14022)",
        _all_pairs,
        assignment=Attention,
        change="weighed token by token",
    ),
    "dynamic": StrategyKind(
        "each target of forward to the nearest student layer, in order, chosen anew every step (CoFi, 2204.00408)",
        _forward,
        assignment=DynamicAssignment,
        change="chosen anew every step",
    ),
    "explicit": StrategyKind("the pairs that are given", _explicit, parameters=("pairs",), problem=_has_pairs),
}

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(STRATEGIES)]


def _kinds_with(parameter: str) -> list[str]:
    return [name for name, kind in STRATEGIES.items() if parameter in kind.parameters]


def _described(parameter: str, meaning: str) -> str:
    return f"{', '.join(_kinds_with(parameter))}: {meaning}"


class Strategy(BaseModel):
    """One entry of a study's ``strategies``: a kind, and the parameters of that kind.

    Written as a bare kind (``forward``) or as a mapping (``{kind: random, mapping_seed: 3}``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Kind = Field(description="how teacher layers are chosen")
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="prefix of the students' names; derived from the kind by default",
    )
    teacher_layer: int | None = Field(
        default=None,
        ge=0,
        description=_described("teacher_layer", "the target, by default the middle for all_to_one"),
    )
    student_layer: int | None = Field(
        default=None, ge=0, description=_described("student_layer", "the layer that is matched")
    )
    mapping_seed: int | None = Field(default=None, ge=0, description=_described("mapping_seed", "seed of the draws"))
    redraw: Literal["epoch"] | PositiveInt | None = Field(
        default=None, description=_described("redraw", "draw anew every epoch, or every so many steps (RAIL-KD)")
    )
    pairs: tuple[LayerPair, ...] | dict[Tower, tuple[LayerPair, ...]] | None = Field(
        default=None,
        description=_described("pairs", "[student_layer, teacher_layer], for all towers or by tower"),
    )

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _parameters_fit_the_kind(self) -> "Strategy":
        for parameter in dict.fromkeys(name for kind in STRATEGIES.values() for name in kind.parameters):
            if getattr(self, parameter) is not None and parameter not in STRATEGIES[self.kind].parameters:
                raise ValueError(f"{parameter} belongs to {' and '.join(_kinds_with(parameter))}, not to {self.kind}")
        if problem := STRATEGIES[self.kind].problem(self):
            raise ValueError(f"{self.kind} {problem}")
        return self

    @property
    def label(self) -> str:
        """The prefix of its students' names: its own name, or its kind with the draw where it is not the first."""
        if self.name:
            return self.name
        redrawn = f"-every-{self.redraw}" if self.redraw else ""
        return f"{self.kind}-draw{self.mapping_seed}{redrawn}" if self.mapping_seed else f"{self.kind}{redrawn}"

    @property
    def matches(self) -> bool:
        """Whether any layer is matched."""
        return STRATEGIES[self.kind].matches

    @property
    def drawn_from(self) -> int | None:
        """The mapping seed that its pairs are drawn from; None if they are not drawn."""
        return (self.mapping_seed or 0) if "mapping_seed" in STRATEGIES[self.kind].parameters else None

    @property
    def change(self) -> str:
        """How its targets change during training, in a few words; empty if they do not."""
        if self.redraw is None:
            return STRATEGIES[self.kind].change
        return f"drawn anew every {'epoch' if self.redraw == 'epoch' else f'{self.redraw} steps'}"


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
        strategy: its kind and parameters. ``attention`` gives all pairs that it weighs, ``dynamic`` its first map.
        student_layers: number of the student's blocks in this tower, L_S.
        teacher_layers: number of the teacher's, L_T.
        tower: random maps of encoder and decoder are drawn independently.
        embedding_pair: match the embedding output as well: to the teacher's, or under all-to-one to its one target.
            Has no effect on strategies that name each matched layer, such as ``last`` and ``explicit``.
        draw: the number of the draw, for a strategy that draws anew.

    Raises:
        InputError: the strategy has no map between these depths.

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
    request = _PairsRequest(strategy, student_layers, teacher_layers, tower, embedding_pair, draw)
    return STRATEGIES[strategy.kind].pairs(request)


def assign(
    strategy: Strategy,
    student_layers: int,
    teacher_layers: int,
    *,
    tower: Tower,
    embedding_pair: bool,
    steps_per_epoch: int,
) -> Assignment:
    """The assignment of a strategy in one tower; see :func:`layer_pairs` for the arguments."""
    draw = partial(layer_pairs, strategy, student_layers, teacher_layers, tower=tower, embedding_pair=embedding_pair)
    if strategy.redraw is not None:
        every = steps_per_epoch if strategy.redraw == "epoch" else strategy.redraw
        return Redrawn(lambda number: draw(draw=number), every)
    return STRATEGIES[strategy.kind].assignment(draw())
