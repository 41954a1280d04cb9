"""``layerangles report``: a study on one page, its verdict first."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .angles import have_checkpoints
from .output import print_json, print_written

if TYPE_CHECKING:
    from kd_train.outcome.judging import Judged
    from kd_train.outcome.opened_study import OpenedStudy
    from kd_train.study.study_file import Study
    from layerangles import AngleResult

_RESULT = "angles.nc"


def report(
    studies: Annotated[list[Path], typer.Argument(help="Study directories; the page is named after them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page's file; report.html in the first study by default.")
    ] = None,
    margin: options.Margin = None,
    margin_of_gain: options.MarginOfGain = None,
    metric: options.Metric = None,
    split: options.Split = None,
    measure: Annotated[
        bool, typer.Option(help="Measure the angles of the first seed's students if a study has none yet.")
    ] = True,
    texts: Annotated[int, typer.Option(min=2, help="Number of texts of the dev split to measure on.")] = 200,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing page.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Write one HTML page: the question and the verdict, scores, differences, angles, geometry, design, provenance.

    Angles are read from each study's angles/*.nc. The page opens from disk, without a network.

    Example: layerangles report runs/movie-reviews
    """
    from kd_train.outcome.judging import chosen_margin, judge_all
    from kd_train.outcome.opened_study import open_study
    from kd_train.outcome.study_geometry import predict_from
    from layerangles.files import check_absent
    from layerangles.report.study_report import StudyReport, write_report

    opened = [open_study(study) for study in studies]
    page = output or studies[0] / "report.html"
    check_absent(page, overwrite=overwrite)
    given = chosen_margin(margin, margin_of_gain)
    judged = judge_all(opened, margin=given, metric=metric, split=split)
    measured = [_measure(study, texts) for study in opened if measure and not study.angles()]
    found = StudyReport(
        title=" and ".join(study.name for study in opened),
        verdicts=[one.verdict for one in judged],
        teacher={one.verdict.cell.name: one.teacher for one in judged if one.teacher == one.teacher},
        angles=[result for study in opened for result in study.angles()],
        prediction=predict_from(judged),
        design=_design(opened, judged),
        provenance=_provenance(opened),
    )
    written = [path for path in measured if path is not None] + [write_report(page, found, overwrite=overwrite)]
    if as_json:
        print_json({"verdicts": {one.verdict.cell.name: one.verdict.outcome for one in judged}, "wrote": written})
        return
    for one in judged:
        typer.echo(f"{one.verdict.cell.name}: {one.verdict.outcome}")
    print_written(*written)
    typer.echo(f"\nOpen {page} in a browser.")


def _measure(study: "OpenedStudy", n_texts: int) -> Path | None:
    """Measure the first seed's students and store their angles in the study; None if no weights were kept."""
    from kd_train.study.folder_names import ANGLES

    seed = study.study.seeds[0]
    names = [f"{strategy.label}-seed{seed}" for strategy in study.study.strategies]
    students = [student for student in study.directories() if student.name in names]
    if not students:
        return None
    typer.echo(f"Measuring the angles of {len(students)} students (seed {seed})", err=True)
    students.sort(key=lambda student: names.index(student.name))
    result = measure_students(study.study, students, n_texts, steps=have_checkpoints(students))
    (study.path / ANGLES).mkdir(exist_ok=True)
    return result.save(study.path / ANGLES / _RESULT)


def measure_students(study: "Study", students: Sequence[Path], n_texts: int, *, steps: bool) -> "AngleResult":
    """Measure students on texts of the dev split, with the nulls and alternatives that a report shows."""
    from layerangles import measure_angles

    return measure_angles(
        students,
        study.task.load().texts("dev")[:n_texts],
        steps=steps,
        nulls=("N0", "N1", "N5"),
        alternatives="sums",
        max_length=study.task.max_length,
    )


def _design(opened: "Sequence[OpenedStudy]", judged: "Sequence[Judged]") -> dict[str, str]:
    from kd_train.study.comparisons import comparisons

    design: dict[str, str] = {}
    for study in (one.study for one in opened):
        name = f"{study.name}: " if len(opened) > 1 else ""
        training = study.training
        design |= {
            f"{name}task": f"{study.task.kind}, {study.task.dataset or 'files'}",
            f"{name}teacher": study.teacher.model + (", fine-tuned" if study.teacher.finetune else ""),
            f"{name}students": f"{study.student.layers} layers, {study.student.init}, unless their cell says otherwise",
            f"{name}training": training.in_words,
            f"{name}loss": study.loss.formula,
            f"{name}seeds": ", ".join(map(str, study.seeds)),
        }
        for comparison in comparisons(study):
            controls = f"; controls: {', '.join(comparison.controls)}" if comparison.controls else ""
            design[f"strategies of {comparison.cell}"] = comparison.compared + controls
    for note in dict.fromkeys(note for one in judged for note in one.notes):
        cells = [one.verdict.cell.name for one in judged if note in one.notes]
        design[f"note on {', '.join(cells)}"] = note
    return design


def _provenance(opened: "Sequence[OpenedStudy]") -> dict[str, str]:
    import layerangles

    found = {"report written by": f"layerangles {layerangles.__version__}"}
    for study in opened:
        results, name = study.angles(), f"{study.path.name}: " if len(opened) > 1 else ""
        found[f"{name}trained with"] = _trained_with(study.path)
        for number, result in enumerate(results, start=1):
            attributes = result.dataset.attrs
            versions = ", ".join(f"{key} {value}" for key, value in json.loads(attributes["versions"]).items())
            which = f"{name}angles" + (f" {number}" if len(results) > 1 else "")
            found[which] = (
                f"{attributes['n_examples']} texts, {attributes['precision']} on {attributes['device']}; {versions}"
            )
            found[f"{which}: weights of the teacher"] = f"SHA-256 {attributes['teacher_weights_sha256']}"
            found[f"{which}: texts"] = f"SHA-256 {attributes['data_sha256']}"
    found["the same page"] = f"layerangles report {' '.join(str(study.path) for study in opened)}"
    return found


def _trained_with(folder: Path) -> str:
    from kd_train.study.folder_names import ENVIRONMENT_FILE

    path = folder / ENVIRONMENT_FILE
    if not path.is_file():
        return "not recorded"
    return ", ".join(f"{key} {value}" for key, value in json.loads(path.read_text(encoding="utf-8")).items())
