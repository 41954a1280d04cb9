"""``layerangles draw``: any figure, from results and studies that are there, for a screen or for a paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .output import print_json, print_written

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from kd_train.outcome.judging import Judged
    from layerangles import AngleResult
    from layerangles.equivalence import Verdict
    from layerangles.figures import LayerView, Theme

_SUFFIXES = (".html", ".png", ".svg", ".pdf")

# Which options each figure takes; of the others it would be silent.
_OF_SCORES = ("margin", "margin_of_gain", "metric", "split")
TAKES: dict[str, tuple[str, ...]] = {
    "heatmap": ("student", "step", "tower", "null"),
    "comparison": ("student", "step", "tower", "null"),
    "compare-pair": ("student", "step", "tower", "layer", "null"),
    "histogram": ("student", "step", "tower", "layer", "teacher_layer"),
    "histogram-pair": ("student", "step", "tower", "layer", "teacher_layer"),
    "trajectory": ("student", "tower", "null"),
    "distances": ("student", "step", "tower"),
    "forest": ("cell", *_OF_SCORES),
    "gains": ("cell", *_OF_SCORES),
    "prediction": _OF_SCORES,
}
_OF_VERDICTS = ("forest", "gains", "prediction")


@dataclass(frozen=True)
class Chosen:
    """What of the sources is drawn; see the options of :func:`draw`. None or empty where nothing was given."""

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
        typer.Option(help="The training step, the last by default; compare-pair and histogram-pair take one each."),
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a figure of what was measured; for a paper, print its caption, too.

    Example: layerangles draw heatmap runs/movie-reviews --student forward-seed0 --theme paper -o heatmap.pdf

    Example: layerangles draw compare-pair angles.nc --student forward-seed0 --student none-seed0 -o pair.html
    """
    chosen = Chosen(
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
    _check(figure, chosen, theme, columns, output, overwrite=overwrite)
    from layerangles import figures

    look = figures.theme(theme, columns=columns or 1)  # type: ignore[arg-type]  # these are checked
    if figure in _OF_VERDICTS:
        drawn = _of_verdicts(figure, sources, chosen, look)
    else:
        drawn = _DRAW[figure](_results(sources), chosen, look)
    write = figures.write_html if output.suffix == ".html" else figures.write_image
    written = write(drawn, output, overwrite=overwrite)
    if as_json:
        print_json({"wrote": written, "caption": figures.caption(drawn)})
        return
    print_written(written)
    if look.on_paper:
        typer.echo(f"\n{figures.caption(drawn)}")


def _check(figure: str, chosen: Chosen, theme: str, columns: int | None, output: Path, *, overwrite: bool) -> None:
    """Everything that can be refused before anything is read, in one message."""
    from layerangles.errors import InputError
    from layerangles.figures.drawing.export import require_image_export
    from layerangles.files import check_absent

    if figure not in TAKES:
        raise InputError(f"there is no figure {figure!r}; allowed are {', '.join(TAKES)}.")
    wrong = [] if theme in ("screen", "paper") else [f"--theme is {theme!r}; allowed are screen and paper."]
    if columns is not None and (columns not in (1, 2) or theme != "paper"):
        wrong.append(f"--columns is {columns}; allowed are 1 and 2, with --theme paper.")
    if output.suffix not in _SUFFIXES:
        wrong.append(f"--output is {output}; its name must end in {', '.join(_SUFFIXES)}.")
    given = [field.name for field in fields(Chosen) if getattr(chosen, field.name) not in (None, ())]
    useless = [_option(name) for name in given if name not in TAKES[figure]]
    if useless:
        takes = ", ".join(map(_option, TAKES[figure]))
        wrong.append(f"{figure} does not take {', '.join(useless)}; it takes {takes}. Leave the others out.")
    most = {"student": 1, "step": 1, "teacher_layer": 2}
    most |= {"student": 2, "step": 2} if figure in ("compare-pair", "histogram-pair") else {}
    most |= {"student": 10**6} if figure in ("comparison", "trajectory") else {}
    for name, number in most.items():
        if (n := len(getattr(chosen, name))) > number:
            wrong.append(f"{figure} takes {_option(name)} {'once' if number == 1 else 'twice'} at most; got {n}.")
    if wrong:
        raise InputError(" ".join(wrong))
    check_absent(output, overwrite=overwrite)
    if output.suffix != ".html":
        require_image_export()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _results(sources: Sequence[Path]) -> "list[AngleResult]":
    from kd_train.outcome.opened_study import open_study
    from layerangles import AngleResult
    from layerangles.errors import InputError

    results = []
    for source in sources:
        if not source.is_dir():
            results.append(AngleResult.load(source))
            continue
        stored = open_study(source).angles()
        if not stored:
            raise InputError(
                f"the study {source} has no measured angles. Measure them: layerangles angles {source}/students/* "
                f"--output {source}/angles/angles.nc"
            )
        results += stored
    return results


def _of_student(results: "Sequence[AngleResult]", student: str | None, step: int | None) -> "tuple[AngleResult, str]":
    """The one result that holds a student (at a step, where one was asked for), and the student's name."""
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


def _of_students(results: "Sequence[AngleResult]", chosen: Chosen) -> "AngleResult":
    """One result with the named students, or with all: of one file where that holds them, else joined at one step."""
    from layerangles import AngleResult

    step = chosen.step[0] if chosen.step else None
    if not chosen.student:
        found = list(results)
    else:
        found = [_of_student(results, name, step)[0] for name in chosen.student]
        found = [result for number, result in enumerate(found) if all(result is not other for other in found[:number])]
    if len(found) == 1:
        return found[0]
    datasets = [result.at_step(step if result.steps else None).dataset for result in found]
    if all("null" in dataset.dims for dataset in datasets):
        shared = [null for null in found[0].nulls if all(null in result.nulls for result in found)]
        datasets = [dataset.sel(null=shared) for dataset in datasets]
    # Which step of how many is known of some results alone.
    datasets = [dataset.drop_vars(["step", "trained_steps"], errors="ignore") for dataset in datasets]
    return AngleResult.concat_students([AngleResult(dataset) for dataset in datasets])


def _step(chosen: Chosen) -> int | None:
    return chosen.step[0] if chosen.step else None


def _one(results: "Sequence[AngleResult]", chosen: Chosen) -> "tuple[AngleResult, str]":
    return _of_student(results, chosen.student[0] if chosen.student else None, _step(chosen))


def _heatmap(results: "Sequence[AngleResult]", chosen: Chosen, theme: "Theme") -> "Figure":
    from layerangles import figures

    result, student = _one(results, chosen)
    return figures.heatmap(result, student, step=_step(chosen), tower=chosen.tower, null=chosen.null, theme=theme)


def _comparison(results: "Sequence[AngleResult]", chosen: Chosen, theme: "Theme") -> "Figure":
    from layerangles import figures

    result, students = _of_students(results, chosen), chosen.student or None
    step = _step(chosen) if result.steps else None
    return figures.comparison(result, students, step=step, tower=chosen.tower, null=chosen.null, theme=theme)


def _histogram(results: "Sequence[AngleResult]", chosen: Chosen, theme: "Theme") -> "Figure":
    from layerangles import figures

    result, student = _one(results, chosen)
    layer = 1 if chosen.layer is None else chosen.layer
    a, b = (*chosen.teacher_layer, None, None)[:2]
    where: dict[str, Any] = {"step": _step(chosen), "tower": chosen.tower, "student_layer": layer}
    return figures.histogram(result, student, layer_a=1 if a is None else a, layer_b=b, **where, theme=theme)


def _trajectory(results: "Sequence[AngleResult]", chosen: Chosen, theme: "Theme") -> "Figure":
    from layerangles import AngleResult, figures

    # Results without steps lie beside the course of one seed in many a study.
    along = [result for result in results if result.steps] or list(results)
    if chosen.student:
        parts = [_of_student(along, name, None) for name in chosen.student]
        along = [AngleResult(result.dataset.sel(student=[name])) for result, name in parts]
    whole = along[0] if len(along) == 1 else AngleResult.concat_students(along)
    return figures.trajectory(whole, null=chosen.null or "N1", tower=chosen.tower, theme=theme)


def _distances(results: "Sequence[AngleResult]", chosen: Chosen, theme: "Theme") -> "Figure":
    from layerangles import figures

    result, student = _one(results, chosen)
    return figures.distances(result, student, step=_step(chosen), tower=chosen.tower, theme=theme)


def _compare_pair(results: "Sequence[AngleResult]", chosen: Chosen, theme: "Theme") -> "Figure":
    from layerangles import figures

    first, second = _views(results, chosen)
    whose = "two students" if len(chosen.student) == 2 else f"{chosen.student[0]} at two steps"
    title = f"Angles between teacher layers, from {whose}"
    return figures.compare_pair(first, second, null=chosen.null, title=title, theme=theme)


def _histogram_pair(results: "Sequence[AngleResult]", chosen: Chosen, theme: "Theme") -> "Figure":
    from layerangles import figures
    from layerangles.errors import InputError

    if len(chosen.teacher_layer) != 2:
        raise InputError(
            "histogram-pair is of one pair of teacher layers; give --teacher-layer twice, such as 1 and 3."
        )
    first, second = _views(results, chosen)
    return figures.histogram_pair(first, second, *chosen.teacher_layer, theme=theme)


def _views(results: "Sequence[AngleResult]", chosen: Chosen) -> "tuple[LayerView, LayerView]":
    """Two students at a step, or one at two steps."""
    from layerangles import figures
    from layerangles.errors import InputError

    students, steps = chosen.student, chosen.step or (None,)
    if len(students) != 2 and not (len(students) == 1 and len(steps) == 2):
        raise InputError(
            f"two states are compared, and {len(students)} students were named. Give --student twice, or once with "
            "--step twice."
        )
    both = [_of_student(results, students[way % len(students)], steps[way % len(steps)]) for way in (0, 1)]
    layer = 1 if chosen.layer is None else chosen.layer
    first, second = (
        figures.LayerView.of(
            result,
            student,
            student_layer=layer,
            step=steps[way % len(steps)] if result.steps else None,
            tower=chosen.tower,
        )
        for way, (result, student) in enumerate(both)
    )
    return first, second


_DRAW: "dict[str, Callable[[Sequence[AngleResult], Chosen, Theme], Figure]]" = {
    "heatmap": _heatmap,
    "comparison": _comparison,
    "compare-pair": _compare_pair,
    "histogram": _histogram,
    "histogram-pair": _histogram_pair,
    "trajectory": _trajectory,
    "distances": _distances,
}


def _of_verdicts(figure: str, sources: Sequence[Path], chosen: Chosen, theme: "Theme") -> "Figure":
    from kd_train.outcome.judging import chosen_margin, judge_all
    from kd_train.outcome.opened_study import open_scores
    from kd_train.outcome.study_geometry import predict_from
    from layerangles import figures
    from layerangles.errors import InputError

    for source in sources:
        if source.suffix == ".nc" and not source.is_dir():
            raise InputError(f"{figure} is of scores, and {source} holds angles. Give a study's directory.")
    given = chosen_margin(chosen.margin, chosen.margin_of_gain)
    opened = [open_scores(source) for source in sources]
    judged = judge_all(opened, margin=given, metric=chosen.metric, split=chosen.split)
    if figure != "prediction":
        verdict = _one_cell(judged, chosen.cell)
        function = figures.forest if figure == "forest" else figures.gains
        return function(verdict, theme=theme)
    prediction = predict_from(judged)
    if prediction is None:
        raise InputError(
            "prediction sets scores against angles, and none of these studies has any. Measure them: "
            f"layerangles report {sources[0]}"
        )
    return figures.prediction(prediction, theme=theme)


def _one_cell(judged: "Sequence[Judged]", name: str | None) -> "Verdict":
    from layerangles.errors import InputError

    verdicts = {one.verdict.cell.name: one.verdict for one in judged}
    if name is None and len(verdicts) == 1:
        return next(iter(verdicts.values()))
    if name not in verdicts:
        got = "no cell was named" if name is None else f"there is no cell {name!r}"
        listed = ", ".join(map(repr, verdicts))
        raise InputError(f"{got}; allowed are {listed}. Name one with --cell.")
    return verdicts[name]
