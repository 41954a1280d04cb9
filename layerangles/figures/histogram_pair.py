"""Histograms of the cosines between one pair of teacher layers, seen from two students."""

import plotly.graph_objects as go

from layerangles.figures.drawing import style
from layerangles.figures.drawing.layer_view import LayerView
from layerangles.figures.drawing.theme import SCREEN, Theme
from layerangles.figures.histogram import curve, frame_cosines, say_in_the_middle
from layerangles.notation import teacher_layers

_DASHES = ("solid", "dash")
_SIZE = (560, 260)  # of the plot area, on a screen


def histogram_pair(
    first: LayerView, second: LayerView, layer_a: int, layer_b: int, *, theme: Theme = SCREEN
) -> go.Figure:
    """Draw the share of tokens per bin of the cosines between two teacher layers, one curve per student.

    Args:
        first: one student, drawn solid.
        second: the other, dashed.
        layer_a: a teacher layer.
        layer_b: another.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size, in which every curve sums to 100 %.
    """
    figure = go.Figure()
    bin_width = 0.01
    for number, view in enumerate((first, second)):
        # Gradient space has no tokens, and so no histogram.
        if view.data is None or "histogram" not in view.data:
            continue
        if not {layer_a, layer_b} <= set(view.data["layer_a"].values.tolist()):
            continue
        counts = view.data["histogram"].sel(layer_a=layer_a, layer_b=layer_b)
        bin_width = 2 / counts.sizes["bin"]
        if counts.sum() > 0:
            line = {"width": theme.stroke(1.8), "color": style.COLOURS[number], "dash": _DASHES[number]}
            figure.add_trace(curve(counts, line, style.legend_name(view.label, 480, theme)))
    if not figure.data:
        say_in_the_middle(figure, "neither has an angle between these layers")
    figure.update_layout(legend={"x": 0, "y": -0.28, "yanchor": "top", "orientation": "v"})
    title = f"Cosines between {teacher_layers(layer_a, layer_b)}"
    notes, margins = ["a curve sums to 100 %"], (66, 24, 40, 130)
    return frame_cosines(figure, title, notes, bin_width, _SIZE, theme, margins=margins)
