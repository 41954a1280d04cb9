"""``layerangles angles``: measure students, save the result, draw it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import is_main_process, print_json, print_table, print_written

if TYPE_CHECKING:
    from layerangles import AngleResult
    from layerangles.geometry.nulls import NullName
    from layerangles.models.texts import Text


def angles(
    students: Annotated[
        list[Path] | None, typer.Argument(help="Student directories; they know their teacher and their data.")
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
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the result goes (netCDF).")] = Path("angles.nc"),
    html: Annotated[Path | None, typer.Option(help="Draw the heat maps into an HTML file.")] = None,
    png: Annotated[Path | None, typer.Option(help="… into a PNG file (needs Chrome).")] = None,
    svg: Annotated[Path | None, typer.Option(help="… into an SVG file (needs Chrome).")] = None,
    pdf: Annotated[Path | None, typer.Option(help="… into a PDF file (needs Chrome).")] = None,
    excess: Annotated[
        bool, typer.Option("--excess", help="Draw the excess over the null instead of the angle.")
    ] = False,
    trajectory: Annotated[
        Path | None, typer.Option(help="Draw angle, excess and ρ against the training step; .html, .png, .svg or .pdf.")
    ] = None,
    steps: Annotated[
        bool | None,
        typer.Option("--steps/--no-steps", help="Measure the checkpoints along training too. By default if any."),
    ] = None,
    space: Annotated[
        str, typer.Option(help="teacher (T - W S), pull (Wᵀ(T - W S)), or gradient (of the matching losses).")
    ] = "teacher",
    null: Annotated[
        list[str] | None,
        typer.Option(help="A null to subtract: N0 to N6, none or all; may be repeated. By default N1."),
    ] = None,
    preprocessing: Annotated[str, typer.Option(help="raw, centred, z, unit, or drop-K (rogue dimensions).")] = "raw",
    alternatives: Annotated[
        str, typer.Option(help="Alternative measures: none, sums (ρ, distances), all (CKA, recoverability gap too).")
    ] = "none",
    fit: Annotated[
        str | None, typer.Option(help="Fit maps to the data: identity, ridge or orthogonal. For unmatched models.")
    ] = None,
    convention: Annotated[str, typer.Option(help="layerangles, or paper: count as the paper's code.")] = "layerangles",
    until: Annotated[
        float | None, typer.Option(help="Stop when the widest 95 % interval is narrower than so many degrees.")
    ] = None,
    shard: Annotated[str, typer.Option(help="Measure part i of n of the data, as i/n from 0/n; see merge.")] = "0/1",
    gradient_batches: Annotated[int, typer.Option(min=1, help="Batches to sum gradients over.")] = 8,
    max_examples: Annotated[int, typer.Option(min=2, help="Measure on so many texts, drawn evenly.")] = 1000,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens after which a text is cut.")] = 128,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass; changes only the speed.")] = 32,
    final_norm: Annotated[str, typer.Option(help="Last layer of a pre-norm model: pre or post its norm.")] = "pre",
    special_tokens: Annotated[
        bool, typer.Option("--special-tokens/--no-special-tokens", help="Whether special tokens count.")
    ] = True,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 (faster, off by 0.04° on average).")] = "float32",
    device: Annotated[str, typer.Option(help="auto (the best present), cpu, cuda, cuda:N, mps.")] = "auto",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Only if you trust it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure the angles between all teacher layers, seen from every layer of the students.

    Example: layerangles angles runs/movie-reviews/students/*-seed0 --html heatmaps.html

    Example: layerangles angles --teacher bert-base-uncased --student google-bert/bert-base-cased --data texts.txt
    """
    from layerangles import measure_angles
    from layerangles.errors import InputError
    from layerangles.files import check_absent
    from layerangles.models.texts import evenly

    if bool(students) == bool(teacher or student):
        raise InputError(
            "give student directories, or --teacher and --student for any two models; not both, not neither."
        )
    if bool(teacher) != bool(student):
        raise InputError("--teacher and --student belong together; give both.")
    images = [path for path in (png, svg, pdf) if path is not None]
    for path in (output, html, trajectory, *images):
        if path is not None:
            check_absent(path, overwrite=overwrite)
    _check_endings({".html": html, ".png": png, ".svg": svg, ".pdf": pdf})
    if trajectory is not None and trajectory.suffix not in (".html", ".png", ".svg", ".pdf"):
        raise InputError(f"--trajectory {trajectory}: the file's name must end in .html, .png, .svg or .pdf.")
    drawn_by_chrome = [path for path in (*images, trajectory) if path is not None and path.suffix != ".html"]
    if drawn_by_chrome:
        from layerangles.figures.drawing.export import require_image_export

        require_image_export()
    texts = evenly(_texts(students, data, text, split), max_examples)
    chosen = _nulls(null)
    no_nulls = "--space gradient" if space == "gradient" else "--convention paper" if convention == "paper" else ""
    if excess and (no_nulls or not chosen):
        raise InputError(f"--excess needs a null to subtract; leave out {no_nulls or '--null none'}.")
    if trajectory is not None and no_nulls:
        raise InputError(f"--trajectory draws means over a whole student, which {no_nulls} does not have.")
    with_steps = have_checkpoints(students or []) if steps is None else steps
    if trajectory is not None and not with_steps:
        raise InputError("--trajectory needs checkpoints along training, and these students have none.")
    result = measure_angles(
        students or student or [],
        texts,
        teacher=teacher,
        space=space,  # type: ignore[arg-type]  # these are checked in there, with a message
        nulls=chosen,
        preprocessing=preprocessing,
        alternatives=alternatives,  # type: ignore[arg-type]
        fit=fit,  # type: ignore[arg-type]
        convention=convention,  # type: ignore[arg-type]
        steps=with_steps,
        until=until,
        shard=_shard(shard),
        gradient_batches=gradient_batches,
        final_norm=final_norm,  # type: ignore[arg-type]
        special_tokens=special_tokens,
        max_length=max_length,
        batch_size=batch_size,
        precision=precision,  # type: ignore[arg-type]
        device=device,
        trust_remote_code=trust_remote_code,
    )
    if not is_main_process():
        return
    shown = result.nulls[0] if result.nulls and "N1" not in result.nulls else "N1" if result.nulls else None
    written = [result.save(output, overwrite=overwrite)]
    written += _draw(result, html, images, shown if excess else None, overwrite=overwrite)
    if trajectory is not None:
        written.append(_draw_trajectory(result, trajectory, shown, overwrite=overwrite))
    if as_json:
        rows = result.summary(shown).reset_index().to_dict(orient="records")
        print_json({"summary": rows, "wrote": written, **_plain(result)})
        return
    _show(result, shown)
    print_written(*written)


def _show(result: "AngleResult", null: str | None) -> None:
    print_table(summary_rows(result, null), title=_title(result))
    if "whole_angle_deg" in result.dataset:
        print_table(_whole_students(result), title="Whole students: angles between their gradients")
    if "top_dimension" in result.dataset:
        print_table(_top_dimensions(result), title="Largest dimensions of each teacher layer: share of the dot product")
    for name, step, before in result.unchanged_steps:
        typer.echo(f"note: {name} has the same weights at step {step} as at step {before}")


def _title(result: "AngleResult") -> str:
    attributes = result.dataset.attrs
    title = f"Angles between teacher layers, over {attributes['n_examples']} texts"
    return title if attributes["stopped"] == "all texts" else f"{title} ({attributes['stopped']})"


def _nulls(given: list[str] | None) -> "tuple[NullName, ...]":
    from layerangles.geometry.nulls import NULLS, check_nulls

    if given == ["all"]:
        return NULLS
    return () if given == ["none"] else check_nulls(given or ["N1"])


def _shard(given: str) -> tuple[int, int]:
    from layerangles.errors import InputError

    i, slash, n = given.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal()):
        raise InputError(f"--shard is {given!r}; allowed is i/n, such as 0/4 to 3/4.")
    return int(i), int(n)


def have_checkpoints(students: "Sequence[Path]") -> bool:
    """Whether any of the students was kept along training."""
    return any(any(student.glob("checkpoints/step-*/matching.json")) for student in students)


def summary_rows(result: "AngleResult", null: str | None = None) -> list[dict[str, object]]:
    """One row a student (and step) and student layer, for people to read."""
    from layerangles.notation import interval, with_interval

    rows = []
    towers = result.dataset.sizes["tower"] > 1
    keys = ("student", "step", *(["tower"] if towers else []), "student_layer")
    for row in result.summary(null).reset_index().to_dict(orient="records"):
        named = {key: row[key] for key in keys if key in row}
        of_null: dict[str, object] = {}
        if null is not None:
            of_null[f"{null} °"] = row["null_angle_deg"]
            of_null["excess °"] = with_interval(
                row["excess_deg"], row["excess_low"], row["excess_high"], 1, signed=True
            )
        rows.append(
            named
            | {
                "mean angle °": row["angle_deg"],
                "95 % interval": interval(row["ci_low"], row["ci_high"], 1),
                **of_null,
                "smallest °": row["min_angle_deg"],
                "largest °": row["max_angle_deg"],
                "share acute": row["acute_fraction"],
                "tokens": int(row["n_tokens"]),
                "degenerate": int(row["n_degenerate"]),
            }
        )
    return rows


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
            continue  # measure_angles says what is wrong with it
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


def _check_endings(files: dict[str, Path | None]) -> None:
    from layerangles.errors import InputError

    for ending, path in files.items():
        if path is not None and path.suffix != ending:
            raise InputError(f"--{ending[1:]} {path}: the file's name must end in {ending}.")


def _draw(
    result: "AngleResult", html: Path | None, images: list[Path], null: str | None, *, overwrite: bool
) -> list[Path]:
    if html is None and not images:
        return []
    from layerangles import figures

    final = result.at_step()
    one = len(final.students) == 1
    figure = figures.heatmap(final, null=null) if one else figures.comparison(final, null=null)
    written = [] if html is None else [figures.write_html(figure, html, overwrite=overwrite)]
    return written + [figures.write_image(figure, path, overwrite=overwrite) for path in images]


def _whole_students(result: "AngleResult") -> list[dict[str, object]]:
    """One row a student (and step): the angles over all pairs of teacher layers."""
    frame = result.dataset["whole_angle_deg"].to_dataframe(name="angle").reset_index().dropna(subset="angle")
    keys = [key for key in ("student", "step", "tower") if key in frame]
    groups = frame.groupby(keys, sort=False)["angle"].agg(["mean", "min", "max"]).reset_index()
    names = {"mean": "mean angle °", "min": "smallest °", "max": "largest °"}
    return [{str(k): v for k, v in row.items()} for row in groups.rename(columns=names).to_dict(orient="records")]


def _top_dimensions(result: "AngleResult") -> list[dict[str, object]]:
    """One row a tower and teacher layer: its five dimensions that weigh most in the dot product of two tokens."""
    from layerangles.notation import percent

    data = result.dataset
    rows = []
    for tower in data["tower"].values:
        for layer in data["layer_a"].values:
            cell = data[["top_dimension", "top_dimension_share"]].sel(tower=tower, layer_a=layer)
            pairs = zip(cell["top_dimension"].values, cell["top_dimension_share"].values, strict=True)
            known = [
                (int(dimension), percent(share, 1, space=" ")) for dimension, share in pairs if not math.isnan(share)
            ]
            shares = {str(rank): f"{dimension} ({share})" for rank, (dimension, share) in enumerate(known, 1)}
            rows.append({"tower": str(tower), "teacher layer": int(layer)} | shares)
    return rows


def _draw_trajectory(result: "AngleResult", path: Path, null: str | None, *, overwrite: bool) -> Path:
    from layerangles import figures

    figure = figures.trajectory(result, null=null or "N1")
    if path.suffix == ".html":
        return figures.write_html(figure, path, overwrite=overwrite)
    return figures.write_image(figure, path, overwrite=overwrite)


def _plain(result: "AngleResult") -> dict[str, object]:
    """The result's attributes, with numpy's numbers as Python's."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in result.dataset.attrs.items()}
