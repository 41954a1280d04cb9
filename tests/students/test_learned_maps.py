"""The maps from student space into teacher space: existence, initialisation and storage."""

import itertools

import pytest
import torch
from toys.training import toy_plan, toy_teacher
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from kd_train.students.construction import build_student
from kd_train.students.learned_maps import build_maps, stored_maps
from kd_train.students.student_plan import StudentPlan


@pytest.fixture(scope="module")
def teacher() -> PreTrainedModel:
    return toy_teacher()


def _of_two_towers(plan: StudentPlan) -> StudentPlan:
    return plan.model_copy(update={"layers": {"encoder": 2, "decoder": 1}})


def test_equal_widths_need_no_map(teacher: PreTrainedModel) -> None:
    plan = toy_plan(teacher)
    assert plan.map == "identity"
    assert len(build_maps(plan, 32, {"encoder": range(3)}, seed=0)) == 0


@pytest.mark.parametrize(
    ("kind", "layers"),
    [("learned", {0, 2}), ("frozen", {0, 1, 2}), ("orthogonal", {0, 1, 2}), ("pca", {0, 1, 2})],
)
@pytest.mark.parametrize("width", [24, 32])
def test_maps_lead_into_teacher_space(teacher: PreTrainedModel, kind: str, layers: set[int], width: int) -> None:
    plan = toy_plan(teacher, width=width, init="random", map=kind)
    maps = build_maps(plan, 32, {"encoder": [0, 2]}, seed=0)
    assert set(maps) == {f"encoder_{layer}" for layer in layers}  # learned: the matched ones alone
    for linear in maps.values():
        assert linear.weight.shape == (32, width)
        assert linear.bias is None
        assert linear.weight.requires_grad == (kind == "learned")
        gram = linear.weight.detach().T @ linear.weight.detach()
        assert torch.allclose(gram, torch.eye(width), atol=1e-5) == (kind == "orthogonal")
    assert not torch.equal(maps["encoder_0"].weight, maps["encoder_2"].weight)


@pytest.mark.parametrize("kind", ["learned", "frozen", "orthogonal"])
def test_a_map_follows_from_seed_tower_and_layer_alone(teacher: PreTrainedModel, kind: str) -> None:
    plan = _of_two_towers(toy_plan(teacher, width=24, init="random", map=kind))
    some = build_maps(plan, 32, {"encoder": [2]}, seed=0)
    torch.manual_seed(9)
    more = build_maps(plan, 32, {"encoder": [0, 1, 2], "decoder": [0, 1]}, seed=0)
    other = build_maps(plan, 32, {"encoder": [2]}, seed=1)
    assert torch.equal(some["encoder_2"].weight, more["encoder_2"].weight)
    assert not torch.equal(some["encoder_2"].weight, other["encoder_2"].weight)
    assert set(more) == {"encoder_0", "encoder_1", "encoder_2", "decoder_0", "decoder_1"}
    assert not any(torch.equal(a.weight, b.weight) for a, b in itertools.combinations(more.values(), 2))


@pytest.mark.parametrize("kind", ["learned", "frozen", "orthogonal"])
def test_a_shared_map_is_one_map_a_tower(teacher: PreTrainedModel, kind: str) -> None:
    plan = _of_two_towers(toy_plan(teacher, width=24, init="random", map=kind, share_map=True))
    maps = build_maps(plan, 32, {"encoder": [0, 2], "decoder": [0, 1]}, seed=0)
    assert maps["encoder_0"] is maps["encoder_2"]
    assert maps["decoder_0"] is maps["decoder_1"]
    assert len(list(maps.parameters())) == 2
    assert not torch.equal(maps["encoder_0"].weight, maps["decoder_0"].weight)
    assert len(build_maps(plan, 32, {}, seed=0)) == (0 if kind == "learned" else 5)
    stored = stored_maps(maps).by_layer  # each layer has it in its file, for those who read it
    assert torch.equal(stored["encoder", 0].weight, stored["encoder", 2].weight)
    assert stored["encoder", 0].weight.data_ptr() != stored["encoder", 2].weight.data_ptr()


def test_maps_are_stored_beside_the_student_and_not_in_it(teacher: PreTrainedModel) -> None:
    plan = toy_plan(teacher, width=24, init="random")
    maps = build_maps(plan, 32, {"encoder": range(3)}, seed=0)
    stored = stored_maps(maps).by_layer
    assert set(stored) == {("encoder", 0), ("encoder", 1), ("encoder", 2)}
    assert torch.equal(stored["encoder", 1].weight, maps["encoder_1"].weight)
    assert stored["encoder", 1].bias is None
    maps["encoder_1"].weight.data.zero_()
    assert stored["encoder", 1].weight.abs().sum() > 0  # training goes on without it
    # The student's own state dict has the same names as that of a student without maps.
    made = [
        build_student(teacher, of, auto_model=AutoModelForSequenceClassification, seed=0)
        for of in (plan, toy_plan(teacher))
    ]
    assert made[0].state_dict().keys() == made[1].state_dict().keys()
