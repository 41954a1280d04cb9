"""``layerangles draw``: figures of stored results and studies, for a screen or for a paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from . import options
from .output import print_json, print_written

if TYPE_CHECKING:
    from kd_train.outcome.judging import Judged
    from layerangles import AngleResult
    from layerangles.figures import LayerView

_SUFFIXES = (".html", ".png", ".svg", ".pdf")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a function that draws."""


@dataclass(frozen=True)
class Selection:
    """The part of the sources to draw, as given by the options of :func:`draw`; None or empty where not given."""

    student: tuple[str, ...] = ()
    step: tuple[int, ...] = ()
    tower: str | None = None
    layer: int | None = None
    teacher_layer: tuple[int, ...] = ()
    null: str | None = None
    cell: str | None = None
    margin: float | None = None
    margin_of_gain: float | None = None
    metric: str | None = None
    split: str | None = None

    @property
    def given(self) -> list[str]:
        """The names of the options that were given."""
        return [field.name for field in fields(self) if getattr(self, field.name) not in (None, ())]

    @property
    def first_step(self) -> int | None:
        """The step of a figure at one step."""
        return self.step[0] if self.step else None

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the drawing functions, as far as they were given."""
        named = {"tower": self.tower, "null": self.null, "student_layer": self.layer}
        named |= dict(zip(("layer_a", "layer_b"), self.teacher_layer, strict=False))
        return {name: value for name, value in named.items() if value is not None}


def draw(
    figure: Annotated[
        str,
        typer.Argument(
            metavar="FIGURE",
            help="heatmap, comparison, compare-pair (two students), histogram, histogram-pair (two students), "
            "trajectory, distances; of scores forest, gains, prediction.",
        ),
    ],
    sources: Annotated[
        list[Path], typer.Argument(help="Result files (.nc), studies; for forest and gains tables of scores, too.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file; .html, .png, .svg or .pdf.")],
    theme: Annotated[str, typer.Option(help="screen, or paper: as wide as its columns, no title, safe in grey.")] = (
        "screen"
    ),
    columns: Annotated[int | None, typer.Option(help="Columns of the paper, 1 (219 pt) or 2 (455 pt).")] = None,
    student: Annotated[
        list[str] | None,
        typer.Option(help="A student's name; twice for compare-pair and histogram-pair, any number in a comparison."),
    ] = None,
    step: Annotated[
        list[int] | None,
        typer.Option(help="The training step, the last by default; twice for two states."),
    ] = None,
    tower: Annotated[str | None, typer.Option(help="encoder or decoder, where there are both.")] = None,
    layer: Annotated[
        int | None, typer.Option(help="The student layer that angles are seen from; 1 by default.")
    ] = None,
    teacher_layer: Annotated[
        list[int] | None, typer.Option(help="A teacher layer of the cosines; twice for a pair. By default 1.")
    ] = None,
    null: Annotated[str | None, typer.Option(help="Draw the excess over this null, such as N1.")] = None,
    cell: Annotated[str | None, typer.Option(help="The cell of the study, where there are several.")] = None,
    margin: options.Margin = None,
    margin_of_gain: options.MarginOfGain = None,
    metric: options.Metric = None,
    split: options.Split = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a figure of stored measurements; for a paper, also print its caption.

    Example: layerangles draw heatmap runs/movie-reviews --student forward-seed0 --theme paper -o heatmap.pdf

    Example: layerangles draw compare-pair angles.nc --student forward-seed0 --student none-seed0 -o pair.html
    """
    selection = Selection(
        student=tuple(student or ()),
        step=tuple(step or ()),
        tower=tower,
        layer=layer,
        teacher_layer=tuple(teacher_layer or ()),
        null=null,
        cell=cell,
        margin=margin,
        margin_of_gain=margin_of_gain,
        metric=metric,
        split=split,
    )
    _check(figure, selection, theme, columns, output, overwrite=overwrite)
    from layerangles import figures

    kind = KINDS[figure]
    of_theme = figures.theme(theme, columns=columns or 1)  # type: ignore[arg-type]  # these are checked
    read = _judged if "metric" in kind.takes else _results
    arguments, keywords = kind.arguments(read(figure, sources, selection), selection)
    drawn = getattr(figures, figure.replace("-", "_"))(*arguments, **keywords, theme=of_theme)
    write = figures.write_html if output.suffix == ".html" else figures.write_image
    written = write(drawn, output, overwrite=overwrite)
    if as_json:
        print_json({"wrote": written, "caption": figures.caption(drawn)})
        return
    print_written(written)
    if of_theme.on_paper:
        typer.echo(f"\n{figures.caption(drawn)}")


def _check(
    figure: str, selection: Selection, theme: str, columns: int | None, output: Path, *, overwrite: bool
) -> None:
    """Raise one message on all errors of the command line, before anything is read."""
    from layerangles.errors import InputError
    from layerangles.figures.drawing.export import require_image_export
    from layerangles.files import check_absent

    if figure not in KINDS:
        raise InputError(f"there is no figure {figure!r}; allowed are {', '.join(KINDS)}.")
    kind = KINDS[figure]
    wrong = [] if theme in ("screen", "paper") else [f"--theme is {theme!r}; allowed are screen and paper."]
    if columns is not None and (columns not in (1, 2) or theme != "paper"):
        wrong.append(f"--columns is {columns}; allowed are 1 and 2, with --theme paper.")
    if output.suffix not in _SUFFIXES:
        wrong.append(f"--output is {output}; its name must end in {', '.join(_SUFFIXES)}.")
    useless = [_option(name) for name in selection.given if name not in kind.takes]
    if useless:
        takes = ", ".join(map(_option, kind.takes))
        wrong.append(f"{figure} does not take {', '.join(useless)}; it takes {takes}. Leave the others out.")
    most = {"student": kind.students, "step": kind.steps, "teacher_layer": 2}
    for name, number in most.items():
        if (n := len(getattr(selection, name))) > number:
            wrong.append(f"{figure} takes {_option(name)} {'once' if number == 1 else 'twice'} at most; got {n}.")
    if wrong:
        raise InputError(" ".join(wrong))
    check_absent(output, overwrite=overwrite)
    if output.suffix != ".html":
        require_image_export()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _results(_figure: str, sources: Sequence[Path], _selection: Selection) -> "list[AngleResult]":
    """The stored angles of all sources."""
    from layerangles import AngleResult
    from layerangles.errors import InputError

    results = []
    for source in sources:
        if not source.is_dir():
            results.append(AngleResult.load(source))
            continue
        from kd_train.outcome.opened_study import open_study

        stored = open_study(source).angles()
        if not stored:
            raise InputError(
                f"the study {source} has no measured angles. Measure them: layerangles angles {source}/students/* "
                f"--output {source}/angles/angles.nc"
            )
        results += stored
    return results


def _judged(figure: str, sources: Sequence[Path], selection: Selection) -> "list[Judged]":
    """The verdicts on the cells of all sources."""
    from kd_train.outcome.judging import chosen_margin, judge_all
    from kd_train.outcome.opened_study import open_scores
    from layerangles.errors import InputError

    for source in sources:
        if source.suffix == ".nc" and not source.is_dir():
            raise InputError(f"{figure} is of scores, and {source} holds angles. Give a study's directory.")
    margin = chosen_margin(selection.margin, selection.margin_of_gain)
    opened = [open_scores(source) for source in sources]
    return judge_all(opened, margin=margin, metric=selection.metric, split=selection.split)


def _of_student(results: "Sequence[AngleResult]", student: str | None, step: int | None) -> "tuple[AngleResult, str]":
    """The only result with a student (at a step, if one was given), and the student's name."""
    from layerangles.errors import InputError

    names = list(dict.fromkeys(name for result in results for name in result.students))
    if student is None and len(names) == 1:
        student = names[0]
    if student not in names:
        got = "no student was named" if student is None else f"there is no student {student!r}"
        raise InputError(f"{got}; allowed are {', '.join(names)}. Name one with --student.")
    holding = [result for result in results if student in result.students]
    at_step = [result for result in holding if step in result.steps]
    found = at_step or holding
    if len(found) > 1:
        raise InputError(f"{student} is in {len(found)} of the results. Give the one result file that is meant.")
    return found[0], student


def _together(results: "Sequence[AngleResult]", selection: Selection) -> "AngleResult":
    """One result with the named students or all: from one file if that has them, else joined at one step."""
    from layerangles import AngleResult

    step = selection.first_step
    named = [_of_student(results, name, step)[0] for name in selection.student]
    found = list({id(result): result for result in named or results}.values())
    if len(found) == 1:
        return found[0]
    datasets = [result.at_step(step if result.steps else None).dataset for result in found]
    if all("null" in dataset.dims for dataset in datasets):
        shared = [null for null in found[0].nulls if all(null in result.nulls for result in found)]
        datasets = [dataset.sel(null=shared) for dataset in datasets]
    # Only some results know the number of steps and which of them this is.
    datasets = [dataset.drop_vars(["step", "trained_steps"], errors="ignore") for dataset in datasets]
    return AngleResult.concat_students([AngleResult(dataset) for dataset in datasets])


def _one_student(results: "Sequence[AngleResult]", selection: Selection) -> Arguments:
    student = selection.student[0] if selection.student else None
    found = _of_student(results, student, selection.first_step)
    return found, {"step": selection.first_step, **selection.keywords()}


def _students(results: "Sequence[AngleResult]", selection: Selection) -> Arguments:
    result = _together(results, selection)
    step = selection.first_step if result.steps else None
    return (result, selection.student or None), {"step": step, **selection.keywords()}


def _course(results: "Sequence[AngleResult]", selection: Selection) -> Arguments:
    from layerangles import AngleResult

    # Studies often have results without steps beside the course of one seed.
    along = [result for result in results if result.steps] or list(results)
    if selection.student:
        parts = [_of_student(along, name, None) for name in selection.student]
        along = [AngleResult(result.dataset.sel(student=[name])) for result, name in parts]
    return (along[0] if len(along) == 1 else AngleResult.concat_students(along),), selection.keywords()


def _pair(results: "Sequence[AngleResult]", selection: Selection) -> Arguments:
    whose = "two students" if len(selection.student) == 2 else f"{''.join(selection.student[:1])} at two steps"
    title = f"Angles between teacher layers, from {whose}"
    return _views(results, selection), {"null": selection.null, "title": title}


def _pair_of_layers(results: "Sequence[AngleResult]", selection: Selection) -> Arguments:
    from layerangles.errors import InputError

    if len(selection.teacher_layer) != 2:
        raise InputError(
            "histogram-pair shows one pair of teacher layers; give --teacher-layer twice, such as 1 and 3."
        )
    return (*_views(results, selection), *selection.teacher_layer), {}


def _views(results: "Sequence[AngleResult]", selection: Selection) -> "tuple[LayerView, LayerView]":
    """Two students at a step, or one at two steps."""
    from layerangles import figures
    from layerangles.errors import InputError

    students, steps = selection.student, selection.step or (None,)
    if len(students) != 2 and not (len(students) == 1 and len(steps) == 2):
        raise InputError(
            f"two states are compared, and {len(students)} students were named. Give --student twice, or once with "
            "--step twice."
        )
    where: dict[str, Any] = {
        "student_layer": 1 if selection.layer is None else selection.layer,
        "tower": selection.tower,
    }

    def view(student: str, step: int | None) -> "LayerView":
        result, _ = _of_student(results, student, step)
        step = step if result.steps else None
        return figures.LayerView.of(result, student, step=step, **where)

    return view(students[0], steps[0]), view(students[-1], steps[-1])


def _cell(judged: "Sequence[Judged]", selection: Selection) -> Arguments:
    from layerangles.errors import InputError

    name, verdicts = selection.cell, {one.verdict.cell.name: one.verdict for one in judged}
    if name is None and len(verdicts) == 1:
        (name,) = verdicts
    if name not in verdicts:
        got = "no cell was named" if name is None else f"there is no cell {name!r}"
        raise InputError(f"{got}; allowed are {', '.join(map(repr, verdicts))}. Name one with --cell.")
    return (verdicts[name],), {}


def _gaps(judged: "Sequence[Judged]", _selection: Selection) -> Arguments:
    from kd_train.outcome.study_geometry import predict_from
    from layerangles.errors import InputError

    prediction = predict_from(judged)
    if prediction is None:
        raise InputError(
            "prediction sets scores against angles, and none of these studies has any. Measure them: "
            f"layerangles report {judged[0].source.path}"
        )
    return (prediction,), {}


class Kind(NamedTuple):
    """A figure of the command; the function of the same name in :mod:`layerangles.figures` draws it.

    Attributes:
        arguments: that function's arguments, of results, or of verdicts where the options of scores are taken.
        takes: the options that it takes; the command refuses others, which would have no effect.
        students: the largest number of students.
        steps: the largest number of steps.
    """

    arguments: Callable[[Any, Selection], Arguments]
    takes: tuple[str, ...]
    students: int = 1
    steps: int = 1


_OF_SCORES = ("margin", "margin_of_gain", "metric", "split")
_ANY = 10**6
KINDS = {
    "heatmap": Kind(_one_student, ("student", "step", "tower", "null")),
    "comparison": Kind(_students, ("student", "step", "tower", "null"), students=_ANY),
    "compare-pair": Kind(_pair, ("student", "step", "tower", "layer", "null"), students=2, steps=2),
    "histogram": Kind(_one_student, ("student", "step", "tower", "layer", "teacher_layer")),
    "histogram-pair": Kind(
        _pair_of_layers, ("student", "step", "tower", "layer", "teacher_layer"), students=2, steps=2
    ),
    "trajectory": Kind(_course, ("student", "tower", "null"), students=_ANY),
    "distances": Kind(_one_student, ("student", "step", "tower")),
    "forest": Kind(_cell, ("cell", *_OF_SCORES)),
    "gains": Kind(_cell, ("cell", *_OF_SCORES)),
    "prediction": Kind(_gaps, _OF_SCORES),
}
