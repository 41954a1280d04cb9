"""Sections of a report on measured angles: heat maps, excess over a null, and trajectories."""

import re
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from layerangles import figures
from layerangles.geometry.nulls import meaning_of
from layerangles.notation import count, percent, with_interval
from layerangles.report.html_page import Part, Section, Subheading
from layerangles.results.angle_result import AngleResult
from layerangles.results.variables import VARIABLES, heading

# The largest number of students in a comparison that can still be taken in.
_MOST_STUDENTS = 12
# Characters of all heat maps with their hover texts; with plotly.js (5 million) a page then stays below 12 MB.
_MOST_CHARACTERS = 5_000_000

_MEANS = ("student_angle_deg", "student_excess_deg", "student_common_mode_ratio")
_WHAT = (
    "The angle between two teacher layers, seen from a layer of the student, says what a pull towards one has in "
    "common with a pull towards the other. An acute angle alone says little: independent layers of equal norm make 60°."
)


def angle_sections(results: Sequence[AngleResult]) -> list[Section]:
    """One section per result and tower; where hover texts would make the page too large, they are shortened."""
    sections = [
        _section(result, tower, f" ({number} of {len(results)})" if len(results) > 1 else "")
        for number, result in enumerate(results, start=1)
        for tower in map(str, result.dataset["tower"].values)
    ]
    maps = [
        part
        for section in sections
        for part in section.parts
        if isinstance(part, go.Figure) and any(trace.type == "heatmap" for trace in part.data)
    ]
    if sum(len(figure.to_json()) for figure in maps) > _MOST_CHARACTERS:
        for figure in maps:
            figure.update_traces(
                hovertext=None,
                hovertemplate="teacher layers %{y} and %{x}: %{z:.1f}°<extra></extra>",
                selector={"type": "heatmap"},
            )
    return sections


def _section(result: AngleResult, tower: str, which: str) -> Section:
    final, null = result.at_step(), _null(result)
    drawn, limit = _drawn(result)
    means = [name for name in _MEANS if name in result.dataset and (null or "excess" not in name)]
    parts: list[Part] = [f"{_WHAT}{limit}"]
    if means:
        level = percent(result.dataset.attrs.get("confidence", 0.95), space=" ")
        step = f" at step {count(result.steps[-1])}" if result.steps else ""
        parts.append(Subheading(f"Every student{step}"))
        parts.append(
            f"Means over tokens, pairs of teacher layers and student layers, with {level} intervals clustered by "
            f"example.{_about(null)} ρ is the student's squared distance from the teacher's mean layer over the spread "
            "of the layers around it: where it is large, every angle is acute."
        )
        parts.append(_table(final, tower, null, means))
    parts += [Subheading("Angles"), _map(drawn, tower, None)]
    if null is not None:
        parts += [Subheading(f"Excess over {null}"), f"The angle minus {null}'s, in degrees.", _map(drawn, tower, null)]
    if result.steps and means:
        trajectory = figures.trajectory(drawn, tower=tower, null=null or "N1")
        parts += [Subheading("Over training"), "What training does shows in the excess, not in the angle.", trajectory]
    towers = result.dataset.sizes["tower"]
    heading = f"Angles between teacher layers{f', {tower}' if towers > 1 else ''}{which}"
    return Section(heading, parts)


def _null(result: AngleResult) -> str | None:
    """The null over which the excess is shown: N1 if it was measured, else the first."""
    return "N1" if "N1" in result.nulls else next(iter(result.nulls), None)


def _about(null: str | None) -> str:
    return f" {null} is {meaning_of(null)}; what student and teacher share shows in the excess over it." if null else ""


def _drawn(result: AngleResult) -> tuple[AngleResult, str]:
    """The students to draw, and a sentence if there are more."""
    names = result.students
    if len(names) <= _MOST_STUDENTS:
        return result, ""
    seeds = {name: int(found[1]) for name in names if (found := re.search(r"-seed(\d+)$", name))}
    first = min(seeds.values(), default=None)
    of_one = [name for name in names if first is not None and seeds.get(name) == first]
    chosen = (of_one or names)[:_MOST_STUDENTS]
    which = f"those of seed {first}" if of_one else "the first"
    limit = f" Of {len(names)} students, {len(chosen)} are drawn: {which}."
    return AngleResult(result.dataset.sel(student=chosen)), limit


def _map(result: AngleResult, tower: str, null: str | None) -> go.Figure:
    draw = figures.heatmap if len(result.students) == 1 else figures.comparison
    return draw(result, tower=tower, null=null)


def _table(result: AngleResult, tower: str, null: str | None, means: Sequence[str]) -> pd.DataFrame:
    data = result.dataset.sel(tower=tower)
    data = data if null is None else data.sel(null=null)
    rows = []
    for student in result.students:
        of = data.sel(student=student)
        row: dict[str, object] = {"student": student}
        for name in means:
            value, low, high = (float(of[key]) for key in (name, *VARIABLES[name].ends))
            row[heading(name, null or "")] = with_interval(value, low, high, 2, signed="excess" in name)
        rows.append(row)
    return pd.DataFrame(rows)
