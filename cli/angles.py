"""``layerangles angles``: measure students, save the result, draw it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import print_json, print_table, print_written

if TYPE_CHECKING:
    from layerangles import AngleResult
    from layerangles.states import Text


def angles(
    students: Annotated[
        list[Path] | None, typer.Argument(help="Student directories; they know their teacher and their data.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Any teacher: a directory or a hub name. With --student.")] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="Any student of the teacher's width: a directory or a hub name.")
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
    steps: Annotated[bool, typer.Option("--steps", help="Measure the checkpoints along training too.")] = False,
    max_examples: Annotated[int, typer.Option(min=1, help="Measure on so many texts, drawn evenly.")] = 1000,
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
    from layerangles.files import refuse_existing

    if bool(students) == bool(teacher or student):
        raise InputError(
            "give student directories, or --teacher and --student for any two models; not both, not neither."
        )
    if bool(teacher) != bool(student):
        raise InputError("--teacher and --student belong together; give both.")
    images = [path for path in (png, svg, pdf) if path is not None]
    for path in (output, html, *images):
        if path is not None:
            refuse_existing(path, overwrite=overwrite)
    _check_endings({".html": html, ".png": png, ".svg": svg, ".pdf": pdf})
    if images:
        from layerangles.figures.export import require_image_export

        require_image_export()
    texts = _evenly(_texts(students, data, text, split), max_examples)
    result = measure_angles(
        students or student or [],
        texts,
        teacher=teacher,
        steps=steps,
        final_norm=final_norm,  # type: ignore[arg-type]  # checked in there, with a message
        special_tokens=special_tokens,
        max_length=max_length,
        batch_size=batch_size,
        precision=precision,  # type: ignore[arg-type]
        device=device,
        trust_remote_code=trust_remote_code,
    )
    written = [result.save(output, overwrite=overwrite)]
    written += _draw(result, html, images, overwrite=overwrite)
    if as_json:
        rows = result.summary().reset_index().to_dict(orient="records")
        print_json({"summary": rows, "wrote": written, **_plain(result)})
        return
    print_table(summary_rows(result), title=f"Angles between teacher layers, over {len(texts)} texts")
    print_written(*written)


def summary_rows(result: "AngleResult") -> list[dict[str, object]]:
    """One row a student (and step) and student layer, for people to read."""
    rows = []
    for row in result.summary().reset_index().to_dict(orient="records"):
        named = {key: row[key] for key in ("student", "step", "student_layer") if key in row}
        interval = f"[{row['ci_low']:.1f}, {row['ci_high']:.1f}]" if row["ci_low"] == row["ci_low"] else "–"
        rows.append(
            named
            | {
                "mean angle °": row["angle_deg"],
                "95 % interval": interval,
                "smallest °": row["min_angle_deg"],
                "largest °": row["max_angle_deg"],
                "share acute": row["acute_fraction"],
                "tokens": int(row["n_tokens"]),
                "degenerate": int(row["n_degenerate"]),
            }
        )
    return rows


def _texts(students: list[Path] | None, data: Path | None, columns: list[str] | None, split: str) -> "Sequence[Text]":
    from kd_train.study import study_of
    from kd_train.tables import read_file
    from kd_train.tasks import classification
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
            loaded = classification.load(study.task)
            if split not in loaded.splits:
                raise InputError(f"the study has no split {split!r}; its splits are {', '.join(loaded.splits)}.")
            return loaded.splits[split].texts
        break
    if students and not any(student.is_dir() for student in students):
        raise InputError(
            f"{students[0]} is not a directory. Give student directories, such as STUDY/students/forward-seed0."
        )
    raise InputError("no texts to measure on: these models belong to no study. Name a file of texts with --data.")


def _evenly(texts: "Sequence[Text]", most: int) -> "list[Text]":
    """At most so many texts, evenly spaced, so that a sorted file is not cut to its first class."""
    if len(texts) <= most:
        return list(texts)
    return [texts[i * len(texts) // most] for i in range(most)]


def _check_endings(files: dict[str, Path | None]) -> None:
    from layerangles.errors import InputError

    for ending, path in files.items():
        if path is not None and path.suffix != ending:
            raise InputError(f"--{ending[1:]} {path}: the file's name must end in {ending}.")


def _draw(result: "AngleResult", html: Path | None, images: list[Path], *, overwrite: bool) -> list[Path]:
    if html is None and not images:
        return []
    from layerangles import figures

    final = result.at_step()
    figure = figures.heatmap(final) if len(final.students) == 1 else figures.comparison(final)
    written = [] if html is None else [figures.write_html(figure, html, overwrite=overwrite)]
    return written + [figures.write_image(figure, path, overwrite=overwrite) for path in images]


def _plain(result: "AngleResult") -> dict[str, object]:
    """The result's attributes, with numpy's numbers as Python's."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in result.dataset.attrs.items()}
