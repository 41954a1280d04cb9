"""Students built from encoders: depth, width, copied and random weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys.training import FAMILIES, differing, toy_family, toy_plan, toy_teacher
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from kd_train.matching.losses import LossSpec
from kd_train.students.construction import build_student
from kd_train.students.learned_maps import build_maps
from kd_train.students.student_plan import StudentPlan, plan_student, student_config
from kd_train.students.student_spec import StudentSpec
from kd_train.study.costs import estimate
from kd_train.study.plan import plan_study
from kd_train.study.study_file import parse_study
from layerangles import InputError
from layerangles.models.states import blocks, forward_with_states


def _inputs() -> dict[str, Tensor]:
    ids = torch.randint(5, 30, (3, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def _student(teacher: PreTrainedModel, plan: StudentPlan, *, seed: int = 0) -> PreTrainedModel:
    return build_student(teacher, plan, auto_model=AutoModelForSequenceClassification, seed=seed)


def _n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def teacher() -> PreTrainedModel:
    return toy_teacher()


@pytest.mark.parametrize("copied", [None, (1, 4), (4, 1), (3, 3)])
def test_copied_blocks_are_the_listed_ones_and_no_others(
    teacher: PreTrainedModel, copied: tuple[int, ...] | None
) -> None:
    student = _student(teacher, toy_plan(teacher, copied_layers=copied))
    ours, theirs = blocks(student), blocks(teacher)
    assert len(ours) == 2
    for block, source in zip(ours, copied or (2, 4), strict=True):  # ceil(j · 4 / 2)
        equal = [layer for layer in range(1, 5) if not differing(_tensors(block), _tensors(theirs[layer - 1]))]
        assert equal == [source]


def test_copied_weights_share_no_memory_with_the_teacher(teacher: PreTrainedModel) -> None:
    student = _student(teacher, toy_plan(teacher))
    shared = {p.data_ptr() for p in teacher.parameters()} & {p.data_ptr() for p in student.parameters()}
    assert not shared


def test_embeddings_are_copied_and_the_head_is_new(teacher: PreTrainedModel) -> None:
    student = _student(teacher, toy_plan(teacher))
    assert not differing(_tensors(student.base_model.embeddings), _tensors(teacher.base_model.embeddings))
    assert not torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert not torch.equal(student.base_model.pooler.dense.weight, teacher.base_model.pooler.dense.weight)


def test_a_random_student_has_nothing_of_its_teacher(teacher: PreTrainedModel) -> None:
    student = _student(teacher, toy_plan(teacher, init="random", embeddings="random"))
    for block in blocks(student):
        for theirs in blocks(teacher):
            assert not torch.equal(block.attention.self.query.weight, theirs.attention.self.query.weight)
    assert not torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)


@pytest.mark.parametrize(("embeddings", "copied"), [(None, True), ("copied", True), ("random", False)])
def test_random_blocks_may_stand_on_copied_embeddings(
    teacher: PreTrainedModel, embeddings: str | None, copied: bool
) -> None:
    plan = toy_plan(teacher, init="random", embeddings=embeddings)
    student = _student(teacher, plan)
    assert plan.embeddings == ("copied" if copied else "random")
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight) == copied


@pytest.mark.parametrize("init", ["copied", "random"])
def test_a_student_follows_from_its_seed(teacher: PreTrainedModel, init: str) -> None:
    plan = toy_plan(teacher, init=init)
    torch.manual_seed(1)
    first = _tensors(_student(teacher, plan, seed=5))
    torch.manual_seed(2)
    assert not differing(first, _tensors(_student(teacher, plan, seed=5)))
    other = differing(first, _tensors(_student(teacher, plan, seed=6)))
    assert "classifier.weight" in other
    assert ("bert.encoder.layer.0.attention.self.query.weight" in other) == (init == "random")


def test_building_leaves_the_random_numbers_alone(teacher: PreTrainedModel) -> None:
    plan = toy_plan(teacher, init="random", map="learned")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    _student(teacher, plan)
    build_maps(plan, 32, {"encoder": range(3)}, seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_encoders_gives_students(family: str) -> None:
    teacher = toy_family(family)
    plan = plan_student(StudentSpec(layers=2), teacher.config)
    student = _student(teacher, plan)
    output, by_tower = forward_with_states(student, _inputs())
    states = by_tower["encoder"]
    assert output.logits.shape == (3, 2)
    assert [tuple(state.shape) for state in states] == [(3, 9, 32)] * 3
    for block, layer in zip(blocks(student), (2, 4), strict=True):
        assert not differing(_tensors(block), _tensors(blocks(teacher)[layer - 1]))
    # Its embedding output is the teacher's: all that stands before the blocks is copied.
    assert torch.equal(states[0], forward_with_states(teacher, _inputs())[1]["encoder"][0]) or student.training


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_all_blocks_is_its_teacher(family: str) -> None:
    """Modules that the blocks share, such as MPNet's position biases, are copied with them."""
    teacher = toy_family(family)
    student = _student(teacher, plan_student(StudentSpec(layers=4), teacher.config)).eval()
    ours, theirs = (forward_with_states(model, _inputs())[1]["encoder"] for model in (student, teacher))
    for layer, (state, target) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(state, target), f"layer {layer}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_narrower_students(family: str) -> None:
    teacher = toy_family(family)
    plan = plan_student(StudentSpec(layers=2, width=24, init="random"), teacher.config)
    assert (plan.map, plan.embeddings, plan.copied_layers) == ("learned", "random", {"encoder": ()})
    student = _student(teacher, plan)
    assert student.config.num_attention_heads == 3  # heads keep their 8 dimensions
    if family == "electra-of-one-width":  # as its teacher's, its embeddings need no projection
        assert student.config.embedding_size == 24
    states = forward_with_states(student, _inputs())[1]["encoder"]
    assert [tuple(state.shape) for state in states] == [(3, 9, 24)] * 3
    inner = [m.out_features for m in blocks(student)[0].modules() if isinstance(m, nn.Linear)]
    assert max(inner) == 48  # the inner width keeps its ratio


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_counts_the_parameters_that_are_built(family: str, tmp_path: Any) -> None:
    teacher = toy_family(family)
    teacher.config.save_pretrained(tmp_path)
    study = parse_study(
        {
            "name": "toy",
            "task": {"files": {"train": "a.jsonl", "dev": "b.jsonl"}, "label_names": ["x", "y"], "max_length": 16},
            "teacher": {"model": str(tmp_path)},
            "student": {"layers": 3},
            "strategies": ["forward"],
        }
    )
    plan = plan_study(study)
    member = plan.members["forward"]
    cost = estimate(plan)
    assert cost.teacher.parameters == _n_parameters(teacher)
    assert cost.students["forward"].parameters == _n_parameters(_student(teacher, member.student))
    assert member.pairs == {"encoder": ((0, 0), (1, 2), (2, 3), (3, 4))}


def test_the_teachers_configuration_stays_as_it_is(teacher: PreTrainedModel) -> None:
    before = teacher.config.to_dict()
    student_config(toy_plan(teacher, width=24, init="random"), teacher.config)
    assert teacher.config.to_dict() == before


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"layers": 5}, r"a student of 5 layers is deeper than its teacher of 4\. Set student.layers to at most 4"),
        (
            {"layers": 2, "width": 30},
            r"width 30 would have 3\.75 heads \(num_attention_heads\).*has 4\. Set student.width to a multiple of 8",
        ),
        ({"layers": 2, "width": 24}, "blocks of width 32 cannot be copied into a student of width 24.*init to random"),
        (
            {"layers": 2, "width": 24, "init": "random", "embeddings": "copied"},
            "embeddings of width 32 cannot be copied into a student of width 24.*embeddings to random",
        ),
        (
            {"layers": 2, "width": 24, "init": "random", "map": "identity"},
            "identity map cannot lead from width 24 to 32.*learned, frozen, orthogonal or pca",
        ),
        (
            {"layers": 2, "width": 40, "init": "random", "map": "orthogonal"},
            "no orthogonal map leads from width 40 down to 32.*learned or frozen",
        ),
        ({"layers": 2, "init": "random", "copied_layers": [1, 2]}, "copied_layers is given, but student.init is rand"),
        ({"layers": 2, "copied_layers": [1]}, r"copied_layers is \[1\].*needs 2 teacher blocks from 1 to 4"),
        ({"layers": 2, "copied_layers": [0, 1]}, r"copied_layers is \[0, 1\].*from 1 to 4"),
        ({"layers": 2, "copied_layers": [1, 5]}, r"copied_layers is \[1, 5\].*from 1 to 4"),
    ],
)
def test_impossible_students_are_refused(teacher: PreTrainedModel, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_student(StudentSpec.model_validate(spec), teacher.config)


def test_the_default_student_is_that_of_the_paper(teacher: PreTrainedModel) -> None:
    plan = plan_student(StudentSpec(layers=2), teacher.config)
    assert (plan.width, plan.copied_layers, plan.embeddings, plan.map) == (
        32,
        {"encoder": (2, 4)},
        "copied",
        "identity",
    )
    assert LossSpec().hidden == "mse"
