"""Angles in closed form, and against an independent reference in numpy."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from toys.geometry import point_states, random_states

from layerangles.geometry import angles as geometry
from layerangles.geometry.angles import (
    TOKENS_PER_CHUNK,
    angle_deg,
    check_states,
    layer_pairs,
    vertex_angles_deg,
    vertex_cosines,
)
from layerangles.geometry.relations import common_mode_ratio, mean_pairwise_distances

Array = NDArray[np.float64]


def _spokes(teacher: Tensor, vertex: Tensor) -> tuple[Array, Array]:
    spokes = teacher.double().numpy()[None] - vertex.double().numpy()[:, None]
    length = np.linalg.norm(spokes, axis=-1, keepdims=True)
    return spokes, length


def _reference_angles_deg(teacher: Tensor, vertex: Tensor) -> Array:
    """Differences first, then 2 atan2(‖û − v̂‖, ‖û + v̂‖): accurate at every angle."""
    spokes, length = _spokes(teacher, vertex)
    with np.errstate(invalid="ignore"):
        unit = spokes / length
    minus = np.linalg.norm(unit[:, :, None] - unit[:, None], axis=-1)
    plus = np.linalg.norm(unit[:, :, None] + unit[:, None], axis=-1)
    return np.degrees(2 * np.arctan2(minus, plus))


def _reference_cosines(teacher: Tensor, vertex: Tensor) -> Array:
    spokes, length = _spokes(teacher, vertex)
    with np.errstate(invalid="ignore"):
        return np.einsum("sind,sjnd->sijn", spokes, spokes) / (length[:, :, None] * length[:, None])[..., 0]


# --- closed forms ---------------------------------------------------------------------------------------------


def test_pairs_are_all_unordered_pairs_once() -> None:
    a, b = layer_pairs(13)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(i, j) for i in range(13) for j in range(i + 1, 13)]


def test_345_triangle_has_its_angles_at_each_corner() -> None:
    right, top, origin = [3.0, 0.0], [3.0, 4.0], [0.0, 0.0]
    for vertex, others, cosine in (
        (origin, (right, top), 3 / 5),
        (top, (right, origin), 4 / 5),
        (right, (origin, top), 0.0),
    ):
        cosines = vertex_cosines(point_states(*others), point_states(vertex))
        assert cosines[0, :, :, 0].numpy() == pytest.approx(np.array([[1, cosine], [cosine, 1]]), abs=1e-15)


def test_equilateral_triangle_is_60_degrees() -> None:
    corners = torch.eye(3)[:, None]
    assert vertex_angles_deg(corners[:2], corners[2:])[0, 0, 1].item() == pytest.approx(60, abs=1e-12)


def test_right_angle_is_90_and_straight_line_180_degrees() -> None:
    angles = vertex_angles_deg(point_states([1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]), point_states([0.0, 0.0]))[0, :, :, 0]
    assert angles.numpy() == pytest.approx(np.array([[0, 90, 180], [90, 0, 90], [180, 90, 0]]), abs=2e-6)


@pytest.mark.parametrize("true_deg", [1e-3, 1e-2, 0.1, 1.0, 179.0, 179.9, 179.99, 179.999])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_tiny_and_nearly_straight_angles_are_accurate(true_deg: float, offset: float) -> None:
    radians = math.radians(true_deg)
    teacher = torch.tensor([[1.0, 0.0], [math.cos(radians), math.sin(radians)]], dtype=torch.float64)[:, None] + offset
    vertex = torch.full((1, 1, 2), offset, dtype=torch.float64)
    assert vertex_angles_deg(teacher, vertex)[0, 0, 1].item() == pytest.approx(true_deg, abs=1e-5)


@pytest.mark.parametrize(("student_norm", "expected_deg"), [(1.0, 60.0), (2.0, 36.869898), (0.0, 90.0)])
def test_an_independent_student_sees_the_closed_form(student_norm: float, expected_deg: float) -> None:
    # cos = s² / sqrt((s² + t_i²)(s² + t_j²)) for independent layers of norm t and a student of norm s.
    rng = np.random.default_rng(0)
    angles = vertex_angles_deg(random_states(rng, 4, 50, 4096), student_norm * random_states(rng, 2, 50, 4096))
    a, b = layer_pairs(4)
    assert angles[:, a, b].mean(dim=-1) == pytest.approx(np.full((2, 6), expected_deg), abs=0.4)


@pytest.mark.parametrize("n_layers", [2, 3, 5, 13])
def test_mean_cosine_at_the_centroid_of_equal_spokes_is_minus_one_over_their_number_less_one(n_layers: int) -> None:
    rng = np.random.default_rng(n_layers)
    a, b = layer_pairs(n_layers)
    # A simplex, where every cosine is −1/(L−1), somewhere in space; a second one with opposite spokes, where only
    # the mean over pairs is.
    simplex = torch.eye(n_layers, dtype=torch.float64)[:, None] + random_states(
        rng, 1, 1, n_layers, dtype=torch.float64
    )
    cosines = vertex_cosines(simplex, simplex.mean(dim=0, keepdim=True))[0, a, b, 0]
    assert cosines.tolist() == pytest.approx([-1 / (n_layers - 1)] * len(a), abs=1e-12)

    half = torch.nn.functional.normalize(random_states(rng, n_layers, 3, 7, dtype=torch.float64), dim=-1)
    opposite = torch.cat([half, -half])
    a, b = layer_pairs(2 * n_layers)
    cosines = vertex_cosines(opposite, torch.zeros(1, 3, 7, dtype=torch.float64))[0, a, b]
    assert cosines.mean(dim=0).tolist() == pytest.approx([-1 / (2 * n_layers - 1)] * 3, abs=1e-12)


# --- accuracy -------------------------------------------------------------------------------------------------


def _rogue(states: Tensor) -> Tensor:
    scaled = states.clone()
    scaled[..., 3] *= 3000
    return scaled


def _near(teacher: Tensor, rng: np.random.Generator) -> Tensor:
    """Vertices within 0.01 % of a teacher layer."""
    return teacher[[0, 2, 4]] * (1 + 1e-4 * random_states(rng, 3, *teacher.shape[1:]))


def _scene(name: str) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(6)
    teacher, vertex = random_states(rng, 5, 100, 96), random_states(rng, 3, 100, 96)
    match name:
        case "typical":
            return teacher, vertex
        case "student within 0.01 % of a teacher layer":
            return teacher, _near(teacher, rng)
        case "one dimension 3000 times the others":
            return _rogue(teacher), _rogue(vertex)
        case "one rogue dimension, and within 0.01 %":
            rogue = _rogue(teacher)
            return rogue, _near(rogue, rng)
        case "one rogue dimension that all share, and within 0.01 %":
            teacher[..., 3] = 3000
            return teacher, _near(teacher, rng)
        case "all angles tiny":
            return teacher, 1e4 * vertex
        case "all angles tiny, layers alike":
            return teacher[:1] + 1e-4 * teacher, vertex
        case "antipodal":
            away = random_states(rng, 1, 100, 96)
            sign = torch.tensor([1.0, -1.0, 2.0, -3.0, 1.0])[:, None, None]
            return vertex[:1] + sign * away + 1e-4 * teacher, vertex[:1] + 1e-5 * vertex
        case "shared offset of a thousand norms":
            return teacher + 1000, vertex + 1000
    raise AssertionError(name)


SCENES = (
    "typical",
    "student within 0.01 % of a teacher layer",
    "one dimension 3000 times the others",
    "one rogue dimension, and within 0.01 %",
    "one rogue dimension that all share, and within 0.01 %",
    "all angles tiny",
    "all angles tiny, layers alike",
    "antipodal",
    "shared offset of a thousand norms",
)


@pytest.mark.parametrize("scene", SCENES)
def test_angles_of_float32_states_are_exact_to_a_ten_thousandth_degree(scene: str) -> None:
    teacher, vertex = _scene(scene)
    angles = vertex_angles_deg(teacher, vertex).numpy()
    reference = _reference_angles_deg(teacher, vertex)
    assert np.abs(angles - reference).max() < 1e-4
    assert np.abs(vertex_cosines(teacher, vertex).numpy() - np.cos(np.radians(reference))).max() < 1e-7


def test_the_scenes_have_the_properties_of_their_names() -> None:
    def off_diagonal(scene: str) -> Array:
        a, b = layer_pairs(5)
        return _reference_angles_deg(*_scene(scene))[:, a, b]

    assert off_diagonal("all angles tiny").max() < 0.05
    assert off_diagonal("all angles tiny, layers alike").max() < 0.05
    straight = off_diagonal("antipodal")
    assert ((straight < 0.1) | (straight > 179.9)).all()
    assert (straight > 179.9).any()
    teacher, vertex = _scene("student within 0.01 % of a teacher layer")
    assert ((vertex[0] - teacher[0]).norm(dim=-1) / teacher[0].norm(dim=-1)).max() < 3e-4


def test_a_shared_offset_needs_no_second_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    # The centring alone is accurate here; without it every token would be computed again from its differences.
    monkeypatch.setattr(geometry, "_GRAM_ROUNDING", 0.0)
    teacher, vertex = _scene("shared offset of a thousand norms")
    teacher, vertex = 1000 * teacher.double(), 1000 * vertex.double()
    a, b = layer_pairs(5)
    angles = vertex_angles_deg(teacher + 1e9, vertex + 1e9)[:, a, b].numpy()
    assert np.abs(angles - _reference_angles_deg(teacher + 1e9, vertex + 1e9)[:, a, b]).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_floating_point_type_is_computed_in_float64(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(7)
    teacher, vertex = random_states(rng, 4, 10, 8, dtype=dtype), random_states(rng, 2, 10, 8, dtype=dtype)
    for measure in (vertex_cosines, common_mode_ratio, mean_pairwise_distances):
        value = measure(teacher, vertex)
        assert value.dtype == torch.float64
        assert torch.equal(value, measure(teacher.double(), vertex.double()))


def test_cosines_never_leave_their_range() -> None:
    rng = np.random.default_rng(8)
    line = random_states(rng, 1, 300, 5)
    teacher = line * torch.tensor([1.0, 2.0, -1.0, 0.3])[:, None, None]
    cosines = vertex_cosines(teacher, 1e-6 * line)
    assert cosines.max() <= 1
    assert cosines.min() >= -1
    assert cosines.abs().min() > 1 - 1e-12


def test_angle_of_a_cosine_is_in_degrees_and_nan_stays_nan() -> None:
    angles = angle_deg(torch.tensor([1.0, 0.5, 0.0, -1.0, math.nan], dtype=torch.float64))
    assert angles.tolist() == pytest.approx([0, 60, 90, 180, math.nan], abs=1e-12, nan_ok=True)


def test_one_teacher_layer_or_no_token_makes_no_angle() -> None:
    teacher, vertex = torch.ones(1, 3, 2), torch.zeros(2, 3, 2)
    assert torch.equal(vertex_cosines(teacher, vertex), torch.ones(2, 1, 1, 3, dtype=torch.float64))
    assert vertex_cosines(torch.ones(4, 0, 2), torch.zeros(2, 0, 2)).shape == (2, 4, 4, 0)


# --- degenerate tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e15])
def test_where_the_vertex_is_a_teacher_layer_that_layer_alone_is_nan(scale: float) -> None:
    rng = np.random.default_rng(9)
    n_tokens = TOKENS_PER_CHUNK + 10
    teacher, vertex = scale * random_states(rng, 5, n_tokens, 8), scale * random_states(rng, 3, n_tokens, 8)
    degenerate = [(0, 2, 7), (0, 2, TOKENS_PER_CHUNK + 3), (1, 0, 7), (2, 4, 0)]  # student layer, layer, token
    for s, i, n in degenerate:
        vertex[s, n] = teacher[i, n]
    expected = np.zeros((3, 5, 5, n_tokens), dtype=bool)
    for s, i, n in degenerate:
        expected[s, i, :, n] = expected[s, :, i, n] = True
    cosines = vertex_cosines(teacher, vertex).numpy()
    assert np.array_equal(np.isnan(cosines), expected)
    assert cosines[~expected] == pytest.approx(_reference_cosines(teacher, vertex)[~expected], abs=1e-9)


def test_teacher_layers_that_coincide_are_all_degenerate_at_once() -> None:
    rng = np.random.default_rng(10)
    teacher = random_states(rng, 4, 5, 8)
    teacher[1] = teacher[0]
    nan = vertex_cosines(teacher, teacher[:1]).isnan()[0, :, :, 0]
    assert nan.tolist() == [[True] * 4, [True] * 4, [True, True, False, False], [True, True, False, False]]
    everywhere = teacher[:1].expand(4, -1, -1)
    assert vertex_cosines(everywhere, teacher[:1]).isnan().all()
    assert vertex_cosines(torch.zeros(3, 2, 4), torch.zeros(1, 2, 4)).isnan().all()


def test_one_unit_in_the_last_place_is_a_direction() -> None:
    rng = np.random.default_rng(11)
    teacher = random_states(rng, 3, 4, 8)
    vertex = torch.nextafter(teacher[1:2], torch.tensor(9.0))
    cosines = vertex_cosines(teacher, vertex)
    assert not cosines.isnan().any()
    assert cosines.numpy() == pytest.approx(_reference_cosines(teacher, vertex), abs=1e-12)


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher", "vertex", "message"),
    [
        (torch.ones(2, 3), torch.ones(1, 2, 3), r"teacher must have .*\[layer, token, dim\].*\(2, 3\).*Flatten"),
        (torch.ones(2, 3, 4), torch.ones(1, 1, 3, 4), r"vertex must have .*\(1, 1, 3, 4\)"),
        (torch.ones(2, 3, 4, dtype=torch.int64), torch.ones(1, 3, 4), r"teacher must hold floating.*torch\.int64"),
        (torch.ones(2, 3, 4), torch.ones(1, 5, 4), r"same tokens; got 3 and 5\. Run both models on the same"),
        (torch.ones(2, 3, 4), torch.ones(1, 3, 6), r"one space; got 4 and 6 dimensions\. Put the student"),
        (torch.ones(2, 3, 4), torch.ones(1, 3, 4, device="meta"), r"one device; got cpu and meta"),
    ],
)
def test_states_that_do_not_fit_are_refused(teacher: Tensor, vertex: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_states(teacher, vertex)


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("of_teacher", [True, False])
def test_states_that_are_not_finite_are_refused(number: float, of_teacher: bool) -> None:
    # NaN has one meaning in a cosine, a direction without a length; it must not come from elsewhere.
    rng = np.random.default_rng(16)
    teacher, vertex = random_states(rng, 3, 70, 4), random_states(rng, 2, 70, 4)
    (teacher if of_teacher else vertex)[1, 66, 2] = number
    with pytest.raises(ValueError, match="must be finite; got NaN or an infinite number"):
        vertex_cosines(teacher, vertex)
