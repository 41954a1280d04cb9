"""The plan of a student: its depth, width, copied blocks and map, resolved against its teacher's configuration."""

import copy
from typing import Literal

from pydantic import BaseModel, ConfigDict
from transformers import PretrainedConfig

from kd_train.matching.strategies import forward_targets
from kd_train.students.student_spec import StudentSpec
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.models.matching_file import MapKind
from layerangles.models.states import DEPTHS, n_layers, towers_of

# The names of head counts and inner widths in transformers' configurations; a model has some of them.
_HEADS = (
    "num_attention_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_heads",
    "num_key_value_heads",
)
_INNER_WIDTHS = ("intermediate_size", "hidden_dim", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim")


class StudentPlan(BaseModel):
    """A :class:`StudentSpec` with its defaults resolved against a teacher."""

    model_config = ConfigDict(frozen=True)

    layers: dict[Tower, int]
    width: int
    copied_layers: dict[Tower, tuple[int, ...]]
    embeddings: Literal["copied", "random"]
    freeze_embeddings: bool
    map: MapKind
    share_map: bool


def plan_student(spec: StudentSpec, teacher: PretrainedConfig) -> StudentPlan:
    """Resolve the defaults of a student against its teacher.

    Raises:
        InputError: the student is deeper than the teacher, copies a block that does not exist, or copies across widths.
    """
    width = spec.width or teacher.hidden_size
    same_width = width == teacher.hidden_size
    _check_width(spec, width, teacher)
    if spec.map == "identity" and spec.share_map:
        raise InputError("student.share_map is set, but an identity map has nothing to share. Set student.map.")
    return StudentPlan(
        layers=_depths(spec, teacher),
        width=width,
        copied_layers=_copied_layers(spec, teacher),
        embeddings=spec.embeddings or ("copied" if same_width else "random"),
        freeze_embeddings=spec.freeze_embeddings,
        map=spec.map or ("identity" if same_width and not spec.share_map else "learned"),
        share_map=spec.share_map,
    )


def _check_width(spec: StudentSpec, width: int, teacher: PretrainedConfig) -> None:
    teacher_width = teacher.hidden_size
    if width != teacher_width:
        for name in _present(_HEADS, teacher):
            heads = getattr(teacher, name)
            if width * heads % teacher_width:
                raise InputError(
                    f"a student of width {width} would have {width * heads / teacher_width:g} heads ({name}), since "
                    f"heads keep their size and its teacher of width {teacher_width} has {heads}. Set student.width "
                    f"to a multiple of {teacher_width // heads}."
                )
        if spec.init == "copied":
            raise InputError(
                f"blocks of width {teacher_width} cannot be copied into a student of width {width}. "
                "Set student.init to random, or leave student.width out."
            )
        if spec.embeddings == "copied":
            raise InputError(
                f"embeddings of width {teacher_width} cannot be copied into a student of width {width}. "
                "Set student.embeddings to random."
            )
        if spec.map == "identity":
            raise InputError(
                f"an identity map cannot lead from width {width} to {teacher_width}. "
                "Set student.map to learned, frozen, orthogonal or pca."
            )
    if spec.map in ("orthogonal", "pca") and width > teacher_width:
        raise InputError(
            f"no {spec.map} map leads from width {width} down to {teacher_width}. Set student.map to learned or frozen."
        )


def _depths(spec: StudentSpec, teacher: PretrainedConfig) -> dict[Tower, int]:
    towers = towers_of(teacher)
    if len(towers) < 2:
        for name in ("decoder_layers", "copied_decoder_layers"):
            if getattr(spec, name) is not None:
                raise InputError(
                    f"student.{name} is for encoder-decoders, and the teacher ({teacher.model_type}) is none. "
                    f"Use student.{name.replace('decoder_', '')}."
                )
    depths: dict[Tower, int] = {}
    for tower in towers:
        named = spec.decoder_layers if len(towers) > 1 and tower == "decoder" else None
        depths[tower] = named or spec.layers
        theirs = n_layers(teacher, tower)
        if depths[tower] > theirs:
            raise InputError(
                f"a student of {depths[tower]} layers is deeper than its teacher of {theirs}. "
                f"Set student.{'decoder_layers' if named else 'layers'} to at most {theirs}."
            )
    return depths


def _copied_layers(spec: StudentSpec, teacher: PretrainedConfig) -> dict[Tower, tuple[int, ...]]:
    two = len(towers_of(teacher)) > 1
    copied: dict[Tower, tuple[int, ...]] = {}
    for tower, depth in _depths(spec, teacher).items():
        name = "copied_decoder_layers" if two and tower == "decoder" else "copied_layers"
        named: tuple[int, ...] | None = getattr(spec, name)
        if spec.init == "random":
            if named:
                raise InputError(f"student.{name} is given, but student.init is random. Set it to copied.")
            copied[tower] = ()
            continue
        theirs = n_layers(teacher, tower)
        layers = named or forward_targets(depth, theirs)
        if len(layers) != depth or not all(1 <= layer <= theirs for layer in layers):
            raise InputError(
                f"student.{name} is {list(layers)}; a student of {depth} layers needs {depth} teacher "
                f"blocks from 1 to {theirs}."
            )
        copied[tower] = layers
    return copied


def student_config(plan: StudentPlan, teacher: PretrainedConfig) -> PretrainedConfig:
    """The teacher's configuration with the student's depth and width; the size of a head stays."""
    config = copy.deepcopy(teacher)
    teacher_width = teacher.hidden_size
    for tower, depth in plan.layers.items():
        _set_depth(config, tower, depth, plan.copied_layers[tower] or forward_targets(depth, n_layers(teacher, tower)))
    if plan.width != teacher_width:
        for name in (*_present(_HEADS, teacher), *_present(_INNER_WIDTHS, teacher)):
            setattr(config, name, getattr(teacher, name) * plan.width // teacher_width)
        config.hidden_size = plan.width
        if getattr(config, "embedding_size", None) == teacher_width:
            config.embedding_size = plan.width
    return config


def _set_depth(config: PretrainedConfig, tower: Tower, depth: int, like: tuple[int, ...]) -> None:
    """Set a tower's number of blocks under all its names; their types are those of the teacher's blocks ``like``."""
    names = DEPTHS[tower] if config.is_encoder_decoder else ("num_hidden_layers",)
    for name in _present(names, config):
        setattr(config, name, depth)
    types = getattr(config, "layer_types", None)
    if types:
        config.layer_types = [types[layer - 1] for layer in like]


def _present(names: tuple[str, ...], config: PretrainedConfig) -> tuple[str, ...]:
    return tuple(name for name in names if getattr(config, name, None) is not None)
