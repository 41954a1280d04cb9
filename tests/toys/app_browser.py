"""A client of the app that sends the requests of a page's elements and keeps the answers."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dash import Dash

from layerangles import AngleResult
from layerangles.app.measuring import MeasuringPlan
from layerangles.app.views import ViewRequest

# How the tests measure on demand.
PLAN = MeasuringPlan(n_texts=8, max_length=32, device="cpu")


@dataclass
class Browser:
    """What a browser knows of the page, and what it sends when an element is moved."""

    app: Dash
    known: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = self.app.server.test_client()
        self.callbacks = [c for c in self.get("/_dash-dependencies").json if not c["clientside_function"]]
        self.known = {("look", "n_intervals"): 0, ("tick", "n_intervals"): 0}
        self._learn(self.get("/_dash-layout").json)
        self.known["width", "data"] = 1160

    def _learn(self, element: Any) -> None:
        if isinstance(element, list):
            for one in element:
                self._learn(one)
        elif isinstance(element, dict) and "props" in element:
            for name, value in element["props"].items():
                self.known[element["props"].get("id"), name] = value
            self._learn(element["props"].get("children"))

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers={"Host": "localhost:8050"} | headers, buffered=True)

    def post(self, body: Any, **headers: str) -> Any:
        return self.client.post("/_dash-update-component", json=body, headers={"Host": "localhost:8050"} | headers)

    def request(self, output: str, moved: str = "") -> dict[str, Any]:
        """The request for what a callback puts into ``output`` after ``moved`` has changed."""
        (callback,) = (c for c in self.callbacks if output in re.split(r"\.\.\.?", c["output"]))

        def listed(which: str) -> list[dict[str, Any]]:
            return [one | {"value": self.known.get((one["id"], one["property"]))} for one in callback[which]]

        several = callback["output"].startswith("..")
        names = callback["output"].strip(".").split("...") if several else [callback["output"]]
        outputs = [dict(zip(("id", "property"), name.rsplit(".", 1), strict=True)) for name in names]
        return {
            "output": callback["output"],
            "outputs": outputs if several else outputs[0],
            "inputs": listed("inputs"),
            "state": listed("state"),
            "changedPropIds": [moved] if moved else [],
        }

    def fire(self, output: str, moved: str = "") -> bool:
        """Ask, and take in what is answered; False where nothing is to change."""
        answer = self.post(self.request(output, moved))
        assert answer.status_code in (200, 204), answer.text
        for element, values in (answer.json["response"] if answer.status_code == 200 else {}).items():
            for name, value in values.items():
                self.known[element, name] = value
        return bool(answer.status_code == 200)

    def open(self, search: str = "") -> "Browser":
        self.known |= {("location", "search"): search, ("query", "data"): None}
        assert self.fire("maps.figure")
        return self

    def move(self, element: str, value: Any, name: str = "value") -> "Browser":
        self.known[element, name] = value
        assert self.fire("maps.figure", f"{element}.{name}")
        return self

    def value(self, element: str, name: str = "value") -> Any:
        return self.known[element, name]

    @property
    def view(self) -> ViewRequest:
        return ViewRequest.from_query(self.value("query", "data"))

    def choices(self, element: str) -> list[Any]:
        return [one["value"] for one in self.value(element, "options")]

    def maps(self) -> list[np.ndarray]:
        """The three heat maps' numbers."""
        traces = self.value("maps", "figure")["data"]
        return [numbers(trace["z"]) for trace in traces if trace["type"] == "heatmap"]

    def said(self, element: str, name: str = "children") -> str:
        """All text in an element."""
        return " ".join(texts_in(self.value(element, name)))


def numbers(values: Any) -> np.ndarray:
    if isinstance(values, dict):
        flat = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
        return flat.reshape([int(n) for n in str(values.get("shape", flat.size)).split(",")])
    return np.array([[np.nan if v is None else v for v in row] for row in values], dtype=np.float64)


def texts_in(element: Any) -> list[str]:
    if isinstance(element, str):
        return [element]
    if isinstance(element, list):
        return [text for one in element for text in texts_in(one)]
    return texts_in(element["props"].get("children")) if isinstance(element, dict) else []


def elements(element: Any) -> Iterator[dict[str, Any]]:
    if isinstance(element, list):
        for one in element:
            yield from elements(one)
    elif isinstance(element, dict) and "props" in element:
        yield element
        yield from elements(element["props"].get("children"))


def expected(result: AngleResult, student: str, name: str = "angle_deg", layer: int = 1, **more: Any) -> np.ndarray:
    """The values that a map should show."""
    data = result.dataset[name].sel(student=student, tower="encoder", student_layer=layer, **more)
    return data.transpose("layer_a", "layer_b").values  # type: ignore[no-any-return]
