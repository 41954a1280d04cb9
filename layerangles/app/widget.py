"""The comparison of two checkpoints as one piece of HTML: it needs no server, no network and no library."""

import base64
import html
import json
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from layerangles.app import svgmap
from layerangles.app.excerpt import Excerpt, State, excerpt
from layerangles.results.angle_result import AngleResult

_SIDE = 266
_MOST_WITH_TITLES = 16  # teacher layers; above, titles would take more room than the maps
_ANGLE = "angle"

# Two checkpoints that differ in one of these were not measured in the same way on the same thing.
_SHARED = ("teacher_weights_sha256", "data_sha256", "space", "convention", "preprocessing", "maps", "special_tokens")

_CSS = """
.layerangles-compare{font:13px/1.45 sans-serif;max-width:1000px}
.layerangles-compare form{display:flex;flex-wrap:wrap;gap:8px 18px;margin:4px 0 10px}
.layerangles-compare form[hidden]{display:none}
.layerangles-compare label{display:flex;flex-direction:column;max-width:100%}
.layerangles-compare select,.layerangles-compare input{font:inherit;max-width:100%;margin:2px 0}
.layerangles-compare .maps{display:flex;flex-wrap:wrap;gap:14px}
.layerangles-compare .maps:focus-visible{outline:2px solid #3387c2;outline-offset:3px}
.layerangles-compare figure{margin:0;width:306px;max-width:100%}
.layerangles-compare figcaption{min-height:2.9em;overflow-wrap:anywhere}
.layerangles-compare p{margin:6px 0}
.layerangles-compare .readout{min-height:5.8em}
""".replace("\n", "")

_TEMPLATE = """<div class="layerangles-compare"><style>{css}</style><form hidden></form>\
<div class="maps" role="group" aria-label="Heat maps of two checkpoints and of their difference">{maps}</div>\
<p class="readout" aria-live="polite">Choosing another checkpoint or layer needs scripts, which do not run here.</p>\
{notes}<script type="application/json">{data}</script><script>{script}</script></div>"""


def widget(results: Sequence[AngleResult], first: str | None = None, second: str | None = None) -> str:
    """The HTML in which one chooses two checkpoints and sees their heat maps and the difference, below 200 kB.

    One chooses the student layer, the tower, and the angle or its excess over a null. What is chosen at first is drawn
    without scripts, too. Where all would be too much, nulls, steps, students and teacher layers are left out, in this
    order, and the snippet says which.

    Args:
        results: what was measured; of different teachers, too, though only like is then subtracted from like.
        first: a student's name, at its last step, or ``name@step``; the first by default.
        second: the same; by default the next student, or the last step of the only one.

    Raises:
        InputError: no result, or no such student or step.
    """
    some = excerpt(results, first, second)
    payload = _payload(some)
    left_out = f"<p>Left out to stay small: {html.escape('; '.join(some.notes))}.</p>" if some.notes else ""
    # A name with </script> in it must not end the data.
    data = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    script = files("layerangles.app").joinpath("widget.js").read_text(encoding="utf-8")
    return _TEMPLATE.format(css=_CSS, maps=_drawn(some, payload), notes=left_out, data=data, script=script)


def _payload(some: Excerpt) -> dict[str, Any]:
    """What the script needs to draw anything that can be chosen."""
    largest = max((float(state.data["angle_deg"].fillna(0).max()) for state in some.states), default=0.0)
    return {
        "states": [_state(state, some) for state in some.states],
        "towers": some.towers,
        "quantities": [_ANGLE, *some.nulls],
        "chosen": [some.first, some.second],
        "layer": _first_layer(some),
        "angle": svgmap.angle_scale(largest).stops,
        "excess": [colour for _, colour in svgmap.excess_scale(1.0).stops],
        "side": _SIDE,
        "titles": _MOST_WITH_TITLES,
    }


def _state(state: State, some: Excerpt) -> dict[str, Any]:
    """One checkpoint; ``values`` are those of :meth:`State.values` as 16-bit integers in base64."""
    reasons = [state.reasons(tower) for tower in state.towers]
    return {
        "name": state.name,
        "step": state.step,
        "teacher": state.layers,
        "depth": state.depth,
        "towers": state.towers,
        "quantities": [_ANGLE, *(null for null in some.nulls if null in state.nulls)],
        "matched": state.matched(),
        "absence": [[_lines(of.get(layer, "")) for layer in range(state.depth)] for of in reasons],
        "key": "|".join(str(state.result.dataset.attrs.get(name)) for name in _SHARED),
        "values": base64.b64encode(state.values(some.nulls).astype("<i2").tobytes()).decode(),
    }


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, _SIDE // 7)


def _first_layer(some: Excerpt) -> int:
    """Student layer 1, as in the paper's figure, unless only others have angles."""
    state = some.states[some.second]
    reasons = state.reasons(some.towers[0]) if some.towers[0] in state.towers else {}
    with_angles = [layer for layer in range(state.depth) if layer not in reasons]
    return 1 if 1 in with_angles or not with_angles else with_angles[0]


class _View(NamedTuple):
    """One map of the initial state, drawn here; the script draws the same, and all others."""

    caption: str
    pairs: svgmap.Hundredths
    halves: svgmap.Hundredths
    layers: list[int]
    matched: list[int]
    absence: list[str]


def _drawn(some: Excerpt, payload: dict[str, Any]) -> str:
    """The three maps and the scales of their colours, as they are before anything is chosen."""
    first, second = (_view(payload["states"][i], some.states[i], payload) for i in payload["chosen"])
    angles = svgmap.Scale(payload["angle"])
    difference = _difference(first, second)
    known = difference.pairs[difference.pairs != svgmap.NONE]
    limit = max(100, int(np.abs(known.astype(int)).max(initial=0)))
    differences = svgmap.excess_scale(limit / 100)
    ends = [(end * limit / 100, f"{svgmap.written(end * limit, differences)}°") for end in (-1, 0, 1)]
    marks = [(float(degree), f"{degree}°") for degree in range(0, round(angles.stops[-1][0]) + 1, 30)]
    bars = [svgmap.bar(angles, marks, 200), "", svgmap.bar(differences, ends, 200)]
    figures = [
        _figure(view, scale, bar)
        for view, scale, bar in zip((first, second, difference), (angles, angles, differences), bars, strict=True)
    ]
    return "".join(figures)


def _view(state: dict[str, Any], of: State, payload: dict[str, Any]) -> _View:
    step = "" if state["step"] is None else f", step {state['step']}"
    layer, tower = payload["layer"], payload["towers"][0]
    place = f"student layer {layer}" + (" (emb)" if layer == 0 else "")
    n_pairs = len(state["teacher"]) * (len(state["teacher"]) - 1) // 2
    nothing = np.full(n_pairs, svgmap.NONE, dtype=np.int16)
    if layer >= state["depth"] or tower not in state["towers"]:
        return _View(f"{state['name']}{step}\n{place}", nothing, nothing, state["teacher"], [], ["no such layer"])
    t = state["towers"].index(tower)
    values = of.values([])[0, t, layer]
    matched = state["matched"][t][layer]
    if matched:
        place += f", matched to {', '.join(map(str, matched))} (◆)"
    absence = state["absence"][t][layer]
    return _View(f"{state['name']}{step}\n{place}", values[:, 0], values[:, 1], state["teacher"], matched, absence)


def _difference(first: _View, second: _View) -> _View:
    caption = "difference\nsecond − first"
    if first.layers != second.layers:
        nothing = np.full(len(first.pairs), svgmap.NONE, dtype=np.int16)
        return _View(caption, nothing, nothing, first.layers, [], ["their teachers differ in depth"])
    known = (first.pairs != svgmap.NONE) & (second.pairs != svgmap.NONE)
    pairs = np.where(known, second.pairs.astype(int) - first.pairs, svgmap.NONE).astype(np.int16)
    absence = [] if known.any() else ["nothing to subtract"]
    return _View(caption, pairs, np.full_like(pairs, svgmap.NONE), first.layers, [], absence)


def _figure(view: _View, scale: svgmap.Scale, bar: str) -> str:
    titles = _titles(view, scale) if len(view.layers) <= _MOST_WITH_TITLES else []
    text = svgmap.Text(view.caption.replace("\n", ", "), titles, view.absence)
    drawn = svgmap.heat_map(view.pairs, view.layers, view.matched, scale, _SIDE, text)
    name, place = map(html.escape, view.caption.split("\n"))
    return f"<figure><figcaption><b>{name}</b><br>{place}</figcaption>{drawn}<div>{bar}</div></figure>"


def _titles(view: _View, scale: svgmap.Scale) -> list[str]:
    titles = []
    pairs = zip(*np.triu_indices(len(view.layers), 1), view.pairs.tolist(), view.halves.tolist(), strict=True)
    for a, b, value, half in pairs:
        ends = [svgmap.written(value - half, scale), svgmap.written(value + half, scale)]
        interval = "" if half == svgmap.NONE else f" [{', '.join(ends)}]"
        layers = f"teacher layers {view.layers[a]} and {view.layers[b]}"
        titles.append(f"{layers}: {svgmap.written(value, scale)}°{interval}")
    return titles
