"""Grids of panels; a panel shows the angles between all teacher layers from one layer of one student."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.basedatatypes import BaseTraceType

from layerangles.figures.drawing import style
from layerangles.figures.drawing.marks import MATCHED_MARK, matched_marks, note_on_marks, on_cells
from layerangles.figures.drawing.selection import NO_DIRECTION, reasons_for_absence
from layerangles.figures.drawing.theme import FAINT, SCREEN, Theme
from layerangles.notation import count, degrees, layer_name, percent, teacher_layers
from layerangles.results.variables import heading

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult


# On paper: the space below and left of a grid, for the numbers and the title of its axes.
PAPER_BELOW, PAPER_LEFT = 30, 30

_VARIABLES = ("angle_deg", "ci_low", "ci_high", "acute_fraction", "n_tokens", "n_degenerate")
_OF_NULL = ("excess_deg", "excess_low", "excess_high", "null_angle_deg")


@dataclass(frozen=True)
class Panel:
    """The content of one panel.

    Attributes:
        student: the student's name.
        student_layer: 0 is the embedding output.
        layers: the teacher layers.
        values: the variables of the result by name, each ``[layer_a, layer_b]``; angles in degrees, NaN for none.
        matched: the teacher layers to which training matched this student layer.
        confidence: the level of the intervals, 0 to 1.
        absence: the reason why there is no angle at all, or an empty string.
        null: the null over which the excess is shown instead of the angle, or an empty string.
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
        """The coloured values, ``[layer_a, layer_b]``, in degrees."""
        return self.values["excess_deg" if self.null else "angle_deg"]

    @property
    def title(self) -> str:
        """The student layer and the teacher layers matched to it, as a title."""
        matched = f" (matched to teacher {_listed(self.matched)})" if self.matched else ""
        return f"student layer {layer_name(self.student_layer)}{matched}"

    def hover(self) -> list[list[str]]:
        """The hover text of every cell, ``[layer_a][layer_b]``, without the lines shared by all cells."""
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
        ends = f"{degrees(low, signed=True)} to {degrees(high, signed=True)}"
        interval = "" if np.isnan(low) else f", {percent(self.confidence)} interval {ends}"
        return f"<br>{self.null} {degrees(of_null)}, excess <b>{degrees(excess, signed=True)}</b>{interval}"

    def _hover_of(
        self, a: int, b: int, angle: float, low: float, high: float, acute: float, n_tokens: float, n_degenerate: float
    ) -> str:
        if a == b:
            return f"teacher layer {layer_name(self.layers[a])}<br>no angle with itself"
        pair = teacher_layers(self.layers[a], self.layers[b])
        if np.isnan(angle):
            # The panel's reason is that of the whole layer; a single blank cell has its own.
            degenerate = (
                f"{NO_DIRECTION}<br>0 tokens, {count(int(n_degenerate))} degenerate" if n_degenerate > 0 else ""
            )
            return f"{pair}<br>{degenerate or self.absence or 'not measured'}"
        interval = "no interval from a single example"
        if not np.isnan(low):
            interval = f"{percent(self.confidence)} interval {degrees(low)} to {degrees(high)}"
        return (
            f"{pair}<br>mean angle <b>{degrees(angle)}</b>, {interval}<br>acute in {percent(acute, 1)} of the tokens"
            f"<br>{count(int(n_tokens))} tokens, {count(int(n_degenerate))} degenerate left out"
        )


class Map(NamedTuple):
    """Values of pairs of teacher layers, to be drawn.

    Attributes:
        layers: the teacher layers.
        values: ``[layer_a, layer_b]``; NaN for none.
        hover: the hover texts, ``[layer_a][layer_b]``.
        matched: the teacher layers to mark on the diagonal.
    """

    layers: list[int]
    values: Any
    hover: list[list[str]]
    matched: list[int]


@dataclass(frozen=True)
class Grid:
    """Panels in rows and columns, all lengths in pixels.

    Attributes:
        n_rows: the number of rows.
        n_columns: the number of columns in each block.
        size: the width of a panel, and its height unless ``tall`` is given.
        gap_x: the gap between columns.
        gap_y: the gap between rows.
        tall: the height of a panel; 0 for square panels.
        n_blocks: the number of blocks beside each other; panels are numbered block by block.
        block_gap: the gap between blocks.
    """

    n_rows: int
    n_columns: int
    size: float
    gap_x: float
    gap_y: float
    tall: float = 0
    n_blocks: int = 1
    block_gap: float = 0

    @property
    def panel_height(self) -> float:
        """The height of one panel."""
        return self.tall or self.size

    @property
    def block_width(self) -> float:
        """The width of one block."""
        return self.n_columns * self.size + (self.n_columns - 1) * self.gap_x

    @property
    def width(self) -> float:
        """The width of the whole grid."""
        return self.n_blocks * self.block_width + (self.n_blocks - 1) * self.block_gap

    @property
    def height(self) -> float:
        """The height of the whole grid."""
        return self.n_rows * self.panel_height + (self.n_rows - 1) * self.gap_y

    def place(self, index: int) -> tuple[int, int]:
        """Row and column (counted through all blocks) of the panel with this index."""
        block, within = divmod(index, self.n_rows * self.n_columns)
        row, column = divmod(within, self.n_columns)
        return row, block * self.n_columns + column

    def axes(self, index: int, x: dict[str, Any], y: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The layout of the axes of the panel with this index, each at its place in the grid."""
        row, column = self.place(index)
        number = axis_number(index)
        return {
            f"xaxis{number}": x | {"domain": self.x_domain(column), "anchor": f"y{number}"},
            f"yaxis{number}": y | {"domain": self.y_domain(row), "anchor": f"x{number}"},
        }

    def x_domain(self, column: int) -> list[float]:
        """The ends of a column (from 0, left to right), as shares of the width."""
        block, within = divmod(column, self.n_columns)
        start = block * (self.block_width + self.block_gap) + within * (self.size + self.gap_x)
        return [start / self.width, min(1.0, (start + self.size) / self.width)]

    def y_domain(self, row: int) -> list[float]:
        """The ends of a row (from 0, top to bottom), as shares of the height from below."""
        end = self.height - row * (self.panel_height + self.gap_y)
        return [max(0.0, (end - self.panel_height) / self.height), end / self.height]


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


def draw_panels(panels: Sequence[Panel], grid: Grid, *, inner_ticks: bool, theme: Theme = SCREEN) -> go.Figure:
    """Draw panels into a grid, row by row; they share one colour axis and are zoomed together.

    Layers stand at their numbers on both axes, ``layer_b`` to the right and ``layer_a`` upwards. The axes of the
    panel with index ``i`` are ``x{i + 1}`` and ``y{i + 1}`` (plotly calls the first ones ``x`` and ``y``). Without
    ``inner_ticks`` only the left and the lower edge of the grid have ticks, and on paper one title for all panels.
    """
    is_crowded = _crowded(panels, grid, theme)
    # Given to plotly all at once, since every change of a figure takes it several milliseconds.
    traces: list[BaseTraceType] = []
    layout: dict[str, Any] = {"annotations": []}
    for index, panel in enumerate(panels):
        row, column = grid.place(index)
        matched = f"<br>matched to teacher layer {_listed(panel.matched)} in training" if panel.matched else ""
        whose = f"{style.literal(panel.student)}, layer {layer_name(panel.student_layer)}{matched}<br>"
        of_panel = Map(panel.layers, panel.shown, panel.hover(), panel.matched)
        traces += map_traces(index, grid, of_panel, theme, signed=bool(panel.null), whose=whose)
        if panel.absence and (text := _absence(panel, grid.size, theme)):
            middle = {"x": 0.5, "y": 0.5, "font": {"color": FAINT}}
            layout["annotations"].append({"text": text, **domain_of(index), **middle})
        x, y = layer_axes(panel.layers, grid.size, theme)
        is_lowest = row == grid.n_rows - 1 or index + grid.n_columns >= len(panels)
        if not inner_ticks and not is_lowest:
            x |= {"showticklabels": False, "title": None}
        if column % grid.n_columns > 0:
            y |= {"title": None} if inner_ticks else {"showticklabels": False, "title": None}
            x |= {"showticklabels": False} if is_crowded[0] else {}
        if row > 0 and is_crowded[1]:
            y |= {"showticklabels": False}
        layout |= grid.axes(index, x, y)
    shown = np.array([panel.shown for panel in panels])
    largest = float(np.nanmax(np.abs(shown))) if np.isfinite(shown).any() else 0.0
    null = panels[0].null if panels else ""
    axis_of, what = (style.excess_axis, f"excess over {null} °") if null else (style.angle_axis, "mean angle")
    layout["coloraxis"] = axis_of(largest, what, grid.width, grid.height)
    return go.Figure(traces, layout)


def _crowded(panels: Sequence[Panel], grid: Grid, theme: Theme) -> tuple[bool, bool]:
    """Whether, on paper, the numbers at the x and at the y axes of neighbouring panels would overlap."""
    if not theme.on_paper or not panels:
        return False, False
    layers = panels[0].layers
    cell = grid.size / len(layers)
    return cell + grid.gap_x < style.width_of(len(str(layers[-1])), theme.tick) + 2, cell + grid.gap_y < theme.tick


def name_axes(figure: go.Figure, theme: Theme, left: float) -> None:
    """On paper, write "teacher layer" once below and once left of all panels; ``left`` in pixels from their edge."""
    if theme.on_paper:
        common = {"text": "teacher layer", "xref": "paper", "yref": "paper"}
        figure.add_annotation(x=0.5, y=0, yanchor="top", yshift=-17, **common)
        figure.add_annotation(x=0, y=0.5, xanchor="right", xshift=-left, textangle=-90, **common)


def bar_name(null: str) -> dict[str, str]:
    """The name of the colour bar of panels, for :func:`layerangles.figures.drawing.frame.frame`."""
    return {"coloraxis": heading("excess_deg", null) if null else heading("angle_deg")}


def notes_on(panels: Sequence[Panel], figure: go.Figure, theme: Theme = SCREEN) -> list[str]:
    """Notes on marks and blank cells in these panels, for a subtitle or a caption."""
    notes = [MATCHED_MARK] if any(panel.matched for panel in panels) else []
    measured = [panel.values for panel in panels if not panel.absence]
    if any((np.isnan(values["angle_deg"]) & (values["n_degenerate"] > 0)).any() for values in measured):
        notes.append(f"blank off the diagonal: {NO_DIRECTION}")
    if not theme.on_paper:
        return notes
    if not panels[0].null:
        notes.append("independent layers of equal norm make 60°, orthogonal ones 90°")
    notes += note_on_marks(figure, bool(panels[0].null))
    notes.append("layer 0 is the embedding output")
    reasons = dict.fromkeys(panel.absence for panel in panels if panel.absence)
    return notes + [f"empty panels: {reason}" for reason in reasons]


def axis_number(index: int) -> str:
    """Plotly's suffix for the axes of the panel with this index (from 0): "", "2", "3" and so on."""
    return "" if index == 0 else str(index + 1)


def domain_of(index: int) -> dict[str, str]:
    """References that place an annotation in shares of the panel with this index."""
    return {"xref": f"x{axis_number(index)} domain", "yref": f"y{axis_number(index)} domain"}


def _absence(panel: Panel, size: float, theme: Theme) -> str:
    """The reason in the middle of an empty panel; on paper it is left to the caption where there is no room."""
    lines = style.wrapped(panel.absence, size - 12, theme.text)
    fits = len(lines) * 1.3 * theme.text < size and all(
        style.width_of(len(line), theme.text) < size - 4 for line in lines
    )
    return "<br>".join(lines) if fits or not theme.on_paper else ""


def map_traces(
    index: int,
    grid: Grid,
    shown: Map,
    theme: Theme,
    *,
    coloraxis: str = "coloraxis",
    signed: bool = False,
    is_share: bool = False,
    whose: str = "",
) -> list[BaseTraceType]:
    """A map on the axes of the panel with this index, and the marks on its cells.

    ``whose`` stands above all hover texts; the other arguments are those of
    :func:`layerangles.figures.drawing.marks.on_cells`.
    """
    cell = grid.size / max(1, len(shown.layers))
    gaps = {} if cell > 5 else {"xgap": 0, "ygap": 0}
    texts = {"hovertext": shown.hover, "hovertemplate": f"{whose}%{{hovertext}}<extra></extra>"}
    cells = go.Heatmap(x=shown.layers, y=shown.layers, z=shown.values, coloraxis=coloraxis, **texts, **gaps)
    of_cells = on_cells(shown.values, shown.layers, cell, theme, signed=signed, of_share=is_share)
    number = axis_number(index)
    traces = (cells, *of_cells, *matched_marks(shown.matched, cell, theme))
    return [trace.update(xaxis=f"x{number}", yaxis=f"y{number}") for trace in traces]


def layer_axes(layers: list[int], size: float, theme: Theme = SCREEN) -> tuple[dict[str, Any], dict[str, Any]]:
    """The axes of a panel of teacher layers, ``size`` pixels wide: x and y. On paper :func:`name_axes` names them."""
    ticks = layers[:: _tick_step(len(layers) - 1, size / len(layers), theme.tick_gap)]
    common: dict[str, Any] = {
        "range": [layers[0] - 0.5, layers[-1] + 0.5],
        "tickvals": ticks,
        "showgrid": False,
        "mirror": True,
        "title": theme.pick({"text": "teacher layer", "standoff": 6}, None),
    }
    # On two lines, "0" and "(emb)" take the width of one cell; on one line they would run into the "1".
    x = common | {"ticktext": style.layer_ticks(ticks, theme, "<br>"), "tickangle": 0, "matches": "x"}
    return x, common | {"ticktext": style.layer_ticks(ticks, theme), "matches": "y"}


def _listed(layers: list[int]) -> str:
    return ", ".join(map(str, layers))


def _tick_step(last: int, cell: float, apart: float) -> int:
    """The step between ticks that are at least ``apart`` pixels apart, such that the last layer has one if possible."""
    least = max(1, ceil(apart / cell))
    return next((step for step in range(least, 2 * least) if last % step == 0), least)
