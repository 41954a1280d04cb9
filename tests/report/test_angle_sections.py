"""Measured angles in a report: the table of students, the choice of null and of students, the size of the page."""

from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from toys.reports import measured, students_of, written
from toys.results import make_result, with_steps
from toys.verdicts import make_verdict

from layerangles.report.study_report import StudyReport, write_report
from layerangles.results.angle_result import AngleResult


def test_angles_are_listed_for_every_student(tmp_path: Path) -> None:
    result = measured(["a", "b"], nulls=("N5", "N1"))
    text = written(tmp_path, make_verdict(), angles=[result])
    for student in "ab":
        of = result.dataset.sel(student=student, tower="encoder")
        angle, ratio = float(of["student_angle_deg"]), float(of["student_common_mode_ratio"])
        row = f"{student} {angle:.2f} [{angle - 1:.2f}, {angle + 1:.2f}] −4.00 [−4.50, −3.50] {ratio:.2f} ["
        assert row in text
    assert "student mean angle ° excess over N1 ° common-mode ratio ρ" in text
    assert "N1 is the same angle seen from the student's state at another token" in text
    assert "Over training" not in text


def test_the_table_of_angles_is_of_the_last_step_and_signed(tmp_path: Path) -> None:
    dataset = measured(["a", "b"], steps=(0, 1500)).dataset
    for end in ("deg", "low", "high"):
        dataset[f"student_excess_{end}"] = dataset[f"student_excess_{end}"] + xr.where(dataset["step"] > 0, 9, 0)
    text = written(tmp_path, make_verdict(), angles=[AngleResult(dataset)])
    assert "Every student at step 1,500" in text
    assert text.count("+7.00 [+6.50, +7.50]") == 2


def test_another_null_no_null_and_no_means(tmp_path: Path) -> None:
    assert "Excess over N5" in written(tmp_path, make_verdict(), angles=[measured(["a", "b"], nulls=("N5",))])
    assert "xcess over" not in written(tmp_path, make_verdict(), angles=[measured(["a"], nulls=())])
    bare = with_steps(make_result(("a", "b")), [0, 10])  # as in gradient space
    text = written(tmp_path, make_verdict(), angles=[bare])
    assert "Every student" not in text
    assert "Over training" not in text
    towers = written(tmp_path, make_verdict(), angles=[measured(["a"], towers=("encoder", "decoder"))])
    assert "Angles between teacher layers, encoder" in towers
    assert "Angles between teacher layers, decoder" in towers


@pytest.mark.parametrize(
    ("names", "drawn", "said"),
    [
        (students_of(4), 12, ""),
        (students_of(6)[3:], 3, "Of 15 students, 3 are drawn: those of seed 1."),
        ([f"run-{i}" for i in range(14)], 12, "Of 14 students, 12 are drawn: the first."),
        ([f"run-{i}-seed7" for i in range(14)], 12, "Of 14 students, 12 are drawn: those of seed 7."),
    ],
)
def test_of_many_students_those_of_one_seed_are_drawn(
    tmp_path: Path, names: list[str], drawn: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    of_null: list[str | None] = []
    from layerangles import figures

    draw = figures.comparison

    def watched(result: AngleResult, **kwargs: Any) -> Any:
        seen.append(result.students)
        of_null.append(kwargs["null"])
        return draw(result, **kwargs)

    monkeypatch.setattr(figures, "comparison", watched)
    text = written(tmp_path, make_verdict(), angles=[measured(names)])
    assert [len(students) for students in seen] == [drawn, drawn]
    assert of_null == [None, "N1"]  # angles, and excess
    assert set(seen[0]) <= set(names)
    assert "are drawn" in text if said else "are drawn" not in text
    assert said in text
    assert all(f" {name} " in text for name in names)  # in the table, which has them all


@pytest.mark.parametrize(("n_results", "shortened"), [(1, False), (4, True)])
def test_large_measurements_stay_below_12_megabytes(tmp_path: Path, n_results: int, shortened: bool) -> None:
    result = measured(students_of(6), nulls=("N0", "N1", "N2", "N5"), steps=(0, 500, 1000), n_teacher=13)
    several = measured([f"s{i}" for i in range(12)], nulls=("N0", "N1"), n_teacher=13)
    angles = [result, *[several] * (n_results - 1)]
    path = write_report(tmp_path / "r.html", StudyReport("t", [make_verdict()], {}, angles))
    assert path.stat().st_size < 12_000_000
    html = path.read_text(encoding="utf-8")
    assert ("teacher layers %{y} and %{x}" in html) is shortened
    assert ("1,234 tokens" in html) is not shortened
