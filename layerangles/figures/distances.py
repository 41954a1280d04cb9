"""The paper's three heat maps of mean distances: teacher to teacher, teacher to student, student to student."""

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures import selection, style
from layerangles.figures.panel import axis_number, domain_of

if TYPE_CHECKING:
    from layerangles.result import AngleResult

_SIZE, _GAP = 280, 150  # of a panel, and between two: the colour bar, the ticks and the title of the next axis
_PARTS = (
    ("distance_teacher_teacher", "teacher layer", "teacher layer", "teacher to teacher"),
    ("distance_teacher_student", "teacher layer", "student layer", "teacher to student"),
    ("distance_student_student", "student layer", "student layer", "student to student"),
)


def distances(
    result: "AngleResult", student: str | None = None, *, step: int | None = None, tower: str | None = None
) -> go.Figure:
    """Draw the mean L2 distances between all layers of the teacher and one student, in the unit of the states.

    Each panel has a colour scale of its own, from 0 to its largest distance.

    Args:
        result: measured with ``rivals="sums"`` or ``"all"``.
        student: its name; may be left out where there is only one.
        step: the training step; the last by default.
        tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.

    Raises:
        InputError: distances were not measured; no such student, step or tower.
    """
    if "distance_teacher_teacher" not in result.dataset:
        raise InputError('distances were not measured. Measure again with rivals="sums" (--rivals sums).')
    student, tower = selection.one_student(result, student), selection.one_tower(result, tower)
    result = selection.at_step(result, step)
    data = result.dataset.sel(student=student, tower=tower)
    width = 3 * _SIZE + 2 * _GAP
    figure = go.Figure(layout={"template": "none"})
    reasons, known = selection.reasons_for_absence(result, data), len(selection.known_layers(result, data))
    above = {"x": 0.5, "y": 1, "xanchor": "center", "yanchor": "bottom", "yshift": 2, "showarrow": False}
    for index, (name, x_title, y_title, panel_title) in enumerate(_PARTS):
        axis = axis_number(index)
        start = index * (_SIZE + _GAP) / width
        domain = [start, start + _SIZE / width]
        of_student = {str(dim): slice(known) for dim in data[name].dims if str(dim).startswith("student_layer")}
        values = data[name].isel(of_student).values  # [row, column]: the student's layers, or layer a, upwards
        rows, columns = (list(range(n)) for n in values.shape)
        axes = ((y_title, rows), (x_title, columns))
        finite = values[np.isfinite(values)]
        absent = [[reasons.get(i, "") if title == "student layer" else "" for i in of] for title, of in axes]
        figure.add_trace(
            go.Heatmap(
                x=columns,
                y=rows,
                z=values,
                zmin=0,  # of no effect without zmax
                zmax=float(finite.max()) if finite.size and finite.max() > 0 else 1,
                colorscale="Cividis",
                xgap=1,
                ygap=1,
                xaxis=f"x{axis}",
                yaxis=f"y{axis}",
                colorbar={"x": domain[1] + 8 / width, "xpad": 0, "len": 1, "thickness": 12, "tickfont": {"size": 11}},
                hovertext=_hover(values, *absent),
                hovertemplate=f"{y_title} %{{y}}, {x_title} %{{x}}<br>%{{hovertext}}<extra></extra>",
            )
        )
        figure.update_layout(
            {f"xaxis{axis}": _axis(x_title, columns, "<br>") | {"domain": domain, "anchor": f"y{axis}"}}
        )
        figure.update_layout({f"yaxis{axis}": _axis(y_title, rows, " ") | {"anchor": f"x{axis}"}})
        figure.add_annotation(text=panel_title, **domain_of(index), **above, font={"size": 13})
    where = selection.when_and_where(result, data, tower)
    title = f"Mean distances between the layers of the teacher and {student}"
    return style.frame(
        figure, title, f"L2, mean over tokens, in teacher space{where}", (width, _SIZE), (78, 90, 24, 72)
    )


def _hover(values: Any, absent_rows: list[str], absent_columns: list[str]) -> list[list[str]]:
    """The text of every cell: the distance, or why there is none (empty where neither layer has a reason)."""
    return [
        [
            f"mean distance <b>{value:.4g}</b>" if np.isfinite(value) else of_row or of_column or "not measured"
            for value, of_column in zip(row, absent_columns, strict=True)
        ]
        for row, of_row in zip(values.tolist(), absent_rows, strict=True)
    ]


def _axis(title: str, layers: list[int], space: str) -> dict[str, Any]:
    ticks = layers[:: max(1, -(-len(layers) // 13))]
    return {
        "title": {"text": title, "standoff": 6, "font": {"size": 12, "color": style.FAINT}},
        "tickvals": ticks,
        "ticktext": [style.layer_name(layer).replace(" ", space) for layer in ticks],
        "tickangle": 0,
        "tickfont": {"size": 11},
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
    }
