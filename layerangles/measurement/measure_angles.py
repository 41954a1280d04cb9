"""Measure angles: students and texts in, an AngleResult out; one teacher forward for many students."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import xarray as xr
from accelerate import PartialState

from layerangles.errors import InputError
from layerangles.geometry.nulls import Null, check_nulls
from layerangles.geometry.preprocessing import Preprocessing, TeacherStatistics, parse_preprocessing
from layerangles.layers import FinalNorm, Tower
from layerangles.measurement import passes
from layerangles.measurement.paper_convention import measure_as_paper
from layerangles.measurement.passes import Alternatives, Precision, Settings
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, check_same_tokenizer, tokenizer_sha256
from layerangles.models.pairing import StudentLike, common_teacher, open_students
from layerangles.models.states import n_layers, towers_of, width
from layerangles.models.student_tower import SPACES, Space, StudentTower
from layerangles.models.texts import EncodedTexts, Text
from layerangles.results import labelling
from layerangles.results.angle_result import SCHEMA_VERSION, AngleResult
from layerangles.sums.map_fitting import MapKind
from layerangles.versions import versions

Convention = Literal["layerangles", "paper"]


def measure_angles(
    students: StudentLike | Sequence[StudentLike],
    data: Sequence[Text],
    *,
    teacher: str | Path | None = None,
    space: Space = "teacher",
    nulls: Sequence[Null] = ("N1",),
    preprocessing: str = "raw",
    alternatives: Alternatives = "none",
    fit: MapKind | None = None,
    convention: Convention = "layerangles",
    steps: bool = False,
    until: float | None = None,
    shard: tuple[int, int] = (0, 1),
    gradient_batches: int = 8,
    final_norm: FinalNorm = "pre",
    special_tokens: bool = True,
    max_length: int = 128,
    batch_size: int = 32,
    precision: Precision = "float32",
    device: str = "auto",
    confidence: float = 0.95,
    students_per_pass: int = 12,
    trust_remote_code: bool = False,
    progress: Callable[[str, float], None] | None = None,
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
        space: where the angle is taken. ``"teacher"`` is the paper's: between ``R_i = T_i − W S``. ``"pull"``: between
            ``Wᵀ R_i``, the directions in which the matching loss moves the student's state. ``"gradient"``: between
            the gradients of the matching losses by the student's parameters, summed over ``gradient_batches``.
        nulls: the baselines to measure beside it, see :mod:`layerangles.geometry.nulls`; not in gradient space.
        preprocessing: what is done to all states first: ``"raw"``, ``"centred"``, ``"z"``, ``"unit"`` or ``"drop-K"``,
            see :mod:`layerangles.geometry.preprocessing`. All but ``"raw"`` and ``"unit"`` take a pass over the teacher
            more.
        alternatives: measure what else may explain the result (teacher space only). ``"sums"``: common-mode ratio,
            distances, structured cosine, each dimension's share of the dot product. ``"all"``: debiased CKA and the
            recoverability gap too, from a sample of 2048 tokens, which takes seconds a student.
        fit: fit maps to the data, in a pass more, instead of using the student's own: ``"identity"``, ``"ridge"`` or
            ``"orthogonal"``; for models that were never matched, of whatever width. The result has each map's
            held-out R² as ``map_r2``.
        convention: ``"paper"`` counts as the paper's code does, see :mod:`layerangles.measurement.paper_convention`.
        steps: measure the checkpoints along training too; the result then has a ``step`` axis.
        until: end the pass as soon as the widest interval of a mean angle is narrower than this, in degrees. The
            texts then come in random order instead of by length.
        shard: ``(i, n)``, counted from 0: measure one of n disjoint parts of the data; see :meth:`AngleResult.merge`.
        gradient_batches: how many batches the gradients are summed over.
        final_norm: take the last layer of a pre-norm model before (``"pre"``) or after its final norm (``"post"``).
        special_tokens: whether special tokens count. PAD never does.
        max_length: tokens after which a text is cut; the result says how many were.
        batch_size: examples a forward pass; it does not change the result.
        precision: ``"bfloat16"`` runs the models under autocast: faster where the hardware has it, and off by about
            0.04° on average. The angles themselves are computed in float64 either way.
        device: ``"auto"`` takes the best that is present.
        confidence: of the intervals.
        students_per_pass: how many students are in memory at a time; each further group repeats the teacher.
        trust_remote_code: whether code that comes with a model may run.
        progress: called after every batch with the name of the pass and the share of it that is done, 0 to 1.

    Returns:
        The result, with hashes of weights, tokenizer and data among its attributes.

    Raises:
        InputError: anything wrong with the settings, the directories, the models or the texts, before the first
            forward pass; and a model whose states are not finite, where it shows.
    """
    _check_choice("space", space, SPACES)
    _check_choice("final_norm", final_norm, ("pre", "post"))
    _check_choice("precision", precision, ("float32", "bfloat16"))
    _check_choice("alternatives", alternatives, get_args(Alternatives))
    _check_choice("convention", convention, get_args(Convention))
    if fit is not None:
        _check_choice("fit", fit, get_args(MapKind))
    _check_numbers(
        confidence,
        until,
        shard,
        batch_size=batch_size,
        students_per_pass=students_per_pass,
        gradient_batches=gradient_batches,
    )
    chosen_nulls = check_nulls(nulls) if space != "gradient" and convention != "paper" else ()
    parse_preprocessing(preprocessing)
    _check_together(space, preprocessing, convention, alternatives=alternatives, fit=fit, until=until, shard=shard)
    opened = open_students(students, teacher, trust_remote_code)
    teacher_checkpoint = common_teacher(opened, teacher, trust_remote_code, any_width=fit in ("ridge", "orthogonal"))
    _check_identity(fit, opened, teacher_checkpoint)
    entries = [checkpoint for student in opened for checkpoint in (student.checkpoints() if steps else [student])]
    tokenizer = teacher_checkpoint.load_tokenizer()
    for student in opened:
        check_same_tokenizer(tokenizer, student.load_tokenizer(), student.name)
    student_towers = [
        StudentTower.of(entry, teacher_checkpoint, tower)
        for entry in entries
        for tower in towers_of(teacher_checkpoint.config)
    ]
    if fit is None and not any(student_tower.layers for student_tower in student_towers):
        widths = sorted({width(entry.config) for entry in entries})
        raise InputError(
            f"no student layer can be put into teacher space: the students' widths are {widths}, the teacher's is "
            f"{width(teacher_checkpoint.config)}, and no maps were trained. Train with a matching strategy, or fit "
            'maps to the data (fit="ridge").'
        )
    encoded = EncodedTexts.from_texts(
        data, tokenizer, max_length=max_length, special_tokens=special_tokens, config=teacher_checkpoint.config
    )
    encoded.check_fits([teacher_checkpoint.config, *(entry.config for entry in entries)])
    if len(encoded) < 2 * shard[1]:
        raise InputError(
            f"{len(encoded)} text(s) in {shard[1]} part(s) are too few: an interval needs two examples or more in "
            "every part. Give more texts."
        )

    settings = Settings(
        space=space,
        nulls=chosen_nulls,
        preprocessing={},
        alternatives=alternatives,
        final_norm=final_norm,
        precision=precision,
        device=device_of(device),
        batch_size=batch_size,
        confidence=confidence,
        until=until,
        shard=shard,
        progress=progress,
    )
    policies: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "space": space,
        "convention": convention,
        "preprocessing": preprocessing,
        "maps": "the student's" if fit is None else f"fitted: {fit}",
        "final_norm": final_norm,
        "special_tokens": "counted" if special_tokens else "left out",
        "aggregation": "per token, then mean over tokens; intervals clustered by example",
        "confidence": confidence,
        "precision": precision,
        "device": settings.device.type,
        "max_length": max_length,
        "n_texts": len(encoded),
        "n_truncated": encoded.n_truncated,
        "shards": f"{shard[0]}/{shard[1]}",
        "stopped": "all texts",
        "data_sha256": encoded.data_sha256,
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
        "teacher": str(teacher or teacher_checkpoint.path),
        "teacher_weights_sha256": teacher_checkpoint.weights_sha256,
        "versions": json.dumps(versions()),
    }
    if fit is not None:
        student_towers = passes.fit_maps(student_towers, teacher_checkpoint, encoded, settings, fit)
    if convention == "paper":
        dataset = _measure_as_paper(student_towers, teacher_checkpoint, encoded, settings, max_length, steps)
    elif space == "gradient":
        dataset = _measure_gradients(student_towers, teacher_checkpoint, encoded, settings, gradient_batches, steps)
    else:
        by_tower = _preprocessing(preprocessing, teacher_checkpoint, encoded, settings)
        settings = dataclasses.replace(settings, preprocessing=by_tower)
        dataset = _measure(student_towers, teacher_checkpoint, encoded, settings, students_per_pass, steps)
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


def _check_numbers(confidence: float, until: float | None, shard: tuple[int, int], **at_least_one: int) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; allowed is a number between 0 and 1, such as 0.95.")
    if until is not None and not until > 0:
        raise InputError(f"until is {until}; allowed is a width in degrees above 0, such as 0.1.")
    if not 0 <= shard[0] < shard[1]:
        raise InputError(f"the shard is {shard[0]}/{shard[1]}; allowed are 0/n to n-1/n.")
    for setting, number in at_least_one.items():
        if number < 1:
            raise InputError(f"{setting} is {number}; allowed are 1 and more.")


def _check_identity(fit: MapKind | None, students: Sequence[StudentCheckpoint], teacher: ModelCheckpoint) -> None:
    for student in students if fit == "identity" else []:
        if width(student.config) != width(teacher.config):
            raise InputError(
                f"{student.name} has width {width(student.config)}, its teacher {width(teacher.config)}: no identity "
                'map leads from one to the other. Choose fit="ridge" or fit="orthogonal".'
            )


def _check_together(
    space: Space,
    preprocessing: str,
    convention: Convention,
    *,
    alternatives: Alternatives,
    fit: MapKind | None,
    until: float | None,
    shard: tuple[int, int],
) -> None:
    """Settings that exclude each other."""
    plain: dict[str, tuple[object, object]] = {
        "preprocessing": (preprocessing, "raw"),
        "alternatives": (alternatives, "none"),
    }
    streamed: dict[str, tuple[object, object]] = plain | {"until": (until, None), "shard": (shard, (0, 1))}
    excluded: dict[str, dict[str, tuple[object, object]]] = {
        'space="pull"': plain if space == "pull" else {},
        'space="gradient"': streamed if space == "gradient" else {},
        'convention="paper"': streamed | {"space": (space, "teacher"), "fit": (fit, None)}
        if convention == "paper"
        else {},
    }
    for where, settings in excluded.items():
        for setting, (got, allowed) in settings.items():
            if got != allowed:
                raise InputError(
                    f"{setting} is {got!r}; with {where} only {allowed!r} is allowed. Leave one of them out."
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


def _check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}.")
