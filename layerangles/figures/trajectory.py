"""Angles over training: mean angle, excess over a null, and common-mode ratio, one line per student."""

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from layerangles.errors import InputError
from layerangles.figures.drawing import selection, style
from layerangles.figures.drawing.frame import frame
from layerangles.figures.drawing.panel import Grid, axis_number
from layerangles.figures.drawing.theme import FAINT, SCREEN, Theme
from layerangles.notation import count, interval, number, percent
from layerangles.results.variables import VARIABLES, heading

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult

# Dashes and marks tell the lines apart without colour.
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_MARKS = style.MARKS[:7]

_WIDTH, _PANEL_HEIGHT, _GAP = 680, 210, 46
_LEGEND_WIDTH = 230
_PAPER_LEFT = 42  # on paper: the space left of a panel, for the title and the numbers of its axis

_MEANINGS = {60: "60°, independent layers of equal norm", 90: "90°, orthogonal"}


def trajectory(
    result: "AngleResult", *, null: str = "N1", tower: str | None = None, theme: Theme = SCREEN
) -> go.Figure:
    """Draw mean angle, excess over a null, and common-mode ratio ρ against the training step.

    Values are means over the tokens, pairs and layers of a student; bands are their intervals, and bars those of
    isolated points. There are no panels for variables that were not measured, and steps without a value are gaps. Where
    a checkpoint has the same weights as the one before it, nothing was trained in between: the line is broken, and the
    subtitle says so.

    Args:
        result: measured with ``steps=True``.
        null: the null over which the excess is shown.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size.

    Raises:
        InputError: the result has no step axis, or not that null (though it has others), or no such tower; or it is
            in gradient space or the paper's convention, where no mean over a student's layers is kept.
    """
    if not result.steps:
        raise InputError(
            "this result has no step axis, so there is no trajectory. Measure students with checkpoints along "
            "training with steps=True (on the command line: --steps)."
        )
    if result.nulls:
        result.check_null(null)
    tower = selection.one_tower(result, tower)
    data = result.dataset.sel(tower=tower)
    panels = [panel for panel in _panels(data, null) if panel["mean"] is not None]
    if not panels:
        raise InputError(
            "this result holds no mean over all layers of a student (none is kept in gradient space and in the paper's "
            'convention), so there is no trajectory. Draw a step with heatmap(step=…), or measure with space="teacher".'
        )
    short, shared = style.short_names(result.students) if theme.on_paper else (result.students, "")
    names = [style.legend_name(name, _LEGEND_WIDTH - 60, theme) for name in short]
    grid = _paper_grid(len(panels), theme) if theme.on_paper else _screen_grid(len(panels), names)
    unchanged = result.unchanged_steps
    figure = go.Figure()
    for index, panel in enumerate(panels):
        axis = axis_number(index)
        for place, student in enumerate(result.students):
            same = {step: before for name, step, before in unchanged if name == student}
            band, line = _line(result.steps, student, place, panel, same, theme)
            line.update(name=names[place], showlegend=index == 0)
            figure.add_traces([trace.update(xaxis=f"x{axis}", yaxis=f"y{axis}") for trace in (band, line)])
        is_last = grid.place(index)[0] == grid.n_rows - 1
        y = {"title": {"text": panel["title"]}, "nticks": theme.pick(0, 5)}
        figure.update_layout(grid.axes(index, _x_axis(result.steps, theme, is_last=is_last), y))
        for value in panel["lines"]:
            reference = {"type": "line", "xref": f"x{axis} domain", "yref": f"y{axis}", "x0": 0, "x1": 1}
            figure.add_shape(**reference, y0=value, y1=value, line={"color": FAINT, "width": 1, "dash": "dot"})
    notes = [f"means over tokens, pairs and layers{f' · {tower}' if result.dataset.sizes['tower'] > 1 else ''}"]
    notes.append(f"bands: {percent(result.dataset.attrs.get('confidence', 0.95), space=' ')} intervals")
    notes += [f"dotted: {_MEANINGS[value]}" for panel in panels for value in panel["lines"] if value in _MEANINGS]
    notes += [f"{name}: step {step} has the weights of step {before}" for name, step, before in unchanged]
    notes += [f"all students are of {shared}"] if shared else []
    margins = theme.pick((78, _LEGEND_WIDTH, 14, 60), (_PAPER_LEFT, 8, 6, 34))
    title = "Angles between teacher layers over training"
    return frame(figure, title, notes, (grid.width, grid.height), margins, theme)


def _screen_grid(n_panels: int, names: list[str]) -> Grid:
    tall = style.panel_height(_PANEL_HEIGHT, n_panels, _GAP, names)
    return Grid(n_panels, 1, _WIDTH, 0, _GAP, tall=tall)


def _paper_grid(n_panels: int, theme: Theme) -> Grid:
    """A grid with panels beside each other where there is room, else below each other."""
    room = theme.fixed_width - 8
    if room < n_panels * (_PAPER_LEFT + 100):
        return Grid(n_panels, 1, room - _PAPER_LEFT, 0, 9, tall=104)
    return Grid(1, n_panels, room / n_panels - _PAPER_LEFT, _PAPER_LEFT, 0, tall=140)


def _panels(data: xr.Dataset, null: str) -> list[dict[str, Any]]:
    """The panels: variables ``[student, step]``, a title, and values to mark by dotted lines."""

    def variables(*names: str) -> list[xr.DataArray | None]:
        found = [data.get(name) for name in names]
        return [v.sel(null=null) if v is not None and "null" in v.dims else v for v in found]

    angle = VARIABLES["student_angle_deg"]
    specs: dict[str, tuple[int, ...]] = {
        angle.name: _in_range(variables(angle.name, *angle.ends), tuple(_MEANINGS)),
        "student_excess_deg": (0,),
        "student_common_mode_ratio": (),
    }
    return [
        dict(zip(("mean", "low", "high"), variables(name, *VARIABLES[name].ends), strict=True))
        | {"title": heading(name, null), "unit": VARIABLES[name].unit, "lines": lines}
        for name, lines in specs.items()
    ]


def _in_range(variables: list[xr.DataArray | None], marked: tuple[int, ...]) -> tuple[int, ...]:
    """The marked values within the range of the data."""
    finite = [value for v in variables if v is not None for value in v.values[np.isfinite(v.values)].tolist()]
    return tuple(value for value in marked if finite and min(finite) <= value <= max(finite))


def _runs(there: list[bool], breaks: list[bool]) -> list[list[int]]:
    """Runs of consecutive indices to join by a line; a missing value ends a run, and a break begins a new one.

    >>> _runs([True, True, False, True, True], [False, False, False, False, True])
    [[0, 1], [3], [4]]
    """
    runs: list[list[int]] = [[]]
    for index, (is_there, breaks_here) in enumerate(zip(there, breaks, strict=True)):
        if breaks_here or not is_there:
            runs.append([])
        if is_there:
            runs[-1].append(index)
    return [run for run in runs if run]


def _apart(runs: list[list[Any]]) -> list[Any]:
    """The runs in one list, separated by None, which plotly draws as a gap."""
    return [value for run in runs for value in [None, *run]][1:]


def _line(
    steps: list[int], student: str, place: int, panel: dict[str, Any], unchanged: dict[int, int], theme: Theme
) -> list[go.Scatter]:
    """The band and the line of one student in one panel; ``unchanged`` maps steps to earlier ones of equal weights."""
    mean, low, high = (panel[name].sel(student=student).values.astype(float) for name in ("mean", "low", "high"))
    # No flat line between two steps of the same weights.
    runs = _runs(np.isfinite(mean).tolist(), [step in unchanged for step in steps])
    in_band = np.isfinite(mean) & np.isfinite(low) & np.isfinite(high)
    bands = [band for run in runs if len(band := [index for index in run if in_band[index]]) > 1]

    def hover(index: int) -> str:
        step, unit = steps[index], panel["unit"]
        ends = interval(low[index], high[index], 2) if in_band[index] else "(no interval)"
        note = f"<br>the same weights as at step {count(unchanged[step])}" if step in unchanged else ""
        what = panel["title"].removesuffix(" °")
        return (
            f"{style.literal(student)}, step {count(step)}<br>{what} <b>{number(mean[index], 2)}{unit}</b> {ends}{note}"
        )

    def bars(lengths: Any) -> list[float | None]:
        """Lengths of error bars, for isolated points only, where a band would have no width."""
        return _apart([[float(lengths[i]) if len(run) == 1 and in_band[i] else None for i in run] for run in runs])

    look = _look(place, theme)
    colour = look["line"]["color"]
    return [
        go.Scatter(
            # One outline per run: with "tonexty" plotly would fill across the gaps.
            x=_apart([[steps[i] for i in [*band, *reversed(band)]] for band in bands]),
            y=_apart([[*low[band].tolist(), *reversed(high[band].tolist())] for band in bands]),
            legendgroup=student,
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=style.faded(colour),
            hoverinfo="skip",
        ),
        go.Scatter(
            x=_apart([[steps[i] for i in run] for run in runs]),
            y=_apart([mean[run].tolist() for run in runs]),
            error_y={
                "type": "data",
                "symmetric": False,
                "array": bars(high - mean),
                "arrayminus": bars(mean - low),
                "width": 0,
                "thickness": theme.stroke(2),
                "color": colour,
            },
            legendgroup=student,
            **look,
            hovertext=[text or "" for text in _apart([[hover(i) for i in run] for run in runs])],
            hovertemplate="%{hovertext}<extra></extra>",
        ),
    ]


def _look(place: int, theme: Theme) -> dict[str, Any]:
    """The line and the mark of the student at this place."""
    colour = style.COLOURS[place % len(style.COLOURS)]
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "width": theme.stroke(2), "dash": _DASHES[place % len(_DASHES)]},
        "marker": {"symbol": _MARKS[place % len(_MARKS)], "size": theme.pick(7, 5), "color": colour},
    }


def _x_axis(steps: list[int], theme: Theme, *, is_last: bool) -> dict[str, Any]:
    padding = 0.04 * max(1, steps[-1] - steps[0])
    return {
        "matches": "x",
        "title": {"text": "training step"} if is_last else None,
        "range": [steps[0] - padding, steps[-1] + padding],
        "showticklabels": theme.pick(on_screen=True, on_paper=is_last),
        "nticks": theme.pick(0, 5),
    }
