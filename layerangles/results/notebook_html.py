"""A result at a glance, as HTML for a notebook: a table of students, and small heat maps of the first few."""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from layerangles.app import svgmap
from layerangles.figures.drawing import selection
from layerangles.notation import layer_name

if TYPE_CHECKING:
    from layerangles.results.angle_result import AngleResult

# What keeps a snippet well below 200 kB, above which notebooks are slow to open.
_MOST_ROWS = 40
_MOST_WITH_MAPS = 3
_MOST_PAIRS = 1000
_MOST_LAYERS = 32
_LONGEST_NAME = 60
_SIDE = 140

_TEXT = "font-family:sans-serif;font-size:13px;overflow-x:auto"
_LINE = "margin:6px 0"
_CELL = "font-weight:normal;text-align:left;padding:2px 14px 2px 0;white-space:nowrap"
_MAP = "display:inline-block;margin:6px 8px 2px 0;vertical-align:top"


def glance(result: "AngleResult") -> str:
    """The HTML of a result: no scripts, nothing loaded, text in the notebook's own colour, below 200 kB."""
    states = _last_states(result)
    rows = [state.row() for state in states[:_MOST_ROWS]]
    more = len(states) - len(rows)
    note = "Means over tokens, pairs of teacher layers and student layers."
    return block(
        [
            line(result.in_words),
            table(rows),
            line(f"… and {more} more. {note}" if more else note),
            heat_maps(result, _MOST_WITH_MAPS),
        ]
    )


def heat_maps(result: "AngleResult", n_students: int) -> str:
    """Small heat maps of the first students at their last step, one a student layer, and the scale of their colours."""
    states = _last_states(result)
    some: list[_State] = []
    n_pairs = 0
    for state in states[:n_students]:
        n_pairs += state.n_pairs
        if some and n_pairs > _MOST_PAIRS:
            break
        some.append(state)
    largest = float(np.nanmax([np.nanmax(state.data["angle_deg"].fillna(0)) for state in some]))
    scale = svgmap.angle_scale(largest)
    top = round(scale.stops[-1][0])
    marks = [(float(degree), f"{degree}°") for degree in range(0, top + 1, 30)]
    left_out = len(states) - len(some)
    how = "Mean angle between two teacher layers (0 is the embedding output). ◆ was matched in training."
    if some[0].every > 1:
        how += f" Every {some[0].every}th teacher layer."
    return "".join(
        [
            *(state.maps(scale) for state in some),
            f"<div>{svgmap.bar(scale, marks, 200)}</div>",
            line(f"{how} Maps of {left_out} more are left out." if left_out else how),
        ]
    )


def block(parts: Sequence[str]) -> str:
    """Pieces of HTML in one block."""
    return f'<div style="{_TEXT}">{"".join(parts)}</div>'


def line(text: str) -> str:
    """A paragraph."""
    return f'<p style="{_LINE}">{html.escape(text)}</p>'


def table(rows: Sequence[dict[str, str]]) -> str:
    """Rows of text as an HTML table; the first column names the row."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col" style="{_CELL};font-weight:bold">{html.escape(name)}</th>' for name in rows[0])
    lines = []
    for row in rows:
        first, *others = map(html.escape, row.values())
        cells = "".join(f'<td style="{_CELL}">{value}</td>' for value in others)
        lines.append(f'<tr><th scope="row" style="{_CELL}">{first}</th>{cells}</tr>')
    return f'<table style="font-size:13px"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def interval(value: float, low: float, high: float, digits: int = 1, *, sign: bool = False) -> str:
    """A number with its interval, where it has one; a dash for NaN.

    >>> interval(61.04, 60.8, 61.3), interval(-0.5, float("nan"), float("nan"), sign=True), interval(np.nan, 0, 0)
    ('61.0 [60.8, 61.3]', '−0.5', '–')
    """
    if np.isnan(value):
        return "–"
    kind = f"{'+' if sign else ''}.{digits}f"
    ends = "" if np.isnan(low) else f" [{low:{kind}}, {high:{kind}}]"
    return f"{value:{kind}}{ends}".replace("-", "−")


@dataclass(frozen=True)
class _State:
    """One tower of a student, at the last step at which it was measured.

    Attributes:
        result: what it is a part of.
        data: its part.
    """

    result: "AngleResult"
    data: xr.Dataset

    @property
    def name(self) -> str:
        name = str(self.data["student"].item())
        if len(name) > _LONGEST_NAME:
            name = f"{name[: _LONGEST_NAME - 1]}…"
        return f"{name}, {self.data['tower'].item()}" if self.result.dataset.sizes["tower"] > 1 else name

    @property
    def every(self) -> int:
        """Every how many teacher layers one is drawn."""
        return -(-self.data.sizes["layer_a"] // _MOST_LAYERS)

    @property
    def layers(self) -> list[int]:
        """The student layers that are drawn: all, or as many as there is room for, evenly spaced."""
        known = selection.known_layers(self.result, self.data)
        room = max(1, _MOST_PAIRS // self._pairs_of_a_map)
        if len(known) <= room:
            return known
        return [known[i] for i in np.linspace(0, len(known) - 1, room).round().astype(int)]

    @property
    def n_pairs(self) -> int:
        return self._pairs_of_a_map * len(self.layers)

    @property
    def _pairs_of_a_map(self) -> int:
        n = -(-self.data.sizes["layer_a"] // self.every)
        return max(1, n * (n - 1) // 2)

    def row(self) -> dict[str, str]:
        """What the table says of it."""
        data, row = self.data, {"student": self.name}
        if self.result.steps:
            row["step"] = f"{int(data['step']):,}"
        over_layers = data[["layer_angle_deg", "layer_acute_fraction"]].mean("student_layer")
        angle = _number(data, "student_angle_deg", default=float(over_layers["layer_angle_deg"]))
        row["mean angle °"] = interval(angle, _number(data, "student_ci_low"), _number(data, "student_ci_high"))
        acute = float(over_layers["layer_acute_fraction"])
        row["share acute"] = "–" if np.isnan(acute) else f"{100 * acute:.1f} %"
        if self.result.nulls:
            null = preferred_null(self.result.nulls)
            excess, low, high = (
                _number(data.sel(null=null), f"student_excess_{part}") for part in ("deg", "low", "high")
            )
            row[f"excess over {null} °"] = interval(excess, low, high, sign=True)
        return row

    def maps(self, scale: svgmap.Scale) -> str:
        """Its heat maps side by side, under its name."""
        when = f", step {int(self.data['step']):,}" if self.result.steps else ""
        reasons = selection.reasons_for_absence(self.result, self.data)
        drawn = "".join(self._map(layer, scale, reasons.get(layer, "")) for layer in self.layers)
        return f"<div>{line(self.name + when)}{drawn}</div>"

    def _map(self, layer: int, scale: svgmap.Scale, absence: str) -> str:
        data = self.data.sel(student_layer=layer).isel(
            layer_a=slice(None, None, self.every), layer_b=slice(None, None, self.every)
        )
        shown = [int(teacher_layer) for teacher_layer in data["layer_a"].values]
        a, b = np.triu_indices(len(shown), 1)
        values = {
            name: data[name].transpose("layer_a", "layer_b").values[a, b] for name in ("angle_deg", "ci_low", "ci_high")
        }
        titles = [
            f"teacher layers {shown[i]} and {shown[j]}: {interval(*of)}°"
            for i, j, *of in zip(a, b, *values.values(), strict=True)
        ]
        matched = [m for m, yes in zip(shown, data["matched"].values > 0, strict=True) if yes]
        caption = f"student layer {layer_name(layer)}"
        label = f"{self.name}, {caption}: mean angles between teacher layers {shown[0]} to {shown[-1]}"
        text = svgmap.Text(label, titles, textwrap.wrap(absence, _SIDE // 6))
        svg = svgmap.heat_map(svgmap.hundredths(values["angle_deg"]), shown, matched, scale, _SIDE, text)
        return f'<div style="{_MAP}"><div style="text-align:center">{caption}</div>{svg}</div>'


def preferred_null(nulls: Sequence[str]) -> str:
    """The null that is shown where there is room for one: N1, or the first that was measured."""
    return "N1" if "N1" in nulls else nulls[0]


def _last_states(result: "AngleResult") -> list[_State]:
    """Every student and tower, at the last step at which it has angles."""
    states = []
    for student in result.students:
        for tower in map(str, result.dataset["tower"].values):
            data = result.dataset.sel(student=student, tower=tower)
            if result.steps:
                measured = data["angle_deg"].notnull().any(["student_layer", "layer_a", "layer_b"]).values
                steps = np.flatnonzero(measured)
                data = data.isel(step=int(steps[-1]) if steps.size else -1)
            states.append(_State(result, data))
    return states


def _number(data: xr.Dataset, name: str, default: float = np.nan) -> float:
    return float(data[name]) if name in data else default
