"""The nulls: golden angles, each against its definition, and the excess with its interval."""

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from layerangles.errors import InputError
from layerangles.geometry.angles import layer_pairs, vertex_cosines
from layerangles.geometry.nulls import NULLS, NullName, check_nulls, independent_cosines
from layerangles.geometry.shared_space import SharedSpace, Tokens
from layerangles.sums.angle_sums import AngleSums
from layerangles.sums.clustered_mean import ClusteredMean

N_STUDENT, N_TEACHER, DIM = 3, 5, 12
COUNTS = (7, 60, 90, 1, 40)  # tokens of each example: more than one chunk, and one of a single token


def _scene(seed: int = 0, offset: float = 1.0) -> tuple[SharedSpace, Tokens]:
    rng = torch.Generator().manual_seed(seed)
    n = sum(COUNTS)
    shift = offset * torch.randn(DIM, generator=rng)
    teacher = torch.randn(N_TEACHER, n, DIM, generator=rng) + shift
    vertex = torch.randn(N_STUDENT, n, DIM, generator=rng) + shift
    untrained = 2 * torch.randn(N_STUDENT, n, DIM, generator=rng)
    example = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    partner = torch.randperm(n, generator=rng)
    key = torch.zeros_like(example)
    return SharedSpace(slice(0, N_STUDENT), teacher, vertex, untrained), Tokens(example, partner, key, torch.arange(n))


def _gaussian_points(view: SharedSpace, tokens: Tokens) -> Tensor:
    vertices = NULLS["N4"].vertices
    assert vertices is not None
    return vertices(view, tokens, slice(None))


def _naive_angles(null: str, view: SharedSpace, tokens: Tokens) -> Tensor:
    """Angles in degrees ``[student_layer, layer_a, layer_b, token]`` in float64, from the definition of each null."""
    teacher, vertex = view.teacher.double(), view.vertex.double()
    arm_b = teacher
    if null == "N0":
        s, t = vertex.norm(dim=-1)[:, None, None], teacher.norm(dim=-1)
        cosines = s**2 / ((s**2 + t[:, None] ** 2).sqrt() * (s**2 + t[None] ** 2).sqrt())
        return cosines.arccos().rad2deg()
    if null == "N1":
        vertex = vertex[:, tokens.partner]
    elif null == "N2":
        arm_b = teacher[:, tokens.partner]
    elif null == "N3":
        assert view.untrained is not None
        vertex = view.untrained.double()
    elif null == "N4":
        vertex = _gaussian_points(view, tokens).double()
    elif null == "N5":
        vertex = teacher.mean(dim=0, keepdim=True).expand(N_STUDENT, -1, -1)
    elif null == "N6":
        vertex = torch.zeros_like(vertex)
    spokes_a = teacher[None, :, None] - vertex[:, None, None]
    spokes_b = arm_b[None, None] - vertex[:, None, None]
    dots = (spokes_a * spokes_b).sum(dim=-1)
    return (dots / (spokes_a.norm(dim=-1) * spokes_b.norm(dim=-1))).clamp(-1, 1).arccos().rad2deg()


def _measured(view: SharedSpace, tokens: Tokens, nulls: Sequence[str] = tuple(NULLS)) -> AngleSums:
    sums = AngleSums(N_STUDENT, N_TEACHER, nulls=check_nulls(nulls))
    sums.update([view], tokens)
    return sums


# --- golden angles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("student_norm", "degrees"), [(1.0, 60.0), (2.0, 36.8699), (0.0, 90.0)])
def test_closed_form_of_independent_states_is_60_37_and_90_degrees(student_norm: float, degrees: float) -> None:
    one = torch.ones(2, 1, dtype=torch.float64)
    cosines = independent_cosines(one, student_norm**2 * one[:1], torch.tensor([0]), torch.tensor([1]))
    assert cosines.arccos().rad2deg().item() == pytest.approx(degrees, abs=1e-4)


@pytest.mark.parametrize(("student_norm", "degrees"), [(1.0, 60.0), (2.0, 36.87)])
def test_independent_states_in_high_dimension_are_what_the_closed_form_says(
    student_norm: float, degrees: float
) -> None:
    rng = torch.Generator().manual_seed(0)
    unit = torch.randn(6, 50, 20_000, generator=rng)
    unit /= unit.norm(dim=-1, keepdim=True)
    view = SharedSpace(slice(0, 1), unit[:5], student_norm * unit[5:])
    tokens = Tokens(torch.arange(50) // 5, torch.arange(50).roll(5), torch.arange(50) // 5, torch.arange(50) % 5)
    sums = AngleSums(1, 5, nulls=("N0", "N1", "N2"))
    sums.update([view], tokens)
    assert sums.angle.mean().numpy() == pytest.approx(degrees, abs=0.3)
    assert (sums.null_total / sums.null_count).numpy() == pytest.approx(degrees, abs=0.3)  # N0, N1 and N2 alike
    assert sums.excess.mean().numpy() == pytest.approx(0, abs=0.3)


def test_the_mean_cosine_at_the_centroid_of_a_simplex_is_negative() -> None:
    corners = torch.eye(N_TEACHER)[:, None]  # a regular simplex
    cosines = vertex_cosines(corners, corners.mean(dim=0, keepdim=True))[0, ..., 0]
    a, b = layer_pairs(N_TEACHER)
    assert cosines[a, b].mean().item() == pytest.approx(-1 / (N_TEACHER - 1), abs=1e-7)


# --- against the definitions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("null", NULLS)
def test_every_null_against_its_definition(null: str) -> None:
    view, tokens = _scene()
    sums = _measured(view, tokens)
    a, b = layer_pairs(N_TEACHER)
    naive = _naive_angles(null, view, tokens)[:, a, b]
    observed = _naive_angles("observed", view, tokens)[:, a, b]
    k = list(NULLS).index(null)
    assert (sums.null_total / sums.null_count)[k].numpy() == pytest.approx(naive.mean(dim=-1).numpy(), abs=1e-5)
    excess = sums.excess.mean()[k].numpy()
    assert excess == pytest.approx((observed - naive).mean(dim=-1).numpy(), abs=1e-5)
    assert np.abs(excess).max() > 1  # the scene tells the nulls from the observation


def test_the_interval_of_the_excess_is_that_of_the_paired_differences() -> None:
    view, tokens = _scene()
    sums = _measured(view, tokens, ("N1",))
    a, b = layer_pairs(N_TEACHER)
    difference = _naive_angles("observed", view, tokens)[:, a, b] - _naive_angles("N1", view, tokens)[:, a, b]
    belongs = torch.nn.functional.one_hot(tokens.example).double()
    expected = ClusteredMean.zeros(*difference.shape[:2])
    expected.add(difference @ belongs, belongs.sum(dim=0).expand(*difference.shape[:2], -1))
    for got, wanted in zip(sums.excess.interval(), expected.interval(), strict=True):
        assert got[0].numpy() == pytest.approx(wanted.numpy(), abs=1e-5)
    student = ClusteredMean.zeros()
    per_example = (difference @ belongs).sum(dim=(0, 1))
    student.add(per_example, belongs.sum(dim=0) * difference.shape[0] * difference.shape[1])
    assert [float(x[0]) for x in sums.student_excess.interval()] == pytest.approx(
        [float(x) for x in student.interval()]
    )


def test_tokens_without_an_angle_are_left_out_of_the_excess_on_both_sides() -> None:
    view, tokens = _scene()
    view.vertex[0, 3] = view.teacher[1, 3]  # no direction to layer 1 there
    view.teacher[1, 7] = 0  # none to it from the origin here, which is N6's vertex
    sums = _measured(view, tokens, ("N1", "N6"))
    a, b = layer_pairs(N_TEACHER)
    touched = ((a == 1) | (b == 1)).double()
    n = sum(COUNTS)
    assert (sums.angle.count[0] == n - touched).all()
    assert (sums.null_count[1] == n - touched).all()
    assert (sums.excess.count[1, 0] == n - 2 * touched).all()
    assert sums.student_excess.count.tolist() == sums.excess.count.sum(dim=(1, 2)).tolist()
    assert sums.layer_excess.count.tolist() == sums.excess.count.sum(dim=2).tolist()
    keep = (torch.arange(n) != 3) & (torch.arange(n) != 7)
    difference = (_naive_angles("observed", view, tokens) - _naive_angles("N6", view, tokens))[0][a, b]
    expected = difference[touched.bool()][:, keep].mean(dim=-1)
    assert sums.excess.mean()[1, 0, touched.bool()].numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_several_spaces_give_what_each_gives_alone() -> None:
    view, tokens = _scene()
    parts = [
        SharedSpace(slice(s, s + 1), view.teacher * (s + 1), view.vertex[s : s + 1], view.untrained[s : s + 1])  # type: ignore[index]
        for s in range(N_STUDENT)
    ]
    sums = AngleSums(N_STUDENT, N_TEACHER, nulls=("N0", "N1", "N2", "N5"))
    sums.update(parts, tokens)
    for s, part in enumerate(parts):
        alone = AngleSums(1, N_TEACHER, nulls=sums.nulls)
        alone.update([part._replace(rows=slice(0, 1))], tokens)
        assert torch.equal(sums.angle.mean()[s], alone.angle.mean()[0])
        assert torch.equal(sums.excess.mean()[:, s], alone.excess.mean()[:, 0])
        assert torch.equal(sums.histogram[s], alone.histogram[0])


def test_the_gaussian_student_has_the_students_norm_and_no_direction_of_its_own() -> None:
    view, tokens = _scene()
    points = _gaussian_points(view, tokens)
    assert points.norm(dim=-1).numpy() == pytest.approx(view.vertex.norm(dim=-1).numpy(), rel=1e-5)
    directions = (points / points.norm(dim=-1, keepdim=True)).flatten(0, 1)
    assert directions.mean(dim=0).norm() < 3 / math.sqrt(len(directions))
    assert len(directions.unique(dim=0)) == len(directions)  # no two tokens or layers share one
    assert torch.equal(points, _gaussian_points(view, tokens))


def test_unknown_nulls_are_refused_and_the_order_is_fixed() -> None:
    assert check_nulls(["N5", "N1", "N5"]) == ("N1", "N5")
    with pytest.raises(InputError, match=r"no null 'N9'; allowed are N0, N1, N2"):
        check_nulls(["N1", "N9"])
    view, tokens = _scene()
    with pytest.raises(ValueError, match="needs the states of an untrained student"):
        _measured(view._replace(untrained=None), tokens, ("N3",))


def test_every_null_has_a_name_a_meaning_and_one_way_to_its_angles() -> None:
    assert tuple(NULLS) == get_args(NullName)
    for name, null in NULLS.items():
        assert null.name == name
        assert null.meaning.startswith("the ")
        assert (null.vertices is None) != (null.cosines is None)
