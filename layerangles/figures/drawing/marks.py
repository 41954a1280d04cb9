"""Numbers and marks on the cells of heat maps; marks where a colour would be ambiguous in grey."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from layerangles.figures.drawing import style
from layerangles.figures.drawing.theme import INK, Theme
from layerangles.notation import number

MAX_LAYERS_WITH_VALUES = 8
MATCHED_MARK = "◆ teacher layer that training matched"

# Where colours of two meanings are equally light, cells of one of them are marked.
ABOVE_90, NEGATIVE = "• above 90°", "– below 0"
_DOUBTFUL = "doubtful in grey"
_LEAST_WRITTEN = 30  # pixels, on a screen
_LEAST_MARKED = 3  # pixels; smaller cells have no room for a mark


def doubtful(shown: Any, signed: bool) -> Any:
    """Mask of the cells whose colour is ambiguous in grey: angles above 90°, or values below 0."""
    return shown < 0 if signed else shown > 90


def matched_marks(matched: Sequence[int], cell: float, theme: Theme) -> list[go.Scatter]:
    """Diamonds for matched layers, on the diagonal, which has no numbers."""
    if not matched:
        return []
    size = min(theme.pick(10, 7), max(4, 0.6 * cell))
    return [
        go.Scatter(
            x=matched,
            y=matched,
            mode="markers",
            marker={"symbol": "diamond", "size": size, "color": INK},
            hoverinfo="skip",
            showlegend=False,
        )
    ]


def on_cells(
    shown: Any,
    layers: Sequence[int],
    cell: float,
    theme: Theme,
    *,
    signed: bool,
    of_share: bool = False,
) -> list[go.Scatter]:
    """The values as text in their cells where they fit; otherwise, on paper, marks on the cells ambiguous in grey.

    A heat map's own text is too faint on the middle of the scale.

    Args:
        shown: the values, ``[layer_a, layer_b]``.
        layers: the teacher layers.
        cell: the side of a cell, pixels.
        theme: the figure's theme.
        signed: whether the values are differences, coloured by
            :func:`layerangles.figures.drawing.style.excess_axis`.
        of_share: whether the values are shares in percent; 100 % has the colour of 90°.
    """

    def at(mask: Any, **look: Any) -> go.Scatter:
        rows, columns = (places.tolist() for places in np.nonzero(mask))
        place = {"x": [layers[column] for column in columns], "y": [layers[row] for row in rows]}
        return go.Scatter(**place, **look, hoverinfo="skip", showlegend=False)

    def inks(values: list[float]) -> list[str]:
        return ["black" if signed else style.ink_on(0.9 * value if of_share else value) for value in values]

    known = np.isfinite(shown)
    written = shown[known].tolist()
    if theme.on_paper:
        texts = style.values_that_fit(written, cell, theme)
    else:
        fits = len(layers) <= MAX_LAYERS_WITH_VALUES and cell >= _LEAST_WRITTEN
        texts = [number(value, 1, signed=signed) for value in written] if fits else None
    if texts is not None and (texts or not theme.on_paper):
        font = {"size": theme.value, "color": inks(written)}
        return [at(known, mode="text", text=texts, textfont=font)]
    ambiguous = doubtful(shown, signed)
    if not theme.on_paper or of_share or cell < _LEAST_MARKED or not ambiguous.any():
        return []
    size = max(1.5, min(5.0, (0.6 if signed else 0.35) * cell))
    symbol: dict[str, Any] = {"symbol": "line-ew-open", "line": {"width": 0.75}} if signed else {"symbol": "circle"}
    marker = symbol | {"size": size, "color": inks(shown[ambiguous].tolist())}
    return [at(ambiguous, mode="markers", marker=marker, name=_DOUBTFUL)]


def sign_of(figure: go.Figure, coloraxis: str) -> str:
    """The mark on cells of that colour axis and its meaning, or an empty string."""
    axes = {trace.xaxis for trace in figure.data if trace.type == "heatmap" and trace.coloraxis == coloraxis}
    if not any(trace.name == _DOUBTFUL and trace.xaxis in axes for trace in figure.data):
        return ""
    return NEGATIVE if figure.layout[coloraxis].cmin < 0 else ABOVE_90


def note_on_marks(figure: go.Figure, signed: bool, coloraxis: str = "coloraxis") -> list[str]:
    """The note of the caption on cells whose colour is ambiguous in grey, if there are any."""
    cells = [trace for trace in figure.data if trace.type == "heatmap" and trace.coloraxis == coloraxis]
    if not any(doubtful(np.asarray(trace.z, dtype=float), signed).any() for trace in cells):
        return []
    numbered = any(trace.mode == "text" for trace in figure.data if trace.type == "scatter")
    if sign_of(figure, coloraxis):
        return ["a dash marks cells below 0" if signed else "a dot marks cells above 90°"]
    if numbered:
        return []
    return ["orange cells are below 0" if signed else "orange cells are above 90°"]
