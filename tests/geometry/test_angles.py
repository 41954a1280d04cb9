"""Closed forms, an independent reference in numpy, and a declared table of invariances."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from layerangles.geometry import angles as geometry
from layerangles.geometry.angles import (
    TOKENS_PER_CHUNK,
    angle_deg,
    check_states,
    layer_pairs,
    vertex_angles_deg,
    vertex_cosines,
)
from layerangles.geometry.distances import common_mode_ratio, mean_pairwise_distances

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


def _states(*points: list[float]) -> Tensor:
    """One layer a point, one token."""
    return torch.tensor(points)[:, None]


def _random(rng: np.random.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(rng.normal(size=shape)).to(dtype)


# --- closed forms ---------------------------------------------------------------------------------------------


def test_pairs_are_all_unordered_pairs_once() -> None:
    a, b = layer_pairs(13)
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(i, j) for i in range(13) for j in range(i + 1, 13)]


def test_345_triangle_from_each_of_its_corners() -> None:
    right, top, origin = [3.0, 0.0], [3.0, 4.0], [0.0, 0.0]
    for vertex, others, cosine in (
        (origin, (right, top), 3 / 5),
        (top, (right, origin), 4 / 5),
        (right, (origin, top), 0.0),
    ):
        cosines = vertex_cosines(_states(*others), _states(vertex))
        assert cosines[0, :, :, 0].numpy() == pytest.approx(np.array([[1, cosine], [cosine, 1]]), abs=1e-15)


def test_equilateral_triangle_is_60_degrees() -> None:
    corners = torch.eye(3)[:, None]
    assert vertex_angles_deg(corners[:2], corners[2:])[0, 0, 1].item() == pytest.approx(60, abs=1e-12)


def test_right_angle_and_straight_line() -> None:
    angles = vertex_angles_deg(_states([1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]), _states([0.0, 0.0]))[0, :, :, 0]
    assert angles.numpy() == pytest.approx(np.array([[0, 90, 180], [90, 0, 90], [180, 90, 0]]), abs=2e-6)


@pytest.mark.parametrize("true_deg", [1e-3, 1e-2, 0.1, 1.0, 179.0, 179.9, 179.99, 179.999])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_tiny_and_nearly_straight_angles(true_deg: float, offset: float) -> None:
    radians = math.radians(true_deg)
    teacher = torch.tensor([[1.0, 0.0], [math.cos(radians), math.sin(radians)]], dtype=torch.float64)[:, None] + offset
    vertex = torch.full((1, 1, 2), offset, dtype=torch.float64)
    assert vertex_angles_deg(teacher, vertex)[0, 0, 1].item() == pytest.approx(true_deg, abs=1e-5)


@pytest.mark.parametrize(("student_norm", "expected_deg"), [(1.0, 60.0), (2.0, 36.869898), (0.0, 90.0)])
def test_null_of_an_independent_student(student_norm: float, expected_deg: float) -> None:
    # cos = s² / sqrt((s² + t_i²)(s² + t_j²)) for independent layers of norm t and a student of norm s.
    rng = np.random.default_rng(0)
    angles = vertex_angles_deg(_random(rng, 4, 50, 4096), student_norm * _random(rng, 2, 50, 4096))
    a, b = layer_pairs(4)
    assert angles[:, a, b].mean(dim=-1) == pytest.approx(np.full((2, 6), expected_deg), abs=0.4)


@pytest.mark.parametrize("n_layers", [2, 3, 5, 13])
def test_mean_cosine_at_the_centroid_of_equal_spokes(n_layers: int) -> None:
    rng = np.random.default_rng(n_layers)
    a, b = layer_pairs(n_layers)
    # A simplex, where every cosine is −1/(L−1), somewhere in space; a second one with opposite spokes, where only
    # the mean over pairs is.
    simplex = torch.eye(n_layers, dtype=torch.float64)[:, None] + _random(rng, 1, 1, n_layers, dtype=torch.float64)
    cosines = vertex_cosines(simplex, simplex.mean(dim=0, keepdim=True))[0, a, b, 0]
    assert cosines.tolist() == pytest.approx([-1 / (n_layers - 1)] * len(a), abs=1e-12)

    half = torch.nn.functional.normalize(_random(rng, n_layers, 3, 7, dtype=torch.float64), dim=-1)
    opposite = torch.cat([half, -half])
    a, b = layer_pairs(2 * n_layers)
    cosines = vertex_cosines(opposite, torch.zeros(1, 3, 7, dtype=torch.float64))[0, a, b]
    assert cosines.mean(dim=0).tolist() == pytest.approx([-1 / (2 * n_layers - 1)] * 3, abs=1e-12)


def test_distances_of_the_345_triangle_averaged_over_tokens() -> None:
    one = torch.tensor([[[3.0, 0.0]], [[3.0, 4.0]]])
    teacher, vertex = torch.cat([one, 3 * one], dim=1), torch.zeros(1, 2, 2)
    expected = 2 * np.array([[0, 4, 3], [4, 0, 5], [3, 5, 0]])
    assert mean_pairwise_distances(teacher, vertex).numpy() == pytest.approx(expected, abs=1e-14)


def test_distances_against_numpy_over_several_chunks() -> None:
    rng = np.random.default_rng(1)
    teacher, vertex = _random(rng, 4, 150, 9), _random(rng, 3, 150, 9)
    states = np.concatenate([teacher, vertex]).astype(np.float64)
    expected = np.linalg.norm(states[:, None] - states[None], axis=-1).mean(axis=-1)
    assert mean_pairwise_distances(teacher, vertex).numpy() == pytest.approx(expected, rel=1e-13)


def test_distance_of_equal_states_is_exactly_zero() -> None:
    teacher = 1e4 + _random(np.random.default_rng(2), 3, 70, 16)
    distances = mean_pairwise_distances(teacher, teacher[1:2])
    assert distances.diagonal().tolist() == [0.0] * 4
    assert distances[1, 3] == distances[3, 1] == 0.0


def test_common_mode_ratio() -> None:
    teacher = _states([1.0, 0.0], [-1.0, 0.0])
    vertices = _states([0.0, 0.0], [0.0, 2.0], [3.0, 0.0])
    assert common_mode_ratio(teacher, vertices).squeeze(1).tolist() == [0.0, 4.0, 9.0]


def test_common_mode_ratio_against_numpy() -> None:
    rng = np.random.default_rng(4)
    teacher, vertex = _random(rng, 5, 30, 9), _random(rng, 3, 30, 9)
    t, v = teacher.double().numpy(), vertex.double().numpy()
    centroid = t.mean(axis=0)
    expected = ((v - centroid) ** 2).sum(axis=-1) / ((t - centroid) ** 2).sum(axis=-1).mean(axis=0)
    assert common_mode_ratio(teacher, vertex).numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_layers", [2, 3, 7])
def test_common_mode_ratio_of_a_teacher_without_spread(n_layers: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(n_layers)
    layer = _random(rng, 1, 20, 9, dtype=dtype)
    ratio = common_mode_ratio(layer.expand(n_layers, -1, -1), torch.cat([layer, layer + 1]))
    assert ratio[0].isnan().all()
    assert ratio[1].isposinf().all()


def test_large_common_mode_makes_every_angle_acute() -> None:
    rng = np.random.default_rng(5)
    teacher, direction = _random(rng, 6, 40, 16), _random(rng, 1, 40, 16)
    near, far = teacher.mean(dim=0, keepdim=True), teacher.mean(dim=0, keepdim=True) + 10 * direction
    a, b = layer_pairs(6)
    assert common_mode_ratio(teacher, near).max() < 1e-6
    assert common_mode_ratio(teacher, far).min() > 10
    assert (vertex_cosines(teacher, near)[0, a, b].mean(dim=0) < 0).all()
    assert (vertex_cosines(teacher, far)[0, a, b] > 0).all()


# --- accuracy -------------------------------------------------------------------------------------------------


def _rogue(states: Tensor) -> Tensor:
    scaled = states.clone()
    scaled[..., 3] *= 3000
    return scaled


def _near(teacher: Tensor, rng: np.random.Generator) -> Tensor:
    """Vertices within 0.01 % of a teacher layer."""
    return teacher[[0, 2, 4]] * (1 + 1e-4 * _random(rng, 3, *teacher.shape[1:]))


def _scene(name: str) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(6)
    teacher, vertex = _random(rng, 5, 100, 96), _random(rng, 3, 100, 96)
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
            away = _random(rng, 1, 100, 96)
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


def test_the_scenes_are_what_their_names_say() -> None:
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
    teacher, vertex = _random(rng, 4, 10, 8, dtype=dtype), _random(rng, 2, 10, 8, dtype=dtype)
    for measure in (vertex_cosines, common_mode_ratio, mean_pairwise_distances):
        value = measure(teacher, vertex)
        assert value.dtype == torch.float64
        assert torch.equal(value, measure(teacher.double(), vertex.double()))


def test_cosines_never_leave_their_range() -> None:
    rng = np.random.default_rng(8)
    line = _random(rng, 1, 300, 5)
    teacher = line * torch.tensor([1.0, 2.0, -1.0, 0.3])[:, None, None]
    cosines = vertex_cosines(teacher, 1e-6 * line)
    assert cosines.max() <= 1
    assert cosines.min() >= -1
    assert cosines.abs().min() > 1 - 1e-12


def test_angle_of_a_cosine() -> None:
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
    teacher, vertex = scale * _random(rng, 5, n_tokens, 8), scale * _random(rng, 3, n_tokens, 8)
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
    teacher = _random(rng, 4, 5, 8)
    teacher[1] = teacher[0]
    nan = vertex_cosines(teacher, teacher[:1]).isnan()[0, :, :, 0]
    assert nan.tolist() == [[True] * 4, [True] * 4, [True, True, False, False], [True, True, False, False]]
    everywhere = teacher[:1].expand(4, -1, -1)
    assert vertex_cosines(everywhere, teacher[:1]).isnan().all()
    assert vertex_cosines(torch.zeros(3, 2, 4), torch.zeros(1, 2, 4)).isnan().all()


def test_one_unit_in_the_last_place_is_a_direction() -> None:
    rng = np.random.default_rng(11)
    teacher = _random(rng, 3, 4, 8)
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
    teacher, vertex = _random(rng, 3, 70, 4), _random(rng, 2, 70, 4)
    (teacher if of_teacher else vertex)[1, 66, 2] = number
    with pytest.raises(ValueError, match="must be finite; got NaN or an infinite number"):
        vertex_cosines(teacher, vertex)


# --- the declared table of invariances ------------------------------------------------------------------------
# A change takes a scene to one scene, or to several that together hold the same tokens. Per measure the table says
# what becomes of its value; "changes" is a statement too: the measure is not invariant there.

Scene = tuple[Tensor, Tensor]  # teacher, vertex
MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "vertex_cosines": vertex_cosines,
    "mean_pairwise_distances": mean_pairwise_distances,
    "common_mode_ratio": common_mode_ratio,
}


@dataclass(frozen=True)
class Change:
    """The changed scenes, and the draws by which they changed."""

    scenes: list[Scene]
    factor: float = 1.0
    tokens: Tensor | None = None
    layers: Tensor | None = None


def _rotation(rng: np.random.Generator, dim: int) -> Tensor:
    return torch.from_numpy(np.linalg.qr(rng.normal(size=(dim, dim)))[0])


def _rotate(scene: Scene, rng: np.random.Generator) -> Change:
    rotation = _rotation(rng, scene[0].shape[-1])
    return Change([(scene[0] @ rotation, scene[1] @ rotation)])


def _rotate_teacher(scene: Scene, rng: np.random.Generator) -> Change:
    return Change([(scene[0] @ _rotation(rng, scene[0].shape[-1]), scene[1])])


def _translate(scene: Scene, rng: np.random.Generator) -> Change:
    shift = 10 * _random(rng, 1, *scene[0].shape[1:], dtype=torch.float64)  # each token by its own
    return Change([(scene[0] + shift, scene[1] + shift)])


def _translate_vertex(scene: Scene, rng: np.random.Generator) -> Change:
    return Change([(scene[0], scene[1] + _random(rng, 1, 1, scene[0].shape[-1], dtype=torch.float64))])


def _scale(scene: Scene, rng: np.random.Generator) -> Change:
    factor = float(10 ** rng.uniform(-3, 3))
    return Change([(factor * scene[0], factor * scene[1])], factor=factor)


def _scale_vertex(scene: Scene, rng: np.random.Generator) -> Change:
    return Change([(scene[0], rng.uniform(1.5, 3) * scene[1])])


def _scale_one_dimension(scene: Scene, rng: np.random.Generator) -> Change:
    factors = torch.ones(scene[0].shape[-1], dtype=torch.float64)
    factors[0] = rng.uniform(3, 5)
    return Change([(scene[0] * factors, scene[1] * factors)])


def _slide_along_the_spokes(scene: Scene, rng: np.random.Generator) -> Change:
    factors = torch.from_numpy(rng.uniform(1.5, 3, size=(len(scene[0]), 1, 1)))
    vertex = scene[1][:1]
    return Change([(vertex + factors * (scene[0] - vertex), vertex)])


def _permute_tokens(scene: Scene, rng: np.random.Generator) -> Change:
    tokens = torch.from_numpy(rng.permutation(scene[0].shape[1]))
    return Change([(scene[0][:, tokens], scene[1][:, tokens])], tokens=tokens)


def _permute_tokens_of_the_teacher(scene: Scene, rng: np.random.Generator) -> Change:
    return Change([(scene[0].roll(1, dims=1), scene[1])])


def _permute_layers(scene: Scene, rng: np.random.Generator) -> Change:
    layers = torch.from_numpy(rng.permutation(len(scene[0])))
    return Change([(scene[0][layers], scene[1])], layers=layers)


def _split(scene: Scene, rng: np.random.Generator) -> Change:
    cuts = sorted({*rng.integers(1, scene[0].shape[1], size=3).tolist()})
    pieces = [torch.tensor_split(states, cuts, dim=1) for states in scene]
    return Change(list(zip(*pieces, strict=True)))


def _same(value: Tensor, change: Change, measure: str) -> Tensor:
    return value


def _scaled(value: Tensor, change: Change, measure: str) -> Tensor:
    return change.factor * value


def _in_new_order(value: Tensor, change: Change, measure: str) -> Tensor:
    if change.tokens is not None:
        return value[..., change.tokens]
    assert change.layers is not None
    layers = change.layers
    if measure == "vertex_cosines":
        return value[:, layers][:, :, layers]
    states = torch.cat([layers, torch.arange(len(layers), len(value))])
    return value[states][:, states]


CHANGES = None  # the value must differ from what it was

# Change                              vertex_cosines  mean_pairwise_distances  common_mode_ratio
TABLE = [
    (_rotate, _same, _same, _same),
    (_translate, _same, _same, _same),
    (_scale, _same, _scaled, _same),
    (_permute_tokens, _in_new_order, _same, _in_new_order),
    (_permute_layers, _in_new_order, _in_new_order, _same),
    (_split, _same, _same, _same),
    (_slide_along_the_spokes, _same, CHANGES, CHANGES),
    (_rotate_teacher, CHANGES, CHANGES, CHANGES),
    (_translate_vertex, CHANGES, CHANGES, CHANGES),
    (_scale_vertex, CHANGES, CHANGES, CHANGES),
    (_scale_one_dimension, CHANGES, CHANGES, CHANGES),
    (_permute_tokens_of_the_teacher, CHANGES, CHANGES, CHANGES),
]


def _of_pieces(values: list[Tensor], scenes: list[Scene], measure: str) -> Tensor:
    if measure != "mean_pairwise_distances":
        return torch.cat(values, dim=-1)
    counts = torch.tensor([teacher.shape[1] for teacher, _ in scenes], dtype=torch.float64)
    return torch.einsum("p,pij->ij", counts, torch.stack(values)) / counts.sum()


@pytest.mark.parametrize("measure", list(MEASURES))
@pytest.mark.parametrize("row", TABLE, ids=[row[0].__name__.strip("_") for row in TABLE])
@given(
    seed=st.integers(0, 2**32 - 1),
    n_teacher=st.integers(2, 5),
    n_student=st.integers(1, 3),
    n_tokens=st.integers(2, 2 * TOKENS_PER_CHUNK + 10),
    dim=st.integers(3, 6),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_invariances(
    measure: str, row: tuple, seed: int, n_teacher: int, n_student: int, n_tokens: int, dim: int
) -> None:
    rng = np.random.default_rng(seed)
    scene = (
        _random(rng, n_teacher, n_tokens, dim, dtype=torch.float64),
        _random(rng, n_student, n_tokens, dim, dtype=torch.float64),
    )
    change = row[0](scene, rng)
    expected = row[1 + list(MEASURES).index(measure)]
    compute = MEASURES[measure]
    if row[0] is _slide_along_the_spokes:
        scene = (scene[0], scene[1][:1])  # spokes have one vertex
    before = compute(*scene)
    after = _of_pieces([compute(*changed) for changed in change.scenes], change.scenes, measure)
    if expected is CHANGES:
        assert not torch.allclose(after, before, rtol=1e-4, atol=1e-4)
    else:
        assert torch.allclose(after, expected(before, change, measure), rtol=1e-8, atol=1e-8)
