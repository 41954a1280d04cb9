"""Building a student from its teacher: blocks and embeddings copied or random."""

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from kd_train.randomness import seeded
from kd_train.students.student_plan import StudentPlan, student_config
from layerangles.errors import InputError
from layerangles.layers import Tower
from layerangles.models.states import blocks, towers_of

# The tensors outside the blocks are embeddings with their norms, and modules that all blocks share or that follow them.
_EMBEDDING = re.compile(r"emb|(^|\.)(wte|wpe|shared)\.")


def build_student(teacher: PreTrainedModel, plan: StudentPlan, *, auto_model: Any, seed: int) -> PreTrainedModel:
    """A new student: random by ``seed``, with the copied parts of the teacher written over it.

    A classification head is new in every student, as in the paper: it is learned in a few steps. A language model's
    head shares the vocabulary of the embeddings and is copied with them.
    """
    with seeded(seed, "student"):
        student: PreTrainedModel = auto_model.from_config(student_config(plan, teacher.config), dtype=torch.float32)
    if teacher.can_generate():
        student.generation_config = copy.deepcopy(teacher.generation_config)
    beside = _beside_blocks(teacher)
    if plan.embeddings == "copied":
        embeddings = {name: tensor for name, tensor in beside.items() if _EMBEDDING.search(name)}
        unknown = student.base_model.load_state_dict(embeddings, strict=False).unexpected_keys
        if unknown:
            raise InputError(
                f"the student has no place for the teacher's {unknown[0]}. Set student.embeddings to random."
            )
        _copy_language_head(teacher, student)
    copied = {tower: layers for tower, layers in plan.copied_layers.items() if layers}
    for tower, layers in copied.items():
        _copy_blocks(teacher, student, tower, layers)
    if copied:
        shared = {k: v for k, v in beside.items() if not _EMBEDDING.search(k) and "pooler" not in k}
        student.base_model.load_state_dict(shared, strict=False)
    if plan.freeze_embeddings:
        for parameter in student.get_input_embeddings().parameters():
            parameter.requires_grad_(False)
    return student


def _copy_blocks(teacher: PreTrainedModel, student: PreTrainedModel, tower: Tower, layers: tuple[int, ...]) -> None:
    ours, theirs = blocks(student, tower), blocks(teacher, tower)
    first = theirs[0].state_dict()
    for block, layer in zip(ours, layers, strict=True):
        source = theirs[layer - 1].state_dict()
        # T5 keeps the position biases of all blocks in its first one.
        own = {name: source.get(name, first.get(name)) for name in block.state_dict()}
        block.load_state_dict({name: tensor for name, tensor in own.items() if tensor is not None})


def _beside_blocks(model: PreTrainedModel) -> Mapping[str, torch.Tensor]:
    """The base model's tensors outside its blocks and outside a language model's head, which T5's base holds."""
    base = model.base_model
    others = [*(blocks(model, tower) for tower in towers_of(model.config)), model.get_output_embeddings()]  # type: ignore[no-untyped-call]
    prefixes = tuple(f"{name}." for name, module in base.named_modules() if any(module is of for of in others))
    return {name: tensor for name, tensor in base.state_dict().items() if not name.startswith(prefixes)}


def _copy_language_head(teacher: PreTrainedModel, student: PreTrainedModel) -> None:
    head = teacher.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None:
        return
    student.get_output_embeddings().load_state_dict(head.state_dict())  # type: ignore[no-untyped-call]
    bias = getattr(teacher, "final_logits_bias", None)  # in BART and Marian it is a buffer beside the head
    if bias is not None:
        student.get_buffer("final_logits_bias").copy_(bias)
