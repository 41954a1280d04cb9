"""The paper's three heat maps of mean distances: teacher to teacher, teacher to student, student to student."""

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures.drawing import selection, style
from layerangles.figures.drawing.frame import Margins, frame
from layerangles.figures.drawing.panel import Grid, axis_number, domain_of
from layerangles.figures.drawing.theme import SCREEN, Theme
from layerangles.notation import number

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult

_SIZE, _GAP = 280, 150  # the side of a panel; the gap between two, for the colour bar and the next axis
_PAPER_LEFT, _PAPER_BAR = 30, 36  # on paper: the space left of a panel, and right of it for its colour bar
_PARTS = (
    ("distance_teacher_teacher", "teacher layer", "teacher layer", "teacher to teacher"),
    ("distance_teacher_student", "teacher layer", "student layer", "teacher to student"),
    ("distance_student_student", "student layer", "student layer", "student to student"),
)


def distances(
    result: "AngleResult",
    student: str | None = None,
    *,
    step: int | None = None,
    tower: str | None = None,
    theme: Theme = SCREEN,
) -> go.Figure:
    """Draw the mean L2 distances between all layers of the teacher and of one student, in the unit of the states.

    Each panel has its own colour scale, from 0 to its largest distance.

    Args:
        result: measured with ``alternatives="sums"`` or ``"all"``.
        student: its name; may be left out where there is only one.
        step: the training step; the last by default.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Raises:
        InputError: distances were not measured; no such student, step or tower.
    """
    if "distance_teacher_teacher" not in result.dataset:
        raise InputError('distances were not measured. Measure again with alternatives="sums" (--alternatives sums).')
    result, student, tower, data = selection.of_student(result, student, tower, step)
    grid, margins = _laid_out(theme)
    figure = go.Figure()
    reasons, known = selection.reasons_for_absence(result, data), len(selection.known_layers(result, data))
    above = {"x": 0.5, "y": 1, "xanchor": "center", "yanchor": "bottom", "yshift": 2, "font": {"size": theme.panel}}
    for index, (name, x_title, y_title, panel_title) in enumerate(_PARTS):
        row, column = grid.place(index)
        of_student = {str(dim): slice(known) for dim in data[name].dims if str(dim).startswith("student_layer")}
        values = data[name].isel(of_student).values  # [row, column]: the student's layers, or layer a, upwards
        rows, columns = (list(range(n)) for n in values.shape)
        axes = ((y_title, rows), (x_title, columns))
        finite = values[np.isfinite(values)]
        absent = [[reasons.get(i, "") if title == "student layer" else "" for i in of] for title, of in axes]
        number = axis_number(index)
        bar = {"x": grid.x_domain(column)[1] + theme.pick(8, 4) / grid.width, "y": sum(grid.y_domain(row)) / 2}
        figure.add_trace(
            go.Heatmap(
                x=columns,
                y=rows,
                z=values,
                zmin=0,  # has no effect without zmax
                zmax=float(finite.max()) if finite.size and finite.max() > 0 else 1,
                colorscale="Cividis",
                xaxis=f"x{number}",
                yaxis=f"y{number}",
                colorbar=bar | {"len": grid.panel_height, "thickness": theme.pick(12, 6), "nticks": theme.pick(0, 4)},
                hovertext=_hover(values, *absent),
                hovertemplate=f"{y_title} %{{y}}, {x_title} %{{x}}<br>%{{hovertext}}<extra></extra>",
            )
        )
        x, y = _axis(x_title, columns, "<br>", grid.size, theme), _axis(y_title, rows, " ", grid.size, theme)
        figure.update_layout(grid.axes(index, x, y))
        figure.add_annotation(text=panel_title, **domain_of(index), **above)
    where = selection.when_and_where(result, data, tower)
    title = f"Mean distances between the layers of the teacher and {student}"
    notes = [f"L2, mean over tokens, in teacher space{where}", "a colour scale for each panel"]
    notes += ["layer 0 is the embedding output"] if theme.on_paper else []
    return frame(figure, title, notes, (grid.width, grid.height), margins, theme)


def _laid_out(theme: Theme) -> tuple[Grid, Margins]:
    """The grid and the margins."""
    if not theme.on_paper:
        return Grid(1, 3, _SIZE, _GAP, 0), (78, 90, 24, 72)
    per_row = 3 if theme.fixed_width >= 3 * 180 else 2
    around = _PAPER_LEFT + _PAPER_BAR
    size = theme.fixed_width / per_row - around
    return Grid(-(-3 // per_row), per_row, size, around, 46), (_PAPER_LEFT, _PAPER_BAR, 15, 31)


def _hover(values: Any, absent_rows: list[str], absent_columns: list[str]) -> list[list[str]]:
    """Hover texts of all cells: the distance, or the reason of the row or the column why there is none."""
    return [
        [
            f"mean distance <b>{number(value, digits=4)}</b>"
            if np.isfinite(value)
            else of_row or of_column or "not measured"
            for value, of_column in zip(row, absent_columns, strict=True)
        ]
        for row, of_row in zip(values.tolist(), absent_rows, strict=True)
    ]


def _axis(title: str, layers: list[int], space: str, size: float, theme: Theme) -> dict[str, Any]:
    most = min(13, max(2, int(size // theme.tick_gap)))
    ticks = layers[:: max(1, -(-len(layers) // most))]
    return {
        "title": {"text": title, "standoff": theme.pick(6, 3)},
        "tickvals": ticks,
        "ticktext": style.layer_ticks(ticks, theme, space),
        "tickangle": 0,
        "showgrid": False,
        "showline": False,
    }
