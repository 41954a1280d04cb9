"""HTML by which a notebook shows a result or a study: facts, a table, and notes; no scripts, nothing loaded."""

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from layerangles import notation

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
    ends = _number(data, "student_ci_low"), _number(data, "student_ci_high")
    row["mean angle °"] = notation.with_interval(angle, *ends, 1)
    row["share acute"] = notation.percent(float(over_layers["layer_acute_fraction"]), 1)
    if nulls := [str(null) for null in data["null"].values] if "null" in data.dims else []:
        null = "N1" if "N1" in nulls else nulls[0]
        excess = (_number(data.sel(null=null), f"student_excess_{part}") for part in ("deg", "low", "high"))
        row[f"excess over {null} °"] = notation.with_interval(*excess, 1, signed=True)
    return row


def _number(data: xr.Dataset, name: str, default: float = np.nan) -> float:
    return float(data[name]) if name in data else default


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"
