"""How the cosines of one pair of teacher layers spread over tokens, in two students."""

import numpy as np
import plotly.graph_objects as go

from layerangles.figures.drawing import style
from layerangles.figures.drawing.key import Entry
from layerangles.figures.drawing.layer_view import LayerView
from layerangles.figures.drawing.theme import SCREEN, Theme
from layerangles.figures.histogram import PAPER_NOTES, cosine_axes, frame_cosines, mark_peaks
from layerangles.notation import count, layer_name

_DASHES = ("solid", "dash")
_WIDTH = 560  # of the plot on a screen


def histogram_pair(
    first: LayerView, second: LayerView, layer_a: int, layer_b: int, *, theme: Theme = SCREEN
) -> go.Figure:
    """Draw the share of tokens per bin of cosines between two teacher layers, a curve a student.

    Args:
        first: the one student; drawn solid.
        second: the other; dashed.
        layer_a: a teacher layer.
        layer_b: another.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        The figure; of fixed size, in pixels. A curve sums to 100 %.
    """
    figure = go.Figure()
    bin_width, labels = 0.01, []
    for number, view in enumerate((first, second)):
        # In gradient space there are no tokens, and so no cosines of theirs.
        if (
            view.data is None
            or "histogram" not in view.data
            or not {layer_a, layer_b} <= set(view.data["layer_a"].values.tolist())
        ):
            continue
        counts = view.data["histogram"].sel(layer_a=layer_a, layer_b=layer_b)
        bin_width = 2 / counts.sizes["bin"]
        total = float(counts.sum())
        if not total > 0:
            continue
        share = 100 * counts.values / total
        labels.append(view.label)
        figure.add_trace(
            go.Scatter(
                x=np.append(counts["bin"].values, 1.0),
                y=np.append(share, share[-1]),
                mode="lines",
                line={
                    "shape": "hv",
                    "width": theme.stroke(1.8),
                    "color": style.COLOURS[number],
                    "dash": _DASHES[number],
                },
                name="<br>".join(style.wrapped(view.label, 200, 11, at_hyphens=True)),
                hovertemplate=f"cosine from %{{x:.2f}}: %{{y:.2f}} % of {count(int(total))} tokens<extra></extra>",
                showlegend=True,
            )
        )
    cosine_axes(figure, bin_width, theme)
    if not figure.data:
        middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
        size = 13 if not theme.on_paper else theme.text
        figure.add_annotation(text="neither has an angle between these layers", **middle, font={"size": size})
    names = f"{layer_name(layer_a)} and {layer_name(layer_b)}"
    title, notes = f"Cosines between teacher layers {names}", ["a curve sums to 100 %"]
    if theme.on_paper:
        entries = [Entry(label, look) for label, look in zip(labels, mark_peaks(figure, theme), strict=True)]
        return frame_cosines(figure, title, [*notes, *PAPER_NOTES], entries, theme)
    figure.update_layout(legend={"title": None, "x": 0, "y": -0.28, "yanchor": "top", "orientation": "v"})
    return style.frame(figure, title, notes, (_WIDTH, 260), (66, 24, 40, 130))
