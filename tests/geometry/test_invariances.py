"""A table of what leaves every measure unchanged, run on random states.

For each measure the transformations under which it must stay what it is; those that are not listed must change it,
so that the table says something.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from layerangles.measurement.measure_arrays import measure_arrays

N_TEACHER, N_STUDENT, DIM = 4, 3, 10


class States(NamedTuple):
    """What a transformation changes: teacher and student in teacher space, and whose tokens they are."""

    teacher: Tensor
    vertex: Tensor
    example: Tensor


def _states(seed: int) -> States:
    rng = torch.Generator().manual_seed(seed)
    # No two texts of one length: which text is another's partner must not hang on the order.
    example = torch.repeat_interleave(torch.arange(8), torch.arange(3, 11))
    shift = torch.randn(DIM, generator=rng, dtype=torch.float64)
    teacher = torch.randn(N_TEACHER, len(example), DIM, generator=rng, dtype=torch.float64) + shift
    vertex = torch.randn(N_STUDENT, len(example), DIM, generator=rng, dtype=torch.float64) + shift
    return States(teacher, vertex, example)


def _rotation(states: States, rng: torch.Generator) -> States:
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=rng, dtype=torch.float64)).Q
    return states._replace(teacher=states.teacher @ turn, vertex=states.vertex @ turn)


def _translation(states: States, rng: torch.Generator) -> States:
    shift = 3 * torch.randn(DIM, generator=rng, dtype=torch.float64)
    return states._replace(teacher=states.teacher + shift, vertex=states.vertex + shift)


def _scaling(states: States, rng: torch.Generator) -> States:
    factor = 0.5 + 3 * float(torch.rand((), generator=rng))
    return states._replace(teacher=states.teacher * factor, vertex=states.vertex * factor)


def _order_of_tokens(states: States, rng: torch.Generator) -> States:
    """Whole examples in another order of the rows; their numbers go with them."""
    order = torch.cat([(states.example == e).nonzero()[:, 0] for e in torch.randperm(8, generator=rng)])
    return States(states.teacher[:, order], states.vertex[:, order], states.example[order])


def _teacher_alone(states: States, rng: torch.Generator) -> States:
    """A shift of the teacher without its student: what every measure must notice."""
    return states._replace(teacher=states.teacher + torch.randn(DIM, generator=rng, dtype=torch.float64))


TRANSFORMATIONS: dict[str, Callable[[States, torch.Generator], States]] = {
    "rotation": _rotation,
    "translation": _translation,
    "scaling": _scaling,
    "order": _order_of_tokens,
    "teacher alone": _teacher_alone,
}

_ALL = frozenset({"rotation", "translation", "scaling", "order"})
UNCHANGED: dict[str, frozenset[str]] = {
    "angle_deg": _ALL,
    "ci_high": _ALL,
    "acute_fraction": _ALL,
    "common_mode_ratio": _ALL,
    "structured_cosine": _ALL | {"teacher alone"},
    "distance_teacher_student": _ALL - {"scaling"},
    "distance_teacher_teacher": (_ALL - {"scaling"}) | {"teacher alone"},
    "cka_teacher_student": _ALL | {"teacher alone"},
    "null N0": _ALL - {"translation"},
    "null N1": _ALL,
    "null N2": _ALL,
    # A Gaussian direction belongs to the token, not to the space.
    "null N4": frozenset({"scaling", "order"}),
    "null N5": _ALL | {"teacher alone"},
    "null N6": _ALL - {"translation"},
    "excess N1": _ALL,
}


def _measure(states: States) -> xr.Dataset:
    return measure_arrays(
        states.teacher,
        {"student": states.vertex},
        states.example,
        nulls=("N0", "N1", "N2", "N4", "N5", "N6"),
        alternatives="all",
        matched={"student": [(0, 0), (1, 2), (2, 3)]},
    ).dataset


def _value(data: xr.Dataset, measure: str) -> np.ndarray:
    kind, _, null = measure.partition(" ")
    if null:
        return data[{"null": "null_angle_deg", "excess": "excess_deg"}[kind]].sel(null=null).values
    return data[measure].values


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_leaves_every_measure_unchanged(transformation: str, seed: int) -> None:
    states = _states(seed)
    before = _measure(states)
    after = _measure(TRANSFORMATIONS[transformation](states, torch.Generator().manual_seed(seed + 1)))
    for measure, unchanged in UNCHANGED.items():
        old, new = _value(before, measure), _value(after, measure)
        same = np.allclose(old, new, rtol=1e-6, atol=1e-5, equal_nan=True)
        assert same == (transformation in unchanged), measure
