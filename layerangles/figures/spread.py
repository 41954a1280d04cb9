"""How the cosines of one pair of teacher layers spread over tokens, in two students."""

import numpy as np
import plotly.graph_objects as go

from layerangles.figures import style
from layerangles.figures.histogram import _axes as cosine_axes
from layerangles.figures.versus import Sight

_DASHES = ("solid", "dash")


def spread(first: Sight, second: Sight, layer_a: int, layer_b: int, *, width: int = 560) -> go.Figure:
    """Draw the share of tokens per bin of cosines between two teacher layers, a curve a student.

    Args:
        first: the one student; drawn solid.
        second: the other; dashed.
        layer_a: a teacher layer.
        layer_b: another.
        width: of the plot, pixels.

    Returns:
        The figure; of fixed size, in pixels. A curve sums to 100 %.
    """
    figure = go.Figure()
    bin_width = 0.01
    for number, sight in enumerate((first, second)):
        if sight.data is None or not {layer_a, layer_b} <= set(sight.data["layer_a"].values.tolist()):
            continue
        counts = sight.data["histogram"].sel(layer_a=layer_a, layer_b=layer_b)
        bin_width = 2 / counts.sizes["bin"]
        total = float(counts.sum())
        if not total > 0:
            continue
        share = 100 * counts.values / total
        figure.add_trace(
            go.Scatter(
                x=np.append(counts["bin"].values, 1.0),
                y=np.append(share, share[-1]),
                mode="lines",
                line={"shape": "hv", "width": 1.8, "color": style.COLOURS[number], "dash": _DASHES[number]},
                name="<br>".join(style.wrapped(sight.label, 200, 11, at_hyphens=True)),
                hovertemplate=f"cosine from %{{x:.2f}}: %{{y:.2f}} % of {int(total):,} tokens<extra></extra>",
                showlegend=True,
            )
        )
    cosine_axes(figure, bin_width)
    figure.update_layout(legend={"title": None, "x": 0, "y": -0.28, "yanchor": "top", "orientation": "v"})
    if not figure.data:
        middle = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
        figure.add_annotation(text="neither has an angle between these layers", **middle, font={"size": 13})
    names = f"{style.layer_name(layer_a)} and {style.layer_name(layer_b)}"
    return style.frame(
        figure, f"Cosines between teacher layers {names}", "a curve sums to 100 %", (width, 260), (66, 24, 40, 130)
    )
