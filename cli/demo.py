"""``layerangles demo``: train, measure and report once, on a real teacher and real data, in a few minutes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .output import print_json, print_table, print_written
from .report import measure_students
from .train import COSTS, score_rows

if TYPE_CHECKING:
    import pandas as pd

    from kd_train.study.study_file import Study
    from layerangles import AngleResult

_TOWER = "encoder"
_IN_TABLE = (
    "student_angle_deg",
    "student_excess_deg",
    "student_excess_low",
    "student_excess_high",
    "student_common_mode_ratio",
)

# --full: a teacher near its best, and students that have had time to learn.
_FULL = ["teacher.finetune.max_steps=500", "training.max_steps=500", "training.evaluate_every=100"]


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to write to.")] = Path(
        "layerangles-demo"
    ),
    full: Annotated[bool, typer.Option("--full", help="Train longer: about 25 minutes on two cores.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the students; another one gives other students.")] = 0,
    texts: Annotated[int, typer.Option(min=2, help="How many texts the angles are measured on.")] = 200,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change the study: key=value, such as student.layers=2.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a demo that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Fine-tune a teacher, distil six students, measure their angles, and show everything on one page.

    The fine-tuned teacher is kept, so that a second demo starts with the students.

    Example: layerangles demo --seed 1 --output demo-seed1
    """
    from kd_train.data import embedded
    from kd_train.study.study_file import read_study
    from kd_train.training.train_study import train_study

    overrides = [*(_FULL if full else []), f"seeds=[{seed}]", *(set_ or [])]
    study = read_study(Path(__file__).with_name("demo.yaml"), overrides=overrides)
    study = study.model_copy(update={"output": str(output)})
    typer.echo(f"Teacher {study.teacher.model}, data {study.task.dataset}; everything goes to {output}/", err=True)
    cache = embedded.cache_dir() / "teachers"
    folder = train_study(study, resume=resume, overwrite=overwrite, teacher_cache=cache)
    result = _measure(study, folder, texts)
    rows = _rows(folder, result)
    written = _write(folder, result, rows)
    if as_json:
        print_json({"students": rows, "wrote": written})
        return
    print_table(rows, title="Students: scores, and angles between teacher layers seen from them (last step)")
    print_written(folder, *written)
    typer.echo(f"\nOpen {written[0]} in a browser.")


def _measure(study: "Study", folder: Path, n_texts: int) -> "AngleResult":
    names = [f"{strategy.label}-seed{seed}" for seed in study.seeds for strategy in study.strategies]
    return measure_students(study, [folder / "students" / name for name in names], n_texts, steps=True)


def _rows(folder: Path, result: "AngleResult") -> list[dict[str, object]]:
    """One row for the teacher and each student: layer map, scores, and angles at the last step."""
    from layerangles import open_student
    from layerangles.results.variables import heading

    final = result.at_step()
    means = final.student_means()
    excess = final.dataset["student_excess_deg"].sel(null="N1", tower=_TOWER)
    rows: list[dict[str, object]] = []
    for scores in score_rows(folder):
        name = str(scores["student"])
        row: dict[str, object] = {"student": name, "matched layers": "–"}
        row |= {key: value for key, value in scores.items() if key not in ("student", "step", *COSTS.values())}
        if name in means.index:
            matching = open_student(folder / "students" / name).matching
            pairs = [pair for tower in (matching.towers.values() if matching else ()) for pair in tower.pairs]
            row["matched layers"] = " ".join(f"{student}→{teacher}" for student, teacher in pairs) or "none"
        has_angles = name in means.index
        row[heading("angle_deg")] = float(means["angle_deg"][name]) if has_angles else None
        row[heading("acute_fraction")] = float(means["acute_fraction"][name]) if has_angles else None
        row[heading("excess_deg", "N1")] = float(excess.sel(student=name)) if has_angles else None
        rows.append(row)
    return rows


def trajectory_table(result: "AngleResult") -> "pd.DataFrame":
    """One row per student and step: angle, N1, excess with its interval, ρ; means over the whole student."""
    import pandas as pd

    from layerangles.notation import interval

    data = result.dataset.sel(tower=_TOWER, null="N1")
    rows = []
    for student in result.students:
        for step in result.steps:
            of = {name: float(data[name].sel(student=student, step=step)) for name in _IN_TABLE}
            rows.append(
                {
                    "student": student,
                    "step": step,
                    "angle °": of["student_angle_deg"],
                    "N1 °": of["student_angle_deg"] - of["student_excess_deg"],
                    "excess °": of["student_excess_deg"],
                    "95 % interval": interval(of["student_excess_low"], of["student_excess_high"], 2, signed=True),
                    "ρ": of["student_common_mode_ratio"],
                }
            )
    return pd.DataFrame(rows).set_index("student")


def _write(folder: Path, result: "AngleResult", rows: list[dict[str, object]]) -> list[Path]:
    import pandas as pd

    from layerangles import figures
    from layerangles.report.angle_sections import angle_sections
    from layerangles.report.html_page import Section, write_page

    final = result.at_step()
    sections = [
        Section(
            "Students",
            [
                "A student is matched on the layers given as student→teacher; layer 0 is the embedding output. Angles "
                "are means over tokens, pairs of teacher layers and student layers.",
                pd.DataFrame(rows).set_index("student"),
            ],
        ),
        *angle_sections([result]),
        Section("Every step", ["The excess is the angle minus N1's.", trajectory_table(result)]),
        Section(
            "Cosines in the paper's form",
            [
                "Per token, between teacher layer 1 and every other one, seen from student layer 1.",
                *(figures.histogram(final, name) for name in final.students),
            ],
        ),
    ]
    comparison = figures.comparison(final)
    written = [
        write_page(folder / "report.html", "layerangles demo", sections, overwrite=True),
        result.save(folder / "angles" / "angles.nc", overwrite=True),
        figures.write_html(comparison, folder / "angles" / "comparison.html", overwrite=True),
        figures.write_html(figures.trajectory(result), folder / "angles" / "trajectory.html", overwrite=True),
    ]
    for name in final.students:
        heatmap = figures.heatmap(final, name)
        written.append(figures.write_html(heatmap, folder / "angles" / f"{name}.html", overwrite=True))
    return written
