"""``layerangles train``: train everything a study asks for."""

from pathlib import Path
from typing import Annotated

import typer

from .output import print_json, print_table, print_written


def train(
    study: Annotated[Path, typer.Argument(help="A study file (YAML), or a study's directory.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: key=value, such as training.max_steps=100.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The study's directory, instead of the file's own.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a study that is there.")] = False,
    device: Annotated[str, typer.Option(help="auto (the best present) or cpu.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Fine-tune the teacher and train its students, all strategies of a seed behind one teacher pass.

    Everything is checked before work starts; all mistakes of the study file are reported at once.

    Example: layerangles train examples/studies/movie-reviews.yaml --set training.max_steps=300
    """
    from kd_train.study import read_study
    from kd_train.train import train_study
    from layerangles.errors import InputError

    if resume and overwrite:
        raise InputError("--resume goes on with a study and --overwrite replaces it. Give one of them.")
    checked = read_study(study, overrides=set_ or [])
    if output is not None:
        checked = checked.model_copy(update={"output": str(output)})
    folder = train_study(checked, resume=resume, overwrite=overwrite, device=device)
    rows = score_rows(folder)
    if as_json:
        print_json({"study": str(folder), "scores": rows})
        return
    print_table(rows, title="Scores at the last step")
    print_written(folder)


def score_rows(folder: Path) -> list[dict[str, object]]:
    """One row for the teacher and each student: its last step, and its scores there."""
    from kd_train.metrics import MetricsLog

    rows: dict[str, dict[str, object]] = {}
    for m in MetricsLog(folder).read():
        if m.split == "train":
            continue
        row = rows.setdefault(m.student, {"student": m.student, "step": m.step})
        row["step"] = m.step
        row[f"{m.split} {m.metric}"] = m.value
    return list(rows.values())
