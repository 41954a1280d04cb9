"""Measure angles: students and texts in, an AngleResult out; one teacher forward for many students."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
import xarray as xr
from accelerate import PartialState

from layerangles.errors import InputError
from layerangles.geometry.preprocessing import Preprocessing, TeacherStatistics, parse_preprocessing
from layerangles.layers import Tower
from layerangles.measurement import passes
from layerangles.measurement.paper_convention import measure_as_paper
from layerangles.measurement.passes import Settings
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, check_same_tokenizer, tokenizer_sha256
from layerangles.models.pairing import StudentLike, common_teacher, open_students
from layerangles.models.states import n_layers, towers_of, width
from layerangles.models.student_tower import StudentTower
from layerangles.models.texts import EncodedTexts, Text
from layerangles.results import labelling
from layerangles.results.angle_result import SCHEMA_VERSION, AngleResult
from layerangles.settings import FitKind, MeasurementSettings, SettingsKeywords
from layerangles.versions import versions


def measure_angles(
    students: StudentLike | Sequence[StudentLike],
    data: Sequence[Text],
    *,
    teacher: str | Path | None = None,
    trust_remote_code: bool = False,
    progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[SettingsKeywords],
) -> AngleResult:
    """Measure the angles between all teacher layers, seen from every layer of every student.

    The angle of Yu, Wen and Mou (2025), in its general form ``∠(T_i − W S, T_j − W S)`` with the student's own
    matching map W: per token, then the mean over all tokens, with an interval clustered by example.

    Under ``accelerate launch`` (on CPUs ``torchrun``) every process measures a part of the data, and all return the
    result of the whole.

    Args:
        students: student directories (or opened ones). With ``teacher``, any models with the teacher's towers.
        data: the texts, one string or one pair of strings an example; ``(source, target)`` for encoder-decoders.
        teacher: the teacher's directory or hub name; by default each student knows its own, and it must be one.
        trust_remote_code: whether code that comes with a model may run.
        progress: called after every batch with the name of the pass and the share of it that is done, 0 to 1.
        **settings: how to measure: the fields of :class:`layerangles.settings.MeasurementSettings`.

    Returns:
        The result, with hashes of weights, tokenizer and data among its attributes.

    Raises:
        InputError: anything wrong with the settings, the directories, the models or the texts, before the first
            forward pass; and a model whose states are not finite, where it shows.
    """
    wanted = MeasurementSettings(**settings)
    opened = open_students(students, teacher, trust_remote_code)
    teacher_checkpoint = common_teacher(
        opened, teacher, trust_remote_code, any_width=wanted.fit in ("ridge", "orthogonal")
    )
    _check_identity(wanted.fit, opened, teacher_checkpoint)
    entries = [
        checkpoint for student in opened for checkpoint in (student.checkpoints() if wanted.steps else [student])
    ]
    tokenizer = teacher_checkpoint.load_tokenizer()
    for student in opened:
        check_same_tokenizer(tokenizer, student.load_tokenizer(), student.name)
    student_towers = [
        StudentTower.of(entry, teacher_checkpoint, tower)
        for entry in entries
        for tower in towers_of(teacher_checkpoint.config)
    ]
    if wanted.fit is None and not any(student_tower.layers for student_tower in student_towers):
        widths = sorted({width(entry.config) for entry in entries})
        raise InputError(
            f"no student layer can be put into teacher space: the students' widths are {widths}, the teacher's is "
            f"{width(teacher_checkpoint.config)}, and no maps were trained. Train with a matching strategy, or fit "
            'maps to the data (fit="ridge").'
        )
    encoded = EncodedTexts.from_texts(
        data,
        tokenizer,
        max_length=wanted.max_length,
        special_tokens=wanted.special_tokens,
        config=teacher_checkpoint.config,
    )
    encoded.check_fits([teacher_checkpoint.config, *(entry.config for entry in entries)])
    if len(encoded) < 2 * wanted.shard[1]:
        raise InputError(
            f"{len(encoded)} text(s) in {wanted.shard[1]} part(s) are too few: an interval needs two examples or more "
            "in every part. Give more texts."
        )

    run = Settings(
        space=wanted.space,
        nulls=tuple(wanted.nulls),
        preprocessing={},
        alternatives=wanted.alternatives,
        final_norm=wanted.final_norm,
        precision=wanted.precision,
        device=device_of(wanted.device),
        batch_size=wanted.batch_size,
        confidence=wanted.confidence,
        until=wanted.until,
        shard=wanted.shard,
        progress=progress,
    )
    policies: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        **wanted.attributes(),
        "aggregation": "per token, then mean over tokens; intervals clustered by example",
        "device": run.device.type,
        "n_texts": len(encoded),
        "n_truncated": encoded.n_truncated,
        "stopped": "all texts",
        "data_sha256": encoded.data_sha256,
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "teacher": str(teacher or teacher_checkpoint.path),
        "teacher_weights_sha256": teacher_checkpoint.weights_sha256,
        "versions": json.dumps(versions()),
    }
    if wanted.fit is not None:
        student_towers = passes.fit_maps(student_towers, teacher_checkpoint, encoded, run, wanted.fit)
    if wanted.convention == "paper":
        dataset = _measure_as_paper(student_towers, teacher_checkpoint, encoded, run, wanted.max_length, wanted.steps)
    elif wanted.space == "gradient":
        dataset = _measure_gradients(
            student_towers, teacher_checkpoint, encoded, run, wanted.gradient_batches, wanted.steps
        )
    else:
        by_tower = _preprocessing(wanted.preprocessing, teacher_checkpoint, encoded, run)
        run = dataclasses.replace(run, preprocessing=by_tower)
        dataset = _measure(student_towers, teacher_checkpoint, encoded, run, wanted.students_per_pass, wanted.steps)
    dataset.attrs = policies | dataset.attrs
    return AngleResult(dataset)


def _measure(
    student_towers: Sequence[StudentTower],
    teacher: ModelCheckpoint,
    encoded: EncodedTexts,
    settings: Settings,
    students_per_pass: int,
    steps: bool,
) -> xr.Dataset:
    parts: list[xr.Dataset] = []
    n_examples = 0
    # Where the data decide when to stop, they decide for all together.
    at_a_time = len(student_towers) if settings.until is not None else students_per_pass
    statistics: dict[Tower, TeacherStatistics] = {}
    for start in range(0, len(student_towers), at_a_time):
        some = student_towers[start : start + at_a_time]
        measured = passes.measure(some, teacher, encoded, settings)
        parts += [_labelled(*pair, teacher, steps) for pair in zip(some, measured.sums, strict=True)]
        statistics, n_examples = measured.statistics, max(n_examples, measured.n_examples)
    dataset = labelling.derived(labelling.combine(parts), settings.confidence)
    dataset = xr.merge([dataset, *labelling.top_dimensions(statistics)], combine_attrs="override")
    dataset.attrs = {"n_examples": n_examples}
    if settings.until is not None and n_examples < len(encoded):
        dataset.attrs["stopped"] = f"all intervals narrower than {settings.until}°"
    return dataset


def _measure_as_paper(
    student_towers: Sequence[StudentTower],
    teacher: ModelCheckpoint,
    encoded: EncodedTexts,
    settings: Settings,
    max_length: int,
    steps: bool,
) -> xr.Dataset:
    measured = measure_as_paper(student_towers, teacher, encoded, settings, max_length=max_length)
    dataset = labelling.combine(
        [
            labelling.placed(part, student_tower, steps)
            for student_tower, part in zip(student_towers, measured, strict=True)
        ]
    )
    dataset.attrs = {
        "n_examples": len(encoded),
        "aggregation": "per position, PAD included, then mean over a batch, then over batches",
    }
    return dataset


def _measure_gradients(
    student_towers: Sequence[StudentTower],
    teacher: ModelCheckpoint,
    encoded: EncodedTexts,
    settings: Settings,
    n_batches: int,
    steps: bool,
) -> xr.Dataset:
    parts = []
    for student_tower in student_towers:
        if student_tower.layers:
            products = passes.gradients(student_tower, teacher, encoded, settings, n_batches)
            parts.append(labelling.placed(labelling.labelled_gradients(products, student_tower), student_tower, steps))
    dataset = labelling.combine(parts)
    dataset.attrs = {
        "n_examples": min(len(encoded), n_batches * settings.batch_size),
        "aggregation": f"gradients summed over {n_batches} batches of {settings.batch_size} examples",
    }
    return dataset


def _labelled(student_tower: StudentTower, sums: passes.Sums, teacher: ModelCheckpoint, steps: bool) -> xr.Dataset:
    n_teacher = n_layers(teacher.config, student_tower.tower) + 1
    parts = [labelling.labelled(sums.angles, student_tower.layers, student_tower.n_layers, n_teacher)]
    if sums.relations is not None:
        parts.append(
            labelling.labelled_relations(sums.relations, student_tower.layers, student_tower.n_layers, n_teacher)
        )
    if sums.sample is not None:
        parts.append(
            labelling.labelled_alternatives(sums.sample, student_tower.layers, student_tower.n_layers, n_teacher)
        )
    return labelling.placed(xr.merge(parts), student_tower, steps)


def _preprocessing(
    kind: str, teacher: ModelCheckpoint, encoded: EncodedTexts, settings: Settings
) -> dict[Tower, Preprocessing]:
    towers = towers_of(teacher.config)
    if not parse_preprocessing(kind).needs_statistics:
        return {tower: Preprocessing.of(kind) for tower in towers}
    statistics = passes.teacher_statistics(teacher, encoded, settings)
    return {tower: Preprocessing.of(kind, statistics[tower]) for tower in towers}


def _check_identity(fit: FitKind | None, students: Sequence[StudentCheckpoint], teacher: ModelCheckpoint) -> None:
    for student in students if fit == "identity" else []:
        if width(student.config) != width(teacher.config):
            raise InputError(
                f"{student.name} has width {width(student.config)}, its teacher {width(teacher.config)}: no identity "
                'map leads from one to the other. Choose fit="ridge" or fit="orthogonal".'
            )


def device_of(name: str) -> torch.device:
    """The device of this process; by the way it joins the other processes, if it was launched with some."""
    on_cpu = name == "cpu" or (name == "auto" and not torch.accelerator.is_available())
    process = PartialState(cpu=on_cpu)
    if name == "auto":
        return torch.device(process.device)
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("it is of another kind")
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the device {name!r} is not there ({str(error).splitlines()[0]}). "
            "Allowed are auto, cpu, cuda, cuda:N and mps."
        ) from error
