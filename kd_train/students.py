"""A student built from a teacher: its depth and width, blocks copied or random, and its matching maps."""

import copy
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from kd_train.matching import forward_targets
from kd_train.randomness import seeded
from layerangles.checkpoints import LayerPair, MapKind
from layerangles.errors import InputError
from layerangles.maps import MatchingMap, MatchingMaps
from layerangles.states import blocks


class StudentSpec(BaseModel):
    """The study's ``student``: what every student looks like before training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(ge=1)
    width: int | None = Field(default=None, ge=1, description="the teacher's by default")
    init: Literal["copied", "random"] = "copied"
    copied_layers: tuple[int, ...] | None = Field(default=None, description="teacher blocks, 1..L; forward by default")
    embeddings: Literal["copied", "random"] | None = Field(
        default=None, description="copied where the widths agree, by default"
    )
    map: MapKind | None = Field(default=None, description="identity where the widths agree, else learned, by default")


class StudentPlan(BaseModel):
    """A :class:`StudentSpec` with its defaults settled against a teacher."""

    model_config = ConfigDict(frozen=True)

    layers: int
    width: int
    copied_layers: tuple[int, ...]
    embeddings: Literal["copied", "random"]
    map: MapKind


def plan_student(spec: StudentSpec, teacher: PretrainedConfig) -> StudentPlan:
    """Settle the defaults, and refuse what is not possible with this teacher.

    Raises:
        InputError: deeper than the teacher, a block that does not exist, or copying across widths.
    """
    depth, teacher_width = teacher.num_hidden_layers, teacher.hidden_size
    width = spec.width or teacher_width
    same_width = width == teacher_width
    if spec.layers > depth:
        raise InputError(
            f"a student of {spec.layers} layers is deeper than its teacher of {depth}. "
            f"Set student.layers to at most {depth}."
        )
    head_width = teacher_width // teacher.num_attention_heads
    if width % head_width:
        raise InputError(
            f"a student of width {width} does not fit heads of {head_width} dimensions, its teacher's. "
            f"Set student.width to a multiple of {head_width}."
        )
    if spec.init == "copied" and not same_width:
        raise InputError(
            f"blocks of width {teacher_width} cannot be copied into a student of width {width}. "
            "Set student.init to random, or leave student.width out."
        )
    if spec.embeddings == "copied" and not same_width:
        raise InputError(
            f"embeddings of width {teacher_width} cannot be copied into a student of width {width}. "
            "Set student.embeddings to random."
        )
    if spec.map == "identity" and not same_width:
        raise InputError(
            f"an identity map cannot lead from width {width} to {teacher_width}. "
            "Set student.map to learned, frozen or orthogonal."
        )
    if spec.map == "orthogonal" and width > teacher_width:
        raise InputError(
            f"no orthogonal map leads from width {width} down to {teacher_width}. Set student.map to learned or frozen."
        )
    return StudentPlan(
        layers=spec.layers,
        width=width,
        copied_layers=_copied_layers(spec, depth),
        embeddings=spec.embeddings or ("copied" if same_width else "random"),
        map=spec.map or ("identity" if same_width else "learned"),
    )


def student_config(plan: StudentPlan, teacher: PretrainedConfig) -> PretrainedConfig:
    """The teacher's configuration with the student's depth and width; heads keep their size."""
    config = copy.deepcopy(teacher)
    teacher_width = teacher.hidden_size
    config.num_hidden_layers = plan.layers
    if plan.width != teacher_width:
        config.num_attention_heads = plan.width * teacher.num_attention_heads // teacher_width
        config.hidden_size = plan.width
        # transformers maps most models' names to common ones, but not that of the inner width.
        inner = next((n for n in ("intermediate_size", "hidden_dim", "n_inner") if getattr(config, n, None)), None)
        if inner is not None:
            setattr(config, inner, getattr(teacher, inner) * plan.width // teacher_width)
        if getattr(config, "embedding_size", None) == teacher_width:
            config.embedding_size = plan.width
    return config


def build_student(teacher: PreTrainedModel, plan: StudentPlan, *, seed: int) -> PreTrainedModel:
    """A new student: random by ``seed``, then overwritten by what is copied from the teacher.

    The head is new in every student, as in the paper: what it needs it learns in a few steps.
    """
    config = student_config(plan, teacher.config)
    with seeded(seed, "student"):
        student: PreTrainedModel = AutoModelForSequenceClassification.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32
        )
    if plan.embeddings == "copied":
        _copy_embeddings(teacher, student)
    ours, theirs = blocks(student), blocks(teacher)
    for block, source in zip(ours, (theirs[layer - 1] for layer in plan.copied_layers), strict=False):
        block.load_state_dict(source.state_dict())
    if plan.copied_layers:
        _copy_what_blocks_share(teacher, student)
    return student


def build_maps(
    plan: StudentPlan, teacher_width: int, pairs: tuple[LayerPair, ...], *, tower: str, seed: int
) -> nn.ModuleDict:
    """The maps ``W: student space → teacher space`` as modules, named by student layer; empty for identity maps.

    Learned maps exist for the matched layers only, since no other would ever be trained. Fixed ones exist for every
    layer, so that angles can be seen from unmatched layers too. All are drawn from ``seed`` and the layer alone.
    """
    if plan.map == "identity":
        return nn.ModuleDict()
    matched = {student_layer for student_layer, _ in pairs}
    layers = [layer for layer in range(plan.layers + 1) if plan.map != "learned" or layer in matched]
    maps = nn.ModuleDict()
    for layer in layers:
        with seeded(seed, "map", tower, layer):
            linear = nn.Linear(plan.width, teacher_width, bias=False)
            if plan.map == "orthogonal":
                nn.init.orthogonal_(linear.weight)
        linear.weight.requires_grad_(plan.map == "learned")
        maps[str(layer)] = linear
    return maps


def stored_maps(modules: nn.ModuleDict, *, tower: str) -> MatchingMaps:
    """The maps in the form in which a student directory holds them."""
    weights = {layer: module.get_parameter("weight").detach() for layer, module in modules.items()}
    return MatchingMaps({(tower, int(layer)): MatchingMap(weight) for layer, weight in weights.items()})


def _copied_layers(spec: StudentSpec, depth: int) -> tuple[int, ...]:
    if spec.init == "random":
        if spec.copied_layers:
            raise InputError("student.copied_layers is given, but student.init is random. Set it to copied.")
        return ()
    layers = spec.copied_layers or forward_targets(spec.layers, depth)
    if len(layers) != spec.layers or not all(1 <= layer <= depth for layer in layers):
        raise InputError(
            f"student.copied_layers is {list(layers)}; a student of {spec.layers} layers needs {spec.layers} teacher "
            f"blocks from 1 to {depth}."
        )
    return layers


def _copy_what_blocks_share(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Copy what stands beside the blocks and is used by all of them, such as the position biases of MPNet."""
    (prefix,) = (name for name, module in teacher.base_model.named_modules() if module is blocks(teacher))
    shared = {
        name: tensor
        for name, tensor in teacher.base_model.state_dict().items()
        if not name.startswith(f"{prefix}.") and "embeddings" not in name and "pooler" not in name
    }
    student.base_model.load_state_dict(shared, strict=False)


def _copy_embeddings(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    """Copy everything of the base model that stands before its blocks: word, position and type embeddings, norms."""
    before = {name: tensor for name, tensor in teacher.base_model.state_dict().items() if "embeddings" in name}
    if not before:  # a model without a module of that name: the input embeddings alone
        student.get_input_embeddings().load_state_dict(teacher.get_input_embeddings().state_dict())
        return
    missing = student.base_model.load_state_dict(before, strict=False).unexpected_keys
    if missing:
        raise InputError(f"the student has no place for the teacher's {missing[0]}. Set student.embeddings to random.")
