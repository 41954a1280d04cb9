"""Students of encoder-decoders and decoders: two towers, position biases in the first block, heads, key-value heads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys.language_models import CONFIGS, FAMILIES, LLAMA, PAIRED, T5, auto_model, language_teacher
from toys.training import differing
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

from kd_train.students.construction import build_student
from kd_train.students.learned_maps import build_maps
from kd_train.students.student_plan import StudentPlan, plan_student
from kd_train.students.student_spec import StudentSpec
from kd_train.study.costs import estimate
from kd_train.study.plan import plan_study
from kd_train.study.study_file import parse_study
from layerangles import InputError
from layerangles.models.states import blocks, forward_with_states, n_layers, towers_of


def _student(family: str, teacher: PreTrainedModel, *, seed: int = 0, **spec: Any) -> PreTrainedModel:
    plan = plan_student(StudentSpec(**{"layers": 2} | spec), teacher.config)
    return build_student(teacher, plan, auto_model=auto_model(family), seed=seed).eval()


def _inputs(family: str) -> dict[str, Tensor]:
    ids = torch.randint(4, 30, (3, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return inputs | ({"decoder_input_ids": ids.flip(1)[:, :7]} if family in PAIRED else {})


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def _all_layers(teacher: PreTrainedModel) -> dict[str, int]:
    depths = {tower: n_layers(teacher.config, tower) for tower in towers_of(teacher.config)}
    return {"layers": depths.get("encoder", depths["decoder"])} | (
        {"decoder_layers": depths["decoder"]} if len(depths) > 1 else {}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_all_blocks_is_its_teacher(family: str) -> None:
    """Copies include blocks, embeddings, heads, final norms, and the logit biases of BART and Marian."""
    teacher = language_teacher(family)
    student = _student(family, teacher, **_all_layers(teacher))
    (ours, our_states), (theirs, their_states) = (
        forward_with_states(model, _inputs(family)) for model in (student, teacher)
    )
    assert torch.equal(ours.logits, theirs.logits)
    for tower, states in their_states.items():
        for state, target in zip(our_states[tower], states, strict=True):
            assert torch.equal(state, target)
    shared = {p.data_ptr() for p in teacher.parameters()} & {p.data_ptr() for p in student.parameters()}
    assert not shared


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("copied", [None, (3, 1)])
def test_copied_blocks_are_the_listed_ones_in_every_tower(family: str, copied: tuple[int, ...] | None) -> None:
    teacher = language_teacher(family)
    spec: dict[str, Any] = {"copied_layers": copied}
    expected = dict.fromkeys(towers_of(teacher.config), copied or (2, 4))
    if family in PAIRED:
        spec["copied_decoder_layers"] = copied and (3, 3)
        expected["decoder"] = (3, 3) if copied else (2, 3)  # ceil(j · 3 / 2)
    student = _student(family, teacher, **spec)
    for tower, layers in expected.items():
        ours, theirs = blocks(student, tower), blocks(teacher, tower)
        assert len(ours) == 2
        for block, layer in zip(ours, layers, strict=True):
            own, source = _tensors(block), _tensors(theirs[layer - 1])
            biases = {name for name in own if "relative_attention_bias" in name}
            assert {name for name in own.keys() - biases if not torch.equal(own[name], source[name])} == set()
            others = [_tensors(of) for number, of in enumerate(theirs, start=1) if number != layer]
            assert all(any(not torch.equal(own[name], of[name]) for name in source.keys() & of) for of in others)
    assert forward_with_states(student, _inputs(family))[0].logits.isfinite().all()


@pytest.mark.parametrize("family", T5)
def test_position_biases_are_taken_from_the_first_block_whatever_is_copied(family: str) -> None:
    teacher = language_teacher(family)
    student = _student(family, teacher, copied_layers=(2, 4), copied_decoder_layers=(3, 2))
    name = "layer.0.SelfAttention.relative_attention_bias.weight"
    for tower in ("encoder", "decoder"):
        assert torch.equal(*(_tensors(blocks(model, tower)[0])[name] for model in (student, teacher)))
        assert name not in _tensors(blocks(student, tower)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_head_and_final_norms_are_copied(family: str) -> None:
    teacher = language_teacher(family)
    student = _student(family, teacher)
    ours, theirs = _tensors(student), _tensors(teacher)
    beside = {name for name in ours if not any(part.isdecimal() for part in name.split("."))}
    assert {name for name in beside if not torch.equal(ours[name], theirs[name])} == set()
    assert torch.equal(student.get_output_embeddings().weight, teacher.get_output_embeddings().weight)
    tied = [model.get_output_embeddings().weight is model.get_input_embeddings().weight for model in (student, teacher)]
    assert tied[0] == tied[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_random_embeddings_come_with_a_random_head(family: str) -> None:
    teacher = language_teacher(family)
    student = _student(family, teacher, embeddings="random")
    assert not torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    assert not torch.equal(student.get_output_embeddings().weight, teacher.get_output_embeddings().weight)
    for tower in towers_of(teacher.config):  # the blocks are copied all the same
        weights = [dict(blocks(model, tower)[-1].named_parameters()) for model in (student, teacher)]
        assert not differing(*({k: v.detach() for k, v in of.items()} for of in weights))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_student_has_no_block_of_its_teacher(family: str) -> None:
    teacher = language_teacher(family)
    student = _student(family, teacher, init="random")
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    for tower in towers_of(teacher.config):
        for block in blocks(student, tower):
            for theirs in blocks(teacher, tower):
                shared = _tensors(block).keys() & _tensors(theirs).keys()
                assert all(not torch.equal(_tensors(block)[name], _tensors(theirs)[name]) for name in shared)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_embeddings_take_a_tied_head_with_them(family: str) -> None:
    teacher = language_teacher(family)
    student = _student(family, teacher, freeze_embeddings=True)
    assert not student.get_input_embeddings().weight.requires_grad
    tied = student.get_output_embeddings().weight is student.get_input_embeddings().weight
    assert student.get_output_embeddings().weight.requires_grad != tied
    still = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert all("emb" in name or "shared" in name or "wte" in name for name in still)
    assert still


@pytest.mark.parametrize("family", FAMILIES)
def test_narrower_students_keep_the_size_of_their_heads(family: str) -> None:
    teacher = language_teacher(family)
    student = _student(family, teacher, width=16, init="random")
    config, theirs = student.config, teacher.config
    for name in ("num_attention_heads", "num_key_value_heads", "decoder_attention_heads"):
        if getattr(theirs, name, None):
            assert getattr(config, name) * 2 == getattr(theirs, name), name
    for name in ("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"):
        if getattr(theirs, name, None):
            assert getattr(config, name) * 2 == getattr(theirs, name), name
    for name in ("head_dim", "d_kv"):
        if getattr(theirs, name, None):
            assert getattr(config, name) == getattr(theirs, name), name
    states = forward_with_states(student, _inputs(family))[1]
    assert {tower: [state.shape[-1] for state in of] for tower, of in states.items()} == dict.fromkeys(
        towers_of(theirs), [16] * 3
    )
    inner = (
        {module.weight.numel() for module in blocks(student)[0].modules() if hasattr(module, "weight")}
        if (family not in PAIRED)
        else set()
    )
    assert not inner or max(inner) < max(
        module.weight.numel() for module in blocks(teacher)[0].modules() if hasattr(module, "weight")
    )
    plan = plan_student(StudentSpec(layers=2, width=16, init="random"), theirs)
    matched = {tower: range(3) for tower in towers_of(theirs)}
    maps = build_maps(plan, 32, matched, seed=0)
    assert set(maps) == {f"{tower}_{layer}" for tower in towers_of(theirs) for layer in range(3)}


@pytest.mark.parametrize("family", PAIRED)
def test_the_decoder_may_have_another_depth(family: str) -> None:
    teacher = language_teacher(family)
    student = _student(family, teacher, layers=3, decoder_layers=1)
    assert [n_layers(student.config, tower) for tower in ("encoder", "decoder")] == [3, 1]
    assert [len(blocks(student, tower)) for tower in ("encoder", "decoder")] == [3, 1]
    states = forward_with_states(student, _inputs(family))[1]
    assert [len(states[tower]) for tower in ("encoder", "decoder")] == [4, 2]


def test_blocks_of_several_types_keep_theirs() -> None:
    types = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    torch.manual_seed(0)
    config = Qwen3Config(**LLAMA, head_dim=16, layer_types=types, sliding_window=4, use_sliding_window=True)
    teacher = AutoModelForCausalLM.from_config(config).eval()
    for copied, expected in (((3, 4), types[2:]), ((1, 3), ["sliding_attention"] * 2), (None, ["full_attention"] * 2)):
        plan = plan_student(StudentSpec(layers=2, copied_layers=copied), config)
        student = build_student(teacher, plan, auto_model=AutoModelForCausalLM, seed=0)
        assert student.config.layer_types == expected
    assert teacher.config.layer_types == types
    four = plan_student(StudentSpec(layers=4), config)
    student = build_student(teacher, four, auto_model=AutoModelForCausalLM, seed=0).eval()
    with torch.no_grad():
        assert torch.equal(*(model(**_inputs("qwen3")).logits for model in (student, teacher)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("student", [{"layers": 2}, {"layers": 3, "width": 16, "init": "random"}])
def test_the_plan_counts_the_parameters_that_are_built(family: str, student: dict[str, Any], tmp_path: Any) -> None:
    teacher = language_teacher(family)
    teacher.config.save_pretrained(tmp_path)
    task: dict[str, Any] = {"kind": "sequence_to_sequence"} if family in PAIRED else {"text": "text"}
    study = parse_study(
        {
            "name": "toy",
            "task": {"kind": "language_modelling", "files": {"train": "a.jsonl", "dev": "b.jsonl"}, "max_length": 16}
            | task,
            "teacher": {"model": str(tmp_path)},
            "student": student,
            "strategies": ["forward"],
        }
    )
    plan = plan_study(study)
    cost = estimate(plan)
    built: StudentPlan = plan.members["forward"].student
    made = build_student(teacher, built, auto_model=auto_model(family), seed=0)
    assert cost.teacher.parameters == sum(p.numel() for p in teacher.parameters())
    assert cost.students["forward"].parameters == sum(p.numel() for p in made.parameters())
    assert set(plan.members["forward"].pairs) == set(towers_of(teacher.config))


@pytest.mark.parametrize(
    ("family", "spec", "message"),
    [
        (
            "bart",
            {"decoder_layers": 4},
            r"a student of 4 layers is deeper than its teacher of 3\. Set student.decoder_l",
        ),
        (
            "bart",
            {"layers": 4},
            r"a student of 4 layers is deeper than its teacher of 3\. Set student.layers to at mos",
        ),
        ("t5", {"copied_decoder_layers": (1, 4)}, r"copied_decoder_layers is \[1, 4\].*2 teacher blocks from 1 to 3"),
        (
            "gpt2",
            {"decoder_layers": 2},
            r"decoder_layers is for encoder-decoders.*\(gpt2\) is none\. Use student.layers",
        ),
        ("llama", {"copied_decoder_layers": (1, 2)}, "copied_decoder_layers is for encoder-decoders.*copied_layers"),
        (
            "qwen3",
            {"width": 24, "init": "random"},
            r"width 24 would have 1\.5 heads \(num_key_value_heads\).*multiple of 1",
        ),
        ("t5", {"share_map": True, "map": "identity"}, "share_map is set, but an identity map has nothing to share"),
    ],
)
def test_impossible_students_are_refused(family: str, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_student(StudentSpec(**{"layers": 2} | spec), CONFIGS[family]())
