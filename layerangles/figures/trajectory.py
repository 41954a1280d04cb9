"""Angles over training: a line a student, a panel each for the angle, its excess over a null, and the common mode."""

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from layerangles.errors import InputError
from layerangles.figures import selection, style

if TYPE_CHECKING:
    from layerangles.result import AngleResult

# Okabe and Ito's colours, without yellow, which is too light for a line; dashes and marks tell the lines apart in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")

_WIDTH, _PANEL_HEIGHT, _GAP = 680, 210, 46
_LEGEND_WIDTH = 230


def trajectory(result: "AngleResult", *, null: str = "N1", tower: str | None = None) -> go.Figure:
    """Draw mean angle, excess over a null, and common-mode ratio ρ against the training step.

    All are means over the tokens, pairs and layers of a student, with bands for their intervals. Panels of what was
    not measured are left out. Where a checkpoint has the very weights of the one before it, the line is broken and
    the subtitle says so: nothing was trained in between.

    Args:
        result: measured with ``steps=True``.
        null: the null of the excess.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.

    Returns:
        The figure; of fixed size, in pixels.

    Raises:
        InputError: the result has no step axis, or not that null (though it has others), or no such tower.
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
    figure = go.Figure(layout={"template": "none"})
    height = len(panels) * _PANEL_HEIGHT + (len(panels) - 1) * _GAP
    for index, panel in enumerate(panels):
        axis = "" if index == 0 else str(index + 1)
        for number, student in enumerate(result.students):
            for trace in _line(result, student, number, panel, first=index == 0):
                figure.add_trace(trace.update(xaxis=f"x{axis}", yaxis=f"y{axis}"))
        top = 1 - index * (_PANEL_HEIGHT + _GAP) / height
        is_last = index == len(panels) - 1
        figure.update_layout({f"xaxis{axis}": _x_axis(result.steps, f"y{axis}", is_last=is_last)})
        figure.update_layout({f"yaxis{axis}": _y_axis(panel, [max(0.0, top - _PANEL_HEIGHT / height), top], axis)})
        for value in panel["lines"]:
            reference = {"type": "line", "xref": f"x{axis} domain", "yref": f"y{axis}", "x0": 0, "x1": 1}
            figure.add_shape(**reference, y0=value, y1=value, line={"color": style.FAINT, "width": 1, "dash": "dot"})
    figure.update_layout(legend={"x": 1.02, "y": 1, "xanchor": "left", "font": {"size": 12}, "tracegroupgap": 2})
    notes = [f"means over tokens, pairs and layers{f' · {tower}' if result.dataset.sizes['tower'] > 1 else ''}"]
    notes.append(f"bands: {100 * float(result.dataset.attrs.get('confidence', 0.95)):g} % intervals")
    notes += [f"{name}: step {step} has the weights of step {before}" for name, step, before in result.unchanged_steps]
    title = "Angles between teacher layers over training"
    return style.frame(figure, title, " · ".join(notes), (_WIDTH, height), (78, _LEGEND_WIDTH, 14, 60))


def _panels(data: xr.Dataset, null: str) -> list[dict[str, Any]]:
    """What each panel shows: variables ``[student, step]``, a title, and values to mark."""

    def variables(*names: str) -> list[xr.DataArray | None]:
        found = [data.get(name) for name in names]
        return [v.sel(null=null) if v is not None and "null" in v.dims else v for v in found]

    specs = [
        (("student_angle_deg", "student_ci_low", "student_ci_high"), "mean angle °", "°", ()),
        (("student_excess_deg", "student_excess_low", "student_excess_high"), f"excess over {null} °", "°", (0,)),
        (
            ("student_common_mode_ratio", "student_common_mode_low", "student_common_mode_high"),
            "common-mode ratio ρ",
            "",
            (),
        ),
    ]
    return [
        dict(zip(("mean", "low", "high"), variables(*names), strict=True))
        | {"title": title, "unit": unit, "lines": lines}
        for names, title, unit, lines in specs
    ]


def _line(result: "AngleResult", student: str, number: int, panel: dict[str, Any], *, first: bool) -> list[go.Scatter]:
    """The band and the line of one student in one panel."""
    mean, low, high = (panel[name].sel(student=student).values.astype(float) for name in ("mean", "low", "high"))
    unchanged = {step: before for name, step, before in result.unchanged_steps if name == student}
    there = np.isfinite(mean)
    xs: list[float | None] = []
    rows: list[tuple[float | None, float | None, float | None]] = []
    hover: list[str] = []
    for step, *values in zip(np.array(result.steps)[there].tolist(), mean[there], low[there], high[there], strict=True):
        if step in unchanged:  # a gap: no flat line between two states that are one
            xs, rows, hover = [*xs, None], [*rows, (None, None, None)], [*hover, ""]
        xs.append(step)
        rows.append((float(values[0]), float(values[1]), float(values[2])))
        note = f"<br>the same weights as at step {unchanged[step]:,}" if step in unchanged else ""
        hover.append(
            f"{style.literal(student)}, step {step:,}<br>{panel['title'].removesuffix(' °')} "
            f"<b>{values[0]:.2f}{panel['unit']}</b> [{values[1]:.2f}, {values[2]:.2f}]{note}"
        )
    colour = _COLOURS[number % len(_COLOURS)]
    ys, lows, highs = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    name = "<br>".join(style.wrapped(student, _LEGEND_WIDTH - 60, 12, at_hyphens=True))
    common: dict[str, Any] = {"legendgroup": student, "x": xs}
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    return [
        go.Scatter(**common, **edge, y=lows),
        go.Scatter(**common, **edge, y=highs, fill="tonexty", fillcolor=_faded(colour)),
        go.Scatter(
            **common,
            y=ys,
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": _DASHES[number % len(_DASHES)]},
            marker={"symbol": _MARKS[number % len(_MARKS)], "size": 7, "color": colour},
            showlegend=first,
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
        ),
    ]


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.15)"


def _x_axis(steps: list[int], anchor: str, *, is_last: bool) -> dict[str, Any]:
    title = {"text": "training step", "standoff": 8, "font": {"size": 12, "color": style.FAINT}} if is_last else None
    common = {"showgrid": True, "gridcolor": "#e6e9ec", "zeroline": False, "showline": True, "linecolor": "#c9ced4"}
    padding = 0.04 * max(1, steps[-1] - steps[0])
    return common | {
        "anchor": anchor,
        "matches": "x",
        "title": title,
        "range": [steps[0] - padding, steps[-1] + padding],
        "tickfont": {"size": 11},
    }


def _y_axis(panel: dict[str, Any], domain: list[float], axis: str) -> dict[str, Any]:
    return {
        "domain": domain,
        "anchor": f"x{axis}",
        "title": {"text": panel["title"], "standoff": 8, "font": {"size": 12}},
        "gridcolor": "#e6e9ec",
        "zeroline": False,
        "showline": True,
        "linecolor": "#c9ced4",
        "tickfont": {"size": 11},
    }
