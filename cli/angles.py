"""``layerangles angles``: measure students, save the result, draw it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import angle_tables, options
from .output import is_main_process, print_json, print_table, print_written, write_figure

if TYPE_CHECKING:
    from layerangles import AngleResult
    from layerangles.models.texts import Text
    from layerangles.settings import MeasurementSettings

_RESULT = "angles.nc"


@options.with_settings
def angles(
    students: Annotated[
        list[Path] | None, typer.Argument(help="Student directories, which name their teacher and their data.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Any teacher: a directory or a hub name. With --student.")] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="Any student: a directory or a hub name. Other widths need --fit.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Texts: .txt (one a line), .jsonl, .csv, .tsv or .parquet. By default the study's."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="The column of the text; twice for pairs of texts.")] = None,
    split: Annotated[str, typer.Option(help="Which split of the study's data.")] = "dev",
    max_examples: Annotated[int, typer.Option(min=2, help="Measure on so many texts, drawn evenly.")] = 1000,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The result (netCDF). By default STUDY/angles/angles.nc, where the other commands read it; angles.nc "
            "for students of no study or of several, for a shard, a fit, or another space, convention or "
            "preprocessing.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw the heat maps into an HTML file.")] = None,
    png: options.Image = None,
    svg: options.Image = None,
    pdf: options.Image = None,
    excess: Annotated[
        bool, typer.Option("--excess", help="Draw the excess over the null instead of the angle.")
    ] = False,
    trajectory: Annotated[
        Path | None, typer.Option(help="Draw angle, excess and ρ against the training step; .html, .png, .svg or .pdf.")
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
    **settings: Any,
) -> None:
    """Measure the angles between all teacher layers, seen from every layer of the students.

    Example: layerangles angles runs/movie-reviews/students/*-seed0 --html heatmaps.html

    Example: layerangles angles --teacher bert-base-uncased --student google-bert/bert-base-cased --data texts.txt
    """
    from layerangles import measure_angles
    from layerangles.errors import InputError
    from layerangles.models.texts import evenly

    if bool(students) == bool(teacher or student):
        raise InputError(
            "give student directories, or --teacher and --student for any two models; not both, not neither."
        )
    if bool(teacher) != bool(student):
        raise InputError("--teacher and --student belong together; give both.")
    wanted = _settings(settings, students or [])
    output = output or _usual_place(students or [], wanted)
    maps = {".html": html, ".png": png, ".svg": svg, ".pdf": pdf}
    _check_drawings(wanted, maps, trajectory, excess=excess)
    drawings = [path for path in maps.values() if path is not None]
    _check_files([output, *drawings, *([trajectory] if trajectory else [])], overwrite=overwrite)
    result = measure_angles(
        students or student or [],
        evenly(_texts(students, data, text, split), max_examples),
        teacher=teacher,
        trust_remote_code=trust_remote_code,
        **settings,
    )
    if not is_main_process():
        return
    null = "N1" if "N1" in result.nulls else next(iter(result.nulls), None)
    written = [result.save(output, overwrite=overwrite)]
    written += _draw(result, drawings, null if excess else None, overwrite=overwrite)
    if trajectory is not None:
        from layerangles import figures

        figure = figures.trajectory(result, null=null or "N1")
        written.append(write_figure(figure, trajectory, overwrite=overwrite))
    if as_json:
        rows = result.summary(null).reset_index().to_dict(orient="records")
        print_json({"summary": rows, "wrote": written, **_plain(result)})
        return
    _show(result, null)
    print_written(*written)


def _settings(given: dict[str, Any], students: Sequence[Path]) -> "MeasurementSettings":
    """The checked settings. Converts the values of options to those of keyword arguments, in place."""
    from layerangles.geometry.nulls import NULLS
    from layerangles.settings import MeasurementSettings

    chosen = given["nulls"] or ["N1"]
    given["nulls"] = {"all": tuple(NULLS), "none": ()}.get(chosen[0], chosen) if len(chosen) == 1 else chosen
    given["shard"] = _shard(given["shard"])
    if given["steps"] is None:
        given["steps"] = have_checkpoints(students)
    return MeasurementSettings(**given)


def _usual_place(students: Sequence[Path], wanted: "MeasurementSettings") -> Path:
    """The study's ``angles/`` for a plain measurement of one study's students, else the working directory."""
    from kd_train.study.folder_names import ANGLES
    from kd_train.study.study_file import study_folder_of
    from layerangles.settings import DEFAULTS

    plain = ("space", "convention", "preprocessing", "fit", "shard")
    folders = {study_folder_of(student) for student in students}
    folder = folders.pop() if len(folders) == 1 else None
    if folder is None or any(getattr(wanted, name) != DEFAULTS[name] for name in plain):
        return Path(_RESULT)
    here = Path.cwd()
    return (folder.relative_to(here) if folder.is_relative_to(here) else folder) / ANGLES / _RESULT


def _check_drawings(
    wanted: "MeasurementSettings", maps: dict[str, Path | None], trajectory: Path | None, *, excess: bool
) -> None:
    from layerangles.errors import InputError

    for ending, path in maps.items():
        if path is not None and path.suffix != ending:
            raise InputError(f"--{ending[1:]} {path}: the file's name must end in {ending}.")
    if excess and not wanted.nulls:
        raise InputError(
            "--excess needs a null to subtract; leave out --space gradient, --convention paper and --null none."
        )
    if trajectory is None:
        return
    if trajectory.suffix not in maps:
        raise InputError(f"--trajectory {trajectory}: the file's name must end in .html, .png, .svg or .pdf.")
    if wanted.space == "gradient" or wanted.convention == "paper":
        raise InputError(
            "--trajectory draws means over a whole student, which a result of --space gradient or --convention paper "
            "does not have."
        )
    if not wanted.steps:
        raise InputError("--trajectory needs checkpoints along training, and these students have none.")


def _check_files(paths: Sequence[Path], *, overwrite: bool) -> None:
    from layerangles.files import check_absent

    for path in paths:
        check_absent(path, overwrite=overwrite)
    if any(path.suffix in (".png", ".svg", ".pdf") for path in paths):
        from layerangles.figures.drawing.export import require_image_export

        require_image_export()


def _show(result: "AngleResult", null: str | None) -> None:
    attributes = result.dataset.attrs
    stopped = "" if attributes["stopped"] == "all texts" else f" ({attributes['stopped']})"
    title = f"Angles between teacher layers, over {attributes['n_examples']} texts{stopped}"
    print_table(angle_tables.summary_rows(result, null), title=title)
    if "whole_angle_deg" in result.dataset:
        print_table(angle_tables.whole_students(result), title="Whole students: angles between their gradients")
    if "top_dimension" in result.dataset:
        print_table(
            angle_tables.top_dimensions(result),
            title="Largest dimensions of each teacher layer: share of the dot product",
        )
    for name, step, before in result.unchanged_steps:
        typer.echo(f"note: {name} has the same weights at step {step} as at step {before}")


def _shard(given: str) -> tuple[int, int]:
    from layerangles.errors import InputError

    i, slash, n = given.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal()):
        raise InputError(f"--shard is {given!r}; allowed is i/n, such as 0/4 to 3/4.")
    return int(i), int(n)


def have_checkpoints(students: "Sequence[Path]") -> bool:
    """Whether any of the students has checkpoints along training."""
    return any(any(student.glob("checkpoints/step-*/matching.json")) for student in students)


def _texts(students: list[Path] | None, data: Path | None, columns: list[str] | None, split: str) -> "Sequence[Text]":
    from kd_train.data.tables import read_file
    from kd_train.study.study_file import study_of
    from layerangles.errors import InputError

    if columns is not None and len(columns) > 2:
        raise InputError(f"--text was given {len(columns)} times; give one column, or two for pairs of texts.")
    if data is not None:
        names = columns or ["text"]
        return read_file(data).texts(names[0] if len(names) == 1 else (names[0], names[1]))
    for student in students or []:
        if not student.is_dir():
            continue  # measure_angles refuses it with a message of its own
        study = study_of(student)
        if study is not None:
            loaded = study.task.load()
            if split not in loaded.splits:
                raise InputError(f"the study has no split {split!r}; its splits are {', '.join(loaded.splits)}.")
            return loaded.texts(split)
        break
    if students and not any(student.is_dir() for student in students):
        raise InputError(
            f"{students[0]} is not a directory. Give student directories, such as STUDY/students/forward-seed0."
        )
    raise InputError("no texts to measure on: these models belong to no study. Name a file of texts with --data.")


def _draw(result: "AngleResult", paths: Sequence[Path], null: str | None, *, overwrite: bool) -> list[Path]:
    if not paths:
        return []
    from layerangles import figures

    final = result.at_step()
    one = len(final.students) == 1
    figure = figures.heatmap(final, null=null) if one else figures.comparison(final, null=null)
    return [write_figure(figure, path, overwrite=overwrite) for path in paths]


def _plain(result: "AngleResult") -> dict[str, object]:
    """The result's attributes with Python's numbers instead of numpy's."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in result.dataset.attrs.items()}
