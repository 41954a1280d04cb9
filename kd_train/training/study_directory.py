"""The directory of a study: claimed before any work, and checked for finished teachers and students."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from kd_train.study.folder_names import ENVIRONMENT_FILE, STUDENTS, TEACHER
from kd_train.study.score_logs import METRICS_FILE, read_metrics
from kd_train.study.study_file import RESOLVED_FILE, Study, read_study, write_resolved
from kd_train.training.member import Stop
from layerangles.errors import InputError
from layerangles.files import atomic_write
from layerangles.models.matching_file import MATCHING_FILE
from layerangles.versions import versions

STOPPED_FILE = "stopped.json"


def is_done(study: Study, seed: int) -> bool:
    """Whether all students of a seed are written, or marked as stopped."""
    students = study.folder / STUDENTS
    return all(
        any((students / f"{strategy.label}-seed{seed}" / file).exists() for file in (MATCHING_FILE, STOPPED_FILE))
        for strategy in study.strategies
    )


def teacher_is_done(study: Study) -> bool:
    """Whether the teacher is written and scored."""
    is_there = study.teacher.finetune is None or (study.folder / TEACHER).exists()
    log = read_metrics(study.folder / METRICS_FILE)
    return is_there and any(m.student == TEACHER and m.split == "dev" for m in log)


def mark_stopped(student: Path, stop: Stop) -> None:
    """Write into a student's directory why it holds no student."""
    with atomic_write(student / STOPPED_FILE, overwrite=True) as beside:
        beside.write_text(json.dumps(asdict(stop), indent=2) + "\n", encoding="utf-8")


def stopped_students(folder: Path) -> list[tuple[Path, str]]:
    """The directories of students that failed in a study, and the reasons."""
    files = sorted((folder / STUDENTS).glob(f"*/{STOPPED_FILE}"))
    return [(file.parent, str(json.loads(file.read_text(encoding="utf-8"))["reason"])) for file in files]


def check_claim(study: Study, *, resume: bool, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check, before any work, that the study may be written to its directory.

    Raises:
        InputError: the directory is in use, or deleting it would delete an input of the study.
    """
    folder = study.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RESOLVED_FILE).exists():
        raise InputError(f"{folder} exists and holds no study, so it is left alone. Choose another output.")
    if overwrite:
        _refuse_to_delete(folder, [*inputs, *map(Path, (study.task.files or {}).values())])
        return
    if not resume:
        raise InputError(
            f"{folder} holds a study already. Continue it with --resume, replace it with --overwrite, "
            "or choose another output."
        )
    before = read_study(folder).model_dump(mode="json")
    now = study.model_dump(mode="json")
    changed = [key for key in now if key not in ("output", "report_to") and before[key] != now[key]]
    if changed:
        raise InputError(
            f"{folder} was begun with another {' and another '.join(changed)}, so it cannot be resumed with this study "
            "file. Take the settings back, or start anew with --overwrite or another output."
        )


def claim_study(study: Study, *, resume: bool = False, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Create the study's directory with its resolved study file, unless :func:`check_claim` objects."""
    check_claim(study, resume=resume, overwrite=overwrite, inputs=inputs)
    if overwrite and study.folder.exists():
        shutil.rmtree(study.folder)
    study.folder.mkdir(parents=True, exist_ok=True)
    write_resolved(study, study.folder)
    if not (study.folder / ENVIRONMENT_FILE).exists():  # a resumed study keeps the record of where it began
        with atomic_write(study.folder / ENVIRONMENT_FILE) as beside:
            beside.write_text(json.dumps(versions(), indent=2) + "\n", encoding="utf-8")


def _refuse_to_delete(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise if an input of the study lies in the directory that is to be replaced."""
    for path in inputs:
        if folder.resolve() in path.resolve().parents:
            raise InputError(
                f"{path} lies in {folder}, which is to be replaced and would be deleted first. Move it, or choose "
                "another output."
            )
