"""The paper's three heat maps of mean distances: teacher to teacher, teacher to student, student to student."""

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures import selection, style

if TYPE_CHECKING:
    from layerangles.result import AngleResult

_SIZE, _GAP = 280, 150  # of a panel, and between two: the colour bar, the ticks and the title of the next axis
_PARTS = (
    ("distance_teacher_teacher", "teacher layer", "teacher layer"),
    ("distance_teacher_student", "teacher layer", "student layer"),
    ("distance_student_student", "student layer", "student layer"),
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
    for index, (name, x_title, y_title) in enumerate(_PARTS):
        axis = "" if index == 0 else str(index + 1)
        start = index * (_SIZE + _GAP) / width
        domain = [start, start + _SIZE / width]
        values = data[name].values  # [row, column]: the student's layers, or layer a, upwards
        rows, columns = (list(range(n)) for n in values.shape)
        figure.add_trace(
            go.Heatmap(
                x=columns,
                y=rows,
                z=values,
                zmin=0,
                colorscale="Cividis",
                xgap=1,
                ygap=1,
                xaxis=f"x{axis}",
                yaxis=f"y{axis}",
                colorbar={"x": domain[1] + 8 / width, "xpad": 0, "len": 1, "thickness": 12, "tickfont": {"size": 11}},
                hovertemplate=(f"{y_title} %{{y}}, {x_title} %{{x}}<br>mean distance <b>%{{z:.4g}}</b><extra></extra>"),
            )
        )
        figure.update_layout({f"xaxis{axis}": _axis(x_title, columns) | {"domain": domain, "anchor": f"y{axis}"}})
        figure.update_layout({f"yaxis{axis}": _axis(y_title, rows) | {"anchor": f"x{axis}"}})
    where = selection.when_and_where(result, data, tower)
    title = f"Mean distances between the layers of the teacher and {student}"
    return style.frame(
        figure, title, f"L2, mean over tokens, in teacher space{where}", (width, _SIZE), (78, 90, 14, 60)
    )


def _axis(title: str, layers: list[int]) -> dict[str, Any]:
    ticks = layers[:: max(1, -(-len(layers) // 13))]
    return {
        "title": {"text": title, "standoff": 6, "font": {"size": 12, "color": style.FAINT}},
        "tickvals": ticks,
        "tickfont": {"size": 11},
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
    }
