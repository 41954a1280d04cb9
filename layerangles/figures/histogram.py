"""Histograms of the cosines over tokens, in the form of the paper's figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import sample_colorscale

from layerangles.errors import InputError
from layerangles.figures.drawing import selection, style
from layerangles.figures.drawing.frame import Margins, frame
from layerangles.figures.drawing.theme import FAINT, SCREEN, Theme
from layerangles.notation import count, number, teacher_layers

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult


def histogram(
    result: "AngleResult",
    student: str | None = None,
    *,
    student_layer: int = 1,
    layer_a: int = 1,
    layer_b: int | None = None,
    step: int | None = None,
    tower: str | None = None,
    theme: Theme = SCREEN,
) -> go.Figure:
    """Draw the distribution over tokens of the cosines between teacher layers, seen from one student layer.

    The form of the paper's figure (Yu, Wen and Mou, 2025): ``cos ∠(T_a − S, T_b − S)``, in [−1, 1], against the
    share of tokens. Each curve gives the percentage of that pair's tokens in every bin, which sums to 100 whatever
    the number of tokens; for a density per unit of cosine, divide by 100 and by the width of a bin (0.01).
    Degenerate tokens are in no bin. Layers nearer to ``layer_a`` are darker, and layers below it dashed.

    Args:
        result: a result of :func:`layerangles.measure_angles`.
        student: its name; may be left out where there is only one.
        student_layer: the vertex of the angles; 0 is the embedding output.
        layer_a: a teacher layer.
        layer_b: the other teacher layer; by default every other, one curve each.
        step: the training step; the last by default.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size.

    Raises:
        InputError: no such student, layer, step or tower, or ``layer_b`` is ``layer_a``.
    """
    result, student, tower, data = selection.of_student(result, student, tower, step)
    layers = [int(layer) for layer in data["layer_a"].values]
    student_layers = [int(layer) for layer in data["student_layer"].values]
    selection.one_layer("student_layer", student_layer, student_layers)
    selection.one_layer("layer_a", layer_a, layers)
    others = [layer for layer in layers if layer != layer_a]
    if layer_b is not None:
        if layer_b == layer_a:
            raise InputError(f"layer_a and layer_b are both {layer_a}, and a layer makes no angle with itself.")
        others = [selection.one_layer("layer_b", layer_b, layers)]

    at_layer = data.sel(student_layer=student_layer, layer_a=layer_a)
    furthest = max(layer_a - layers[0], layers[-1] - layer_a)
    curves = [
        _curve(counts, other, layer_a, furthest, theme)
        for other in others
        if (counts := at_layer["histogram"].sel(layer_b=other)).sum() > 0
    ]
    figure = go.Figure(curves)
    if not curves:
        absence = selection.reasons_for_absence(result, data).get(student_layer, "")
        say_in_the_middle(figure, absence or selection.NO_DIRECTION)
    of_curves = (
        "a curve sums to 100 %" if layer_b is not None else f"darker is nearer to layer {layer_a}, dashed below it"
    )
    whom = f"teacher layer {layer_b}" if layer_b is not None else "the others"
    title = f"Cosines between teacher layer {layer_a} and {whom}, seen from layer {student_layer} of {student}"
    notes = [f"{of_curves}{selection.when_and_where(result, data, tower)}"]
    height = max(380, 30 + 19 * len(curves))  # at least the legend's, which cannot be scrolled in an image
    return frame_cosines(figure, title, notes, 2 / data.sizes["bin"], (680, height), theme, "teacher layer")


def say_in_the_middle(figure: go.Figure, text: str) -> None:
    """Write the reason why a figure is empty into its middle."""
    figure.add_annotation(text=text, xref="paper", yref="paper", x=0.5, y=0.5, font={"color": FAINT})


def curve(counts: xr.DataArray, line: dict[str, Any], name: str, where: str = "") -> go.Scatter:
    """The share of tokens in each bin, in percent, as a stepped line; ``counts`` are ``[bin]``, not all 0."""
    n_tokens = int(counts.sum())
    share = 100 * counts.values / n_tokens
    return go.Scatter(
        x=np.append(counts["bin"].values, 1.0),
        y=np.append(share, share[-1]),  # a step ends at the upper end of the last bin
        mode="lines",
        line=line | {"shape": "hv"},
        name=name,
        legendgroup=name,
        hovertemplate=f"{where}cosine from %{{x:.2f}}: %{{y:.2f}} % of {count(n_tokens)} tokens<extra></extra>",
        showlegend=True,
    )


def frame_cosines(
    figure: go.Figure,
    title: str,
    notes: list[str],
    bin_width: float,
    size: tuple[float, float],
    theme: Theme,
    legend_title: str = "",
    margins: Margins = (72, 130, 30, 76),
) -> go.Figure:
    """Add axes, lines at 90° and 60°, and a frame to curves of cosines; ``size`` and ``margins`` hold on a screen."""
    ticks = {-1: 180, -0.5: 120, 0: 90, 0.5: 60, 1: 0}
    figure.update_xaxes(
        range=[-1, 1],
        tickvals=list(ticks),
        ticktext=[f"{number(cosine)}<br>{degree}°" for cosine, degree in ticks.items()],
        title={"text": "cosine (and angle)"},
    )
    share = theme.pick("share of tokens per bin of", "tokens per bin of")
    figure.update_yaxes(rangemode="tozero", ticksuffix=" %", title={"text": f"{share} {bin_width:g}"}, showline=False)
    orthogonal, independent = theme.pick(
        ("90° orthogonal", "60° independent<br>(equal norms)"), ("orthogonal", "independent")
    )
    for cosine, text in ((0.0, orthogonal), (0.5, independent)):
        line = {"color": FAINT, "width": theme.stroke(1.2), "dash": "dot"}
        figure.add_shape(type="line", x0=cosine, x1=cosine, y0=0, y1=1, yref="paper", line=line)
        figure.add_annotation(text=text, x=cosine, y=1, yref="paper", yanchor="bottom", font={"size": theme.tick})
    if theme.on_paper:
        _mark_peaks(figure, theme)
        notes = [*notes, *_PAPER_NOTES]
        left, right, above = 42, 12, 14
        below = round(2.2 * theme.tick + 1.2 * theme.text) + 6  # cosines, angles, and the axis' title
        size, margins = (theme.fixed_width - left - right, 150), (left, right, above, below)
    return frame(figure, title, notes, size, margins, theme, legend_title=legend_title)


_PAPER_NOTES = (
    "a mark stands at the highest point of each curve",
    "dotted lines: orthogonal layers (90°) and independent ones of equal norm (60°)",
    "layer 0 is the embedding output",
)


def _mark_peaks(figure: go.Figure, theme: Theme) -> None:
    """Mark the highest point of each curve by a symbol of its own, which the key shows."""
    for index, curve in enumerate(list(figure.data)):
        symbol = style.MARKS[index % len(style.MARKS)] + ("-open" if index >= len(style.MARKS) else "")
        marker = {"symbol": symbol, "size": 10 * theme.scale, "color": curve.line.color, "line": {"width": 0.75}}
        peak = int(np.argmax(curve.y))
        middle = (curve.x[peak] + curve.x[min(peak + 1, len(curve.x) - 1)]) / 2
        point = {"x": [middle], "y": [curve.y[peak]], "mode": "markers", "marker": marker}
        figure.add_trace(go.Scatter(**point, legendgroup=curve.legendgroup, hoverinfo="skip", showlegend=False))


def _curve(counts: xr.DataArray, other: int, layer_a: int, furthest: int, theme: Theme) -> go.Scatter:
    nearness = (abs(other - layer_a) - 1) / max(1, furthest - 1)
    # The palest colours of the scale would be invisible as lines on white.
    colour = sample_colorscale(list(style.ACUTE), [0.05 + 0.75 * nearness])[0]
    line = {"width": theme.stroke(1.6), "color": colour, "dash": "dash" if other < layer_a else "solid"}
    (name,) = style.layer_ticks([other], theme)
    return curve(counts, line, name, f"{teacher_layers(layer_a, other)}<br>")
