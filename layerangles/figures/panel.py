"""A panel is the angles between all teacher layers from one layer of one student; here a grid of them is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from layerangles.figures import style
from layerangles.figures.selection import NO_DIRECTION, reasons_for_absence

if TYPE_CHECKING:
    from layerangles.result import AngleResult

MAX_LAYERS_WITH_VALUES = 8
MATCHED_MARK = "◆ teacher layer that training matched"

_VARIABLES = ("angle_deg", "ci_low", "ci_high", "acute_fraction", "n_tokens", "n_degenerate")
_OF_NULL = ("excess_deg", "excess_low", "excess_high", "null_angle_deg")


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Attributes:
        student: the student's name.
        student_layer: 0 is the embedding output.
        layers: the teacher layers.
        values: the variables of the result by name, each ``[layer_a, layer_b]``; angles in degrees, NaN for none.
        matched: the teacher layers that training matched this student layer to.
        confidence: of the intervals, 0 to 1.
        absence: why there is no angle at all, or an empty string.
        null: the null whose excess is shown instead of the angle, or an empty string.
    """

    student: str
    student_layer: int
    layers: list[int]
    values: dict[str, Any]
    matched: list[int]
    confidence: float
    absence: str
    null: str = ""

    @property
    def shown(self) -> Any:
        """The values that the colours stand for, ``[layer_a, layer_b]``, in degrees."""
        return self.values["excess_deg" if self.null else "angle_deg"]

    @property
    def title(self) -> str:
        """Which student layer, and the teacher layers that it was matched to."""
        matched = f" (matched to teacher {_listed(self.matched)})" if self.matched else ""
        return f"student layer {style.layer_name(self.student_layer)}{matched}"

    def hover(self) -> list[list[str]]:
        """The hover text of every cell, ``[layer_a][layer_b]``, without the lines that all cells share."""
        columns = [self.values[name].tolist() for name in _VARIABLES]
        indices = range(len(self.layers))
        return [
            [self._hover_of(a, b, *(column[a][b] for column in columns)) + self._hover_of_null(a, b) for b in indices]
            for a in indices
        ]

    def _hover_of_null(self, a: int, b: int) -> str:
        if not self.null or np.isnan(self.values["angle_deg"][a][b]):
            return ""
        if np.isnan(self.shown[a][b]):
            return f"<br>no {self.null} here, and so no excess"
        excess, low, high, of_null = (self.values[name][a][b] for name in _OF_NULL)
        interval = "" if np.isnan(low) else f", {100 * self.confidence:g} % interval {low:+.1f}° to {high:+.1f}°"
        return f"<br>{self.null} {of_null:.1f}°, excess <b>{excess:+.1f}°</b>{interval}"

    def _hover_of(
        self, a: int, b: int, angle: float, low: float, high: float, acute: float, n_tokens: float, n_degenerate: float
    ) -> str:
        name_a, name_b = style.layer_name(self.layers[a]), style.layer_name(self.layers[b])
        if a == b:
            return f"teacher layer {name_a}<br>no angle with itself"
        pair = f"teacher layers {name_a} and {name_b}"
        if np.isnan(angle):
            # The panel's reason speaks of the layer as a whole; a lone blank cell has its own.
            degenerate = f"{NO_DIRECTION}<br>0 tokens, {int(n_degenerate):,} degenerate" if n_degenerate > 0 else ""
            return f"{pair}<br>{degenerate or self.absence or 'not measured'}"
        interval = "no interval from a single example"
        if not np.isnan(low):
            interval = f"{100 * self.confidence:g} % interval {low:.1f}° to {high:.1f}°"
        return (
            f"{pair}<br>mean angle <b>{angle:.1f}°</b>, {interval}<br>acute in {100 * acute:.1f} % of the tokens"
            f"<br>{int(n_tokens):,} tokens, {int(n_degenerate):,} degenerate left out"
        )


@dataclass(frozen=True)
class Grid:
    """Square panels in rows and columns, all lengths in pixels."""

    n_rows: int
    n_columns: int
    size: float
    gap_x: float
    gap_y: float

    @property
    def width(self) -> float:
        """Of the whole grid."""
        return self.n_columns * self.size + (self.n_columns - 1) * self.gap_x

    @property
    def height(self) -> float:
        """Of the whole grid."""
        return self.n_rows * self.size + (self.n_rows - 1) * self.gap_y

    def x_domain(self, column: int) -> list[float]:
        """Where a column (from 0, left to right) lies, as shares of the width."""
        start = column * (self.size + self.gap_x)
        return [start / self.width, min(1.0, (start + self.size) / self.width)]

    def y_domain(self, row: int) -> list[float]:
        """Where a row (from 0, top to bottom) lies, as shares of the height from below."""
        end = self.height - row * (self.size + self.gap_y)
        return [max(0.0, (end - self.size) / self.height), end / self.height]


def panels_of(
    result: "AngleResult", data: xr.Dataset, student_layers: Sequence[int], null: str | None = None
) -> list[Panel]:
    """The panels of one student; ``data`` is the student's part of ``result``, at one step.

    Raises:
        InputError: that null was not measured.
    """
    reasons = reasons_for_absence(result, data)
    order = ("student_layer", "layer_a", "layer_b")
    values = {name: data[name].transpose(*order).values for name in _VARIABLES}
    if null is not None:
        result.check_null(null)
        values |= {name: data[name].sel(null=null).transpose(*order).values for name in _OF_NULL}
    matched = data["matched"].transpose(*order[:2]).values > 0
    layers = [int(layer) for layer in data["layer_a"].values]
    positions = {int(layer): index for index, layer in enumerate(data["student_layer"].values)}
    return [
        Panel(
            student=str(data["student"].item()),
            student_layer=layer,
            layers=layers,
            values={name: of[positions[layer]] for name, of in values.items()},
            matched=[
                teacher_layer for teacher_layer, yes in zip(layers, matched[positions[layer]], strict=True) if yes
            ],
            confidence=float(result.dataset.attrs.get("confidence", 0.95)),
            absence=reasons.get(layer, ""),
            null=null or "",
        )
        for layer in student_layers
    ]


def draw_panels(panels: Sequence[Panel], grid: Grid, *, inner_ticks: bool) -> go.Figure:
    """Draw panels into a grid, row by row; they share one colour axis and are zoomed together.

    Layers stand at their numbers on both axes, ``layer_b`` to the right and ``layer_a`` upwards. The axes of the
    panel with index ``i`` are ``x{i + 1}`` and ``y{i + 1}`` (plotly calls the first ones ``x`` and ``y``). Without
    ``inner_ticks`` only the left and the lower edge of the grid have ticks.
    """
    traces: list[Any] = []
    annotations: list[dict[str, Any]] = []
    layout: dict[str, Any] = {}
    for index, panel in enumerate(panels):
        row, column = divmod(index, grid.n_columns)
        traces += _traces(panel, axis_number(index), grid.size)
        if panel.absence:
            text = "<br>".join(style.wrapped(panel.absence, grid.size - 12, 12))
            centre = {"x": 0.5, "y": 0.5, "showarrow": False, "font": {"size": 12, "color": style.FAINT}}
            annotations.append({"text": text, **domain_of(index), **centre})
        x, y = _axes(panel.layers, grid.size)
        x |= {"domain": grid.x_domain(column), "anchor": f"y{axis_number(index)}"}
        y |= {"domain": grid.y_domain(row), "anchor": f"x{axis_number(index)}"}
        if not inner_ticks and row < grid.n_rows - 1:
            x |= {"showticklabels": False, "title": None}
        if column > 0:
            y |= {"title": None} if inner_ticks else {"showticklabels": False, "title": None}
        layout |= {f"xaxis{axis_number(index)}": x, f"yaxis{axis_number(index)}": y}
    shown = np.array([panel.shown for panel in panels])
    largest = float(np.nanmax(np.abs(shown))) if np.isfinite(shown).any() else 0.0
    if panels and panels[0].null:
        layout["coloraxis"] = style.excess_axis(largest, panels[0].null, grid.width, grid.height)
    else:
        layout["coloraxis"] = style.colour_axis(style.top_of_scale(largest), grid.width, grid.height)
    return go.Figure(traces, {**layout, "annotations": annotations, "template": "none"})


def notes_on(panels: Sequence[Panel]) -> list[str]:
    """What a reader must know of the marks and the blanks in these panels, for a subtitle."""
    notes = [MATCHED_MARK] if any(panel.matched for panel in panels) else []
    measured = [panel.values for panel in panels if not panel.absence]
    if any((np.isnan(values["angle_deg"]) & (values["n_degenerate"] > 0)).any() for values in measured):
        notes.append(f"blank off the diagonal: {NO_DIRECTION}")
    return notes


def axis_number(index: int) -> str:
    """How plotly numbers the axes of the panel with this index (from 0): "", "2", "3" and so on."""
    return "" if index == 0 else str(index + 1)


def domain_of(index: int) -> dict[str, str]:
    """The references with which an annotation is placed in shares of the panel with this index."""
    return {"xref": f"x{axis_number(index)} domain", "yref": f"y{axis_number(index)} domain"}


def _traces(panel: Panel, axis: str, size: float) -> list[Any]:
    matched = f"<br>matched to teacher layer {_listed(panel.matched)} in training" if panel.matched else ""
    cell = size / len(panel.layers)
    gap = 1 if cell > 5 else 0
    axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    cells = go.Heatmap(
        x=panel.layers,
        y=panel.layers,
        z=panel.shown,
        coloraxis="coloraxis",
        xgap=gap,
        ygap=gap,
        hovertext=panel.hover(),
        hovertemplate=(
            f"{style.literal(panel.student)}, layer {style.layer_name(panel.student_layer)}{matched}"
            "<br>%{hovertext}<extra></extra>"
        ),
        **axes,
    )
    values = [_written_values(panel, axes)] if len(panel.layers) <= MAX_LAYERS_WITH_VALUES and cell >= 30 else []
    if not panel.matched:
        return [cells, *values]
    # On the diagonal, which is blank: the mark hides no number.
    marks = go.Scatter(
        x=panel.matched,
        y=panel.matched,
        mode="markers",
        marker={"symbol": "diamond", "size": min(10, max(4, 0.6 * cell)), "color": style.INK},
        hoverinfo="skip",
        showlegend=False,
        **axes,
    )
    return [cells, *values, marks]


def _written_values(panel: Panel, axes: dict[str, str]) -> go.Scatter:
    """The angles as text in their cells; a heat map's own text is too faint on the middle of the scale."""
    angles = panel.shown
    rows, columns = np.nonzero(np.isfinite(angles))
    written = angles[rows, columns].tolist()
    return go.Scatter(
        x=[panel.layers[column] for column in columns],
        y=[panel.layers[row] for row in rows],
        text=[f"{angle:+.1f}" if panel.null else f"{angle:.1f}" for angle in written],
        textfont={"size": 12, "color": ["black" if panel.null else style.ink_on(angle) for angle in written]},
        mode="text",
        hoverinfo="skip",
        showlegend=False,
        **axes,
    )


def _axes(layers: list[int], size: float) -> tuple[dict[str, Any], dict[str, Any]]:
    ticks = layers[:: _tick_step(len(layers) - 1, size / len(layers))]
    common: dict[str, Any] = {
        "range": [layers[0] - 0.5, layers[-1] + 0.5],
        "tickvals": ticks,
        "tickfont": {"size": 11},
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": "#c9ced4",
        "mirror": True,
        "title": {"text": "teacher layer", "standoff": 6, "font": {"size": 12, "color": style.FAINT}},
    }
    # Below each other "0" and "(emb)" take the width of one cell; side by side they would run into the "1".
    below = ["0<br>(emb)" if layer == 0 else str(layer) for layer in ticks]
    x = common | {"ticktext": below, "tickangle": 0, "matches": "x"}
    y = common | {"ticktext": [style.layer_name(layer) for layer in ticks], "matches": "y"}
    return x, y


def _listed(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def _tick_step(last: int, cell: float) -> int:
    """Every how many layers a tick: 20 pixels apart at least, and so that the last layer has one where that is near."""
    least = max(1, ceil(20 / cell))
    return next((step for step in range(least, 2 * least) if last % step == 0), least)
