"""Rows of points with intervals, and their numbers written beside them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from layerangles.figures.drawing import style
from layerangles.figures.drawing.frame import frame
from layerangles.figures.drawing.theme import FAINT, INK, SCREEN, Theme

_PLOT_WIDTH = 440
_LABEL_WIDTH = 300  # the largest width of the labels, left of the rows
_LINE, _ROW = 15, 26  # the height of a line of a label, and the smallest height of a row
_PADDING = 14
_THIN, _THICK = 1.5, 5
_LEGEND_LINE = 24
_LEAST_PLOT = 170  # on paper: the smallest width of the plot, to which numbers give way
_EXTRA, _EXTRA_COLOUR = "extra", "#b1bac4"


class Look(NamedTuple):
    """The look of a kind of row, and its name beside the row.

    Attributes:
        name: the kind.
        colour: the colour of mark and intervals.
        mark: plotly's name of the symbol.
        sign: the mark as a character of text.
        filled: whether the mark is filled; otherwise it is white with a coloured outline.
    """

    name: str
    colour: str
    mark: str
    sign: str
    filled: bool = True


class Ends(NamedTuple):
    """The ends of an interval; NaN where there is none."""

    low: float
    high: float


NO_INTERVAL = Ends(math.nan, math.nan)


@dataclass(frozen=True)
class Row:
    """A point with its intervals and texts.

    Attributes:
        label: the text left of the row; its parts get lines of their own unless all fit on one.
        kind: the key of its look.
        value: the place of its point; NaN for none.
        thick: the interval drawn thick.
        thin: the interval drawn thin.
        extra: a further interval, drawn faintly below the row.
        text: the numbers, written to the right.
        brief: the first of them, where there is little room.
        hover: the hover text of the point.
    """

    label: Sequence[str]
    kind: str
    value: float
    thick: Ends
    thin: Ends
    extra: Ends
    text: str
    brief: str
    hover: str


@dataclass(frozen=True)
class Words:
    """The texts around the rows.

    Attributes:
        title: the title of the figure.
        notes: the parts of the subtitle.
        rows: the header of the labels.
        numbers: the header of the numbers.
        brief: the same, where only the first number is written.
        kinds: the header of the kinds' names.
        axis: the title of the axis.
        extra: the name of the further intervals, for the legend.
    """

    title: str
    notes: Sequence[str]
    rows: str
    numbers: str
    brief: str
    kinds: str
    axis: str
    extra: str = ""


class _Widths(NamedTuple):
    """Widths of the plot, the labels and the numbers, in pixels; and whether the numbers are brief."""

    plot: float
    label: float
    numbers: float
    brief: bool


def draw_rows(
    rows: Sequence[Row], looks: Mapping[str, Look], words: Words, band: float = math.nan, theme: Theme = SCREEN
) -> go.Figure:
    """Draw rows from top to bottom, with a line at zero and, unless it is NaN, a band of ``band`` on either side.

    Row ``i`` stands at ``y = i``. Kinds are told apart by colour, by mark, and by name beside the row; on paper by a
    key below instead of the name. Where the numbers would leave the plot too narrow there, the first stands alone.

    Returns:
        The figure; of fixed size, in pixels.
    """
    labels = [_label_lines(row.label, theme) for row in rows]
    label_width = max(style.width_of(len(line), theme.text) for lines in [[words.rows], *labels] for line in lines)
    line_height, least, padding = theme.pick((_LINE, _ROW, _PADDING), (11, 17, 6))
    row_height = max(least, theme.pick(10, 4) + line_height * max(map(len, labels)))
    widths = _widths(rows, words, label_width, theme)
    figure = go.Figure(_traces(rows, looks, row_height, theme))
    if math.isfinite(band):
        band_look = {"fillcolor": "#dfe7ef", "line": {"width": 0}, "layer": "below"}
        figure.add_shape(type="rect", x0=-band, x1=band, y0=0, y1=1, yref="paper", **band_look)
    names = [looks[row.kind].name for row in rows]
    numbers = [row.brief if widths.brief else row.text for row in rows]
    columns: list[tuple[float, str, list[str]]] = [(padding, words.brief if widths.brief else words.numbers, numbers)]
    if not theme.on_paper:
        columns.append((2 * padding + widths.numbers, words.kinds, names))
    _write_columns(figure, columns, words, label_width + padding, theme)
    title = style.wrapped(words.axis, widths.plot + theme.pick(60, 2 * min(widths.label, widths.numbers)), theme.text)
    figure.update_layout(xaxis=_x_axis(rows, title, band, widths.plot, theme), yaxis=_y_axis(labels, theme))
    legends = _legend(figure, words.extra, theme)
    kinds_width = max(style.width_of(len(text), theme.text) for text in [words.kinds, *names])
    left, right = label_width + padding, padding + widths.numbers
    margins = theme.pick(
        (16 + left, right + padding + kinds_width + 20, 26, 60 + _LEGEND_LINE * len(legends)),
        (4 + left, right + 4, 14, 22 + 12 * len(title)),
    )
    frame(figure, words.title, words.notes, (widths.plot, row_height * len(rows) + 8), margins, theme)
    if not theme.on_paper:
        _place_legends(figure, legends)
    return figure


def _widths(rows: Sequence[Row], words: Words, label: float, theme: Theme) -> _Widths:
    def needed(header: str, texts: Sequence[str], size: int) -> float:
        return max(style.width_of(len(text), size) for text in [header, *texts])

    whole = needed(words.numbers, [row.text for row in rows], theme.text)
    if not theme.on_paper:
        return _Widths(_PLOT_WIDTH, label, 7 + whole, brief=False)
    room = theme.fixed_width - label - 20
    if room - whole >= _LEAST_PLOT:
        return _Widths(room - whole, label, whole, brief=False)
    brief = needed(words.brief, [row.brief for row in rows], theme.text)
    return _Widths(room - brief, label, brief, brief=True)


def _label_lines(parts: Sequence[str], theme: Theme) -> list[str]:
    # On paper about two fifths of one column.
    width = _LABEL_WIDTH if theme.width is None else 0.36 * theme.width
    whole = style.wrapped(" ".join(parts), width, theme.text)
    if len(whole) == 1:
        return whole
    return [line for part in parts for line in style.wrapped(part, width, theme.text, at_hyphens=True)]


def _traces(rows: Sequence[Row], looks: Mapping[str, Look], row_height: float, theme: Theme) -> list[go.Scatter]:
    """The intervals and the points of every kind that occurs, then the further intervals."""
    places = list(enumerate(rows))
    traces = []
    for kind, look in looks.items():
        of_kind = [(index, row) for index, row in places if row.kind == kind]
        if not of_kind:
            continue
        traces.append(_bars([(index, row.thin) for index, row in of_kind], kind, look.colour, theme.stroke(_THIN)))
        traces.append(_bars([(index, row.thick) for index, row in of_kind], kind, look.colour, theme.stroke(_THICK)))
        traces.append(
            go.Scatter(
                x=[row.value for _, row in of_kind],
                y=[index for index, _ in of_kind],
                mode="markers",
                name=look.name,
                legendgroup=kind,
                marker=_marker(look, theme),
                customdata=[style.literal(" ".join(row.label)) for _, row in of_kind],
                hovertext=[row.hover for _, row in of_kind],
                hovertemplate="%{hovertext}<extra></extra>",
                showlegend=False,
            )
        )
    lower = theme.pick(9, 6) / row_height
    further = [(index + lower, row.extra) for index, row in places]
    traces.append(_bars(further, _EXTRA, _EXTRA_COLOUR, theme.stroke(2)))
    return [trace for trace in traces if len(trace.x)]


def _marker(look: Look, theme: Theme) -> dict[str, Any]:
    inside, outline = (look.colour, "white") if look.filled else ("white", look.colour)
    # The white outline of a filled mark separates it from its bar.
    line = {"width": theme.stroke(1 if look.filled else 2), "color": outline}
    return {"symbol": look.mark, "size": 11 * theme.scale, "color": inside, "line": line}


def _bars(intervals: Sequence[tuple[float, Ends]], kind: str, colour: str, width: float) -> go.Scatter:
    """The intervals as one trace, with a gap after each."""
    there = [(y, ends) for y, ends in intervals if math.isfinite(ends.low) and math.isfinite(ends.high)]
    return go.Scatter(
        x=[x for _, ends in there for x in (ends.low, ends.high, None)],
        y=[place for y, _ in there for place in (y, y, None)],
        mode="lines",
        line={"color": colour, "width": width},
        legendgroup=kind,
        hoverinfo="skip",
        showlegend=False,
    )


def _write_columns(
    figure: go.Figure,
    columns: Sequence[tuple[float, str, Sequence[str]]],
    words: Words,
    left_px: float,
    theme: Theme,
) -> None:
    """Write columns (distance from the plot, header, texts) to its right, and the header of the labels on the left."""
    right = {"x": 1, "xref": "paper", "xanchor": "left", "align": "left"}
    font = {"size": theme.text, "color": theme.pick(FAINT, INK)}
    above = {"y": 1, "yref": "paper", "yanchor": "bottom", "yshift": theme.pick(4, 0), "font": font}
    written: list[dict[str, Any]] = []
    for shift, header, texts in columns:
        written.append({"text": style.literal(header), "xshift": shift} | right | above)
        for index, text in enumerate(texts):
            written.append({"text": style.literal(text), "y": index, "yref": "y", "xshift": shift} | right)
    left = {"x": 0, "xref": "paper", "xanchor": "left", "xshift": -left_px}
    written.append({"text": style.literal(words.rows)} | left | above)
    figure.update_layout(annotations=written)


def _x_axis(rows: Sequence[Row], title: list[str], band: float, width_px: float, theme: Theme) -> dict[str, Any]:
    shown = [0.0, -band, band, *(x for row in rows for x in (row.value, *row.thick, *row.thin, *row.extra))]
    finite = np.array([x for x in shown if math.isfinite(x)])
    low, high = float(finite.min()), float(finite.max())
    padding = 0.04 * (high - low) or 1.0
    return {
        "range": [low - padding, high + padding],
        "title": {"text": "<br>".join(title)},
        "zeroline": True,
        "zerolinecolor": "#57606a",
        "zerolinewidth": theme.pick(1.5, 0.9),
        "nticks": theme.pick(7, max(5, int(width_px / 38))),
    }


def _y_axis(labels: Sequence[Sequence[str]], theme: Theme) -> dict[str, Any]:
    return {
        "range": [len(labels) - 0.5, -0.5],
        "tickvals": list(range(len(labels))),
        "ticktext": ["<br>".join(lines) for lines in labels],
        "tickfont": {"size": theme.text},
        "ticklabelstandoff": theme.pick(6, 3),
        "showline": False,
    }


def _legend(figure: go.Figure, extra: str, theme: Theme) -> list[list[go.Scatter]]:
    """The traces of the legend, line by line: the kinds, unless a screen names a single one; the further intervals."""
    kinds = [trace for trace in figure.data if trace.mode == "markers"]
    further = [trace.update(name=style.literal(extra)) for trace in figure.data if trace.legendgroup == _EXTRA]
    lines = [line for line in (kinds if len(kinds) > 1 or theme.on_paper else [], further) if line]
    for trace in (trace for line in lines for trace in line):
        trace.update(showlegend=True)
    return lines


def _place_legends(figure: go.Figure, lines: Sequence[Sequence[go.Scatter]]) -> None:
    """Place one legend per line, from the lower edge upwards; in a single legend plotly would stack wide entries."""
    common = {"orientation": "h", "xref": "container", "yref": "container", "xanchor": "left", "yanchor": "bottom"}
    for number_from_below, line in enumerate(reversed(lines)):
        name = "legend" if number_from_below == 0 else f"legend{number_from_below + 1}"
        for trace in line:
            trace.update(legend=name)
        place = {"x": 16 / figure.layout.width, "y": (8 + _LEGEND_LINE * number_from_below) / figure.layout.height}
        figure.update_layout({name: common | place | {"font": {"size": 12}}, "showlegend": True})
