"""What of some results goes into a widget: checkpoints, nulls and layers, as many as there is room for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import xarray as xr

from layerangles.app import svgmap
from layerangles.errors import InputError
from layerangles.figures.drawing import selection
from layerangles.results.angle_result import AngleResult
from layerangles.results.notebook_html import preferred_null

_ROOM = 120_000  # bytes of numbers; pictures and script take the rest of 200 kB
_MOST_LAYERS = 25  # teacher layers whose maps are drawn: 24 blocks and the embedding output
_LONGEST_NAME = 60
_VARIABLES = ("angle_deg", "ci_low", "excess_deg", "excess_low", "n_tokens", "n_degenerate", "matched")


@dataclass(frozen=True, eq=False)
class State:
    """One checkpoint of one student.

    Attributes:
        result: where it was measured.
        student: its name there.
        step: None where there is no step axis.
        name: what it is called here: its name, cut if it is long, and told from namesakes in other results.
        every: every how many teacher layers one is taken.
    """

    result: AngleResult
    student: str
    step: int | None
    name: str
    every: int = 1

    @cached_property
    def data(self) -> xr.Dataset:
        """Its part of the result."""
        whole = self.result.dataset
        data = whole[[name for name in _VARIABLES if name in whole]].sel(student=self.student)
        data = data if self.step is None else data.sel(step=self.step)
        thinned = slice(None, None, self.every)
        return data.isel(layer_a=thinned, layer_b=thinned)

    @property
    def towers(self) -> list[str]:
        """Their names."""
        return [str(tower) for tower in self.result.dataset["tower"].values]

    @property
    def nulls(self) -> list[str]:
        """The nulls that were measured."""
        return self.result.nulls

    @property
    def depth(self) -> int:
        """How many student layers there are, the embedding output with them."""
        return int(self.result.dataset.sizes["student_layer"])

    @property
    def layers(self) -> list[int]:
        """The teacher layers."""
        return [int(layer) for layer in self.result.dataset["layer_a"].values[:: self.every]]

    def is_measured(self) -> bool:
        """Whether the student has such a step at all."""
        return bool((self.data["n_tokens"] > 0).any() or (self.data["n_degenerate"] > 0).any())

    def matched(self) -> list[list[list[int]]]:
        """By tower and student layer, the teacher layers that training matched it to."""
        matched = self.data["matched"].transpose("tower", "student_layer", "layer_a").values > 0
        return [[[self.layers[i] for i in np.flatnonzero(row)] for row in of_tower] for of_tower in matched]

    def reasons(self, tower: str) -> dict[int, str]:
        """Why a student layer shows no angle, where it shows none."""
        return selection.reasons_for_absence(self.result, self.data.sel(tower=tower))

    def values(self, nulls: Sequence[str]) -> npt.NDArray[np.int16]:
        """``[quantity, tower, student_layer, pair, 2]``: angle and excess over each null, with half their intervals.

        In hundredths of a degree, ``svgmap.NONE`` where there is none; of all pairs ``layer_a < layer_b``.
        """
        a, b = np.triu_indices(len(self.layers), 1)
        order = ("tower", "student_layer", "layer_a", "layer_b")
        quantities = [(self.data, "angle_deg", "ci_low")]
        quantities += [(self.data.sel(null=null), "excess_deg", "excess_low") for null in nulls if null in self.nulls]
        found = []
        for data, name, low in quantities:
            value, end = (data[of].transpose(*order).values[..., a, b] for of in (name, low))
            found.append(svgmap.hundredths(np.stack([value, value - end], axis=-1)))
        return np.stack(found)

    def size(self, nulls: Sequence[str]) -> int:
        """About how many bytes it takes: its numbers in base64, and what is said of it."""
        n, n_quantities = len(self.layers), 1 + sum(null in self.nulls for null in nulls)
        n_panels = len(self.towers) * self.depth
        return n_quantities * n_panels * n * (n - 1) // 2 * 2 * 8 // 3 + 12 * n_panels + 300


@dataclass(frozen=True)
class Excerpt:
    """What a widget shows.

    Attributes:
        states: the checkpoints that can be chosen.
        first: the index of the one chosen at first on the left.
        second: the same on the right.
        nulls: over which the excess can be seen.
        notes: what was left out, in words.
    """

    states: list[State]
    first: int
    second: int
    nulls: list[str]
    notes: list[str]

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return sum(state.size(self.nulls) for state in self.states)

    @property
    def towers(self) -> list[str]:
        """Of all results."""
        return list(dict.fromkeys(tower for state in self.states for tower in state.towers))


def excerpt(results: Sequence[AngleResult], first: str | None, second: str | None) -> Excerpt:
    """All checkpoints of some results, or as many as there is room for; those chosen are always among them.

    Raises:
        InputError: no result, or no such student or step.
    """
    if not results:
        raise InputError("there is nothing to compare: got no results. Give at least one.")
    states = _states(results)
    left = _index(states, first, default=_beginning(states))
    right = _index(states, second, default=_partner(states, left))
    nulls = list(dict.fromkeys(null for result in results for null in result.nulls))
    whole = Excerpt(states, left, right, nulls, [])
    return _without_layers(_without_students(_without_steps(_without_nulls(_with_few_layers(whole)))))


def _states(results: Sequence[AngleResult]) -> list[State]:
    states: list[State] = []
    names: list[str] = []
    for result in results:
        for student in result.students:
            name = student if len(student) <= _LONGEST_NAME else f"{student[: _LONGEST_NAME - 1]}…"
            names.append(name)
            name += f" ({names.count(name)})" if names.count(name) > 1 else ""
            steps: list[int | None] = [*result.steps] or [None]
            of_student = [State(result, student, step, name) for step in steps]
            states += [state for state in of_student if state.is_measured()] or of_student[-1:]
    return states


def _index(states: Sequence[State], chosen: str | None, default: int) -> int:
    """Where the chosen checkpoint stands: a name, at its last step, or ``name@step``."""
    if chosen is None:
        return default
    exact = [
        i for i, state in enumerate(states) if chosen in (f"{state.name}@{state.step}", f"{state.student}@{state.step}")
    ]
    named = [i for i, state in enumerate(states) if state.name == chosen]
    found = exact[:1] or named[-1:] or [i for i, state in enumerate(states) if state.student == chosen][-1:]
    if not found:
        students = ", ".join(dict.fromkeys(state.name for state in states))
        raise InputError(
            f"there is no checkpoint {chosen!r}. Give a student's name, or name@step; the students are {students}."
        )
    return found[0]


def _last_of(states: Sequence[State]) -> dict[str, int]:
    """By name, where each student's last step stands."""
    return {state.name: i for i, state in enumerate(states)}


def _beginning(states: Sequence[State]) -> int:
    """What is compared by default: the first student at its last step; where it is the only one, its first step."""
    last = _last_of(states)
    return last[states[0].name] if len(last) > 1 else 0


def _partner(states: Sequence[State], first: int) -> int:
    """With what: the first other student at its last step, or the only one at its last step."""
    last = _last_of(states)
    return next((i for name, i in last.items() if name != states[first].name), last[states[first].name])


def _kept(whole: Excerpt, states: Sequence[State], note: str) -> Excerpt:
    """The excerpt with these states alone, and the chosen ones where they now are."""
    chosen = (states.index(whole.states[whole.first]), states.index(whole.states[whole.second]))
    return replace(whole, states=list(states), first=chosen[0], second=chosen[1], notes=[*whole.notes, note])


def _is_chosen(whole: Excerpt, state: State) -> bool:
    return state in (whole.states[whole.first], whole.states[whole.second])


def _with_few_layers(whole: Excerpt) -> Excerpt:
    every = max(-(-len(state.layers) // _MOST_LAYERS) for state in whole.states)
    return _thinned(whole, every) if every > 1 else whole


def _without_nulls(whole: Excerpt) -> Excerpt:
    if whole.size <= _ROOM or len(whole.nulls) < 2:
        return whole
    one = preferred_null(whole.nulls)
    others = ", ".join(null for null in whole.nulls if null != one)
    return replace(whole, nulls=[one], notes=[*whole.notes, f"the excess over {others}"])


def _without_steps(whole: Excerpt) -> Excerpt:
    if whole.size <= _ROOM:
        return whole
    ends = set()
    for name in {state.name for state in whole.states}:
        mine = [i for i, state in enumerate(whole.states) if state.name == name]
        ends |= {mine[0], mine[-1]}
    states = [s for i, s in enumerate(whole.states) if i in ends or _is_chosen(whole, s)]
    if len(states) == len(whole.states):
        return whole
    return _kept(whole, states, "steps between each student's first and last")


def _without_students(whole: Excerpt) -> Excerpt:
    if whole.size <= _ROOM:
        return whole
    room = _ROOM - sum(s.size(whole.nulls) for s in whole.states if _is_chosen(whole, s))
    states: list[State] = []
    for state in whole.states:
        if not _is_chosen(whole, state):
            room -= state.size(whole.nulls)
        if room >= 0 or _is_chosen(whole, state):
            states.append(state)
    gone = list(dict.fromkeys(state.name for state in whole.states if state not in states))
    listed = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
    return _kept(whole, states, f"checkpoints of {listed}")


def _without_layers(whole: Excerpt) -> Excerpt:
    """The last resort: fewer teacher layers, the nulls' excess gone."""
    if whole.size > _ROOM and whole.nulls:
        whole = replace(whole, nulls=[], notes=[*whole.notes, f"the excess over {', '.join(whole.nulls)}"])
    every = max(state.every for state in whole.states)
    while whole.size > _ROOM and any(len(state.layers) > 2 for state in whole.states):
        every += 1
        whole = _thinned(whole, every)
    return whole


def _thinned(whole: Excerpt, every: int) -> Excerpt:
    notes = [note for note in whole.notes if not note.startswith("teacher layers")]
    states = [replace(state, every=every) for state in whole.states]
    return replace(whole, states=states, notes=[*notes, f"teacher layers: one in {every} is shown"])
