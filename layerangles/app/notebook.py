"""``layerangles.compare``: two checkpoints side by side in a notebook, as stored HTML or as the app itself.

The HTML holds the angles and ``assets/notebook.js``, which draws them with plotly.js in the template of the figures. It
does not hold plotly.js (5 MB) but takes it from the page: JupyterLab with plotly's extension has it (offline, too), and
so has every page on which plotly's ``notebook`` renderer was active. Pages that lack it, such as nbviewer, load the
version that plotly.py ships from plotly's CDN; a hash of its bytes makes sure that they are the same.
"""

import base64
import hashlib
import html
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from layerangles.app.sources import InMemory, ResultFile, Source, StudentDirectories
from layerangles.app.view_figures import fitting_theme
from layerangles.errors import InputError
from layerangles.extras import require_extra
from layerangles.figures import LayerView, compare_pair
from layerangles.figures.drawing import style
from layerangles.figures.drawing.export import CONFIG
from layerangles.figures.drawing.marks import ABOVE_90, NEGATIVE
from layerangles.figures.drawing.selection import reasons_for_absence
from layerangles.models.matching_file import MATCHING_FILE
from layerangles.results.angle_result import AngleResult

if TYPE_CHECKING:
    from layerangles.app.measuring import MeasuringPlan

Comparable = AngleResult | str | os.PathLike[str] | Source

_ROOM = 120_000  # bytes of angles; with everything else a notebook's output stays below 200 kB
_WIDTH = 720  # pixels; fits a page of the documentation
_LONGEST_NAME = 60
_NOTHING = -32768  # stands for NaN in whole numbers
# Two checkpoints that differ in one of these were not measured alike, and their difference is not theirs alone.
_SHARED = ("teacher_weights_sha256", "data_sha256", "space", "convention", "preprocessing", "maps", "special_tokens")

_PAGE = """<div class="layerangles-compare" style="font:13px/1.45 sans-serif">
<form style="display:flex;flex-wrap:wrap;gap:8px 18px;margin:4px 0 10px" hidden></form>
<p class="readout" aria-live="polite">Choosing and drawing checkpoints needs scripts, which do not run here.</p>
<div class="maps" style="overflow-x:auto"></div>
{notes}<script type="application/json">{data}</script><script>{script}</script></div>"""


@dataclass(frozen=True)
class NotebookComparison:
    """Two checkpoints side by side; what :func:`layerangles.compare` returns.

    Attributes:
        sources: the students that can be compared.
        html: what a notebook shows and stores; needs no server.
    """

    sources: tuple[Source, ...]
    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html

    def app(self, *, port: int = 0, height: int = 1000, plan: "MeasuringPlan | None" = None) -> Any:
        """Start the app of ``layerangles compare`` on this machine, and embed it in the notebook.

        It ends with the notebook's kernel. The port of a remote kernel must be forwarded.

        Args:
            port: on 127.0.0.1; 0 for any free port.
            height: of the frame, pixels.
            plan: how students are measured on demand.

        Returns:
            An ``IPython.display.IFrame``.

        Raises:
            InputError: the extra ``app`` or ``notebooks`` is not installed, or there is no student.
        """
        require_extra("app", "the app")
        require_extra("notebooks", "the app in a notebook")
        from IPython.display import IFrame

        from layerangles.app.catalogue import Catalogue
        from layerangles.app.measuring import MeasuringPlan
        from layerangles.app.server import create_app, listen

        app = create_app(Catalogue(self.sources), plan or MeasuringPlan())
        server = listen(app, "127.0.0.1", port)
        threading.Thread(target=server.run, name="layerangles-compare", daemon=True).start()
        return IFrame(f"http://127.0.0.1:{server.effective_port}/", width="100%", height=height)


def compare(*compared: Comparable, first: str | None = None, second: str | None = None) -> NotebookComparison:
    """Compare checkpoints in a notebook: the angles seen from two students, and their difference.

    Both checkpoints, the student layer, the tower, and the angle or its excess over a null can be chosen, by keyboard,
    too. Where all checkpoints together would make the notebook large, some are left out, which the output says.

    >>> layerangles.compare(result, first="forward-seed0@0", second="forward-seed0")  # doctest: +SKIP
    >>> layerangles.compare(kd_train.open_study("runs/movie-reviews")).app()  # doctest: +SKIP

    Args:
        compared: results; result files; directories of students; studies opened with ``kd_train.open_study``.
        first: the checkpoint shown first: a student's name, at its last step, or ``name@step``. By default the first
            student, or the first step of the only one.
        second: the checkpoint beside it. By default the next student, or the last step of the only one.

    Returns:
        A comparison that a notebook displays; its method ``app`` starts the app.

    Raises:
        InputError: nothing to compare, something of another kind, or ``first`` or ``second`` was not measured.
    """
    if not compared:
        raise InputError("nothing was given to compare. Give results, result files, student directories, or studies.")
    sources = tuple(_source(one) for one in compared)
    students = [student for source in sources for student in source.students()]
    results = list({id(result): result for student in students for result in student.results}.values())
    if results:
        return NotebookComparison(sources, comparison_html(results, first, second))
    if first is not None or second is not None:
        raise InputError("nothing was measured of these students yet. Call measure_angles first, or start the app().")
    names = html.escape(", ".join(student.name for student in students))
    text = f"<p>Nothing was measured of {names} yet; <code>.app()</code> measures on demand.</p>"
    return NotebookComparison(sources, text)


def _source(one: Comparable) -> Source:
    if isinstance(one, AngleResult):
        return InMemory(one)
    if isinstance(one, Source):
        return one
    if not isinstance(one, str | os.PathLike):
        raise InputError(
            f"a {type(one).__name__} cannot be compared. Give results, result files, student directories, or studies "
            "opened with kd_train.open_study."
        )
    path = Path(one)
    if path.is_file():
        return ResultFile(path)
    if (path / MATCHING_FILE).is_file():
        return StudentDirectories([path])
    raise InputError(
        f"{path} is neither a result file nor a student's directory (with {MATCHING_FILE}). Open a study with "
        "kd_train.open_study, and give that."
    )


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    """A student at a step (None where the result has no steps), under a name that no other student has."""

    result: AngleResult
    student: str
    step: int | None
    name: str

    @cached_property
    def data(self) -> xr.Dataset:
        data = self.result.dataset.sel(student=self.student)
        return data if self.step is None else data.sel(step=self.step)

    @property
    def teacher_layers(self) -> list[int]:
        return [int(layer) for layer in self.result.dataset["layer_a"].values]

    @property
    def label(self) -> str:
        return self.name if self.step is None else f"{self.name}, step {self.step:,}"

    def is_measured(self) -> bool:
        return bool((self.data["n_tokens"] > 0).any() or (self.data["n_degenerate"] > 0).any())

    def size(self, nulls: Sequence[str]) -> int:
        """About how many bytes it takes in a page."""
        n, sizes = len(self.teacher_layers), self.result.dataset.sizes
        n_pairs = sizes["tower"] * sizes["student_layer"] * n * (n - 1) // 2
        return (1 + sum(null in self.result.nulls for null in nulls)) * n_pairs * 2 * 8 // 3 + 400

    def values(self, nulls: Sequence[str]) -> npt.NDArray[np.int16]:
        """``[quantity, tower, student_layer, pair, 2]``: the angle and each excess, with half their intervals' widths.

        In hundredths of a degree, for all pairs ``layer_a < layer_b``.
        """
        a, b = np.triu_indices(len(self.teacher_layers), 1)
        quantities = [(self.data, "angle_deg", "ci_low")]
        quantities += [(self.data.sel(null=null), "excess_deg", "excess_low") for null in nulls]
        found = []
        for data, value, low in quantities:
            order = ("tower", "student_layer", "layer_a", "layer_b")
            mean, lower = (data[of].transpose(*order).values[..., a, b] for of in (value, low))
            hundredths = 100 * np.stack([mean, mean - lower], axis=-1)
            found.append(np.where(np.isfinite(hundredths), np.rint(np.nan_to_num(hundredths)), _NOTHING))
        return np.stack(found).astype("<i2")


def comparison_html(results: Sequence[AngleResult], first: str | None = None, second: str | None = None) -> str:
    """The HTML in which two checkpoints of some results are chosen and compared; see :func:`compare`.

    Raises:
        InputError: no such student or step.
    """
    checkpoints = _checkpoints(results)
    left = _index(checkpoints, first, default=_default_first(checkpoints))
    right = _index(checkpoints, second, default=_default_second(checkpoints, left))
    nulls = list(dict.fromkeys(null for result in results for null in result.nulls))
    chosen = (checkpoints[left], checkpoints[right])
    nulls = nulls if sum(one.size(nulls) for one in chosen) <= _ROOM else []
    kept = _within_room(checkpoints, chosen, nulls)
    n_left_out = len(checkpoints) - len(kept)
    notes = f"<p>{n_left_out} more checkpoints are left out to stay small; <code>.app()</code> shows all.</p>"
    payload = {
        "checkpoints": [_described(one, nulls) for one in kept],
        "chosen": [kept.index(one) for one in chosen],
        "towers": list(dict.fromkeys(str(tower) for one in kept for tower in one.data["tower"].values)),
        "depth": max(one.data.sizes["student_layer"] for one in kept),
        "layer": _first_layer(chosen[1]),
        **_template(kept, nulls),
        "config": CONFIG | {"displayModeBar": False},
        "plotly": f"https://cdn.plot.ly/plotly-{get_plotlyjs_version()}.min.js",
        "integrity": f"sha256-{base64.b64encode(hashlib.sha256(get_plotlyjs().encode()).digest()).decode()}",
    }
    # A name with </script> in it must not end the data.
    data = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    script = files("layerangles.app").joinpath("assets/notebook.js").read_text(encoding="utf-8")
    return _PAGE.format(notes=notes if n_left_out else "", data=data, script=script)


def _checkpoints(results: Sequence[AngleResult]) -> list[_Checkpoint]:
    found: list[_Checkpoint] = []
    names: list[str] = []
    for result in results:
        for student in result.students:
            name = student if len(student) <= _LONGEST_NAME else f"{student[: _LONGEST_NAME - 1]}…"
            names.append(name)
            name += f" ({names.count(name)})" if names.count(name) > 1 else ""
            steps: list[int | None] = [*result.steps] or [None]
            of_student = [_Checkpoint(result, student, step, name) for step in steps]
            found += [one for one in of_student if one.is_measured()] or of_student[-1:]
    return found


def _index(checkpoints: Sequence[_Checkpoint], chosen: str | None, default: int) -> int:
    """The position of the checkpoint called ``name``, at its last step, or ``name@step``."""
    if chosen is None:
        return default
    by_name: dict[str, int] = {}
    for name in ("student", "name"):  # the unique names last, so that they count
        for index, one in enumerate(checkpoints):
            by_name |= {getattr(one, name): index, f"{getattr(one, name)}@{one.step}": index}
    if chosen not in by_name:
        students = ", ".join(dict.fromkeys(one.name for one in checkpoints))
        raise InputError(
            f"there is no checkpoint {chosen!r}. Give a student's name, or name@step; the students are {students}."
        )
    return by_name[chosen]


def _last_steps(checkpoints: Sequence[_Checkpoint]) -> dict[str, int]:
    """The position of each student's last step, by name."""
    return {one.name: index for index, one in enumerate(checkpoints)}


def _default_first(checkpoints: Sequence[_Checkpoint]) -> int:
    """The first student at its last step, or the first step of the only one."""
    last = _last_steps(checkpoints)
    return last[checkpoints[0].name] if len(last) > 1 else 0


def _default_second(checkpoints: Sequence[_Checkpoint], first: int) -> int:
    """The first other student at its last step, or the last step of the only one."""
    last = _last_steps(checkpoints)
    name = checkpoints[first].name
    return next((index for other, index in last.items() if other != name), last[name])


def _within_room(
    checkpoints: Sequence[_Checkpoint], chosen: Sequence[_Checkpoint], nulls: Sequence[str]
) -> list[_Checkpoint]:
    """The chosen checkpoints, then last steps, first steps and all others, as many as there is room for; in order."""
    last = {name: checkpoints[index] for name, index in _last_steps(checkpoints).items()}
    first = {one.name: one for one in reversed(checkpoints)}
    by_importance = dict.fromkeys([*chosen, *last.values(), *first.values(), *checkpoints])
    sizes = np.cumsum([one.size(nulls) for one in by_importance])
    kept = [one for one, size in zip(by_importance, sizes, strict=True) if size <= _ROOM or one in chosen]
    return sorted(kept, key=list(checkpoints).index)


def _described(one: _Checkpoint, nulls: Sequence[str]) -> dict[str, Any]:
    """A checkpoint for the script: names, layers, and :meth:`_Checkpoint.values` in base64."""
    here = [null for null in nulls if null in one.result.nulls]
    matched = one.data["matched"].transpose("tower", "student_layer", "layer_a").values > 0
    towers = [str(tower) for tower in one.data["tower"].values]
    reasons = [reasons_for_absence(one.result, one.data.sel(tower=tower)) for tower in towers]
    layers = one.teacher_layers
    return {
        "label": one.label,
        "title": _lines(one.label, at_hyphens=True),
        "teacherLayers": layers,
        "towers": towers,
        "quantities": ["", *here],
        "matched": [[[layers[i] for i in np.flatnonzero(row)] for row in of_tower] for of_tower in matched],
        "absence": [[_lines(of.get(layer, "")) for layer in range(one.data.sizes["student_layer"])] for of in reasons],
        "alike": "|".join(str(one.result.dataset.attrs.get(name)) for name in _SHARED),
        "values": base64.b64encode(one.values(here).tobytes()).decode(),
    }


def _first_layer(one: _Checkpoint) -> int:
    """Student layer 1, as in the paper's figure, or the first that has angles."""
    known = one.data["angle_deg"].notnull().any(["tower", "layer_a", "layer_b"]).values
    return 1 if len(known) > 1 and known[1] else int(np.argmax(known))


def _lines(text: str, *, at_hyphens: bool = False) -> str:
    """Text as plotly draws it above or inside of a map."""
    return "<br>".join(style.wrapped(text, _WIDTH / 3 - 20, 12, at_hyphens=at_hyphens)) if text else ""


def _template(checkpoints: Sequence[_Checkpoint], nulls: Sequence[str]) -> dict[str, Any]:
    """Two maps and their difference as the figures draw them, without what the script puts in."""
    label = max((one.label for one in checkpoints), key=len)
    quantities: dict[str, dict[str, Any]] = {}
    for null in (*nulls, None):
        measured = [one for one in checkpoints if null is None or null in one.result.nulls]
        # Of the deepest teacher; among those the one with the largest angle, so that the colour scale holds all.
        largest = max(measured, key=lambda one: (len(one.teacher_layers), float(one.data["angle_deg"].fillna(0).max())))
        at = largest.data["angle_deg"].fillna(-1).argmax(...)
        data = largest.data.isel(tower=at["tower"], student_layer=at["student_layer"])
        view = LayerView(label, data.assign(matched=xr.ones_like(data["matched"])))
        figure = json.loads(compare_pair(view, view, null=null, theme=fitting_theme(_WIDTH)).to_json())
        layout = figure["layout"]
        labels = [one for one in layout["annotations"] if "domain" in one["xref"]]
        others = [one for one in layout["annotations"] if one not in labels and one["text"] not in (ABOVE_90, NEGATIVE)]
        quantities[null or ""] = {"annotations": others, "coloraxis": layout["coloraxis"]}
    own = ("x", "y", "z", "text", "hovertext", "xaxis", "yaxis", "coloraxis")
    traces = [{key: value for key, value in trace.items() if key not in own} for trace in figure["data"]]
    texts = next((trace["text"] for trace in figure["data"] if trace.get("mode") == "text"), [""])
    return {
        "layout": {key: value for key, value in layout.items() if key not in ("annotations", "coloraxis", "meta")},
        "quantities": {name: quantities[name] for name in ("", *nulls)},
        "label": labels[0],
        "traces": {
            "cells": traces[0],
            "text": next((trace for trace in traces if trace.get("mode") == "text"), None),
            "matched": next(t for t in traces if t.get("marker", {}).get("symbol") == "diamond"),
        },
        "digits": len(texts[0].partition(".")[2]),
        "inks": "".join(style.ink_on(degree)[0] for degree in range(181)),
    }
