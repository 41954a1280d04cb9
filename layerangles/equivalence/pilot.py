"""The number of seeds of a study, from the scatter of a pilot."""

import math
from typing import NamedTuple

import numpy as np
from scipy import special

from layerangles.equivalence.cells import Cell
from layerangles.equivalence.decision import Margin
from layerangles.equivalence.power import seeds_to_plan
from layerangles.errors import InputError
from layerangles.notation import number

_CAUTION = 0.8


class PilotPlan(NamedTuple):
    """The seeds that a study needs according to a pilot.

    Attributes:
        sd: standard deviation over seeds of the paired difference of two strategies, pooled over the pilot's pairs, in
            the metric's unit.
        sd_at_most: its upper bound at 80 % confidence, since few seeds estimate it badly.
        seeds: needed if the true sd equals the estimate; None for more than 1,000.
        seeds_at_most: needed if it equals its bound.
    """

    sd: float
    sd_at_most: float
    seeds: int | None
    seeds_at_most: int | None


def plan_from_pilot(
    pilot: Cell, margin: Margin, n_matched: int, *, power: float = 0.8, alpha: float = 0.05
) -> PilotPlan:
    """The number of seeds with which ``n_matched`` equally good strategies are found equivalent.

    The scatter is the interaction of strategy and seed in the pilot: the residual of the two-way analysis of variance,
    whose variance is half that of a paired difference. For a margin that is a share of the gain, the pilot's gain is
    taken as exact.

    Args:
        pilot: a cell of two or more matched strategies and two or more seeds.
        margin: the smallest difference that matters.
        n_matched: the number of matched strategies of the planned study.
        power: the probability of the verdict "equivalent".
        alpha: the level of the tests.

    Raises:
        InputError: the pilot has too few strategies or seeds, or no gain to take a share of.
    """
    if len(pilot.matched) < 2 or len(pilot.seeds) < 2:
        raise InputError(
            f"the pilot {pilot.name} has {len(pilot.matched)} matched strategies and {len(pilot.seeds)} seeds at which "
            "all have a student; the scatter of differences needs two of each. Train another seed."
        )
    scores = pilot.by_seed(pilot.matched)
    n_seeds, n_strategies = scores.shape
    residual = scores - scores.mean(axis=0) - scores.mean(axis=1, keepdims=True) + scores.mean()
    degrees = (n_seeds - 1) * (n_strategies - 1)
    sd = math.sqrt(2 * float((residual**2).sum()) / degrees)
    sd_at_most = sd * math.sqrt(degrees / (2 * float(special.gammaincinv(degrees / 2, 1 - _CAUTION))))
    size = margin.size * _gain(pilot, margin) if margin.of_gain else margin.size
    return PilotPlan(
        sd,
        sd_at_most,
        *(seeds_to_plan(value, size, n_matched, power=power, alpha=alpha) for value in (sd, sd_at_most)),
    )


def _gain(pilot: Cell, margin: Margin) -> float:
    sign = 1 if pilot.higher_is_better else -1
    none = pilot.by_seed([pilot.none]) if pilot.none is not None else np.full((1, 1), math.nan)
    gain = sign * float(pilot.by_seed(pilot.matched).mean() - none.mean())
    if not gain > 0:
        raise InputError(
            f"the margin is {margin}, and the pilot {pilot.name} shows no gain ({number(gain)}). Give a margin in the "
            "metric's own unit."
        )
    return gain
