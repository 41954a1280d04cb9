"""Distances and the common-mode ratio in closed form, and against an independent reference in numpy."""

import numpy as np
import pytest
import torch
from toys.geometry import point_states, random_states

from layerangles.geometry.angles import (
    layer_pairs,
    vertex_cosines,
)
from layerangles.geometry.relations import common_mode_ratio, mean_pairwise_distances


def test_distances_of_the_345_triangle_averaged_over_tokens() -> None:
    one = torch.tensor([[[3.0, 0.0]], [[3.0, 4.0]]])
    teacher, vertex = torch.cat([one, 3 * one], dim=1), torch.zeros(1, 2, 2)
    expected = 2 * np.array([[0, 4, 3], [4, 0, 5], [3, 5, 0]])
    assert mean_pairwise_distances(teacher, vertex).numpy() == pytest.approx(expected, abs=1e-14)


def test_distances_equal_numpys_over_several_chunks() -> None:
    rng = np.random.default_rng(1)
    teacher, vertex = random_states(rng, 4, 150, 9), random_states(rng, 3, 150, 9)
    states = np.concatenate([teacher, vertex]).astype(np.float64)
    expected = np.linalg.norm(states[:, None] - states[None], axis=-1).mean(axis=-1)
    assert mean_pairwise_distances(teacher, vertex).numpy() == pytest.approx(expected, rel=1e-13)


def test_distance_of_equal_states_is_exactly_zero() -> None:
    teacher = 1e4 + random_states(np.random.default_rng(2), 3, 70, 16)
    distances = mean_pairwise_distances(teacher, teacher[1:2])
    assert distances.diagonal().tolist() == [0.0] * 4
    assert distances[1, 3] == distances[3, 1] == 0.0


def test_common_mode_ratio_is_a_squared_distance_over_the_spread() -> None:
    teacher = point_states([1.0, 0.0], [-1.0, 0.0])
    vertices = point_states([0.0, 0.0], [0.0, 2.0], [3.0, 0.0])
    assert common_mode_ratio(teacher, vertices).squeeze(1).tolist() == [0.0, 4.0, 9.0]


def test_common_mode_ratio_against_numpy() -> None:
    rng = np.random.default_rng(4)
    teacher, vertex = random_states(rng, 5, 30, 9), random_states(rng, 3, 30, 9)
    t, v = teacher.double().numpy(), vertex.double().numpy()
    centroid = t.mean(axis=0)
    expected = ((v - centroid) ** 2).sum(axis=-1) / ((t - centroid) ** 2).sum(axis=-1).mean(axis=0)
    assert common_mode_ratio(teacher, vertex).numpy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_layers", [2, 3, 7])
def test_common_mode_ratio_of_a_teacher_without_spread_is_not_finite(n_layers: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(n_layers)
    layer = random_states(rng, 1, 20, 9, dtype=dtype)
    ratio = common_mode_ratio(layer.expand(n_layers, -1, -1), torch.cat([layer, layer + 1]))
    assert ratio[0].isnan().all()
    assert ratio[1].isposinf().all()


def test_large_common_mode_makes_every_angle_acute() -> None:
    rng = np.random.default_rng(5)
    teacher, direction = random_states(rng, 6, 40, 16), random_states(rng, 1, 40, 16)
    near, far = teacher.mean(dim=0, keepdim=True), teacher.mean(dim=0, keepdim=True) + 10 * direction
    a, b = layer_pairs(6)
    assert common_mode_ratio(teacher, near).max() < 1e-6
    assert common_mode_ratio(teacher, far).min() > 10
    assert (vertex_cosines(teacher, near)[0, a, b].mean(dim=0) < 0).all()
    assert (vertex_cosines(teacher, far)[0, a, b] > 0).all()
