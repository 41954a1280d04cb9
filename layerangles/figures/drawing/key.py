"""The key of a figure on paper: below the plot, in columns, drawn by us so that its place is known to the pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from layerangles.figures.drawing import style
from layerangles.figures.drawing.theme import Theme

_SAMPLE, _SPACE, _LINE, _EDGE = 24, 5, 11, 4  # the width of a sample, the space after it, a line of text, the border
_AXIS = "99"  # beyond the axes of any panels


@dataclass(frozen=True)
class Entry:
    """One kind of line or mark.

    Attributes:
        name: as text.
        look: ``mode``, ``line`` and ``marker`` of a scatter trace.
    """

    name: str
    look: dict[str, Any]


@dataclass(frozen=True)
class Key:
    """Entries in columns, row by row.

    Attributes:
        entries: what is named.
        lines: of each entry's name, literal.
        n_columns: of entries.
        title: above them, or an empty string.
        theme: a paper's.
    """

    entries: Sequence[Entry]
    lines: list[list[str]]
    n_columns: int
    title: str
    theme: Theme

    @property
    def heights(self) -> list[int]:
        """Of each row."""
        n = self.n_columns
        return [_LINE * max(map(len, self.lines[i : i + n])) + 2 for i in range(0, len(self.lines), n)]

    @property
    def height(self) -> int:
        """Of the whole."""
        return sum(self.heights) + (_LINE + 2 if self.title else 0) + 4


def key_of(entries: Sequence[Entry], theme: Theme, title: str = "") -> Key:
    """Entries in as many columns as there is room for; where one column would have to do, names get two lines."""
    room = theme.fixed_width - 2 * _EDGE
    longest = max((style.width_of(len(entry.name), theme.tick) for entry in entries), default=0)
    n_columns = max(1, min(len(entries), int(room // (_SAMPLE + 3 * _SPACE + longest))))
    if n_columns == 1 and len(entries) > 6:
        n_columns = 2
    n_rows = -(-len(entries) // n_columns)
    n_columns = -(-len(entries) // max(1, n_rows))  # no row much shorter than the others
    text = room / max(1, n_columns) - _SAMPLE - 3 * _SPACE
    lines = [style.wrapped(entry.name, text, theme.tick, at_hyphens=True) for entry in entries]
    return Key(entries, lines, max(1, n_columns), title, theme)


def draw_key(figure: go.Figure, key: Key) -> go.Figure:
    """Draw a key at the foot of a framed figure. Returns the same figure."""
    if not key.entries:
        return figure
    width, height = figure.layout.width, figure.layout.height
    common = {"xref": f"x{_AXIS}", "yref": f"y{_AXIS}", "showarrow": False, "borderpad": 0, "align": "left"}
    common |= {"xanchor": "left", "yanchor": "middle"}
    top = key.height - 2.0
    if key.title:
        figure.add_annotation(x=_EDGE, y=top - _LINE / 2, text=key.title, font={"size": key.theme.text}, **common)
        top -= _LINE + 2
    pitch = (width - 2 * _EDGE) / key.n_columns
    for row, row_height in enumerate(key.heights):
        for column in range(key.n_columns):
            index = row * key.n_columns + column
            if index >= len(key.entries):
                break
            x, y = _EDGE + column * pitch, top - row_height / 2
            look = key.entries[index].look
            sample = [x + _SAMPLE / 2] if look["mode"] == "markers" else [x, x + _SAMPLE / 2, x + _SAMPLE]
            if "+" in look["mode"]:
                look = look | {"marker": look["marker"] | {"opacity": [0, look["marker"].get("opacity", 1), 0]}}
            figure.add_trace(
                go.Scatter(
                    x=sample,
                    y=[y] * len(sample),
                    xaxis=f"x{_AXIS}",
                    yaxis=f"y{_AXIS}",
                    name=key.entries[index].name,
                    hoverinfo="skip",
                    showlegend=False,
                    **look,
                )
            )
            name = "<br>".join(key.lines[index])
            figure.add_annotation(x=x + _SAMPLE + _SPACE, y=y, text=name, font={"size": key.theme.tick}, **common)
        top -= row_height
    axis = {"visible": False, "fixedrange": True}
    strip = key.height / height
    figure.update_layout(
        {
            f"xaxis{_AXIS}": axis | {"range": [0, width], "domain": [0, 1], "anchor": f"y{_AXIS}"},
            f"yaxis{_AXIS}": axis | {"range": [0, key.height], "domain": [0, strip], "anchor": f"x{_AXIS}"},
            "showlegend": False,
        }
    )
    return figure
