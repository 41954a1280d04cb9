"""The heat maps of one student: a panel a student layer."""

from math import ceil
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from layerangles.figures import selection, style
from layerangles.figures.panel import MAX_LAYERS_WITH_VALUES, Grid, domain_of, draw_panels, notes_on, panels_of

if TYPE_CHECKING:
    from layerangles.result import AngleResult

_MAX_PLOT_WIDTH = 1010  # with the margins it stays below 1,300, the width of a common window
_GAP = 62  # between columns: the ticks of the next one
_BELOW = 62  # below a row: its ticks and the title of the axis


def heatmap(
    result: "AngleResult",
    student: str | None = None,
    *,
    step: int | None = None,
    tower: str | None = None,
    null: str | None = None,
) -> go.Figure:
    """Draw the mean angles between all teacher layers as seen from each layer of one student.

    One panel a student layer, ``layer_b`` to the right and ``layer_a`` upwards; layer 0 is the embedding output. A
    colour stands for the same angle in every figure, with a break at 90°. Blank cells have no angle; hovering says
    why. A diamond on the diagonal marks the teacher layer that training matched this student layer to.

    Args:
        result: what :func:`layerangles.measure_angles` returned.
        student: its name; may be left out where there is only one.
        step: the training step; the last by default.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.
        null: show the excess of the angle over this null instead of the angle itself.

    Returns:
        The figure; of fixed size, in pixels, since its texts are laid out for it.

    Raises:
        InputError: no such student, step or tower, or more than one to choose from; or that null was not measured.
    """
    student = selection.one_student(result, student)
    tower = selection.one_tower(result, tower)
    result = selection.at_step(result, step)
    data = result.dataset.sel(student=student, tower=tower)
    shown = selection.known_layers(result, data)
    panels = panels_of(result, data, shown, null)

    size = _panel_size(data.sizes["layer_a"])
    titles = [_title_lines(panel.title, size) for panel in panels]
    title_height = 8 + 16 * max(map(len, titles))
    most_columns = max(1, (_MAX_PLOT_WIDTH + _GAP) // (size + _GAP))
    n_rows = ceil(len(panels) / most_columns)
    grid = Grid(n_rows, ceil(len(panels) / n_rows), size, _GAP, _BELOW + title_height)
    figure = draw_panels(panels, grid, inner_ticks=True)
    above = {
        "x": 0.5,
        "y": 1,
        "xanchor": "center",
        "yanchor": "bottom",
        "showarrow": False,
        "yshift": 2,
        "font": {"size": 13},
    }
    for index, lines in enumerate(titles):
        figure.add_annotation(text="<br>".join(lines), **domain_of(index), **above)

    what = f"excess over {null}, " if null else ""
    notes = [f"{what}mean over tokens, in degrees{selection.when_and_where(result, data, tower)}"]
    notes += notes_on(panels)
    last = data.sizes["student_layer"] - 1
    if shown[-1] < last:
        beyond = f"layer {last}" if shown[-1] + 1 == last else f"layers {shown[-1] + 1} to {last}"
        notes.append(f"student {beyond}: {selection.reasons_for_absence(result, data)[last]}")
    title = f"Angles between teacher layers, seen from {student}"
    return style.frame(figure, title, " · ".join(notes), (grid.width, grid.height), (78, 138, title_height, 72))


def _panel_size(n_layers: int) -> int:
    """The side of a panel in pixels: cells wide enough for values while there are few, never below 10 pixels."""
    return max(280, 38 * n_layers if n_layers <= MAX_LAYERS_WITH_VALUES else 22 * min(n_layers, 13), 10 * n_layers)


def _title_lines(title: str, width_px: float) -> list[str]:
    """One line if it fits, else the part in brackets on lines of its own."""
    if len(style.wrapped(title, width_px, 13)) == 1:
        return style.wrapped(title, width_px, 13)
    layer, matched = title.split(" (matched", 1)
    return [style.literal(layer), *style.wrapped(f"(matched{matched}", width_px, 13)]
