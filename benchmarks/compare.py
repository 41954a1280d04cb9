"""Response times of `layerangles compare` for a study of 40 students with 5 steps each, in the server.

The study repeats the students and steps of examples/results, so the numbers are real. Every action is sent as a browser
sends it, with all requests that follow from it, and their times are added. The alternative reads the result file for
every answer.

Run: python benchmarks/compare.py [--students 40] [--steps 5] [--rounds 9]
"""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from common import alternate, arguments, ratio, report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "examples" / "results" / "movie-reviews"
PROMISE_SECONDS = 0.5


def enlarged(n_students: int, n_steps: int) -> xr.Dataset:
    """The committed result, with its students and steps repeated."""
    from layerangles import AngleResult

    dataset = AngleResult.load(RESULTS / "angles" / "course-seed0.nc").dataset
    known = [str(name).removesuffix("-seed0") for name in dataset["student"].values]
    names = [f"{known[i % len(known)]}-seed{i // len(known)}" for i in range(n_students)]
    steps = np.linspace(0, 200, n_steps).round().astype(int)
    picked = dataset.isel(
        student=[i % dataset.sizes["student"] for i in range(n_students)],
        step=[i % dataset.sizes["step"] for i in range(n_steps)],
    )
    return picked.assign_coords(student=names, step=steps)


class Page:
    """A browser that sends the page's requests and draws nothing.

    Args:
        client: a test client of the server.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.seconds = 0.0  # in the server, for the last action
        self.values: dict[str, Any] = {"location.search": "", "width.data": 1160, "look.n_intervals": 0}
        dependencies = self._get("/_dash-dependencies")
        self._callbacks = [one for one in dependencies if one["clientside_function"] is None]
        self._get("/_dash-layout")

    def _get(self, path: str) -> Any:
        return json.loads(self._client.get(path).data)

    def act(self, prop: str, value: Any) -> float:
        """Change one property and send all requests that follow; returns the seconds in the server."""
        self.values[prop] = value
        self.seconds, changed, asked = 0.0, {prop}, set()
        while changed:
            due = [
                one
                for one in self._callbacks
                if one["output"] not in asked
                and any(f"{i['id']}.{i['property']}" in changed for i in self._flat(one["inputs"]))
            ]
            moved, changed = changed, set()
            for one in due:
                asked.add(one["output"])  # each callback runs once per action, as in a browser
                changed |= self._ask(one, moved)
        return self.seconds

    def _flat(self, some: list[Any]) -> list[dict[str, str]]:
        return [each for one in some for each in (one if isinstance(one, list) else [one])]

    def _ask(self, callback: dict[str, Any], moved: set[str]) -> set[str]:
        """Send one callback's request; returns the properties that changed."""

        def given(some: list[Any]) -> list[Any]:
            return [
                given(one)
                if isinstance(one, list)
                else {**one, "value": self.values.get(f"{one['id']}.{one['property']}")}
                for one in some
            ]

        names = callback["output"].strip(".").split("...")
        outputs = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
        multi = callback["output"].startswith("..")
        body = {
            "output": callback["output"],
            "outputs": outputs if multi else outputs[0],
            "inputs": given(callback["inputs"]),
            "state": given(callback["state"]),
            "changedPropIds": sorted(moved & {f"{i['id']}.{i['property']}" for i in self._flat(callback["inputs"])}),
        }
        start = time.perf_counter()
        response = self._client.post("/_dash-update-component", json=body)
        self.seconds += time.perf_counter() - start
        if response.status_code == 204:  # nothing to change
            return set()
        assert response.status_code == 200, response.data
        changed = set()
        for identity, properties in json.loads(response.data)["response"].items():
            for name, value in properties.items():
                if self.values.get(f"{identity}.{name}") != value:
                    changed.add(f"{identity}.{name}")
                self.values[f"{identity}.{name}"] = value
        return changed


def main() -> None:
    """Time each kind of action."""
    chosen = arguments(__doc__.partition("\n")[0], students=40, steps=5)
    from kd_train.outcome.opened_study import open_study
    from layerangles import AngleResult
    from layerangles.app.catalogue import Catalogue
    from layerangles.app.measuring import MeasuringPlan
    from layerangles.app.server import create_app

    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        (study / "angles").mkdir(parents=True)
        for name in ("study.resolved.yaml", "metrics.jsonl", "examples.jsonl"):
            shutil.copy(RESULTS / name, study)
        file = AngleResult(enlarged(chosen.students, chosen.steps)).save(study / "angles" / "all.nc")
        start = time.perf_counter()
        app = create_app(Catalogue([open_study(study)]), MeasuringPlan())
        print(f"the study is read in {time.perf_counter() - start:.2f} s ({file.stat().st_size / 1e6:.1f} MB)")
        page = Page(app.server.test_client())
        print(f"the page's first answer takes {page.act('location.search', ''):.3f} s")
        strategies = [o["value"] for o in page.values["first-strategy.options"]]
        turns = iter(range(10_000_000))

        def click() -> dict[str, Any]:
            turn = next(turns)
            return {"points": [{"x": turn % 3, "y": 3 + turn % 4}]}

        actions: dict[str, Callable[[], float]] = {
            "choose a strategy": lambda: page.act("first-strategy.value", strategies[next(turns) % len(strategies)]),
            "slide to a student layer": lambda: page.act("layer.value", next(turns) % 4),
            "slide to a step": lambda: page.act("step.value", next(turns) % chosen.steps),
            "play": lambda: page.act("tick.n_intervals", next(turns)),
            "excess over a null, and back": lambda: page.act("null.value", ("raw", "N1")[next(turns) % 2]),
            "another aggregation": lambda: page.act("aggregation.value", ("mean", "median")[next(turns) % 2]),
            "click on a cell": lambda: page.act("maps.clickData", click()),
            "look whether something changed": lambda: page.act("look.n_intervals", next(turns)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in actions}

        def timed(name: str) -> Callable[[], None]:
            return lambda: seconds[name].append(actions[name]())

        def anew() -> None:
            AngleResult.load(file)
            actions["slide to a student layer"]()

        times = alternate({name: timed(name) for name in actions} | {"read the file, and slide": anew}, chosen.rounds)
        report(times, "read the file, and slide")
        slowest = max(max(of) for of in seconds.values())
        print(f"\n{'in the server':44}{'median s':>9}{'longest s':>10}")
        for name, of in seconds.items():
            print(f"{name:44}{statistics.median(of):9.3f}{max(of):10.3f}")
        print(f"the longest answer takes {slowest:.3f} s; promised are {PROMISE_SECONDS} s")
        gain = ratio(times, "read the file, and slide", "slide to a student layer", 0)
        print(f"keeping the result in memory makes a slide {gain:.1f} times faster")


if __name__ == "__main__":
    main()
