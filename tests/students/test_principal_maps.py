"""Principal maps keep most of the teacher's states."""

import pytest
import torch
from torch import Tensor
from toys.training import toy_micro_batches, toy_plan, toy_teacher
from transformers import PreTrainedModel

from kd_train.students.learned_maps import build_maps
from kd_train.students.principal_maps import (
    PrincipalMaps,
    principal_directions,
    second_moments,
    set_principal_maps,
)
from layerangles.models.states import forward_with_states


@pytest.fixture(scope="module")
def teacher() -> PreTrainedModel:
    return toy_teacher()


def _token_states(seed: int, n: int = 200, dim: int = 12) -> Tensor:
    """States with a mean and with directions of unequal size."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, dim, generator=generator) @ torch.randn(dim, dim, generator=generator)
    return (mixed + torch.randn(dim, generator=generator)).double()


def _moment(states: Tensor) -> Tensor:
    return states.T @ states


def _lost(states: Tensor, directions: Tensor) -> float:
    """The squared error of the best reconstruction from a subspace, by least squares."""
    found = torch.linalg.lstsq(directions.double(), states.T).solution
    return float((directions.double() @ found - states.T).square().sum())


@pytest.mark.parametrize("width", [1, 5, 12])
def test_no_other_map_of_this_rank_keeps_more_of_the_states(width: int) -> None:
    states = _token_states(0)
    directions = principal_directions([_moment(states)], width)
    assert directions.shape == (12, width)
    torch.testing.assert_close(directions.T @ directions, torch.eye(width), rtol=0, atol=1e-5)
    # Eckart and Young: the loss of the best subspace is the sum of the smallest squared singular values.
    singular = torch.linalg.svdvals(states)
    assert _lost(states, directions) == pytest.approx(float(singular[width:].square().sum()), rel=1e-5, abs=1e-6)
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        near = torch.linalg.qr(directions + 0.1 * torch.randn(12, width, generator=generator))[0]
        assert _lost(states, near) >= _lost(states, directions) - 1e-6
    # In descending order: the first column alone is the best of rank 1.
    assert _lost(states, directions[:, :1]) == pytest.approx(float(singular[1:].square().sum()), rel=1e-5)


def test_the_sign_of_a_principal_direction_is_fixed() -> None:
    directions = principal_directions([_moment(_token_states(0))], 5)
    assert all(column[column.abs().argmax()] > 0 for column in directions.T)


def test_the_directions_of_several_layers_are_those_of_their_union() -> None:
    first, second = _token_states(0), _token_states(1)
    together = principal_directions([_moment(torch.cat([first, second]))], 4)
    torch.testing.assert_close(principal_directions([_moment(first), _moment(second)], 4), together)


def test_moments_are_those_of_the_valid_tokens_of_all_micro_batches(teacher: PreTrainedModel) -> None:
    micro_batches = [one for step in range(2) for one in toy_micro_batches(step, n_micro_batches=3)]
    moments = second_moments(teacher, micro_batches, {"encoder": [0, 3]}, torch.device("cpu"))
    assert set(moments) == {("encoder", 0), ("encoder", 3)}
    for layer in (0, 3):
        expected = torch.zeros(32, 32, dtype=torch.float64)
        for one in micro_batches:
            with torch.no_grad():
                states = forward_with_states(teacher.eval(), one.inputs)[1]["encoder"][layer]
            for row, length in enumerate(one.inputs["attention_mask"].sum(dim=1).tolist()):
                for position in range(length):
                    token = states[row, position].double()
                    expected += torch.outer(token, token)
        assert moments["encoder", layer].dtype == torch.float64
        torch.testing.assert_close(moments["encoder", layer], expected)


@pytest.mark.parametrize("shared", [False, True])
def test_maps_keep_the_directions_of_the_layers_that_they_lead_to(teacher: PreTrainedModel, shared: bool) -> None:
    plan = toy_plan(teacher, width=24, init="random", map="pca", share_map=shared)
    maps = build_maps(plan, 32, {"encoder": [2]}, seed=0)
    micro_batches, device = toy_micro_batches(0), torch.device("cpu")
    set_principal_maps([PrincipalMaps(maps, plan, {"encoder": ((2, 3),)})], teacher, micro_batches, device)
    moments = second_moments(teacher, micro_batches, {"encoder": [0, 2, 3]}, device)
    # Layer 2 is matched to 3; layers 0 and 1 are unmatched and take the targets of forward, 0 and 2.
    kept = {layer: (0, 2, 3) if shared else of for layer, of in {0: (0,), 1: (2,), 2: (3,)}.items()}
    for layer, of in kept.items():
        expected = principal_directions([moments["encoder", t] for t in of], 24)
        assert torch.equal(maps[f"encoder_{layer}"].weight, expected)
        assert not maps[f"encoder_{layer}"].weight.requires_grad
