"""HTML by which a notebook shows a result or a study: facts, a table, and notes; no scripts, nothing loaded."""

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from layerangles import notation
from layerangles.results.variables import VARIABLES, heading

_MOST_ROWS = 40
_LONGEST_NAME = 60


def summary_html(facts: str, table: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """A line of facts, a table below it with at most 40 rows, and a paragraph for each note.

    Args:
        facts: what was measured or trained, as text.
        table: cells that are written as they are; the index is not shown.
        notes: text below the table.
    """
    more = len(table) - _MOST_ROWS
    below = [*([f"… and {more} more."] if more > 0 else []), *notes]
    with pd.option_context("display.max_colwidth", None):
        rows = table.head(_MOST_ROWS).to_html(index=False, border=0, justify="left") if len(table) else ""
    return "".join([_paragraph(facts), rows, *map(_paragraph, below)])


def result_html(facts: str, dataset: xr.Dataset) -> str:
    """The facts of a measurement, and one row per student and tower at the last step at which it has angles.

    Args:
        facts: what was measured, in one line.
        dataset: of an :class:`layerangles.AngleResult`.
    """
    rows = [
        _row(dataset.sel(student=student, tower=tower))
        for student in dataset["student"].values
        for tower in dataset["tower"].values
    ]
    table = pd.DataFrame(rows)
    confidence = notation.percent(dataset.attrs.get("confidence", 0.95))
    note = f"Means over tokens, pairs of teacher layers and student layers, with {confidence} intervals."
    return summary_html(facts, table if dataset.sizes["tower"] > 1 else table.drop(columns="tower"), [note])


def _row(data: xr.Dataset) -> dict[str, str]:
    name = str(data["student"].item())
    name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    row = {"student": name, "tower": str(data["tower"].item())}
    if "step" in data.dims:
        measured = np.flatnonzero(data["angle_deg"].notnull().any(["student_layer", "layer_a", "layer_b"]).values)
        data = data.isel(step=int(measured[-1]) if measured.size else -1)
        row["step"] = notation.count(int(data["step"]))
    over_layers = data[["layer_angle_deg", "layer_acute_fraction"]].mean("student_layer")
    angle = _number(data, "student_angle_deg", default=float(over_layers["layer_angle_deg"]))
    row[heading("student_angle_deg")] = notation.with_interval(angle, *_ends(data, "student_angle_deg"), 1)
    row[heading("layer_acute_fraction")] = notation.percent(float(over_layers["layer_acute_fraction"]), 1)
    if nulls := [str(null) for null in data["null"].values] if "null" in data.dims else []:
        null = "N1" if "N1" in nulls else nulls[0]
        excess = _number(of_null := data.sel(null=null), "student_excess_deg")
        ends = _ends(of_null, "student_excess_deg")
        row[heading("student_excess_deg", null)] = notation.with_interval(excess, *ends, 1, signed=True)
    return row


def _ends(data: xr.Dataset, name: str) -> tuple[float, float]:
    low, high = VARIABLES[name].ends
    return _number(data, low), _number(data, high)


def _number(data: xr.Dataset, name: str, default: float = np.nan) -> float:
    return float(data[name]) if name in data else default


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
