"""A teacher's layers as seen from one layer of a student, which figures of two students compare."""

from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from layerangles.figures.drawing import selection

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult


class LayerView(NamedTuple):
    """A teacher's layers as seen from one layer of a student at one step.

    Attributes:
        label: the name of the student's state.
        data: the student's part of a result, at one step, tower and student layer; None if there is none.
        absence: the reason why it has no angles.
    """

    label: str
    data: xr.Dataset | None
    absence: str = ""

    @classmethod
    def of(
        cls,
        result: "AngleResult",
        student: str | None = None,
        *,
        student_layer: int = 1,
        step: int | None = None,
        tower: str | None = None,
    ) -> "LayerView":
        """The view from one layer of a student of a result.

        Args:
            result: a result of :func:`layerangles.measure_angles`.
            student: its name; may be left out where there is only one.
            student_layer: 0 is the embedding output.
            step: the training step; the last by default.
            tower: ``"encoder"`` or ``"decoder"``; may be left out where there is only one.

        Raises:
            InputError: no such student, layer, step or tower.
        """
        result, student, tower, data = selection.of_student(result, student, tower, step)
        selection.one_layer("student_layer", student_layer, [int(at) for at in data["student_layer"].values])
        absence = selection.reasons_for_absence(result, data).get(student_layer, "")
        label = f"{student}, layer {student_layer}{selection.when_and_where(result, data, tower)}".replace(" · ", ", ")
        return cls(label, data.sel(student_layer=student_layer), absence)
