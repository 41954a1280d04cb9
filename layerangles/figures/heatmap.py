"""Heat maps of one student: one panel per student layer."""

from math import ceil
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from layerangles.figures.drawing import selection, style
from layerangles.figures.drawing.frame import BAR_ROW, frame
from layerangles.figures.drawing.marks import MAX_LAYERS_WITH_VALUES
from layerangles.figures.drawing.panel import (
    PAPER_BELOW,
    PAPER_LEFT,
    Grid,
    Panel,
    bar_name,
    domain_of,
    draw_panels,
    name_axes,
    notes_on,
    panels_of,
)
from layerangles.figures.drawing.theme import SCREEN, Theme

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult

_MAX_PLOT_WIDTH = 1010  # with margins below 1,300, the width of a common window
_GAP = 62  # between columns, for the numbers of the next one
_BELOW = 62  # below a row, for the numbers and the title of its axis

# On paper: the space above a row, between columns and right of the panels; the largest side of a panel where a larger
# number of columns is possible, and in any case.
_PAPER_TITLE, _PAPER_GAP, _PAPER_RIGHT = 16, 8, 5
_PAPER_PANEL = (150.0, 200.0)


def heatmap(
    result: "AngleResult",
    student: str | None = None,
    *,
    step: int | None = None,
    tower: str | None = None,
    null: str | None = None,
    theme: Theme = SCREEN,
) -> go.Figure:
    """Draw the mean angles between all teacher layers as seen from each layer of one student.

    One panel per student layer, ``layer_b`` to the right and ``layer_a`` upwards; layer 0 is the embedding output. A
    colour means the same angle in every figure, with a break at 90°. Blank cells have no angle; the hover text says
    why. A diamond on the diagonal marks the teacher layer to which training matched this student layer.

    Args:
        result: a result of :func:`layerangles.measure_angles`.
        student: its name; may be left out where there is only one.
        step: the training step; the last by default.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.
        null: show the excess of the angle over this null instead of the angle itself.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size, for which its texts are laid out.

    Raises:
        InputError: no such student, step or tower, or more than one to choose from; or that null was not measured.
    """
    result, student, tower, data = selection.of_student(result, student, tower, step)
    shown = selection.known_layers(result, data)
    panels = panels_of(result, data, shown, null)

    grid, titles = _laid_out(panels, data.sizes["layer_a"], theme)
    title_height = _title_height(titles, theme)
    figure = draw_panels(panels, grid, inner_ticks=not theme.on_paper, theme=theme)
    above = {"x": 0.5, "y": 1, "xanchor": "center", "yanchor": "bottom", "yshift": 2, "font": {"size": theme.panel}}
    for index, lines in enumerate(titles):
        figure.add_annotation(text="<br>".join(lines), **domain_of(index), **above)

    what = f"excess over {null}, " if null else ""
    notes = [f"{what}mean over tokens, in degrees{selection.when_and_where(result, data, tower)}"]
    notes += notes_on(panels, figure, theme)
    last = data.sizes["student_layer"] - 1
    if shown[-1] < last:
        beyond = f"layer {last}" if shown[-1] + 1 == last else f"layers {shown[-1] + 1} to {last}"
        notes.append(f"student {beyond}: {selection.reasons_for_absence(result, data)[last]}")
    title = f"Angles between teacher layers, seen from {student}"
    name_axes(figure, theme, left=16)
    around = theme.pick((78, 138, title_height, 72), (PAPER_LEFT, _PAPER_RIGHT, title_height, PAPER_BELOW))
    return frame(figure, title, notes, (grid.width, grid.height), around, theme, bars=bar_name(null or ""))


def _laid_out(panels: list[Panel], n_layers: int, theme: Theme) -> tuple[Grid, list[list[str]]]:
    """The grid, and the lines of each panel's title."""
    if theme.on_paper:
        grid = _paper_grid(len(panels), theme)
        return grid, [[title] for title in _short_titles(panels, grid.size, theme)]
    size = _panel_size(n_layers)
    titles = [_title_lines(panel.title, size) for panel in panels]
    most_columns = max(1, (_MAX_PLOT_WIDTH + _GAP) // (size + _GAP))
    n_rows = ceil(len(panels) / most_columns)
    gap_y = _BELOW + _title_height(titles, theme)
    return Grid(n_rows, ceil(len(panels) / n_rows), size, _GAP, gap_y), titles


def _title_height(titles: list[list[str]], theme: Theme) -> int:
    return theme.pick(8 + 16 * max(map(len, titles)), _PAPER_TITLE)


def _paper_grid(n_panels: int, theme: Theme) -> Grid:
    """The smallest number of columns with panels of moderate size and a figure that fits on a page."""
    room = theme.fixed_width - PAPER_LEFT - _PAPER_RIGHT
    for n_columns in range(1, n_panels + 1):
        size = min(_PAPER_PANEL[1], (room - (n_columns - 1) * _PAPER_GAP) / n_columns)
        n_rows = ceil(n_panels / n_columns)
        height = n_rows * (size + _PAPER_TITLE) + PAPER_BELOW + BAR_ROW
        if n_columns == n_panels or (size <= _PAPER_PANEL[0] and height <= theme.max_height):
            break
    return Grid(n_rows, ceil(n_panels / n_rows), size, _PAPER_GAP, _PAPER_TITLE)


def _short_titles(panels: list[Panel], width_px: float, theme: Theme) -> list[str]:
    """The longest form of title that fits all panels; the diamond and the caption name the matched layer."""
    forms = [[f"{before}{panel.student_layer}" for panel in panels] for before in ("student layer ", "layer ", "")]
    fits = (all(style.width_of(len(title), theme.panel) <= width_px for title in titles) for titles in forms)
    return next((titles for titles, fit in zip(forms, fits, strict=True) if fit), forms[-1])


def _panel_size(n_layers: int) -> int:
    """The side of a panel in pixels: few cells are wide enough for values, many at least 10 pixels."""
    return max(280, 38 * n_layers if n_layers <= MAX_LAYERS_WITH_VALUES else 22 * min(n_layers, 13), 10 * n_layers)


def _title_lines(title: str, width_px: float) -> list[str]:
    """The title on one line if it fits; otherwise the part in brackets starts a new line."""
    if len(style.wrapped(title, width_px, 13)) == 1:
        return style.wrapped(title, width_px, 13)
    layer, matched = title.split(" (matched", 1)
    return [style.literal(layer), *style.wrapped(f"(matched{matched}", width_px, 13)]
