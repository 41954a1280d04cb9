"""``layerangles report``: a study on one page, its verdict first."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .angles import have_checkpoints
from .output import print_json, print_written

if TYPE_CHECKING:
    from kd_train.outcome.scores import Judged
    from kd_train.study.study_file import Study
    from layerangles import AngleResult

_RESULT = "angles.nc"


def report(
    studies: Annotated[list[Path], typer.Argument(help="Study directories; the first gives the page its name.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; report.html in the first study by default.")
    ] = None,
    margin: options.Margin = None,
    margin_of_gain: options.MarginOfGain = None,
    metric: options.Metric = None,
    split: options.Split = None,
    measure: Annotated[
        bool, typer.Option(help="Measure the angles of the first seed's students where a study has none yet.")
    ] = True,
    texts: Annotated[int, typer.Option(min=2, help="How many texts of the dev split they are measured on.")] = 200,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write one HTML page: the question and the verdict, scores, differences, angles, geometry, design, provenance.

    Angles are read from each study's angles/*.nc. The page opens from disk, without a network.

    Example: layerangles report runs/movie-reviews
    """
    from kd_train.outcome.opened_study import open_study
    from kd_train.outcome.scores import chosen_margin, judge_paths
    from kd_train.outcome.study_geometry import predict_from
    from layerangles.files import check_absent
    from layerangles.report.study_report import StudyReport, write_report

    for study in studies:
        open_study(study)  # what is wrong with it shows at once
    page = output or studies[0] / "report.html"
    check_absent(page, overwrite=overwrite)
    given = chosen_margin(margin, margin_of_gain)
    judged = judge_paths(studies, margin=given, metric=metric, split=split)
    angles, measured = _angles(studies, texts if measure else 0)
    found = StudyReport(
        title=_title(studies),
        verdicts=[one.verdict for one in judged],
        teacher={one.verdict.cell.name: one.teacher for one in judged if one.teacher == one.teacher},
        angles=[result for results in angles.values() for result in results],
        prediction=predict_from(judged, angles),
        design=_design(studies, judged),
        provenance=_provenance(studies, angles),
    )
    written = [*measured, write_report(page, found, overwrite=overwrite)]
    if as_json:
        print_json({"verdicts": {one.verdict.cell.name: one.verdict.outcome for one in judged}, "wrote": written})
        return
    for one in judged:
        typer.echo(f"{one.verdict.cell.name}: {one.verdict.outcome}")
    print_written(*written)
    typer.echo(f"\nOpen {page} in a browser.")


def _angles(studies: Sequence[Path], n_texts: int) -> "tuple[dict[Path, list[AngleResult]], list[Path]]":
    """What is stored of each study, or is measured now and stored; and what was written."""
    from kd_train.outcome.study_geometry import ANGLES, stored_angles

    angles, written = {}, []
    for study in studies:
        angles[study] = stored_angles(study)
        if not angles[study] and n_texts and (result := _measured(study, n_texts)) is not None:
            (study / ANGLES).mkdir(exist_ok=True)
            written.append(result.save(study / ANGLES / _RESULT))
            angles[study] = [result]
    return angles, written


def _measured(folder: Path, n_texts: int) -> "AngleResult | None":
    from kd_train.outcome.scores import STUDENTS
    from kd_train.study.study_file import read_study
    from layerangles.models.matching_file import MATCHING_FILE

    study = read_study(folder)
    places = [folder / STUDENTS / f"{strategy.label}-seed{study.seeds[0]}" for strategy in study.strategies]
    students = [place for place in places if (place / MATCHING_FILE).exists()]
    if not students:
        return None
    typer.echo(f"Measuring the angles of {len(students)} students (seed {study.seeds[0]})", err=True)
    return measure_students(study, students, n_texts, steps=have_checkpoints(students))


def measure_students(study: "Study", students: Sequence[Path], n_texts: int, *, steps: bool) -> "AngleResult":
    """The angles of some students of a study on texts of the dev split, with what a page about them shows."""
    from layerangles import measure_angles

    return measure_angles(
        students,
        study.task.load().texts("dev")[:n_texts],
        steps=steps,
        nulls=("N0", "N1", "N5"),
        alternatives="sums",
        max_length=study.task.max_length,
    )


def _title(studies: Sequence[Path]) -> str:
    from kd_train.study.study_file import read_study

    return " and ".join(read_study(study).name for study in studies)


def _design(studies: Sequence[Path], judged: "Sequence[Judged]") -> dict[str, str]:
    from kd_train.study.comparisons import comparisons
    from kd_train.study.study_file import read_study

    design: dict[str, str] = {}
    for folder in studies:
        study = read_study(folder)
        name = f"{study.name}: " if len(studies) > 1 else ""
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


def _provenance(studies: Sequence[Path], angles: "Mapping[Path, Sequence[AngleResult]]") -> dict[str, str]:
    import layerangles

    found = {"report written by": f"layerangles {layerangles.__version__}"}
    for folder in studies:
        name = f"{folder.name}: " if len(studies) > 1 else ""
        found[f"{name}trained with"] = _trained_with(folder)
        for number, result in enumerate(angles[folder], start=1):
            attributes = result.dataset.attrs
            versions = ", ".join(f"{key} {value}" for key, value in json.loads(attributes["versions"]).items())
            which = f"{name}angles" + (f" {number}" if len(angles[folder]) > 1 else "")
            found[which] = (
                f"{attributes['n_examples']} texts, {attributes['precision']} on {attributes['device']}; {versions}"
            )
            found[f"{which}: weights of the teacher"] = f"SHA-256 {attributes['teacher_weights_sha256']}"
            found[f"{which}: texts"] = f"SHA-256 {attributes['data_sha256']}"
    found["the same page"] = f"layerangles report {' '.join(map(str, studies))}"
    return found


def _trained_with(folder: Path) -> str:
    from kd_train.training.train_study import ENVIRONMENT_FILE

    path = folder / ENVIRONMENT_FILE
    if not path.is_file():
        return "not recorded"
    return ", ".join(f"{key} {value}" for key, value in json.loads(path.read_text(encoding="utf-8")).items())
