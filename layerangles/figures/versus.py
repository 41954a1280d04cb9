"""Two states of students, from one layer each, beside each other and beside their difference."""

from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from layerangles.figures import style
from layerangles.figures.panel import MATCHED_MARK, MAX_LAYERS_WITH_VALUES, Grid, axis_number, domain_of
from layerangles.figures.panel import _axes as layer_axes
from layerangles.quantities import QUANTITIES, Aggregation, pair_values

_SIZE, _GAP_X, _GAP_Y = 280, 62, 96
_BAR = 128  # beside the second map: a colour bar with its labels, before the difference begins
_NO_COMMON_LAYERS = "the teachers have different numbers of layers: no difference"

Values = Float[np.ndarray, "layer_a layer_b"]


class Sight(NamedTuple):
    """What is seen from one layer of a student at one step.

    Attributes:
        label: whose state it is.
        data: the student's part of a result, at one step, tower and student layer; None where there is none.
        absence: why it shows no angle.
    """

    label: str
    data: xr.Dataset | None
    absence: str = ""


def versus(
    first: Sight,
    second: Sight,
    *,
    aggregation: Aggregation = "mean",
    null: str | None = None,
    columns: int = 3,
    title: str = "Angles between teacher layers, from two students",
    notes: tuple[str, ...] = (),
) -> go.Figure:
    """Draw the angles that two students see, with one colour scale, and second minus first with one of its own.

    A diamond marks the teacher layer that training matched the student layer to. Where a side has no angle, its map is
    blank and says why, and so is the difference.

    Args:
        first: the one student.
        second: the other.
        aggregation: over tokens, see :func:`layerangles.quantities.pair_values`.
        null: show the excess over this null.
        columns: 3 for maps beside each other, 1 for maps below each other.
        title: of the figure.
        notes: for the subtitle.

    Returns:
        The figure; of fixed size, in pixels. A click on a cell gives the pair of teacher layers as ``x`` and ``y``.

    Raises:
        InputError: see :func:`layerangles.quantities.pair_values`.
    """
    values = [_values(sight, aggregation, null) for sight in (first, second)]
    layers = max((_layers(sight) for sight in (first, second)), key=len)
    blank = np.full((len(layers), len(layers)), np.nan)
    same = all(value is None or value.shape == blank.shape for value in values)
    drawn = [blank if value is None else value for value in values]
    difference = drawn[1] - drawn[0] if same else blank
    absence = next((f"no difference: {s.label} has no angle" for s in (first, second) if s.absence), "")
    quantity = QUANTITIES[aggregation]
    what = f"excess over {null}" if null else quantity.title

    beside = columns > 1
    grid = Grid(1, 3, _SIZE, _BAR, _GAP_Y) if beside else Grid(3, 1, _SIZE, _GAP_X, _GAP_Y)
    figure = go.Figure(layout={"template": "none"})
    maps = [
        (first.label, drawn[0], _hover(first, drawn[0], what, quantity.unit), first.absence, _matched(first)),
        (second.label, drawn[1], _hover(second, drawn[1], what, quantity.unit), second.absence, _matched(second)),
        (
            "difference: second − first",
            difference,
            _hover_of_difference(drawn, difference, quantity.unit),
            absence or ("" if same else _NO_COMMON_LAYERS),
            [],
        ),
    ]
    scales = _colour_axes(drawn, difference, what, quantity.unit, grid, beside=beside, null=null)
    for index, (label, of_map, hover, reason, matched) in enumerate(maps):
        rows = layers if len(of_map) == len(layers) else list(range(len(of_map)))
        signed = index == 2 or null is not None
        axis = "coloraxis2" if index == 2 else "coloraxis"
        for trace in _traces(of_map, rows, hover, matched, axis_number(index), axis, signed, scales[axis]):
            figure.add_trace(trace)
        x, y = layer_axes(rows, _SIZE)
        x |= {"domain": grid.x_domain(index if beside else 0), "anchor": f"y{axis_number(index)}"}
        y |= {"domain": grid.y_domain(0 if beside else index), "anchor": f"x{axis_number(index)}"}
        figure.update_layout({f"xaxis{axis_number(index)}": x, f"yaxis{axis_number(index)}": y})
        _write_above(figure, label, index)
        if reason:
            lines = "<br>".join(style.wrapped(reason, _SIZE - 24, 13))
            centre = {"x": 0.5, "y": 0.5, "showarrow": False, "font": {"size": 13, "color": style.FAINT}}
            figure.add_annotation(text=lines, **domain_of(index), **centre)
    figure.update_layout(coloraxis=scales["coloraxis"], coloraxis2=scales["coloraxis2"])
    said = [*notes, *([MATCHED_MARK] if _matched(first) or _matched(second) else [])]
    return style.frame(figure, title, " · ".join(said), (grid.width, grid.height), (66, _BAR, 40, 66))


def _values(sight: Sight, aggregation: Aggregation, null: str | None) -> Values | None:
    if sight.data is None:
        return None
    values = pair_values(sight.data, aggregation, null)
    return values.transpose("layer_a", "layer_b").values.astype(np.float64)


def _layers(sight: Sight) -> list[int]:
    return [] if sight.data is None else [int(layer) for layer in sight.data["layer_a"].values]


def _matched(sight: Sight) -> list[int]:
    if sight.data is None:
        return []
    return [layer for layer, yes in zip(_layers(sight), sight.data["matched"].values > 0, strict=True) if yes]


def _hover(sight: Sight, values: Values, what: str, unit: str) -> list[list[str]]:
    """What hovering says, ``[layer_a][layer_b]``."""
    data, name = sight.data, style.literal(sight.label)
    if data is None:
        return [[name for _ in row] for row in values]
    low, high = (data[end].transpose("layer_a", "layer_b").values for end in ("ci_low", "ci_high"))
    tokens = data["n_tokens"].transpose("layer_a", "layer_b").values
    mean = data["angle_deg"].transpose("layer_a", "layer_b").values

    def of(a: int, b: int) -> str:
        pair = f"{name}<br>teacher layers {style.layer_name(a)} and {style.layer_name(b)}"
        if a == b:
            return f"{name}<br>teacher layer {style.layer_name(a)}: no angle with itself"
        if np.isnan(values[a, b]):
            return f"{pair}<br>no angle here"
        interval = f", interval {low[a, b]:.1f}° to {high[a, b]:.1f}°" if np.isfinite(low[a, b]) else ""
        return (
            f"{pair}<br>{what} <b>{values[a, b]:.1f}{unit}</b><br>mean angle {mean[a, b]:.1f}°{interval}"
            f"<br>{int(tokens[a, b]):,} tokens"
        )

    return [[of(a, b) for b in range(len(values))] for a in range(len(values))]


def _hover_of_difference(values: list[Values], difference: Values, unit: str) -> list[list[str]]:
    def of(a: int, b: int) -> str:
        if np.isnan(difference[a, b]):
            return "no difference here"
        return (
            f"teacher layers {style.layer_name(a)} and {style.layer_name(b)}"
            f"<br>{values[1][a, b]:.1f} − {values[0][a, b]:.1f} = <b>{difference[a, b]:+.1f}{unit}</b>"
        )

    return [[of(a, b) for b in range(len(difference))] for a in range(len(difference))]


def _colour_axes(
    drawn: list[Values],
    difference: Values,
    what: str,
    unit: str,
    grid: Grid,
    *,
    beside: bool,
    null: str | None,
) -> dict[str, dict[str, Any]]:
    """The colours of both maps, and those of the difference; their bars stand beside what they are of."""
    largest = max((float(np.nanmax(np.abs(v))) for v in drawn if np.isfinite(v).any()), default=0.0)
    if null:
        shared = style.excess_axis(largest, null, grid.width, _SIZE)
    elif unit == "°":
        shared = style.colour_axis(style.top_of_scale(largest), grid.width, _SIZE)
    else:
        shared = style.colour_axis(180, grid.width, _SIZE) | {"cmin": 0, "cmax": 100, "colorscale": list(style.ACUTE)}
    most = float(np.nanmax(np.abs(difference))) if np.isfinite(difference).any() else 0.0
    apart = style.excess_axis(most, "", grid.width, _SIZE)
    bars = [dict(axis["colorbar"]) for axis in (shared, apart)]  # type: ignore[call-overload]
    small = '<br><span style="font-size:5px"> </span>'
    bars[0]["title"] = {"text": what + small, "font": {"size": 12}}
    bars[1]["title"] = {"text": f"difference{small}", "font": {"size": 12}}
    bars[1]["ticksuffix"] = unit
    if unit != "°" and not null:
        bars[0] |= {"tickvals": None, "ticktext": None, "ticksuffix": unit}
    second = grid.x_domain(1)[1] if beside else 1.0
    bars[0] |= {"x": second + 14 / grid.width, "y": 1.0, "len": _SIZE}
    bars[1] |= {"x": 1 + 14 / grid.width, "y": 1.0 if beside else grid.y_domain(2)[1], "len": _SIZE}
    return {"coloraxis": shared | {"colorbar": bars[0]}, "coloraxis2": apart | {"colorbar": bars[1]}}


def _traces(
    values: Values,
    layers: list[int],
    hover: list[list[str]],
    matched: list[int],
    axis: str,
    coloraxis: str,
    signed: bool,
    scale: dict[str, Any],
) -> list[Any]:
    axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    quiet = {"hoverinfo": "skip", "showlegend": False}
    traces: list[Any] = [
        go.Heatmap(
            x=layers,
            y=layers,
            z=values,
            coloraxis=coloraxis,
            xgap=1,
            ygap=1,
            hovertext=hover,
            hovertemplate="%{hovertext}<extra></extra>",
            **axes,
        )
    ]
    rows, columns = np.nonzero(np.isfinite(values))
    if len(layers) <= MAX_LAYERS_WITH_VALUES and len(rows):
        written = values[rows, columns].tolist()
        # A share of 100 % has the colour of 90°.
        as_angle = [value * 90 / 100 if scale["cmax"] == 100 else value for value in written]
        traces.append(
            go.Scatter(
                x=[layers[column] for column in columns],
                y=[layers[row] for row in rows],
                text=[f"{value:+.1f}" if signed else f"{value:.1f}" for value in written],
                textfont={"size": 12, "color": ["black" if signed else style.ink_on(a) for a in as_angle]},
                mode="text",
                **quiet,
                **axes,
            )
        )
    if matched:
        marker = {"symbol": "diamond", "size": min(10, max(4, 0.6 * _SIZE / len(layers))), "color": style.INK}
        traces.append(go.Scatter(x=matched, y=matched, mode="markers", marker=marker, **quiet, **axes))
    return traces


def _write_above(figure: go.Figure, label: str, index: int) -> None:
    above = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 4, "showarrow": False, "align": "left"}
    text = "<br>".join(style.wrapped(label, _SIZE, 13, at_hyphens=True))
    figure.add_annotation(text=text, **domain_of(index), **above, font={"size": 13})
