"""measure_angles: models and texts in, an AngleResult out; one pass of the teacher serves many students."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Unpack

import numpy as np
import xarray as xr
from accelerate import PartialState

from layerangles.errors import InputError
from layerangles.geometry.preprocessing import Preprocessing, parse_preprocessing
from layerangles.geometry.student_tower import StudentTower
from layerangles.layers import Tower
from layerangles.measurement.fitted_maps import MapMeter
from layerangles.measurement.gradient_space import GradientMeter
from layerangles.measurement.meter import AngleMeter, TeacherMeter
from layerangles.measurement.paper_convention import PaperMeter, check_positions, padded
from layerangles.measurement.passes import MeasuredStudent, Passes, Progress, over_processes
from layerangles.models.checkpoints import ModelCheckpoint, check_same_tokenizer, tokenizer_sha256
from layerangles.models.pairing import StudentLike, check_equal_width, common_teacher, open_students, student_tower
from layerangles.models.states import n_layers, towers_of, width
from layerangles.models.texts import EncodedTexts, Text
from layerangles.results.angle_result import SCHEMA_VERSION, AngleResult
from layerangles.settings import FitKind, MeasurementSettings, SettingsKeywords, with_settings
from layerangles.versions import versions


@with_settings
def measure_angles(
    students: StudentLike | Sequence[StudentLike],
    data: Sequence[Text],
    *,
    teacher: str | Path | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    **settings: Unpack[SettingsKeywords],
) -> AngleResult:
    """Measure the angles between all teacher layers, seen from every layer of every student.

    The angle of Yu, Wen and Mou (2025), in its general form ``∠(T_i − W S, T_j − W S)`` with the student's own
    matching map W: per token, then the mean over all tokens, with an interval clustered by example.

    Under ``accelerate launch`` (``torchrun`` on CPUs) every process measures a part of the data, and all return the
    result of the whole.

    Args:
        students: student directories or opened students; with ``teacher``, any models that have its towers.
        data: one string or pair of strings per example; ``(source, target)`` for encoder-decoders.
        teacher: the teacher's directory or hub name; by default the one that all students were trained against.
        trust_remote_code: whether code that comes with a model may run.
        progress: called after every batch with the name of the pass and the share of it done, 0 to 1.
        **settings: the fields of :class:`layerangles.settings.MeasurementSettings`, which documents them.

    Returns:
        The result, with hashes of weights, tokenizer and data among its attributes.

    Raises:
        InputError: settings, directories, models or texts are not usable (raised before the first forward pass), or a
            model's states are not finite (raised where they occur).
    """
    chosen = MeasurementSettings(**settings)
    checkpoint, measured = _opened(students, teacher, trust_remote_code, chosen)
    encoded = _encoded(data, checkpoint, measured, chosen)
    passes = Passes(checkpoint, encoded, chosen, progress)
    if chosen.fit is not None:
        measured = _with_fitted_maps(passes, measured, chosen.fit)
    if chosen.convention == "paper":
        dataset = _in_paper_convention(passes, measured)
    elif chosen.space == "gradient":
        dataset = _in_gradient_space(passes, measured)
    else:
        dataset = _between_states(passes, measured)
    provenance = {
        "schema_version": SCHEMA_VERSION,
        **chosen.attributes(),
        "device": passes.runner.device.type,
        "n_texts": len(encoded),
        "n_truncated": encoded.n_truncated,
        "stopped": "all texts",
        "data_sha256": encoded.data_sha256,
        "tokenizer_sha256": tokenizer_sha256(encoded.tokenizer),
        "teacher": str(teacher or checkpoint.path),
        "teacher_weights_sha256": checkpoint.weights_sha256,
        "versions": json.dumps(versions()),
    }
    return AngleResult(dataset.assign_attrs(provenance | dataset.attrs))


def _opened(
    students: StudentLike | Sequence[StudentLike],
    teacher: str | Path | None,
    trust_remote_code: bool,
    settings: MeasurementSettings,
) -> tuple[ModelCheckpoint, list[MeasuredStudent]]:
    """Open the teacher and the students at every step to be measured, and check them against each other."""
    opened = open_students(students, teacher, trust_remote_code)
    any_width = settings.fit in ("ridge", "orthogonal")
    checkpoint = common_teacher(opened, teacher, trust_remote_code, any_width=any_width)
    if settings.fit == "identity":
        check_equal_width(opened, checkpoint)
    tokenizer = checkpoint.load_tokenizer()
    for student in opened:
        check_same_tokenizer(tokenizer, student.load_tokenizer(), student.name)
    towers = towers_of(checkpoint.config)
    measured = [
        MeasuredStudent(one, [student_tower(one, checkpoint, tower) for tower in towers])
        for student in opened
        for one in (student.checkpoints() if settings.steps else [student])
    ]
    if settings.fit is None and not any(tower.layers for tower in _towers(measured)):
        widths = sorted({width(student.config) for student in opened})
        raise InputError(
            f"no student layer can be put into teacher space: the students' widths are {widths}, the teacher's is "
            f"{width(checkpoint.config)}, and no maps were trained. Train with a matching strategy, or fit maps to "
            'the data (fit="ridge").'
        )
    return checkpoint, measured


def _towers(students: Sequence[MeasuredStudent]) -> list[StudentTower]:
    return [tower for student in students for tower in student.towers]


def _encoded(
    data: Sequence[Text], teacher: ModelCheckpoint, students: Sequence[MeasuredStudent], settings: MeasurementSettings
) -> EncodedTexts:
    """Tokenize the texts; raise an :class:`InputError` if they are too long or too few."""
    encoded = EncodedTexts.from_texts(
        data,
        teacher.load_tokenizer(),
        max_length=settings.max_length,
        special_tokens=settings.special_tokens,
        config=teacher.config,
    )
    encoded.check_fits([teacher.config, *(student.checkpoint.config for student in students)])
    if len(encoded) < 2 * settings.shard[1]:
        raise InputError(
            f"{len(encoded)} text(s) in {settings.shard[1]} part(s) are too few: an interval needs two examples or "
            "more in every part. Give more texts."
        )
    return encoded


def _with_fitted_maps(passes: Passes, students: Sequence[MeasuredStudent], kind: FitKind) -> list[MeasuredStudent]:
    meter = passes.run(MapMeter(_towers(students)), students, "fitting maps")
    fitted = iter(meter.fitted(_towers(students), kind))
    return [MeasuredStudent(checkpoint, [next(fitted) for _ in towers]) for checkpoint, towers in students]


def _between_states(passes: Passes, students: Sequence[MeasuredStudent]) -> xr.Dataset:
    """Angles between states or between pulls, ``students_per_pass`` students at a time."""
    settings, config = passes.settings, passes.teacher.config
    depths = {tower: n_layers(config, tower) + 1 for tower in towers_of(config)}
    preprocessing = _preprocessing(passes)

    def run(group: Sequence[MeasuredStudent]) -> AngleMeter:
        meter = AngleMeter(_towers(group), depths, settings, preprocessing, passes.runner.sums_device)
        return passes.run(meter, group, "angles", until=settings.until)

    # Where the data decide when to stop, they decide for all together.
    size = settings.students_per_pass if settings.until is None else len(students)
    *groups, last = (students[start : start + size] for start in range(0, len(students), size))
    parts = [part for group in groups for part in run(group).parts()]
    meter = run(last)
    dataset = meter.compute(parts)
    if settings.until is not None and meter.n_examples < len(passes.encoded):
        dataset.attrs["stopped"] = f"all intervals narrower than {settings.until}°"
    return dataset


def _preprocessing(passes: Passes) -> dict[Tower, Preprocessing]:
    """The preprocessing of each tower; takes a pass of the teacher if it depends on statistics."""
    kind, towers = passes.settings.preprocessing, towers_of(passes.teacher.config)
    if not parse_preprocessing(kind).needs_statistics:
        return {tower: Preprocessing.of(kind) for tower in towers}
    statistics = passes.run(TeacherMeter(towers), [], "teacher statistics").statistics
    return {tower: Preprocessing.of(kind, statistics[tower]) for tower in towers}


def _in_paper_convention(passes: Passes, students: Sequence[MeasuredStudent]) -> xr.Dataset:
    """Angles in the paper's convention."""
    settings, encoded, process = passes.settings, passes.encoded, PartialState()
    meter = PaperMeter(_towers(students), settings)
    check_positions(settings.max_length, [passes.teacher.config, *(one.checkpoint.config for one in students)])
    # Whole batches to every process: they weigh alike, whatever their size.
    batches = islice(encoded.batches(settings.batch_size), process.process_index, None, process.num_processes)
    pad_id = encoded.tokenizer.pad_token_id or 0
    filled = (padded(batch, settings.max_length, pad_id) for batch in batches)
    return passes.run(meter, students, "angles, paper's convention", batches=filled).compute()


def _in_gradient_space(passes: Passes, students: Sequence[MeasuredStudent]) -> xr.Dataset:
    """Angles between gradients; every process takes some of the towers."""
    settings, process = passes.settings, PartialState()
    meter = GradientMeter(settings, min(len(passes.encoded), settings.gradient_batches * settings.batch_size))
    pairs = [(one.checkpoint, tower) for one in students for tower in one.towers if tower.layers]
    for i in np.array_split(range(len(pairs)), process.num_processes)[process.process_index]:
        meter.update(pairs[i][1], passes.gradient_products(*pairs[i]))
    return over_processes(meter).compute()
