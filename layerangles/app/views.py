"""Views as requested by a link, and as resolved against the catalogue: shown, offered and missing parts."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

import pandas as pd

from layerangles.app.catalogue import WAYS, Snapshot, StudentEntry, steps_of
from layerangles.figures import LayerView
from layerangles.figures.drawing.selection import reasons_for_absence
from layerangles.geometry.nulls import meaning_of
from layerangles.notation import count
from layerangles.results.angle_result import AngleResult
from layerangles.results.pair_values import AGGREGATIONS, QUANTITIES, pair_values

Unkept = Callable[[str, str], AngleResult | None]

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ViewRequest:
    """A state of the page. :func:`resolve` chooses what is None.

    Attributes:
        first, second: the students' keys in the catalogue.
        step: the slider's step, which both checkpoints follow unless they have a step of their own.
        first_step, second_step: the checkpoints' own steps.
        layer: the student layer; 0 is the embedding output.
        tower: ``"encoder"`` or ``"decoder"``.
        way: the way of measuring, see :func:`layerangles.app.catalogue.way_of`.
        null: the null whose excess is shown; None for the angle itself.
        aggregation: the aggregation over tokens.
        low, high: the pair of teacher layers whose histogram and tokens are shown.
    """

    first: str | None = None
    second: str | None = None
    step: int | None = None
    first_step: int | None = None
    second_step: int | None = None
    layer: int | None = None
    tower: str | None = None
    way: str | None = None
    null: str | None = None
    aggregation: str | None = None
    low: int | None = None
    high: int | None = None

    def query(self) -> str:
        """The query of a link to this view, beginning with a question mark."""
        return "?" + urlencode({key: value for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_query(cls, query: str) -> "ViewRequest":
        """The view of a link's query; values that are not understood are left out."""
        given = {key: values[-1] for key, values in parse_qs(query.removeprefix("?")).items()}
        kinds: dict[str, Callable[[str], Any]] = {
            field.name: _whole if "int" in str(field.type) else _text for field in fields(cls)
        }
        return cls(**{name: kind(given[name]) for name, kind in kinds.items() if name in given})


def _whole(text: str) -> int | None:
    """A whole number from 0 on, or None.

    >>> _whole("12"), _whole("-1"), _whole("x"), _whole("²")
    (12, None, None, None)
    """
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _text(text: str) -> str | None:
    """A text that can be written into a link, or None: a lone surrogate cannot."""
    return text if text and not _SURROGATE.search(text) else None


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints.

    Attributes:
        entry: the student; None if the catalogue lacks it.
        result: the result shown; None if there is none.
        step: the checkpoint's step; None for the final state of a student without checkpoints.
        layer_view: the part of the result that is drawn, or the reason for its absence.
        can_be_measured: whether it could be measured now: the weights exist, and a result does not.
    """

    entry: StudentEntry | None
    result: AngleResult | None
    step: int | None
    layer_view: LayerView
    can_be_measured: bool = False


@dataclass(frozen=True)
class ResolvedView:
    """Everything that a view shows and offers. Its ``view`` is complete."""

    view: ViewRequest
    first: Side
    second: Side
    steps: list[int]
    layers: list[int]
    towers: list[str]
    nulls: list[str]
    teacher_layers: list[int]

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both checkpoints."""
        return self.first, self.second

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts for the figure's caption."""
        view = self.view
        layer = f"from student layer {view.layer}" + (f" · {view.tower}" if len(self.towers) > 1 else "")
        found = [side.result.dataset.attrs for side in self.sides if side.result is not None]
        notes = [f"{view.way} space" if view.way in WAYS else str(view.way)]
        if found:
            notes.insert(0, layer)
            notes.append(f"{QUANTITIES[view.aggregation or 'mean'].caption} tokens of {found[0]['n_examples']} texts")
        if view.null is not None:
            notes.append(f"{view.null} is {meaning_of(view.null)}")
        if len(found) == 2:
            different = [key for key in ("data_sha256", "teacher_weights_sha256") if found[0][key] != found[1][key]]
            names = {"data_sha256": "texts", "teacher_weights_sha256": "teachers"}
            notes += [f"the two have different {names[key]}: their difference is not theirs alone" for key in different]
        return tuple(notes)

    def table(self) -> pd.DataFrame:
        """The values shown, one row per pair of teacher layers."""
        view = self.view
        columns: dict[str, pd.Series[float]] = {}
        for name, side in (("first", self.first), ("second", self.second)):
            if side.layer_view.data is not None and not side.layer_view.absence:
                data = side.layer_view.data.reset_coords(drop=True)
                values = pair_values(data, view.aggregation or "mean", view.null)  # type: ignore[arg-type]
                columns[name] = values.to_series()
                if view.aggregation == "mean":
                    ends = ("excess_low", "excess_high") if view.null else ("ci_low", "ci_high")
                    for end, key in zip(ends, ("low", "high"), strict=True):
                        of = data[end].sel(null=view.null) if view.null else data[end]
                        columns[f"{name}_{key}"] = of.reset_coords(drop=True).to_series()
        frame = pd.DataFrame(columns)
        if {"first", "second"} <= set(frame):
            frame["second_minus_first"] = frame["second"] - frame["first"]
        frame = frame.rename_axis(["layer_a", "layer_b"]).reset_index() if len(frame) else frame
        return frame[frame["layer_a"] < frame["layer_b"]] if len(frame) else frame


def resolve(view: ViewRequest, snapshot: Snapshot, unkept: Unkept = lambda _key, _way: None) -> ResolvedView:
    """Complete a view, and find what it shows in the catalogue.

    What the view leaves open is chosen; what it names and the catalogue lacks is reported in its place.

    Args:
        view: the request; a link may name anything.
        snapshot: the catalogue's contents.
        unkept: returns the result that is kept in memory alone, by key and way.
    """
    view = _with_students(view, snapshot)
    results = [_results(snapshot.entries.get(key or ""), view.way or "", unkept) for key in (view.first, view.second)]
    known = [result for of in results for result in of]
    towers = list(dict.fromkeys(str(t) for result in known for t in result.dataset["tower"].values))
    layers = sorted({int(layer) for result in known for layer in result.dataset["student_layer"].values})
    teacher_layers = sorted({int(layer) for result in known for layer in result.dataset["layer_a"].values})
    nulls = sorted({null for result in known for null in result.nulls})
    entries = [snapshot.entries.get(key or "") for key in (view.first, view.second)]
    steps = sorted({step for entry in entries if entry for step in entry.steps})
    # Gradient space has no tokens, hence no median over tokens.
    possible = [a for a in AGGREGATIONS if a != "median" or all("histogram" in result.dataset for result in known)]
    aggregation = view.aggregation if view.aggregation in possible else "mean"
    view = replace(
        view,
        step=view.step if view.step is not None or not steps else steps[-1],
        tower=view.tower if view.tower in towers else next(iter(towers), None),
        layer=view.layer if view.layer in layers else next((x for x in layers if x > 0), next(iter(layers), None)),
        aggregation=aggregation,
        null=view.null if aggregation == "mean" and view.null in nulls else None,
    )
    low, high = _pair(view, teacher_layers)
    view = replace(view, low=low, high=high)
    first, second = (
        _side(key, entry, of, fixed if fixed is not None else view.step, view, steps)
        for key, entry, of, fixed in zip(
            (view.first, view.second), entries, results, (view.first_step, view.second_step), strict=True
        )
    )
    return ResolvedView(view, first, second, steps, layers, towers, nulls, teacher_layers)


def _with_students(view: ViewRequest, snapshot: Snapshot) -> ViewRequest:
    keys = list(snapshot.entries)
    first = view.first if view.first is not None else keys[0] if keys else None
    entry = snapshot.entries.get(first or "")
    # By default another strategy with the same seed, which is the comparison of a study.
    others = [e for e in snapshot.entries.values() if entry is None or e.strategy != entry.strategy]
    like = [e.key for e in others if entry is not None and e.student.seed == entry.student.seed]
    second = view.second if view.second is not None else next(iter([*like, *(k for k in keys if k != first)]), first)
    return replace(view, first=first, second=second, way=view.way if view.way in snapshot.ways else "teacher")


def _results(entry: StudentEntry | None, way: str, unkept: Unkept) -> list[AngleResult]:
    if entry is None:
        return []
    kept = unkept(entry.key, way)
    return [*entry.results(way), *([kept] if kept is not None else [])]


def _pair(view: ViewRequest, teacher_layers: list[int]) -> tuple[int | None, int | None]:
    """The two teacher layers requested if they exist and differ, else the first and the last block."""
    low, high = view.low, view.high
    if low in teacher_layers and high in teacher_layers and low != high:
        return low, high
    blocks = teacher_layers[1:] if len(teacher_layers) > 2 else teacher_layers
    return (blocks[0], blocks[-1]) if len(blocks) > 1 else (None, None)


def _side(
    key: str | None,
    entry: StudentEntry | None,
    results: list[AngleResult],
    step: int | None,
    view: ViewRequest,
    steps: list[int],
) -> Side:
    if entry is None:
        return Side(None, None, step, LayerView(str(key), None, f"there is no student {key!r} here"))
    if entry.steps and step is not None and step not in entry.steps:
        listed = ", ".join(map(str, entry.steps))
        return Side(
            entry, None, step, LayerView(_label(entry, step), None, f"no checkpoint at step {step}; {listed} are")
        )
    # The only state of a student without checkpoints is compared with the last step of others.
    if not entry.steps and step is not None and steps and step != steps[-1]:
        absence = f"no checkpoint at step {step}: the final state alone is here"
        return Side(entry, None, step, LayerView(_label(entry, step), None, absence))
    step = step if entry.steps else None
    label = _label(entry, step)
    for result in results:
        is_last = step is None or step == entry.steps[-1]
        there = step in steps_of(result, entry.student.name)
        if there or (not result.steps and is_last):
            shown = result.at_step(step) if result.steps else result
            return Side(entry, result, step, _layer_view(shown, entry, label, view))
    possible = entry.student.directory is not None and view.way in WAYS
    measured = "not measured" + (f" in {view.way} space" if view.way in WAYS else f" in this way ({view.way})")
    return Side(entry, None, step, LayerView(label, None, measured), can_be_measured=possible)


def _label(entry: StudentEntry, step: int | None) -> str:
    return f"{entry.key}, final state" if step is None else f"{entry.key}, step {count(step)}"


def _layer_view(result: AngleResult, entry: StudentEntry, label: str, view: ViewRequest) -> LayerView:
    data = result.dataset.sel(student=entry.student.name)
    if view.tower not in data["tower"].values:
        return LayerView(label, None, f"no {view.tower} here")
    data = data.sel(tower=view.tower)
    if view.layer not in data["student_layer"].values:
        return LayerView(label, None, f"no student layer {view.layer} here")
    absence = reasons_for_absence(result, data).get(int(view.layer or 0), "")
    if view.null is not None and view.null not in result.nulls:
        return LayerView(label, None, f"{view.null} was not measured here")
    return LayerView(label, data.sel(student_layer=view.layer), absence)
