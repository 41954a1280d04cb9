"""The last step of every figure: size, title and legend on a screen; width, key, colour bars and caption on paper."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures.drawing import marks, style
from layerangles.figures.drawing.theme import FAINT, SCREEN, Theme

BAR_ROW = 30  # on paper: the height of a colour bar with its numbers
_BUTTONS = 120  # the width of plotly's buttons in the upper right corner
# Of a key: the width of a sample, the space after it, the height of a line, and the space at the figure's edges.
_SAMPLE, _SPACE, _LINE, _EDGE = 24, 5, 11, 4
_KEY_AXIS = "99"  # beyond the axes of any panels

Size = tuple[float, float]
Margins = tuple[float, float, float, float]


def frame(
    figure: go.Figure,
    title: str,
    notes: Sequence[str],
    plot_size: Size,
    margins: Margins,
    theme: Theme = SCREEN,
    *,
    bars: Mapping[str, str] | None = None,
    legend_title: str = "",
) -> go.Figure:
    """Give a figure its template, size, title and legend.

    On a screen, room for title and notes comes on top of the upper margin. On paper both go to :func:`caption` alone;
    the legend becomes a key below the plot and the colour bars move below that, with room of their own; and a figure
    narrower than the paper's column is centred in it.

    Args:
        figure: with traces, axes and annotations; traces of the legend have ``showlegend=True`` and a literal name.
        title: of the figure.
        notes: for the subtitle or the caption.
        plot_size: width and height of the plot area, in pixels.
        margins: left, right, above and below, in pixels.
        theme: of the figure.
        bars: on paper, the names of the colour axes to show, from above.
        legend_title: above the legend or the key.

    Returns:
        The same figure.
    """
    figure.update_layout(template=theme.template, meta={"caption": style.literal(_caption_text(title, notes))})
    if theme.on_paper:
        return _fit_to_paper(figure, plot_size, margins, theme, bars or {}, legend_title)
    left, right, above, below = margins
    width = plot_size[0] + left + right
    title_lines = style.wrapped(title, width - 32 - _BUTTONS, 17)
    subtitle_lines = style.wrapped(" · ".join(notes), width - 32, theme.text)
    above += 38 + 21 * len(title_lines) + 16 * len(subtitle_lines)
    height = plot_size[1] + above + below
    figure.update_layout(
        width=round(width),
        height=round(height),
        margin={"l": left, "r": right, "t": above, "b": below, "pad": 0, "autoexpand": False},
        title={
            "text": "<br>".join(title_lines),
            "font": {"size": 17},
            **{"x": 16 / width, "xanchor": "left", "yanchor": "top", "yref": "container"},
            # Plotly centres further lines around the first.
            "y": 1 - (14 + 11 * (len(title_lines) - 1)) / height,
        },
    )
    if figure.layout.legend.x is None:
        beside = {"x": 1 + 14 / plot_size[0], "xanchor": "left", "y": 1}
        figure.update_layout(legend=beside | {"title": {"text": legend_title or None, "font": {"size": theme.text}}})
    # Plotly's own subtitle runs into a title of several lines.
    figure.add_annotation(
        text="<br>".join(subtitle_lines),
        **{"x": 0, "xref": "paper", "xanchor": "left", "xshift": 16 - left, "align": "left"},
        **{"y": 1, "yref": "paper", "yanchor": "top", "yshift": above - 18 - 21 * len(title_lines)},
        borderpad=0,
        font={"size": theme.text, "color": FAINT},
    )
    return figure


def _fit_to_paper(
    figure: go.Figure, plot_size: Size, margins: Margins, theme: Theme, bars: Mapping[str, str], key_title: str
) -> go.Figure:
    """Fit a figure into the width of a paper's columns, with its key and its colour bars below the plot.

    The plot area becomes as large as the figure, so that key and bars can stand anywhere in it: axes have their place
    in shares of the plot area, and plotly lets none of them leave it.
    """
    key = _key_of(figure, theme, key_title)
    left, right, above, below = margins
    spare = max(0.0, (theme.fixed_width - plot_size[0] - left - right) / 2)
    corner = left + spare, below + BAR_ROW * len(bars) + key.height
    full = theme.fixed_width, round(plot_size[1] + above + 3 + corner[1])

    def moved(share: float, way: int) -> float:
        return float(min(1.0, max(0.0, (corner[way] + share * plot_size[way]) / full[way])))

    layout = figure.layout
    for axis in figure.select_xaxes():
        axis.domain = [moved(end, 0) for end in axis.domain or (0, 1)]
    for axis in figure.select_yaxes():
        axis.domain = [moved(end, 1) for end in axis.domain or (0, 1)]
    for trace in figure.select_traces({"type": "heatmap"}):
        if trace.coloraxis is None:
            trace.colorbar.x, trace.colorbar.y = moved(trace.colorbar.x, 0), moved(trace.colorbar.y, 1)
    for annotation in layout.annotations:
        if annotation.xref == "paper":
            annotation.x = moved(annotation.x, 0)
        if annotation.yref == "paper":
            annotation.y = moved(annotation.y, 1)
    for shape in layout.shapes:
        if shape.xref == "paper":
            shape.x0, shape.x1 = moved(shape.x0, 0), moved(shape.x1, 0)
        if shape.yref == "paper":
            shape.y0, shape.y1 = moved(shape.y0, 1), moved(shape.y1, 1)
    figure.update_layout(width=full[0], height=full[1], margin=dict.fromkeys("lrtb", 0) | {"autoexpand": False})
    for row, (name, what) in enumerate(reversed(list(bars.items()))):
        _lay_bar(figure, layout[name], what, theme, row, marks.sign_of(figure, name))
    return _draw_key(figure, key) if key.names else figure


def _caption_text(title: str, notes: Sequence[str]) -> str:
    """Title and notes as sentences."""
    texts = (note.replace(" · ", ", ").strip().rstrip(".") for note in notes)
    sentences = [title, *(text[:1].upper() + text[1:] for text in texts if text)]
    return " ".join(text if text.endswith("?") else f"{text}." for text in sentences)


def caption(figure: go.Figure) -> str:
    """The title and the notes of a figure as plain text, for the caption below it in a paper.

    Raises:
        InputError: the figure is not one of ours, or its ``layout.meta`` was replaced.
    """
    meta = figure.layout.meta
    if not isinstance(meta, dict) or not isinstance(meta.get("caption"), str):
        raise InputError("this figure has no caption. Give a figure that a function of layerangles.figures has drawn.")
    return html.unescape(meta["caption"])


def _lay_bar(figure: go.Figure, axis: Any, what: str, theme: Theme, row: int, sign: str) -> None:
    """Lay a colour bar into a row (from below) at the lower edge: its name, the bar, and the meaning of a mark."""
    width, height = figure.layout.width, figure.layout.height
    top = BAR_ROW * (row + 1)
    common = {"xref": "paper", "yref": "paper", "font": {"size": theme.text}}
    common |= {"y": (top - 9) / height, "yanchor": "middle", "xanchor": "left"}
    start = _EDGE + 8 + style.width_of(len(what), theme.text)
    figure.add_annotation(text=style.literal(what), x=(_EDGE + 2) / width, **common)
    length = min(220.0, width - start - (style.width_of(len(sign), theme.text) + 12 if sign else 14))
    if sign:
        figure.add_annotation(text=style.literal(sign), x=(start + length + 12) / width, **common)
    bar = axis.colorbar
    # Numbers alone: the words beside a bar on a screen have no room here.
    numbers = {"tickformat": "", "ticksuffix": "", "nticks": 6}
    if bar.tickvals is not None:
        numbers = {"ticktext": [str(value) for value in bar.tickvals]}
    place = {"x": start / width, "xanchor": "left", "y": (top - 5) / height, "yanchor": "top", "len": length}
    bar.update({"orientation": "h", "title": None, "thickness": 8, "ticklen": 3, **place, **numbers})


@dataclass(frozen=True)
class _Key:
    """Samples of lines and marks with their names, in columns, row by row.

    Attributes:
        looks: ``mode``, ``line`` and ``marker`` of each sample.
        names: as plain text.
        lines: of each name, literal.
        n_columns: of samples.
        title: above them, or an empty string.
        theme: of the figure.
    """

    looks: list[dict[str, Any]]
    names: list[str]
    lines: list[list[str]]
    n_columns: int
    title: str
    theme: Theme

    @property
    def row_heights(self) -> list[int]:
        """The height of each row, pixels."""
        n = self.n_columns
        return [_LINE * max(map(len, self.lines[i : i + n])) + 2 for i in range(0, len(self.names), n)]

    @property
    def height(self) -> int:
        """The height of the whole key, pixels; 0 without samples."""
        return sum(self.row_heights) + (_LINE + 2 if self.title else 0) + 4 if self.names else 0


def _key_of(figure: go.Figure, theme: Theme, title: str) -> _Key:
    """The key of a figure's legend, in as many columns as fit; many names that would need one get two, and wrap."""
    shown = [trace for trace in figure.data if trace.showlegend]
    names = [html.unescape(trace.name) for trace in shown]
    room = theme.fixed_width - 2 * _EDGE
    longest = max((style.width_of(len(name), theme.tick) for name in names), default=0)
    n_columns = max(1, min(len(names), int(room // (_SAMPLE + 3 * _SPACE + longest))))
    if n_columns == 1 and len(names) > 6:
        n_columns = 2
    n_rows = -(-len(names) // n_columns)
    n_columns = max(1, -(-len(names) // max(1, n_rows)))  # no row much shorter than the others
    text = room / n_columns - _SAMPLE - 3 * _SPACE
    lines = [style.wrapped(name, text, theme.tick, at_hyphens=True) for name in names]
    return _Key([_look(figure, trace) for trace in shown], names, lines, n_columns, title, theme)


def _look(figure: go.Figure, trace: go.Scatter) -> dict[str, Any]:
    """The line and the mark of a trace; a line's mark may be a trace of its own in the same legend group."""
    parts = trace.to_plotly_json()
    look = {part: parts[part] for part in ("mode", "line", "marker") if part in parts}
    if trace.mode == "lines" and trace.legendgroup:
        for other in figure.select_traces({"mode": "markers", "legendgroup": trace.legendgroup}):
            look |= {"mode": "lines+markers", "marker": other.marker.to_plotly_json()}
    if "line" in look:
        look["line"] = {name: value for name, value in look["line"].items() if name != "shape"}
    return look


def _draw_key(figure: go.Figure, key: _Key) -> go.Figure:
    """Draw a key at the foot of a figure, on axes of its own in pixels. Returns the same figure."""
    width, height = figure.layout.width, figure.layout.height
    axes = {"xaxis": f"x{_KEY_AXIS}", "yaxis": f"y{_KEY_AXIS}"}
    common = {"xref": axes["xaxis"], "yref": axes["yaxis"], "align": "left", "xanchor": "left", "yanchor": "middle"}
    top = key.height - 2.0
    if key.title:
        figure.add_annotation(x=_EDGE, y=top - _LINE / 2, text=key.title, font={"size": key.theme.text}, **common)
        top -= _LINE + 2
    pitch = (width - 2 * _EDGE) / key.n_columns
    for row, row_height in enumerate(key.row_heights):
        y = top - row_height / 2
        of_row = slice(row * key.n_columns, (row + 1) * key.n_columns)
        of_samples = zip(key.names[of_row], key.lines[of_row], key.looks[of_row], strict=True)
        for column, (name, lines, look) in enumerate(of_samples):
            x = _EDGE + column * pitch
            sample = [x + _SAMPLE / 2] if look["mode"] == "markers" else [x, x + _SAMPLE / 2, x + _SAMPLE]
            if "+" in look["mode"]:
                look["marker"]["opacity"] = [0, look["marker"].get("opacity", 1), 0]
            text, quiet = "<br>".join(lines), {"hoverinfo": "skip", "showlegend": False}
            figure.add_trace(
                go.Scatter(x=sample, y=[y] * len(sample), name=style.literal(name), **look, **axes, **quiet)
            )
            figure.add_annotation(x=x + _SAMPLE + _SPACE, y=y, text=text, font={"size": key.theme.tick}, **common)
        top -= row_height
    axis = {"visible": False, "fixedrange": True}
    x_axis = axis | {"range": [0, width], "domain": [0, 1], "anchor": axes["yaxis"]}
    y_axis = axis | {"range": [0, key.height], "domain": [0, key.height / height], "anchor": axes["xaxis"]}
    figure.update_layout({f"xaxis{_KEY_AXIS}": x_axis, f"yaxis{_KEY_AXIS}": y_axis, "showlegend": False})
    return figure
