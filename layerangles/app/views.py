"""A view as a link asks for it, and resolved against the catalogue: what is shown, offered and missing."""

import re
from collections.abc import Callable, Mapping
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

_LARGEST = 999_999_999
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ViewRequest:
    """One state of the page. Whatever is None is for the page to choose.

    Attributes:
        first, second: the students' keys in the catalogue.
        step: of the slider; both checkpoints follow it, unless they are fixed to a step of their own.
        first_step, second_step: those.
        layer: of the students; 0 is the embedding output.
        tower: encoder or decoder.
        way: the space, and what else is not as usual.
        null: over which the excess is shown; None for the angle itself.
        aggregation: over tokens.
        low, high: the pair of teacher layers whose tokens are shown.
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
        """As the query of a link, beginning with a question mark."""
        return "?" + urlencode({key: value for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_query(cls, query: str) -> "ViewRequest":
        """From a link's query; what is not understood is left out, and for the page to choose."""
        given = {key: values[-1] for key, values in parse_qs(query.removeprefix("?")).items()}
        return cls.from_mapping(given)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> "ViewRequest":
        """From values as a browser sends them."""
        kinds: dict[str, Callable[[Any], Any]] = {
            field.name: _whole if "int" in str(field.type) else _text for field in fields(cls)
        }
        return cls(**{name: kind(given.get(name)) for name, kind in kinds.items()})


def _whole(value: Any) -> int | None:
    """A whole number from 0 on, or None.

    >>> _whole("12"), _whole(3), _whole("-1"), _whole("x"), _whole(True), _whole("²")
    (12, 3, None, None, None, None)
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value <= _LARGEST else None
    is_whole = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    return int(value) if is_whole else None


def _text(value: Any) -> str | None:
    """A text that can stand in a link, or None: half a surrogate pair, which JSON may hold, cannot."""
    is_text = isinstance(value, str) and value and not _SURROGATE.search(value)
    return value if is_text else None


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints.

    Attributes:
        entry: the student; None for one that is not here.
        result: what is shown of it; None where nothing was measured.
        step: of the checkpoint; None for the final state of a student without checkpoints.
        sight: what is drawn.
        can_be_measured: nothing was measured, and the weights are there.
    """

    entry: StudentEntry | None
    result: AngleResult | None
    step: int | None
    sight: LayerView
    can_be_measured: bool = False


@dataclass(frozen=True)
class ResolvedView:
    """All that a view shows. ``view`` is complete: whatever the page chose stands in it."""

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
        """Both."""
        return self.first, self.second

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figure must know."""
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
        """The angles on the page, one row a pair of teacher layers."""
        view = self.view
        columns: dict[str, pd.Series[float]] = {}
        for name, side in (("first", self.first), ("second", self.second)):
            if side.sight.data is not None and not side.sight.absence:
                data = side.sight.data.reset_coords(drop=True)
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
    """What a view shows of the students there are.

    Whatever the view leaves open is chosen; whatever it names that is not there is said where it would be shown.

    Args:
        view: what is asked for; it may come from a link, and name anything.
        snapshot: what there is.
        unkept: results that are in memory alone, by key and way.
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
    # In gradient space there are no tokens, and so no median over them.
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
    # To begin with, another strategy with the same seed: that is what a study compares.
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
    """Two different teacher layers: those asked for, or else the first block and the last."""
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
    # A student without checkpoints has one state, which is the last of any course.
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
            return Side(entry, result, step, _sight(shown, entry, label, view))
    possible = entry.student.directory is not None and view.way in WAYS
    measured = "not measured" + (f" in {view.way} space" if view.way in WAYS else f" in this way ({view.way})")
    return Side(entry, None, step, LayerView(label, None, measured), can_be_measured=possible)


def _label(entry: StudentEntry, step: int | None) -> str:
    return f"{entry.key}, final state" if step is None else f"{entry.key}, step {count(step)}"


def _sight(result: AngleResult, entry: StudentEntry, label: str, view: ViewRequest) -> LayerView:
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
