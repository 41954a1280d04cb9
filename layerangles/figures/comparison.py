"""Students against each other: a row a student, a column a student layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures import selection, style
from layerangles.figures.panel import Grid, domain_of, draw_panels, notes_on, panels_of

if TYPE_CHECKING:
    from layerangles.result import AngleResult

_GAP = 14
_NAME_WIDTH = 140  # of the students' names, left of the rows, at most
_AXIS_WIDTH = 78  # of the ticks and the title of the axis, between the names and the panels


def comparison(
    result: "AngleResult",
    students: Sequence[str] | None = None,
    *,
    step: int | None = None,
    tower: str | None = None,
    null: str | None = None,
) -> go.Figure:
    """Draw the mean angles of several students side by side: a row a student, a column a student layer.

    Each panel is that of :func:`layerangles.figures.heatmap`, with the same colours and hover texts; axes and colour
    scale are shared. The figure grows with the number of students and layers.

    Args:
        result: what :func:`layerangles.measure_angles` returned.
        students: their names, in the order of the rows; all by default.
        step: the training step; the last by default.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.
        null: show the excess of the angle over this null instead of the angle itself.

    Returns:
        The figure; of fixed size, in pixels, since its texts are laid out for it.

    Raises:
        InputError: no students, one given twice, or no such student, step, tower or null.
    """
    names = _chosen(result, students)
    tower = selection.one_tower(result, tower)
    result = selection.at_step(result, step)
    parts = [result.dataset.sel(student=name, tower=tower) for name in names]
    student_layers = max((selection.known_layers(result, part) for part in parts), key=len)
    panels = [panel for part in parts for panel in panels_of(result, part, student_layers, null)]

    n_columns = len(student_layers)
    size = _panel_size(len(names), n_columns, result.dataset.sizes["layer_a"])
    grid = Grid(len(names), n_columns, size, _GAP, _GAP)
    figure = draw_panels(panels, grid, inner_ticks=False)
    between = " " if size >= 130 else "<br>"
    above = {"x": 0.5, "y": 1, "xanchor": "center", "yanchor": "bottom", "yshift": 2, "showarrow": False}
    for column, layer in enumerate(student_layers):
        text = f"student layer{between}{style.layer_name(layer)}"
        figure.add_annotation(text=text, **domain_of(column), **above)
    beside = {"x": 0, "xshift": -_AXIS_WIDTH - 4, "y": 0.5, "xanchor": "right", "align": "right", "showarrow": False}
    name_lines = [style.wrapped(name, _NAME_WIDTH, 12, at_hyphens=True) for name in names]
    for row, lines in enumerate(name_lines):
        figure.add_annotation(text="<br>".join(lines), **domain_of(row * n_columns), **beside)

    what = f"excess over {null}, " if null else ""
    notes = [f"{what}mean over tokens, in degrees{selection.when_and_where(result, parts[0], tower)}"]
    notes += notes_on(panels)
    title = "Angles between teacher layers, seen from each student"
    longest = max(len(line) for lines in name_lines for line in lines)
    margins = (24 + style.width_of(longest, 12) + _AXIS_WIDTH, 138, 40, 72)
    return style.frame(figure, title, " · ".join(notes), (grid.width, grid.height), margins)


def _chosen(result: "AngleResult", students: Sequence[str] | None) -> list[str]:
    if students is None:
        return result.students
    if isinstance(students, str):
        raise InputError(f"students is the text {students!r}; give a list of names, such as [{students!r}].")
    if not students:
        listed = ", ".join(map(repr, result.students))
        raise InputError(f"there is nothing to compare: got no students; allowed are {listed}.")
    names = [selection.one_of("student", name, result.students) for name in students]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"the student {repeated[0]!r} is given twice. Give every student once.")
    return names


def _panel_size(n_rows: int, n_columns: int, n_layers: int) -> int:
    """The side of a panel in pixels: smaller the more there are, yet no cell below 4 pixels and room for a scale."""
    by_columns = 190 if n_columns <= 4 else 140 if n_columns <= 7 else 104
    by_rows = {1: 210, 2: 150}.get(n_rows, 0)
    return max(by_columns, by_rows, 4 * n_layers)
