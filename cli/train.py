"""``layerangles train``: train everything that studies ask for, here or on a cluster."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import is_main_process, print_json, print_table, print_written

# What `kd_train` measures of a student's costs, and the columns they stand in.
COSTS = {"seconds_per_step": "s a step", "memory_mib": "MiB"}

if TYPE_CHECKING:
    from kd_train.jobs.job import CellStatus
    from kd_train.jobs.submission import ClusterOptions
    from kd_train.study.study_file import Study


def train(
    studies: Annotated[list[Path], typer.Argument(help="Study files (YAML), or studies' directories.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: key=value, such as training.max_steps=100.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The study's directory, instead of the file's own.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study that was interrupted.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a study that is there.")] = False,
    device: Annotated[str, typer.Option(help="auto (the best present) or cpu.")] = "auto",
    executor: Annotated[
        str | None,
        typer.Option(
            help="A job for each teacher and each seed: local (processes of this machine) or slurm. Resumes by itself."
        ),
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="How many jobs at the same time: 1 locally by default.")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores, hence threads, of a job. Locally the machine's over --at-once.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of a job: locally 1 if there is any, on Slurm 0 by default.")
    ] = None,
    hours: Annotated[float | None, typer.Option(min=0, help="Slurm: time limit of a job; 24 by default.")] = None,
    memory: Annotated[float | None, typer.Option(min=0, help="Slurm: memory of a job in GB.")] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm: the partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm: the account.")] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(help="Slurm: another option of sbatch, such as qos=low or exclusive.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --executor: show where the jobs are, and start none.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Fine-tune the teacher and train its students, all strategies of a seed behind one teacher pass.

    Everything is checked before work starts; all mistakes of the study file are reported at once. Several studies are
    trained one after the other, or with --executor in jobs, one for each teacher and then one for each seed. The same
    command again shows where the jobs are, and goes on with those that failed.

    Example: layerangles train examples/studies/movie-reviews.yaml --set training.max_steps=300

    Example: layerangles train a.yaml b.yaml --executor slurm --partition gpu --gpus 1 --hours 4
    """
    from layerangles.errors import InputError

    if resume and overwrite:
        raise InputError("--resume goes on with a study and --overwrite replaces it. Give one of them.")
    for_slurm = {"minutes": hours, "memory_gb": memory, "partition": partition, "account": account, "slurm": slurm}
    for_jobs = {"at_once": at_once, "cpus": cpus, "gpus": gpus}
    _check_options(executor, for_jobs | {"dry_run": dry_run or None}, for_slurm)
    checked = _read(studies, set_ or [], output)
    if executor is not None:
        options = _options(for_jobs | for_slurm)
        _train_in_jobs(checked, executor, device, options, overwrite=overwrite, dry_run=dry_run, as_json=as_json)
        return
    from kd_train.study.plan import plan_study
    from kd_train.training.train_study import train_study

    if len(checked) > 1:  # one alone is checked by its training
        for study in checked:
            plan_study(study)
    folders = [train_study(study, resume=resume, overwrite=overwrite, device=device) for study in checked]
    if is_main_process():
        _print_scores(folders, as_json=as_json)


def _read(files: Sequence[Path], overrides: Sequence[str], output: Path | None) -> "list[Study]":
    from kd_train.study.study_file import read_study
    from layerangles.errors import InputError

    studies = [read_study(file, overrides=overrides) for file in files]
    if output is not None:
        if len(studies) > 1:
            raise InputError(
                "--output is one study's directory. Give the studies an output of their own in their files."
            )
        studies = [study.model_copy(update={"output": str(output)}) for study in studies]
    folders = [study.folder.resolve() for study in studies]
    if len(set(folders)) < len(folders):
        raise InputError("two of the studies have the same output. Give each one of its own.")
    return studies


# ---- jobs ----------------------------------------------------------------------------------------------------------


def _check_options(executor: str | None, for_jobs: dict[str, Any], for_slurm: dict[str, Any]) -> None:
    from layerangles.errors import InputError

    if executor not in (None, "local", "slurm"):
        raise InputError(f"--executor {executor}: wanted local or slurm.")
    useless = {} if executor == "slurm" else for_slurm if executor == "local" else for_jobs | for_slurm
    flags = {"minutes": "--hours", "memory_gb": "--memory"}
    given = [flags.get(name, f"--{name.replace('_', '-')}") for name, value in useless.items() if value is not None]
    if given:
        needed = "--executor slurm" if executor == "local" or given[0] not in _flags(for_jobs) else "--executor"
        raise InputError(f"{', '.join(given)}: without effect unless with {needed}. Leave it out, or add that.")


def _flags(names: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in names]


def _options(given: dict[str, Any]) -> "ClusterOptions":
    from pydantic import ValidationError

    from kd_train.jobs.submission import ClusterOptions
    from layerangles.errors import InputError

    values = {name: value for name, value in given.items() if value is not None}
    if "minutes" in values:
        values["minutes"] = max(1, round(values["minutes"] * 60))
    if "slurm" in values:
        pairs = [option.removeprefix("--").partition("=") for option in values["slurm"]]
        values["slurm"] = {key: value if separator else True for key, separator, value in pairs}
    try:
        return ClusterOptions(**values)
    except ValidationError as error:
        problems = [f"{detail['loc'][0]}: {detail['msg'].removeprefix('Value error, ')}" for detail in error.errors()]
        raise InputError("; ".join(problems)) from error


def _train_in_jobs(
    studies: "Sequence[Study]",
    executor: str,
    device: str,
    options: "ClusterOptions",
    *,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from kd_train.jobs.submission import submit

    def tell(status: "CellStatus") -> None:
        typer.echo(_line(status), err=True)

    cells = submit(
        studies,
        executor="slurm" if executor == "slurm" else "local",
        device=device,
        options=options,
        overwrite=overwrite,
        dry_run=dry_run,
        report=tell if executor == "local" else lambda _status: None,
    )
    folders = [study.folder for study in studies]
    if not dry_run and all(cell.state == "done" for cell in cells):
        _print_scores(folders, as_json=as_json)
        return
    rows: list[dict[str, object]] = [
        {"study": c.study, "cell": c.cell, "state": c.state, "job": c.job, "log": c.log, "why": c.why} for c in cells
    ]
    if as_json:
        print_json({"jobs": rows})
    else:
        shown = ("study", "cell", "state", "job")
        print_table([{key: row[key] for key in shown} for row in rows], title="Jobs")
    failed = [cell for cell in cells if cell.state == "failed"]
    if dry_run:
        return
    if failed:
        typer.echo(f"Error: {len(failed)} of {len(cells)} jobs failed.", err=True)
        for cell in failed:
            typer.echo(_line(cell), err=True)
        typer.echo("Give the same command again (without --overwrite) to go on where they stopped.", err=True)
        raise typer.Exit(1)
    typer.echo("Watch them: squeue --me; their output is in jobs/logs of each study.", err=True)
    typer.echo(
        "The same command again (without --overwrite) shows where they are, queues what failed once more,", err=True
    )
    typer.echo("and prints the scores when all are done.", err=True)


def _line(cell: "CellStatus") -> str:
    parts = [f"{cell.study} {cell.cell}: {cell.state}"]
    if cell.state == "running":
        parts.append(f"process {cell.job}, log {cell.log}")
    if cell.state == "failed":
        parts.append(f"{cell.why} (log {cell.log})")
    return ", ".join(parts)


# ---- scores --------------------------------------------------------------------------------------------------------


def _print_scores(folders: Sequence[Path], *, as_json: bool) -> None:
    content = [{"study": str(folder), "scores": score_rows(folder)} for folder in folders]
    if as_json:
        print_json(content[0] if len(content) == 1 else content)
        return
    for folder in folders:
        for place, reason in _stopped(folder):
            typer.echo(f"{place} was stopped, and the others went on: {reason}", err=True)
        where = "" if len(folders) == 1 else f" of {folder}"
        print_table(score_rows(folder), title=f"Scores at the last step{where}")
        print_written(folder)


def score_rows(folder: Path) -> list[dict[str, object]]:
    """One row for the teacher and each student: its last step, its scores there, and what a step of it cost."""
    from kd_train.study.score_logs import MetricsLog

    rows: dict[str, dict[str, object]] = {}
    costs: dict[str, dict[str, object]] = {}
    for m in MetricsLog(folder, writes=False).read():
        if m.split != "train":
            row = rows.setdefault(m.student, {"student": m.student, "step": m.step})
            row["step"] = m.step
            row[f"{m.split} {m.metric}"] = m.value
        elif m.metric in COSTS:
            costs.setdefault(m.student, {})[COSTS[m.metric]] = m.value
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    return [
        {name: row.get(name) for name in names} | {name: costs.get(student, {}).get(name) for name in COSTS.values()}
        for student, row in rows.items()
    ]


def _stopped(folder: Path) -> list[tuple[Path, str]]:
    """The students that failed, and why."""
    files = sorted(folder.glob("students/*/stopped.json"))
    return [(file.parent, str(json.loads(file.read_text(encoding="utf-8"))["reason"])) for file in files]
