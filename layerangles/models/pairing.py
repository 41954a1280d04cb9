"""Students and their common teacher, opened for a measurement and checked against each other."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from layerangles.errors import InputError
from layerangles.geometry.student_tower import StudentTower
from layerangles.layers import LayerPair, Tower
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, open_student, resolve
from layerangles.models.matching_file import MAPS_FILE
from layerangles.models.states import n_layers, towers_of, width

StudentLike = str | Path | StudentCheckpoint


def open_students(
    students: StudentLike | Sequence[StudentLike], teacher: str | Path | None, trust_remote_code: bool
) -> list[StudentCheckpoint]:
    """Open students and give each a unique name.

    Raises:
        InputError: none was given, one was given twice, or one cannot be opened.
    """
    listed = [students] if isinstance(students, str | Path | StudentCheckpoint) else list(students)
    if not listed:
        raise InputError("there is nothing to measure: got no students. Give at least one student directory.")
    opened = [
        student
        if isinstance(student, StudentCheckpoint)
        else _any_model(str(student), trust_remote_code)
        if teacher is not None
        else open_student(student, trust_remote_code)
        for student in listed
    ]
    return list(_with_unique_names(opened))


def _any_model(model: str, trust_remote_code: bool) -> StudentCheckpoint:
    """Open a student directory, or any other model as a student that was never matched."""
    path = resolve(model)
    if (path / "matching.json").exists():
        return open_student(path, trust_remote_code)
    return StudentCheckpoint(path, trust_remote_code, name=Path(model).name)


def _with_unique_names(students: Sequence[StudentCheckpoint]) -> Iterator[StudentCheckpoint]:
    """Put the study's name before names that occur twice, and where that does not tell them apart, use the path."""
    paths = [student.path.resolve() for student in students]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"the student {path} is given twice. Give every student once.")
    names = [student.name for student in students]
    with_study = [f"{path.parent.parent.name}/{name}" for path, name in zip(paths, names, strict=True)]
    for longer in (with_study, [str(path) for path in paths]):
        names = [long if names.count(name) > 1 else name for name, long in zip(names, longer, strict=True)]
    for student, name in zip(students, names, strict=True):
        yield dataclasses.replace(student, name=name)


def common_teacher(
    students: Sequence[StudentCheckpoint], teacher: str | Path | None, trust_remote_code: bool, *, any_width: bool
) -> ModelCheckpoint:
    """The teacher named, or else the one that all students were trained against.

    Args:
        students: from :func:`open_students`.
        teacher: its directory or hub name; None takes the students' own.
        trust_remote_code: whether code that comes with a model may run.
        any_width: whether unmatched students may have any width, because maps will be fitted.

    Raises:
        InputError: the students have different teachers, or cannot be compared with this one.
    """
    if teacher is None:
        checkpoint = students[0].open_teacher()
        for student in students[1:]:
            if student.matching and student.matching.teacher.weights_sha256 != checkpoint.weights_sha256:
                raise InputError(
                    f"{students[0].name} and {student.name} have different teachers. Measure them in two calls, "
                    "since one angle needs one teacher."
                )
    else:
        checkpoint = ModelCheckpoint(resolve(str(teacher)), trust_remote_code)
    for student in students:
        ours, theirs = towers_of(checkpoint.config), towers_of(student.config)
        if ours != theirs:
            raise InputError(
                f"{student.name} has the towers {theirs}, its teacher {ours}. Only models of the same towers can be "
                "compared: encoders with encoders, decoders with decoders, encoder-decoders with their like."
            )
        widths = width(checkpoint.config), width(student.config)
        if teacher is not None and not any_width and widths[0] != widths[1] and not student.load_maps().by_layer:
            raise InputError(
                f"{student.name} has width {widths[1]}, the teacher {widths[0]}. Two models that were never matched "
                'can be compared only at equal width, or through maps fitted to the data (fit="ridge", --fit ridge).'
            )
    return checkpoint


def check_equal_width(students: Sequence[StudentCheckpoint], teacher: ModelCheckpoint) -> None:
    """Raise an :class:`InputError` unless all students have the teacher's width, which identity maps need."""
    for student in students:
        if width(student.config) != width(teacher.config):
            raise InputError(
                f"{student.name} has width {width(student.config)}, its teacher {width(teacher.config)}: no identity "
                'map leads from one to the other. Choose fit="ridge" or fit="orthogonal".'
            )


def student_tower(student: StudentCheckpoint, teacher: ModelCheckpoint, tower: Tower) -> StudentTower:
    """A tower of a student with the maps it was trained with; the identity where no map was needed.

    Raises:
        InputError: matched pairs or maps do not fit the two models.
    """
    stored = student.load_maps().by_layer
    matching = student.matching.towers.get(tower) if student.matching else None
    matched = matched_pairs(student, teacher, tower)
    same_width = width(student.config) == width(teacher.config)
    identity = same_width and (matching is None or matching.map == "identity")
    depth = n_layers(student.config, tower) + 1
    layers = [layer for layer in range(depth) if identity or (tower, layer) in stored]
    return StudentTower(
        student=student.name,
        tower=tower,
        n_layers=depth,
        layers=layers,
        maps=[stored.get((tower, layer)) for layer in layers],
        matched=matched,
        step=student.step,
        weights_sha256=student.weights_sha256,
    )


def matched_pairs(student: StudentCheckpoint, teacher: ModelCheckpoint, tower: Tower) -> tuple[LayerPair, ...]:
    """The pairs that training matched in a tower; none if the student was matched to another teacher.

    Raises:
        InputError: pairs or stored maps do not fit the two models, or a map is missing.
    """
    stored = student.load_maps().by_layer
    shape = (width(teacher.config), width(student.config))
    problems = [
        f"the map of layer {layer} has the shape {tuple(m.weight.shape)}, the models need {shape}"
        for (of, layer), m in sorted(stored.items())
        if of == tower and m.weight.shape != shape
    ]
    matching = student.matching
    pairs: tuple[LayerPair, ...] = ()
    if matching is not None and tower in matching.towers:
        if matching.teacher.weights_sha256 == teacher.weights_sha256:
            pairs = matching.towers[tower].pairs
        last = (n_layers(student.config, tower), n_layers(teacher.config, tower))
        problems += [
            f"the pair {pair} names a layer that is not there: the last ones are {last}"
            for pair in pairs
            if pair[0] > last[0] or pair[1] > last[1]
        ]
        if matching.towers[tower].map != "identity":
            without = sorted({layer for layer, _ in matching.towers[tower].pairs if (tower, layer) not in stored})
            problems += [f"{MAPS_FILE} has no map for the matched layer {layer}" for layer in without]
    if problems:
        raise InputError(f"{student.path} does not fit {teacher.path}: {'; '.join(problems)}. Train the student anew.")
    return pairs
