"""Sources and students with given contents."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from layerangles import AngleResult, measure_angles
from layerangles.app.catalogue import Catalogue, Snapshot
from layerangles.app.sources import SCORE_COLUMNS, Student, no_scores, no_texts
from layerangles.models.texts import Text


@dataclass
class Stub:
    """A source of which everything can be set; it counts how often it is read."""

    name: str = "stub"
    found: Sequence[Student] = ()
    table: pd.DataFrame = field(default_factory=no_scores)
    given: Sequence[Text] = ()
    now: Hashable = 0
    n_read: int = 0

    def version(self) -> Hashable:
        return self.now

    def students(self) -> Sequence[Student]:
        self.n_read += 1
        return self.found

    def scores(self) -> pd.DataFrame:
        return self.table

    def texts(self) -> Sequence[Text]:
        return self.given or no_texts()


def named(*names: str) -> list[Student]:
    """Students of whom only the names are known."""
    return [Student(name, None) for name in names]


def renamed(result: AngleResult, *names: str) -> AngleResult:
    """The first students of a result, under other names."""
    return AngleResult(result.dataset.isel(student=slice(len(names))).assign_coords(student=list(names)))


def slim(result: AngleResult) -> AngleResult:
    """The part of a result that says what was measured: it is written and read in a tenth of the time."""
    names = ["angle_deg", "n_tokens", "n_degenerate", "matched", "weights_sha256"]
    return AngleResult(result.dataset[names].drop_dims(["bin", "null", "moment"], errors="ignore"))


def scored(scores: dict[str, float], **others: Any) -> pd.DataFrame:
    """A table of scores as a study gives it."""
    common = {"strategy": "what its cell calls it", "seed": 0, "split": "test", "metric": "accuracy"}
    rows = [
        {"student": name, "score": score, "ci_low": 0.0, "ci_high": 1.0, "higher_is_better": True} | common | others
        for name, score in scores.items()
    ]
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def snapshot_of(*students: Student) -> Snapshot:
    """The catalogue of a single source with these students."""
    return Catalogue([Stub(found=students)]).read()


def student(name: str, *results: AngleResult, directory: Path | None = None) -> Student:
    """A student of whom these results are stored."""
    return Student(name, directory, lambda: results)


def two_towers(result: AngleResult) -> AngleResult:
    """The result, and a decoder whose angles are all a degree larger."""
    encoder = result.dataset
    decoder = encoder.assign_coords(tower=["decoder"])
    decoder = decoder.assign(angle_deg=decoder["angle_deg"] + 1)
    both = xr.concat(
        [encoder, decoder], "tower", data_vars="minimal", coords="minimal", compat="override", join="outer"
    )
    return AngleResult(both.assign_attrs(encoder.attrs))


def kept(student: Path, texts: list[str]) -> AngleResult:
    """A student measured, with its result kept in its directory."""
    result = slim(measure_angles(student, texts[:4], device="cpu"))
    result.save(student / "angles.nc")
    return result
