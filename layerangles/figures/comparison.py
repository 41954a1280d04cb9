"""Heat maps of several students: one row per student, one column per student layer."""

from collections.abc import Sequence
from itertools import product
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple

import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures.drawing import selection, style
from layerangles.figures.drawing.frame import BAR_ROW, Margins, frame
from layerangles.figures.drawing.panel import (
    PAPER_BELOW,
    Grid,
    bar_name,
    domain_of,
    draw_panels,
    name_axes,
    notes_on,
    panels_of,
)
from layerangles.figures.drawing.theme import SCREEN, Theme
from layerangles.notation import layer_name

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult

_GAP = 14
_NAME_WIDTH = 140  # the largest width of the students' names, left of the rows
_AXIS_WIDTH = 78  # the width of the axis' numbers and title, between the names and the panels

# On paper: the largest width of names, the widths of the axis' numbers and title, the largest side of a panel.
_PAPER_NAME, _PAPER_TICKS, _PAPER_AXIS, _PAPER_PANEL = 82, 14, 14, 140


def comparison(
    result: "AngleResult",
    students: Sequence[str] | None = None,
    *,
    step: int | None = None,
    tower: str | None = None,
    null: str | None = None,
    theme: Theme = SCREEN,
) -> go.Figure:
    """Draw the mean angles of several students: one row per student, one column per student layer.

    Panels are those of :func:`layerangles.figures.heatmap`, with the same colours and hover texts, on shared axes and
    a shared colour scale. The figure grows with the number of students and layers.

    Args:
        result: a result of :func:`layerangles.measure_angles`.
        students: their names, in the order of the rows; all by default.
        step: the training step; the last by default.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.
        null: show the excess of the angle over this null instead of the angle itself.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size, for which its texts are laid out.

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
    n_layers = result.dataset.sizes["layer_a"]
    plan = _on_paper(names, n_columns, theme) if theme.on_paper else _on_screen(names, n_columns, n_layers)
    grid = plan.grid
    figure = draw_panels(panels, grid, inner_ticks=False, theme=theme)
    _name_columns(figure, plan, student_layers, theme)
    _name_rows(figure, plan, theme)
    name_axes(figure, theme, left=plan.margins[0] - 14)

    what = f"excess over {null}, " if null else ""
    notes = [f"{what}mean over tokens, in degrees{selection.when_and_where(result, parts[0], tower)}"]
    notes += [f"all students are of {plan.shared}"] if plan.shared else []
    notes += notes_on(panels, figure, theme)
    title = "Angles between teacher layers, seen from each student"
    return frame(figure, title, notes, (grid.width, grid.height), plan.margins, theme, bars=bar_name(null or ""))


class _Arrangement(NamedTuple):
    """The layout of rows, names and margins.

    Attributes:
        grid: the grid of panels, one row per student.
        names: the lines of the students' names.
        beside: whether names stand left of their rows; otherwise they stand above.
        shared: the ending that all names share and that is left out.
        margins: left, right, above, below.
    """

    grid: Grid
    names: list[list[str]]
    beside: bool
    shared: str
    margins: Margins


def _on_screen(names: list[str], n_columns: int, n_layers: int) -> _Arrangement:
    grid = Grid(len(names), n_columns, _panel_size(len(names), n_columns, n_layers), _GAP, _GAP)
    lines = [style.wrapped(name, _NAME_WIDTH, 12, at_hyphens=True) for name in names]
    longest = max(len(line) for of_name in lines for line in of_name)
    return _Arrangement(grid, lines, True, "", (24 + style.width_of(longest, 12) + _AXIS_WIDTH, 138, 40, 72))


def _on_paper(names: list[str], n_columns: int, theme: Theme) -> _Arrangement:
    """The arrangement with the largest panels, of all numbers of blocks and with names beside or above their rows."""
    short, shared = style.short_names(names)
    ways = list(product(range(1, min(4, len(names)) + 1), (True, False)))
    plans: list[_Arrangement] = []
    for height in (theme.max_height, inf):  # without a limit if so many students fit on no page
        found = [_paper_plan(short, shared, n_columns, *way, height, theme) for way in ways]
        plans = plans or [plan for plan in found if plan is not None]
    return max(plans, key=lambda plan: plan.grid.size)


def _paper_plan(
    names: list[str], shared: str, n_columns: int, n_blocks: int, beside: bool, height: float, theme: Theme
) -> _Arrangement | None:
    """One arrangement of the rows; None where there is no room for it."""
    n_rows = ceil(len(names) / n_blocks)
    line = theme.tick + 2
    lines = [style.wrapped(name, _PAPER_NAME if beside else 1000, theme.tick, at_hyphens=True) for name in names]
    longest = max(style.width_of(len(text), theme.tick) for of_name in lines for text in of_name)
    before = (longest + 6 if beside else 0) + _PAPER_TICKS
    gap_y = 5 if beside else line + 5
    above = 2 * line + 4 + (0 if beside else line)
    block = (theme.fixed_width - _PAPER_AXIS - 5 - (n_blocks - 1) * 10) / n_blocks
    by_width = (block - before - (n_columns - 1) * 3) / n_columns
    by_height = (height - above - PAPER_BELOW - BAR_ROW + gap_y) / n_rows - gap_y
    size = min(by_width, by_height, _PAPER_PANEL)
    least = line * max(map(len, lines)) - gap_y if beside else 0
    if size < (max(least, 8) if n_blocks > 1 or beside else 4) or (not beside and longest > block - _PAPER_TICKS):
        return None
    grid = Grid(n_rows, n_columns, size, 3, gap_y, n_blocks=n_blocks, block_gap=10 + before)
    return _Arrangement(grid, lines, beside, shared, (_PAPER_AXIS + before, 5, above, PAPER_BELOW))


def _name_columns(figure: go.Figure, plan: _Arrangement, student_layers: list[int], theme: Theme) -> None:
    grid = plan.grid
    above = {"x": 0.5, "y": 1, "xanchor": "center", "yanchor": "bottom", "yshift": 2}
    if not theme.on_paper:
        between = " " if grid.size >= 130 else "<br>"
        for column, layer in enumerate(student_layers):
            text = f"student layer{between}{layer_name(layer)}"
            figure.add_annotation(text=text, **domain_of(column), **above)
        return
    line = theme.tick + 2
    shift = 1 if plan.beside else line + 1
    above |= {"yshift": shift}
    for block in range(grid.n_blocks):
        first = block * grid.n_rows * grid.n_columns
        for column, layer in enumerate(student_layers):
            figure.add_annotation(text=str(layer), font={"size": theme.tick}, **domain_of(first + column), **above)
        ends = grid.x_domain(block * grid.n_columns)[0], grid.x_domain((block + 1) * grid.n_columns - 1)[1]
        middle = {"x": sum(ends) / 2, "xref": "paper", "y": 1, "yref": "paper", "yshift": shift + line}
        figure.add_annotation(text="student layer", **above | middle)


def _name_rows(figure: go.Figure, plan: _Arrangement, theme: Theme) -> None:
    beside = {"x": 0, "xshift": -_AXIS_WIDTH - 4, "y": 0.5, "xanchor": "right", "align": "right"}
    if theme.on_paper:
        beside |= {"xshift": -_PAPER_TICKS - 2, "font": {"size": theme.tick}}
        above = {"xshift": 0, "y": 1, "yanchor": "bottom", "yshift": 1, "xanchor": "left", "align": "left"}
        beside |= {} if plan.beside else above
    for row, lines in enumerate(plan.names):
        figure.add_annotation(text="<br>".join(lines), **domain_of(row * plan.grid.n_columns), **beside)


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
    """The side of a panel in pixels: smaller where there are more panels, with cells of at least 4 pixels."""
    by_columns = 190 if n_columns <= 4 else 140 if n_columns <= 7 else 104
    by_rows = {1: 210, 2: 150}.get(n_rows, 0)
    return max(by_columns, by_rows, 4 * n_layers)
