"""Meters of parts of the data merge into the meter of the whole, in every space and convention."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from layerangles.errors import InputError
from layerangles.geometry.maps import MatchingMap
from layerangles.geometry.preprocessing import Preprocessing
from layerangles.geometry.student_tower import StudentTower
from layerangles.measurement.gradient_space import GradientMeter
from layerangles.measurement.meter import AngleMeter, StudentStates, TeacherBatch
from layerangles.measurement.paper_convention import PaperMeter
from layerangles.models.texts import Batch
from layerangles.settings import MeasurementSettings

LENGTHS = ((3, 5), (4, 2), (6, 6))  # tokens of the examples of each batch
N_TEACHER, WIDTHS = 3, {"wide": 8, "narrow": 5}


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


TOWERS = [
    StudentTower("wide", "encoder", 3, [0, 1, 2], [None] * 3, ((1, 2),)),
    StudentTower(
        "narrow", "encoder", 3, [1, 2], [MatchingMap(_random(8, 5, seed=i)) for i in (1, 2)], ((1, 1), (2, 2))
    ),
]


def _batches() -> list[tuple[TeacherBatch, list[StudentStates]]]:
    batches = []
    for number, lengths in enumerate(LENGTHS):
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        batch = Batch({}, {"encoder": mask}, torch.arange(2) + 2 * number)
        teacher = _random(N_TEACHER, sum(lengths), 8, seed=10 + number)
        students = [_random(3, sum(lengths), width, seed=20 + number + width) for width in WIDTHS.values()]
        batches.append(
            (
                TeacherBatch({"encoder": teacher}, {"encoder": batch.tokens("encoder")}, 2),
                [StudentStates({"encoder": states}) for states in students],
            )
        )
    return batches


def _meter(**settings: Any) -> AngleMeter:
    chosen = MeasurementSettings(**settings)
    return AngleMeter(TOWERS, {"encoder": N_TEACHER}, chosen, {"encoder": Preprocessing.of("raw")})


def _paper(**settings: Any) -> PaperMeter:
    return PaperMeter(TOWERS, MeasurementSettings(convention="paper", **settings))


def _assert_equal(got: xr.Dataset, expected: xr.Dataset) -> None:
    assert got.attrs == expected.attrs
    xr.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (_meter, {"nulls": ("N0", "N1", "N2", "N4", "N5", "N6"), "alternatives": "all"}),
        (_meter, {"space": "pull", "steps": True}),
        (_paper, {}),
    ],
)
@pytest.mark.parametrize("travels", [False, True])
def test_meters_of_parts_merge_into_that_of_the_whole(make: Any, settings: dict[str, Any], travels: bool) -> None:
    whole, parts = make(**settings), [make(**settings) for _ in LENGTHS]
    for batch, part in zip(_batches(), parts, strict=True):
        whole.update(*batch)
        part.update(*batch)
    first, *others = (pickle.loads(pickle.dumps(part)) for part in parts) if travels else parts  # noqa: S301
    for other in others:
        first = first.merge(other)
    _assert_equal(first.compute(), whole.compute())
    assert first.n_examples == 6


def test_parts_of_other_students_come_before_those_of_the_last_meter() -> None:
    together = _meter()
    alone = [
        AngleMeter([one], {"encoder": N_TEACHER}, MeasurementSettings(), {"encoder": Preprocessing.of("raw")})
        for one in TOWERS
    ]
    for teacher, students in _batches():
        together.update(teacher, students)
        for meter, states in zip(alone, students, strict=True):
            meter.update(teacher, [states])
    _assert_equal(alone[1].compute(alone[0].parts()), together.compute())


def test_gradient_meters_of_some_towers_merge_into_that_of_all() -> None:
    def meter(*towers: StudentTower) -> GradientMeter:
        one = GradientMeter(MeasurementSettings(space="gradient", batch_size=2, gradient_batches=3), 6)
        for tower in towers:
            gradients = _random(len(tower.layers) + 1, N_TEACHER, 20, seed=len(tower.layers)).double()
            one.update(tower, gradients @ gradients.transpose(1, 2))
        return one

    first, second = TOWERS
    merged = meter(first).merge(meter(second)).compute()
    _assert_equal(merged, meter(first, second).compute())
    assert merged.attrs == {"n_examples": 6, "aggregation": "gradients summed over 3 batches of 2 examples"}


def test_angles_of_all_towers_come_one_after_another() -> None:
    meter = _meter()
    for batch in _batches():
        meter.update(*batch)
    data = meter.compute()["angle_deg"].sel(tower="encoder")
    a, b = np.triu_indices(N_TEACHER, 1)
    expected = [data.sel(student=one.student).values[list(one.layers)][:, a, b].ravel() for one in TOWERS]
    np.testing.assert_allclose(meter.angles().mean().numpy(), np.concatenate(expected), rtol=1e-12)


def test_states_that_are_not_finite_are_refused_by_name() -> None:
    (teacher, students), *_ = _batches()
    students[1].trained["encoder"][1, 0, 0] = torch.nan
    with pytest.raises(InputError, match="the states of narrow are not finite"):
        _meter().update(teacher, students)
