"""Who is measured: students opened and named apart, their common teacher, and what must fit between the two."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from layerangles.errors import InputError
from layerangles.models.checkpoints import ModelCheckpoint, StudentCheckpoint, open_student, resolve
from layerangles.models.states import towers_of, width

StudentLike = str | Path | StudentCheckpoint


def open_students(
    students: StudentLike | Sequence[StudentLike], teacher: str | Path | None, trust_remote_code: bool
) -> list[StudentCheckpoint]:
    """The students, each with a name of its own.

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
    """A student directory if it is one, else any checkpoint, as a student that was never matched."""
    path = resolve(model)
    if (path / "matching.json").exists():
        return open_student(path, trust_remote_code)
    return StudentCheckpoint(path, trust_remote_code, name=Path(model).name)


def _with_unique_names(students: Sequence[StudentCheckpoint]) -> Iterator[StudentCheckpoint]:
    """Students of the same name get their study's name before it, or where that is the same too, their path."""
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
    """The teacher that is named, or the one that all students know.

    Args:
        students: from :func:`open_students`.
        teacher: its directory or hub name, if it is named.
        trust_remote_code: whether code that comes with a model may run.
        any_width: whether maps will be fitted, so that unmatched students may be of any width.

    Raises:
        InputError: students of different teachers, or a teacher that a student cannot be compared with.
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
