"""The plan of a study: its students, pairs and losses, settled and checked before anything is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PretrainedConfig, PreTrainedModel

from kd_train.data import embedded
from kd_train.matching.assignments import Assignment
from kd_train.matching.losses import LossSpec
from kd_train.matching.strategies import assign, layer_pairs
from kd_train.students.student_plan import StudentPlan, plan_student, student_config
from kd_train.students.student_spec import StudentSpec
from kd_train.study.specs import TeacherSpec
from kd_train.study.study_file import Study, Variant
from layerangles.errors import InputError
from layerangles.layers import LayerPair, Tower
from layerangles.models.checkpoints import load_config, resolve
from layerangles.models.states import n_layers, n_positions, towers_of

T = TypeVar("T")


@dataclass(frozen=True)
class MemberPlan:
    """One strategy of a study with its defaults settled.

    Attributes:
        strategy: the study's entry.
        student: depth, width and origin of its students.
        loss: loss of its students.
        learning_rate: peak learning rate of its students.
        pairs: by matched tower, ``(student_layer, teacher_layer)``, 0 the embedding output; for a map that changes,
            the pairs of the first step.
    """

    strategy: Variant
    student: StudentPlan
    loss: LossSpec
    learning_rate: float
    pairs: dict[Tower, tuple[LayerPair, ...]]


@dataclass(frozen=True)
class StudyPlan:
    """A study with everything settled that needs neither data nor weights.

    Attributes:
        study: the study as it was read.
        teacher: the teacher's configuration.
        members: the settled strategies, by label.
    """

    study: Study
    teacher: PretrainedConfig
    members: dict[str, MemberPlan]

    @property
    def towers(self) -> tuple[Tower, ...]:
        """The matched towers."""
        return self.study.towers or towers_of(self.teacher)

    @property
    def teacher_depths(self) -> dict[Tower, int]:
        """Number of the teacher's blocks, by tower."""
        return {tower: n_layers(self.teacher, tower) for tower in towers_of(self.teacher)}

    @property
    def notes(self) -> list[str]:
        """Warnings before the run: strategies whose students will be identical."""
        seen: dict[str, str] = {}
        notes = []
        for label, member in self.members.items():
            what = repr((member.pairs, member.student, member.loss, member.learning_rate, member.strategy.targets))
            if member.strategy.change:
                what += repr(member.strategy)
            if what in seen:
                notes.append(f"{label} is the same map as {seen[what]}: their students will be equal to the bit.")
            seen.setdefault(what, label)
        return notes

    def student_names(self, seed: int) -> dict[str, MemberPlan]:
        """Settled strategies of one seed's students, by the names of their directories."""
        return {f"{label}-seed{seed}": member for label, member in self.members.items()}

    def assignments(self, member: MemberPlan, *, steps_per_epoch: int) -> dict[Tower, Assignment]:
        """Assignments of a student's layers during training, by matched tower."""
        return {
            tower: assign(
                member.strategy,
                member.student.layers[tower],
                n_layers(self.teacher, tower),
                tower=tower,
                embedding_pair=self.study.embedding_pair,
                steps_per_epoch=steps_per_epoch,
            )
            for tower in self.towers
        }


def plan_study(study: Study) -> StudyPlan:
    """Settle a study against its teacher's configuration; no weights are read.

    Raises:
        InputError: the teacher has no configuration, or the study is impossible with it.
    """
    config = teacher_config(study.teacher)
    if study.teacher.finetune is not None:  # else the teacher keeps its own head
        study.task.fit_head(config)
    _check_teacher(study, config)
    plan = StudyPlan(study, config, _members(study, config))
    for place, run in (("teacher.finetune", study.teacher.finetune), ("training", study.training)):
        if run is not None and run.lora is not None:
            run.lora.check(without_weights(plan), place)
    return plan


def _members(study: Study, config: PretrainedConfig) -> dict[str, MemberPlan]:
    """Settle every strategy; everything that is impossible is reported in one error."""
    errors: list[str] = []
    students: dict[StudentSpec, StudentPlan | None] = {}  # an error in a shared specification is reported once
    members = {}
    for number, strategy in enumerate(study.strategies):
        spec, place = strategy.student or study.student, f"strategies.{number}"
        if spec not in students:
            of = f"{place}.student" if strategy.student else "student"
            students[spec] = _settle(errors, partial(plan_student, spec, config), of)
        student = students[spec]
        if student is None:
            continue
        pairs = _settle(errors, partial(_pairs, study, strategy, student, config), place)
        if pairs is not None:
            rate = strategy.learning_rate or study.training.learning_rate
            members[strategy.label] = MemberPlan(strategy, student, strategy.loss or study.loss, rate, pairs)
    if errors:
        raise InputError("\n  - ".join(["the study is not possible with this teacher:", *errors]))
    return members


def _settle(errors: list[str], work: Callable[[], T], place: str) -> T | None:
    """Result of a step of planning; None if it fails, with the error and its place added to ``errors``."""
    try:
        return work()
    except InputError as error:
        # What the message calls student.layers may be the layers of one strategy's students.
        message = str(error).replace("student.", f"{place}.") if place.endswith(".student") else str(error)
        errors.append(f"{place}: {message}")
        return None


def _check_teacher(study: Study, config: PretrainedConfig) -> None:
    towers, allowed = towers_of(config), study.task.towers()
    if towers not in allowed:
        fitting = " or ".join(_KINDS[kind] for kind in allowed)
        raise InputError(
            f"the teacher {study.teacher.model} is {_KINDS[towers]} ({config.model_type}), and task.kind "
            f"{study.task.kind} needs {fitting}. Choose another teacher.model or task.kind."
        )
    unknown = [tower for tower in study.towers or () if tower not in towers]
    if unknown:
        raise InputError(
            f"towers names {unknown[0]}, but the teacher {study.teacher.model} has only {' and '.join(towers)}. "
            "Leave towers out, or name what there is."
        )
    longest = n_positions(config)
    if longest is not None and study.task.max_length > longest:
        raise InputError(
            f"task.max_length is {study.task.max_length}, but the teacher has positions for {longest} tokens. Lower it."
        )


_KINDS: dict[tuple[Tower, ...], str] = {
    ("encoder",): "an encoder",
    ("decoder",): "a decoder",
    ("encoder", "decoder"): "an encoder-decoder",
}


def _pairs(
    study: Study, strategy: Variant, student: StudentPlan, config: PretrainedConfig
) -> dict[Tower, tuple[LayerPair, ...]]:
    towers = study.towers or towers_of(config)
    if isinstance(strategy.pairs, dict) and not strategy.pairs.keys() <= set(towers):
        raise InputError(
            f"the strategy {strategy.label} has pairs for {', '.join(strategy.pairs)}; matched here are "
            f"{' and '.join(towers)}. Name only these."
        )
    pairs = {
        tower: layer_pairs(
            strategy,
            student.layers[tower],
            n_layers(config, tower),
            tower=tower,
            embedding_pair=study.embedding_pair,
        )
        for tower in towers
    }
    if student.map == "pca" and strategy.change:
        raise InputError(
            f"the strategy {strategy.label} changes its map during training, and pca maps are made for one. "
            "Set student.map to learned, frozen or orthogonal."
        )
    return pairs


def teacher_config(teacher: TeacherSpec) -> PretrainedConfig:
    """The teacher's configuration; weights on the hub are not fetched.

    Raises:
        InputError: no configuration can be read.
    """
    try:
        model = str(embedded.model_path(teacher.model)) if embedded.is_embedded(teacher.model) else teacher.model
        return load_config(model, revision=teacher.revision)
    except InputError as error:
        raise InputError(f"teacher.model: {error}") from error


def teacher_path(teacher: TeacherSpec) -> Path:
    """Local directory of the teacher's weights, fetched if necessary."""
    if embedded.is_embedded(teacher.model):
        return embedded.model_path(teacher.model)
    return resolve(teacher.model, revision=teacher.revision)


def without_weights(plan: StudyPlan, student: StudentPlan | None = None) -> PreTrainedModel:
    """The teacher or a student on the meta device: parameters with shapes, and without memory."""
    config = plan.teacher if student is None else student_config(student, plan.teacher)
    with torch.device("meta"):
        model: PreTrainedModel = plan.study.task.auto_model().from_config(config)
    return model
