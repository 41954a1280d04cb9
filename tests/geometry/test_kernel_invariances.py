"""A declared table: what every change of a scene does to angles, distances and the common-mode ratio."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys.geometry import random_states

from layerangles.geometry.angles import (
    TOKENS_PER_CHUNK,
    vertex_cosines,
)
from layerangles.geometry.relations import common_mode_ratio, mean_pairwise_distances

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
    shift = 10 * random_states(rng, 1, *scene[0].shape[1:], dtype=torch.float64)  # each token by its own
    return Change([(scene[0] + shift, scene[1] + shift)])


def _translate_vertex(scene: Scene, rng: np.random.Generator) -> Change:
    return Change([(scene[0], scene[1] + random_states(rng, 1, 1, scene[0].shape[-1], dtype=torch.float64))])


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
def test_every_change_does_what_the_table_says(
    measure: str, row: tuple, seed: int, n_teacher: int, n_student: int, n_tokens: int, dim: int
) -> None:
    rng = np.random.default_rng(seed)
    scene = (
        random_states(rng, n_teacher, n_tokens, dim, dtype=torch.float64),
        random_states(rng, n_student, n_tokens, dim, dtype=torch.float64),
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
