"""docs/results.md has the numbers of the committed study, to the digit."""

from pathlib import Path

import pytest

from kd_train.outcome.judging import Judged, judge_all
from kd_train.outcome.opened_study import open_study
from kd_train.outcome.study_geometry import predict_from
from layerangles import AngleResult
from layerangles.equivalence.intervals import Estimate
from layerangles.report.prediction_wording import sentences_on
from layerangles.report.verdict_wording import reason_for

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "results" / "movie-reviews"
PAGE = ROOT / "docs" / "results.md"


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    return judge_all([open_study(STUDY)])


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _points(estimate: Estimate) -> str:
    """In points: hundredths of accuracy."""
    return _minus(f"{100 * estimate.value:.2f} [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]")


def _ratio(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]".replace("inf", "∞")


def verdict_rows(judged: list[Judged]) -> list[str]:
    return [
        f"| {one.verdict.cell.name} | {one.verdict.n_seeds} | {_points(one.verdict.spread)} | "
        f"{_points(one.verdict.gain)} | {_ratio(one.verdict.spread_of_gain)} | **{one.verdict.outcome}** | "
        f"{one.verdict.outcome_for_new_examples} | {one.verdict.inside:.3f} |"
        for one in judged
    ]


def strategy_rows(one: Judged) -> list[str]:
    rows = []
    for name, row in one.verdict.strategies.iterrows():
        gain = Estimate(row["gain"], row["gain_low"], row["gain_high"])
        over_none = "–" if row["role"] == "none" else _points(gain)
        own = _points(Estimate(row["score"], row["low"], row["high"]))
        rows.append(f"| {name} | {row['role']} | {own} | {over_none} |")
    return rows


def component_rows(judged: list[Judged]) -> list[str]:
    tables = [one.verdict.components for one in judged]
    return [
        f"| {source} | " + " | ".join(f"{100 * table.loc[source, 'sd']:.2f}" for table in tables) + " |"
        for source in tables[0].index
    ]


def geometry_rows(result: AngleResult) -> list[str]:
    """One row per student, at its last step: angle, N1, excess with its interval, ρ."""
    rows = []
    data = result.at_step().dataset.sel(tower="encoder", null="N1")
    for student in result.students:
        of = data.sel(student=student)
        angle, excess = float(of["student_angle_deg"]), float(of["student_excess_deg"])
        ends = (float(of["student_excess_low"]), float(of["student_excess_high"]))
        rows.append(
            f"| {student} | {angle:.1f} | {angle - excess:.1f} | {excess:+.1f} [{ends[0]:+.1f}, {ends[1]:+.1f}] | "
            f"{float(of['student_common_mode_ratio']):.2f} |"
        )
    return rows


def test_the_page_has_the_verdicts(judged: list[Judged]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for row in verdict_rows(judged):
        assert row in page
    for one in judged:
        assert reason_for(one.verdict) in page.replace("\n", " ")
        assert f"{100 * one.teacher:.1f} %" in page


def test_the_page_has_scores_and_gains(judged: list[Judged]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for one in judged:
        for row in strategy_rows(one):
            assert row in page


def test_the_page_has_the_components(judged: list[Judged]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for row in component_rows(judged):
        assert row in page


def test_the_page_has_the_geometry_and_its_prediction(judged: list[Judged]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    course = AngleResult.load(STUDY / "angles" / "course-seed0.nc")
    rows = geometry_rows(course)
    assert len(rows) == 18
    assert [row for row in rows if row not in page] == []
    prediction = predict_from(judged)
    assert prediction is not None
    for sentence in sentences_on(prediction):
        assert sentence in page.replace("\n", " ")


def test_the_design_is_that_of_the_study_file() -> None:
    from kd_train.study.study_file import read_study

    asked = read_study(STUDY / "study.yaml").model_dump(mode="json", exclude={"output"})
    ran = read_study(STUDY).model_dump(mode="json", exclude={"output"})
    assert ran == asked
