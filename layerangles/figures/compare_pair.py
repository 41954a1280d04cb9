"""Heat maps of two states of students, each seen from one student layer, and of their difference."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from layerangles.figures.drawing import style
from layerangles.figures.drawing.frame import Margins, frame
from layerangles.figures.drawing.layer_view import LayerView
from layerangles.figures.drawing.marks import MATCHED_MARK, note_on_marks
from layerangles.figures.drawing.panel import (
    PAPER_BELOW,
    PAPER_LEFT,
    Grid,
    Map,
    domain_of,
    layer_axes,
    map_traces,
    name_axes,
)
from layerangles.figures.drawing.theme import FAINT, SCREEN, Theme
from layerangles.notation import count, degrees, layer_name, number, teacher_layers
from layerangles.results.pair_values import QUANTITIES, Aggregation, pair_values

_SIZE = 280
_BAR = 136  # the width of a colour bar with its labels, beside a map
_PAPER_GAP, _PAPER_RIGHT = 8, 5  # on paper: the gap between columns, and the right margin
_NO_COMMON_LAYERS = "the teachers have different numbers of layers: no difference"

Values = Float[np.ndarray, "_layer_a _layer_b"]  # two teachers may differ in depth


def compare_pair(
    first: LayerView,
    second: LayerView,
    *,
    aggregation: Aggregation = "mean",
    null: str | None = None,
    title: str = "Angles between teacher layers, from two students",
    notes: tuple[str, ...] = (),
    theme: Theme = SCREEN,
) -> go.Figure:
    """Draw the angles seen from two students on one colour scale, and second minus first on a scale of its own.

    A diamond marks the teacher layer to which training matched the student layer. The map of a side without angles is
    blank and says why; so does the difference.

    Args:
        first: one student.
        second: the other student.
        aggregation: of the tokens' angles, see :func:`layerangles.results.pair_values.pair_values`.
        null: show the excess over this null instead of the angle.
        title: the figure's title.
        notes: texts for the subtitle.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size. A click on a cell gives the pair of teacher layers as ``x`` and ``y``.

    Raises:
        InputError: see :func:`layerangles.results.pair_values.pair_values`.
    """
    values = [_values(view, aggregation, null) for view in (first, second)]
    # Where neither side has layers, one blank cell says why.
    layers = max(_layers(first), _layers(second), key=len) or [0]
    blank = np.full((len(layers), len(layers)), np.nan)
    same = all(value is None or value.shape == blank.shape for value in values)
    drawn = [blank if value is None else value for value in values]
    difference = drawn[1] - drawn[0] if same else blank
    absence = next((f"no difference: {view.label} has no angle" for view in (first, second) if view.absence), "")
    unit = QUANTITIES[aggregation].unit
    what = f"excess over {null}" if null else QUANTITIES[aggregation].title
    maps = [
        Map(_layers(view) or layers, of, _hover(view, of, what, unit), _matched(view))
        for view, of in zip((first, second), drawn, strict=True)
    ]
    maps.append(Map(layers, difference, _hover_of_difference(drawn, difference, unit), []))
    labels = [first.label, second.label, "difference: second − first"]
    absences = [first.absence, second.absence, absence or ("" if same else _NO_COMMON_LAYERS)]

    grid, margins = _laid_out(labels, theme)
    figure = go.Figure(layout=_colour_axes(drawn, difference, what, unit, grid, is_excess=null is not None))
    is_share = aggregation == "acute"
    for index, (one, label, absent) in enumerate(zip(maps, labels, absences, strict=True)):
        look: dict[str, Any] = {"coloraxis": "coloraxis2", "signed": True}
        if index < 2:
            look = {"signed": null is not None, "is_share": is_share}
        figure.add_traces(map_traces(index, grid, one, theme, **look))
        _lay_out(figure, index, grid, one.layers, theme)
        _write_on(figure, index, label, absent, grid.size, theme)
    notes = (*notes, *([MATCHED_MARK] if maps[0].matched or maps[1].matched else []))
    bars = {"coloraxis": f"{what} {'°' if null else unit}"}
    if np.isfinite(difference).any():
        bars["coloraxis2"] = f"difference {unit}"
    if theme.on_paper:
        notes += (*([] if is_share else note_on_marks(figure, null is not None)),)
        notes += (*(f"{note} of the difference" for note in note_on_marks(figure, True, "coloraxis2")),)
        notes += ("layer 0 is the embedding output",)
        name_axes(figure, theme, left=16)
    return frame(figure, title, notes, (grid.width, grid.height), margins, theme, bars=bars)


def _lay_out(figure: go.Figure, index: int, grid: Grid, layers: list[int], theme: Theme) -> None:
    """Put the axes of a map at its place in the grid."""
    x, y = layer_axes(layers, grid.size, theme)
    # On a screen, the colour bar beside the second map takes the place of the difference's numbers.
    if theme.pick(index == 2, grid.place(index)[1] > 0):
        y |= {"showticklabels": False, "title": None}
    figure.update_layout(grid.axes(index, x, y))


def _write_on(figure: go.Figure, index: int, label: str, absence: str, size: float, theme: Theme) -> None:
    """Write a label above a map, and the reason into its middle if it is blank."""
    above = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": theme.pick(4, 1), "align": "left"}
    lines = "<br>".join(style.wrapped(label, size, theme.panel, at_hyphens=True))
    figure.add_annotation(text=lines, **domain_of(index), **above, font={"size": theme.panel})
    if absence:
        lines = "<br>".join(style.wrapped(absence, size - 24, theme.panel))
        middle = {"x": 0.5, "y": 0.5, "font": {"size": theme.panel, "color": FAINT}}
        figure.add_annotation(text=lines, **domain_of(index), **middle)


def _laid_out(labels: list[str], theme: Theme) -> tuple[Grid, Margins]:
    """The grid and the margins, with room for the labels above each map."""
    if not theme.on_paper:
        return Grid(1, 3, _SIZE, _BAR, 0), (66, _BAR, 40, 66)
    n_columns = 3 if theme.fixed_width > 400 else 2
    size = (theme.fixed_width - PAPER_LEFT - _PAPER_RIGHT - (n_columns - 1) * _PAPER_GAP) / n_columns
    lines = [style.wrapped(label, size, theme.panel, at_hyphens=True) for label in labels]
    above = 5 + 12.0 * max(map(len, lines))
    return Grid(-(-3 // n_columns), n_columns, size, _PAPER_GAP, above + 16), (
        PAPER_LEFT,
        _PAPER_RIGHT,
        above,
        PAPER_BELOW,
    )


def _values(view: LayerView, aggregation: Aggregation, null: str | None) -> Values | None:
    if view.data is None:
        return None
    values = pair_values(view.data, aggregation, null)
    return values.transpose("layer_a", "layer_b").values.astype(np.float64)


def _layers(view: LayerView) -> list[int]:
    return [] if view.data is None else [int(layer) for layer in view.data["layer_a"].values]


def _matched(view: LayerView) -> list[int]:
    if view.data is None:
        return []
    return [layer for layer, yes in zip(_layers(view), view.data["matched"].values > 0, strict=True) if yes]


def _hover(view: LayerView, values: Values, what: str, unit: str) -> list[list[str]]:
    """Hover texts, ``[layer_a][layer_b]``."""
    data, name = view.data, style.literal(view.label)
    if data is None:
        return [[name for _ in row] for row in values]
    low, high = (data[end].transpose("layer_a", "layer_b").values for end in ("ci_low", "ci_high"))
    tokens = data["n_tokens"].transpose("layer_a", "layer_b").values
    mean = data["angle_deg"].transpose("layer_a", "layer_b").values

    def of(a: int, b: int) -> str:
        if a == b:
            return f"{name}<br>teacher layer {layer_name(a)}: no angle with itself"
        pair = f"{name}<br>{teacher_layers(a, b)}"
        if np.isnan(values[a, b]):
            return f"{pair}<br>no angle here"
        interval = f", interval {degrees(low[a, b])} to {degrees(high[a, b])}" if np.isfinite(low[a, b]) else ""
        return (
            f"{pair}<br>{what} <b>{number(values[a, b], 1)}{unit}</b><br>mean angle {degrees(mean[a, b])}{interval}"
            f"<br>{count(int(tokens[a, b]))} tokens"
        )

    return [[of(a, b) for b in range(len(values))] for a in range(len(values))]


def _hover_of_difference(values: list[Values], difference: Values, unit: str) -> list[list[str]]:
    def of(a: int, b: int) -> str:
        if np.isnan(difference[a, b]):
            return "no difference here"
        first, second = (number(side[a, b], 1) for side in values)
        of_difference = f"<b>{number(difference[a, b], 1, signed=True)}{unit}</b>"
        return f"{teacher_layers(a, b)}<br>{second} − {first} = {of_difference}"

    return [[of(a, b) for b in range(len(difference))] for a in range(len(difference))]


def _colour_axes(
    drawn: list[Values], difference: Values, what: str, unit: str, grid: Grid, *, is_excess: bool
) -> dict[str, dict[str, Any]]:
    """The colour axes of both maps and of the difference, each with its bar beside its maps."""
    largest = max((float(np.nanmax(np.abs(v))) for v in drawn if np.isfinite(v).any()), default=0.0)
    most = float(np.nanmax(np.abs(difference))) if np.isfinite(difference).any() else 0.0
    size = (grid.width, _SIZE)
    if is_excess:
        shared = style.excess_axis(largest, what, *size)
    else:
        shared = style.angle_axis(largest, what, *size) if unit == "°" else style.share_axis(what, *size)
    apart = style.excess_axis(most, "difference", *size)
    apart["colorbar"] |= {"ticksuffix": unit}
    for axis, column in ((shared, 1), (apart, 2)):
        axis["colorbar"] |= {"x": grid.x_domain(grid.place(column)[1])[1] + 14 / grid.width, "len": _SIZE}
    return {"coloraxis": shared, "coloraxis2": apart}
