"""``layerangles train``: train everything that studies ask for, here or on a cluster."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .output import is_main_process, print_json, print_table, print_written

# The columns of a student's measured costs, by the names in the log.
COSTS = {"seconds_per_step": "s a step", "memory_mib": "MiB"}

if TYPE_CHECKING:
    from kd_train.jobs.job_options import JobOptions
    from kd_train.jobs.job_status import JobStatus
    from kd_train.study.study_file import Study


def train(
    studies: Annotated[list[Path], typer.Argument(help="Study files (YAML), or studies' directories.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: key=value, such as training.max_steps=100.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The study's directory, instead of the file's own.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted study.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing study.")] = False,
    device: Annotated[str, typer.Option(help="auto (the best one present) or cpu.")] = "auto",
    executor: Annotated[
        str | None,
        typer.Option(
            help="A job for each teacher and each seed: local (processes of this machine) or slurm. Resumes by itself."
        ),
    ] = None,
    at_once: Annotated[int | None, typer.Option(min=1, help="Most jobs in parallel; 1 locally by default.")] = None,
    cpus: Annotated[
        int | None,
        typer.Option(min=1, help="Cores, hence threads, of a job; locally those of the machine over --at-once."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of a job; by default 1 locally if present, 0 on Slurm.")
    ] = None,
    hours: Annotated[float | None, typer.Option(min=0, help="Slurm: time limit of a job; 24 by default.")] = None,
    memory: Annotated[float | None, typer.Option(min=0, help="Slurm: memory of a job in GB.")] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm: the partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm: the account.")] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(help="Slurm: another option of sbatch, such as qos=low or exclusive.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --executor: show the state of the jobs, and start none.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Fine-tune the teacher and train its students, all strategies of a seed behind one teacher pass.

    Everything is checked before work starts, and all errors in the study file are reported at once. Several studies are
    trained one after the other, or with --executor in jobs, one for each teacher and then one for each seed. The same
    command again shows the state of the jobs, and retries those that failed.

    Example: layerangles train examples/studies/movie-reviews.yaml --set training.max_steps=300

    Example: layerangles train a.yaml b.yaml --executor slurm --partition gpu --gpus 1 --hours 4
    """
    from layerangles.errors import InputError

    if resume and overwrite:
        raise InputError("--resume goes on with a study and --overwrite replaces it. Give one of them.")
    for_jobs = {"at_once": at_once, "cpus": cpus, "gpus": gpus}
    for_slurm = {"hours": hours, "memory": memory, "partition": partition, "account": account, "slurm": slurm}
    _check_options(executor, for_jobs | {"dry_run": dry_run or None}, for_slurm)
    checked = _read(studies, set_ or [], output)
    if executor is not None:
        options = _job_options(for_jobs | for_slurm)
        _train_in_jobs(checked, executor, device, options, overwrite=overwrite, dry_run=dry_run, as_json=as_json)
        return
    from kd_train.study.plan import plan_study
    from kd_train.training.train_study import train_study

    if len(checked) > 1:  # a single study is checked by its training
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
    """Raise if an option is given that has no effect with this executor."""
    from layerangles.errors import InputError

    if executor not in (None, "local", "slurm"):
        raise InputError(f"--executor {executor}: wanted local or slurm.")
    useless = {None: for_jobs | for_slurm, "local": for_slurm, "slurm": {}}[executor]
    given = [name for name, value in useless.items() if value is not None]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        needed = "--executor slurm" if given[0] in for_slurm else "--executor"
        raise InputError(f"{flags}: without effect unless with {needed}. Leave it out, or add that.")


def _job_options(given: dict[str, Any]) -> "JobOptions":
    from pydantic import ValidationError

    from kd_train.jobs.job_options import JobOptions
    from layerangles.errors import InputError

    values = {name: value for name, value in given.items() if value is not None}
    if "hours" in values:
        values["minutes"] = max(1, round(values.pop("hours") * 60))
    if "memory" in values:
        values["memory_gb"] = values.pop("memory")
    if "slurm" in values:
        pairs = [option.removeprefix("--").partition("=") for option in values["slurm"]]
        values["slurm"] = {key: value if separator else True for key, separator, value in pairs}
    try:
        return JobOptions(**values)
    except ValidationError as error:
        problems = [f"{detail['loc'][0]}: {detail['msg'].removeprefix('Value error, ')}" for detail in error.errors()]
        raise InputError("; ".join(problems)) from error


def _train_in_jobs(
    studies: "Sequence[Study]",
    executor: str,
    device: str,
    options: "JobOptions",
    *,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from kd_train.jobs.submission import submit

    def tell(status: "JobStatus") -> None:
        typer.echo(_line(status), err=True)

    jobs = submit(
        studies,
        executor="slurm" if executor == "slurm" else "local",
        device=device,
        options=options,
        overwrite=overwrite,
        dry_run=dry_run,
        report=tell if executor == "local" else lambda _status: None,
    )
    if not dry_run and all(job.state == "done" for job in jobs):
        _print_scores([study.folder for study in studies], as_json=as_json)
        return
    rows = [{"study": job.study, "cell": job.name, "state": job.state, "job": job.job_id} for job in jobs]
    if as_json:
        print_json({"jobs": [row | {"log": job.log, "why": job.why} for row, job in zip(rows, jobs, strict=True)]})
    else:
        print_table(rows, title="Jobs")
    if not dry_run:
        _print_next_step(jobs)


def _print_next_step(jobs: "Sequence[JobStatus]") -> None:
    failed = [job for job in jobs if job.state == "failed"]
    if failed:
        typer.echo(f"Error: {len(failed)} of {len(jobs)} jobs failed.", err=True)
        for job in failed:
            typer.echo(_line(job), err=True)
        typer.echo("Give the same command again (without --overwrite) to go on where they stopped.", err=True)
        raise typer.Exit(1)
    typer.echo("Watch them with squeue --me; their output is in jobs/logs of each study.", err=True)
    typer.echo("The same command again (without --overwrite) shows their state, queues failed jobs again,", err=True)
    typer.echo("and prints the scores when all are done.", err=True)


def _line(job: "JobStatus") -> str:
    parts = [f"{job.study} {job.name}: {job.state}"]
    if job.state == "running":
        parts.append(f"process {job.job_id}, log {job.log}")
    if job.state == "failed":
        parts.append(f"{job.why} (log {job.log})")
    return ", ".join(parts)


# ---- scores --------------------------------------------------------------------------------------------------------


def _print_scores(folders: Sequence[Path], *, as_json: bool) -> None:
    from kd_train.training.study_directory import stopped_students

    content = [{"study": str(folder), "scores": score_rows(folder)} for folder in folders]
    if as_json:
        print_json(content[0] if len(content) == 1 else content)
        return
    for folder in folders:
        for place, reason in stopped_students(folder):
            typer.echo(f"{place} was stopped, and the others went on: {reason}", err=True)
        where = "" if len(folders) == 1 else f" of {folder}"
        print_table(score_rows(folder), title=f"Scores at the last step{where}")
        print_written(folder)


def score_rows(folder: Path) -> list[dict[str, object]]:
    """One row for the teacher and each student: its last step, its scores there, and the cost of a step."""
    from kd_train.study.score_logs import METRICS_FILE, read_metrics

    rows: dict[str, dict[str, object]] = {}
    costs: dict[str, dict[str, object]] = {}
    for m in read_metrics(folder / METRICS_FILE):
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
