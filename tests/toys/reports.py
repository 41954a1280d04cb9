"""Study reports with made-up numbers, and the texts of written pages."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from layerangles.equivalence.gap_prediction import predict_gaps
from layerangles.equivalence.verdict import Margin, Verdict
from layerangles.report.study_report import StudyReport, write_report
from layerangles.results.angle_result import AngleResult
from toys.predictions import cells_of
from toys.results import make_result, with_steps
from toys.verdicts import make_verdict

STRATEGIES = ("forward", "reverse", "random")


def measured(
    students: Sequence[str],
    *,
    nulls: Sequence[str] = ("N1",),
    steps: Sequence[int] = (),
    n_teacher: int = 4,
    towers: Sequence[str] = ("encoder",),
) -> AngleResult:
    """A result with means over students, excess over nulls, and steps."""
    dataset = make_result(students, n_teacher, towers=towers).dataset
    whole = dataset["layer_angle_deg"].mean("student_layer")
    for name, shift in (("angle_deg", 0), ("ci_low", -1), ("ci_high", 1)):
        dataset[f"student_{name}"] = whole + shift
    dataset["student_common_mode_ratio"] = whole / 10
    dataset["student_common_mode_low"], dataset["student_common_mode_high"] = whole / 11, whole / 9
    dataset["weights_sha256"] = ("student", [f"hash of {name}" for name in students])
    if nulls:
        shifts = xr.DataArray(np.arange(1.0, len(nulls) + 1), {"null": list(nulls)}, ("null",))
        for before, angle in (("", dataset["angle_deg"]), ("student_", whole)):
            dataset[f"{before}excess_deg"] = (0 * angle - 2 * shifts).transpose(*angle.dims, "null")
            dataset[f"{before}null_angle_deg"] = (angle + 2 * shifts).transpose(*angle.dims, "null")
            for end, shift in (("low", -0.5), ("high", 0.5)):
                dataset[f"{before}excess_{end}"] = dataset[f"{before}excess_deg"] + shift
    if not steps:
        return AngleResult(dataset)
    result = with_steps(AngleResult(dataset), list(steps))
    hashes = [[f"{name} {step}" for step in steps] for name in students]
    return AngleResult(result.dataset.assign(weights_sha256=(("student", "step"), hashes)))


def students_of(n_seeds: int) -> list[str]:
    return [f"{strategy}-seed{seed}" for seed in range(n_seeds) for strategy in STRATEGIES]


def some_verdicts() -> list[Verdict]:
    return [
        make_verdict(outcome="equivalent", cell="sst2, copied", has_examples=True),
        make_verdict(outcome="different", cell="sst2, random", margin=Margin(0.25, of_gain=True)),
        make_verdict(n_seeds=1, cell="qnli <i>", margin=None, has_none=False, unit=0.01),
    ]


def full_report() -> StudyReport:
    return StudyReport(
        title="Layer selection <on> reviews",
        verdicts=some_verdicts(),
        teacher={"sst2, copied": 93.125, "sst2, random": 93.125},
        angles=[measured(students_of(2), steps=(0, 100)), measured(["forward"])],
        prediction=predict_gaps(cells_of([1, 2, 4], excess_deg=[3, 2, 1])),
        design={"teacher": "BERT & co", "seeds": "0 to 4"},
        provenance={"weights": "0123456789abcdef" * 4, "command": "layerangles verdict runs"},
    )


def text_of(page: str) -> str:
    """The visible text of a page, without scripts, styles and tags."""
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    plain = re.sub(r"<[^>]*>", " ", without).replace("\N{NO-BREAK SPACE}", " ")
    for entity, sign in (("&lt;", "<"), ("&gt;", ">"), ("&#x27;", "'"), ("&amp;", "&")):
        plain = plain.replace(entity, sign)
    return re.sub(r"\s+", " ", plain)


def written(tmp_path: Path, *verdicts: Verdict, **kwargs: Any) -> str:
    given = {"title": "t", "verdicts": verdicts, "teacher": {}} | kwargs
    return text_of(write_report(tmp_path / "r.html", StudyReport(**given), overwrite=True).read_text(encoding="utf-8"))


def loads_something(page: str) -> list[str]:
    """The elements of a page that would load a resource, plotly's own code aside."""
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    return re.findall(r"""(?:src|href|action|data)\s*=\s*["']?(?!#)[^"'> ]+|url\(|@import""", markup)
