"""What a study will do, worked out and checked before it does it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from kd_train import embedded
from kd_train.matching import Strategy, layer_pairs
from kd_train.students import StudentPlan, plan_student, student_config
from kd_train.study import Study, TeacherSpec
from layerangles.checkpoints import LayerPair, load_config, resolve
from layerangles.errors import InputError
from layerangles.states import n_positions, towers_of

T = TypeVar("T")


@dataclass(frozen=True)
class StudyPlan:
    """A study with everything settled that can be without data and weights.

    ``pairs`` are ``(student_layer, teacher_layer)``, 0 the embedding output, by the strategy's label.
    """

    study: Study
    teacher: PretrainedConfig
    student: StudentPlan
    tower: str
    pairs: dict[str, tuple[LayerPair, ...]]
    teacher_parameters: int
    student_parameters: int

    @property
    def notes(self) -> list[str]:
        """What a reader of the results should know before the run: strategies that are one and the same map."""
        seen: dict[tuple[LayerPair, ...], str] = {}
        notes = []
        for label, pairs in self.pairs.items():
            if pairs in seen:
                notes.append(f"{label} is the same map as {seen[pairs]}: their students will be equal to the bit.")
            seen.setdefault(pairs, label)
        return notes

    def student_names(self, seed: int) -> dict[str, Strategy]:
        """The directories of one seed's students, and their strategies."""
        return {f"{strategy.label}-seed{seed}": strategy for strategy in self.study.strategies}


def plan_study(study: Study) -> StudyPlan:
    """Settle a study against its teacher's configuration; no weights are read.

    Raises:
        InputError: the teacher has no configuration, or something in the study is impossible with it.
    """
    config = teacher_config(study.teacher)
    if study.task.known_n_labels and study.teacher.finetune is not None:  # else the teacher keeps its own
        config.num_labels = study.task.known_n_labels
    towers = towers_of(config)
    if towers != ("encoder",):
        kind = "a decoder" if towers == ("decoder",) else "an encoder-decoder"
        raise InputError(
            f"the teacher {study.teacher.model} is {kind} ({config.model_type}); this version trains students of "
            "encoder classifiers, such as BERT."
        )
    longest = n_positions(config)
    if longest is not None and study.task.max_length > longest:
        raise InputError(
            f"task.max_length is {study.task.max_length}, but the teacher has positions for {longest} tokens. Lower it."
        )
    mistakes: list[str] = []
    student = _settle(mistakes, lambda: plan_student(study.student, config))
    pairs = {
        strategy.label: _settle(mistakes, partial(_pairs, study, strategy, config.num_hidden_layers))
        for strategy in study.strategies
        if study.student.layers <= config.num_hidden_layers  # else every strategy would repeat it
    }
    if student is None or mistakes:
        raise InputError("\n  - ".join(["the study is not possible with this teacher:", *mistakes]))
    return StudyPlan(
        study=study,
        teacher=config,
        student=student,
        tower=towers[0],
        pairs={label: found for label, found in pairs.items() if found is not None},
        teacher_parameters=_count_parameters(config),
        student_parameters=_count_parameters(student_config(student, config)),
    )


def _settle(mistakes: list[str], work: Callable[[], T]) -> T | None:
    """Do a part of the planning; a mistake is kept for one message with all of them."""
    try:
        return work()
    except InputError as error:
        mistakes.append(str(error))
        return None


def _pairs(study: Study, strategy: Strategy, teacher_layers: int) -> tuple[LayerPair, ...]:
    return layer_pairs(strategy, study.student.layers, teacher_layers, embedding_pair=study.embedding_pair)


def teacher_config(teacher: TeacherSpec) -> PretrainedConfig:
    """The teacher's configuration, without its weights where it comes from the hub."""
    model = str(embedded.model_path(teacher.model)) if embedded.is_embedded(teacher.model) else teacher.model
    return load_config(model, revision=teacher.revision)


def teacher_path(teacher: TeacherSpec) -> Path:
    """The local directory of the teacher's weights, fetched if need be."""
    if embedded.is_embedded(teacher.model):
        return embedded.model_path(teacher.model)
    return resolve(teacher.model, revision=teacher.revision)


def _count_parameters(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    return sum(parameter.numel() for parameter in model.parameters())
