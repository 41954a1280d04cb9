"""Selection of the part of a result that a figure shows, and reasons for missing angles."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from layerangles.errors import InputError
from layerangles.notation import count

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult

NO_DIRECTION = "the student's state is the teacher's here: no direction"


def at_step(result: "AngleResult", step: int | None) -> "AngleResult":
    """The result at one training step, the last by default.

    Raises:
        InputError: that step was not measured, or no steps were.
    """
    if step is not None and not result.steps:
        raise InputError(
            f"step is {step}, but this result has no step axis. Leave step out, or measure with steps=True."
        )
    return result.at_step(step)


def one_tower(result: "AngleResult", tower: str | None) -> str:
    """The name of the tower to show; by default the only one.

    Raises:
        InputError: no such tower, or more than one to choose from.
    """
    return one_of("tower", tower, [str(name) for name in result.dataset["tower"].values])


class StudentPart(NamedTuple):
    """The part of a result that belongs to one student in one tower, at one step.

    Attributes:
        result: at that step.
        student: its name.
        tower: its name.
        data: the student's part of the result's dataset.
    """

    result: "AngleResult"
    student: str
    tower: str
    data: xr.Dataset


def of_student(result: "AngleResult", student: str | None, tower: str | None, step: int | None) -> StudentPart:
    """Select one student, tower and step; by default the only student, the only tower and the last step.

    Raises:
        InputError: no such student, tower or step, or more than one to choose from.
    """
    student, tower = one_of("student", student, result.students), one_tower(result, tower)
    result = at_step(result, step)
    return StudentPart(result, student, tower, result.dataset.sel(student=student, tower=tower))


def one_of(what: str, name: str | None, allowed: Sequence[str]) -> str:
    """``name`` if it is allowed; without a name, the only allowed one.

    Raises:
        InputError: anything else.
    """
    listed = ", ".join(map(repr, allowed))
    if name is None:
        if len(allowed) != 1:
            raise InputError(f"this result has {len(allowed)} {what}s; name one with {what}=…: {listed}.")
        return allowed[0]
    if name not in allowed:
        raise InputError(f"the {what} {name!r} is not in this result; allowed are {listed}.")
    return name


def one_layer(what: str, layer: int, allowed: Sequence[int]) -> int:
    """``layer`` if it is one of ``allowed`` (0 is the embedding output).

    Raises:
        InputError: it is not.
    """
    if layer not in allowed:
        raise InputError(f"{what} is {layer}; allowed are {', '.join(map(str, allowed))} (0 is the embedding output).")
    return int(layer)


def reasons_for_absence(result: "AngleResult", data: xr.Dataset) -> dict[int, str]:
    """The reason why a student's layer has no angles, by layer.

    ``data`` is the student's part of ``result`` (at one step). A result has as many layers for every student as for
    the deepest one; beyond a student's last known layer, a missing map cannot be told from a missing layer.
    """
    square = ["layer_a", "layer_b"]
    measured = (data["n_tokens"] > 0).any(square).values
    degenerate = (data["n_degenerate"] > 0).any(square).values
    known = np.flatnonzero(measured | degenerate | (data["matched"] > 0).any("layer_a").values)
    last_known = known[-1] if known.size else -1
    reasons: dict[int, str] = {}
    for index, layer in enumerate(data["student_layer"].values):
        if measured[index]:
            continue
        if degenerate[index]:
            reasons[int(layer)] = NO_DIRECTION
        elif not (measured.any() or degenerate.any()) and "step" in data.coords:
            reasons[int(layer)] = "not measured at this step"
        elif index > last_known and len(result.students) > 1:
            reasons[int(layer)] = "no map or no such layer, not measured"
        else:
            reasons[int(layer)] = "no map, not measured"
    return reasons


def known_layers(result: "AngleResult", data: xr.Dataset) -> list[int]:
    """The student layers to show: all up to the last one that this student is known to have.

    ``data`` is the student's part of ``result``.
    """
    reasons = reasons_for_absence(result, data)
    layers = [int(layer) for layer in data["student_layer"].values]
    while len(layers) > 1 and "no such layer" in reasons.get(layers[-1], ""):
        layers.pop()
    return layers


def when_and_where(result: "AngleResult", data: xr.Dataset, tower: str) -> str:
    """Step and tower for a subtitle, as far as there is a choice; ``data`` is at one step."""
    step = f" · step {count(int(data['step']))}" if "step" in data.coords else ""
    towers = f" · {tower}" if result.dataset.sizes["tower"] > 1 else ""
    return step + towers
