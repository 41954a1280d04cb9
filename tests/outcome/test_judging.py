"""Verdicts on studies and on tables of scores: margins, teachers, and what is left out."""

import math
import shutil
from pathlib import Path

import pytest

from kd_train.outcome.judging import judge_all
from kd_train.outcome.opened_study import open_scores, open_study
from kd_train.study.score_logs import MetricsLog
from layerangles.equivalence import Margin
from layerangles.errors import InputError

PAPER = Path(__file__).parents[2] / "examples" / "results" / "paper" / "scores.csv"


def _measured(folder: Path) -> dict[tuple[str, str], float]:
    return {(m.student, m.split): m.value for m in MetricsLog(folder).read() if m.metric == "accuracy"}


def test_a_studys_teacher_score_is_that_of_its_logs(trained: Path) -> None:
    assert open_study(trained).teacher_scores() == {"accuracy": _measured(trained)["teacher", "test"]}
    (judged,) = judge_all([open_scores(trained)])
    assert judged.teacher == open_study(trained).teacher_scores()["accuracy"]


def test_the_margin_is_the_studys_unless_another_is_given(trained: Path) -> None:
    (stated,) = judge_all([open_scores(trained)])
    assert stated.verdict.margin == Margin(0.2)
    assert stated.notes == []
    (given,) = judge_all([open_scores(trained)], margin=Margin(0.9))
    assert given.verdict.margin == Margin(0.9)
    assert given.notes == ["the margin 0.9 was given after the study was run; its file states 0.2."]
    assert judge_all([open_scores(trained)], margin=Margin(0.2))[0].notes == []


def test_a_student_that_is_not_finished_is_left_out(trained: Path, moved: Path) -> None:
    (moved / "students" / "reverse-seed1" / "matching.json").unlink()
    (cell,) = open_study(moved).cells()
    assert math.isnan(cell.scores.sel(strategy="reverse", draw=0, seed=1))
    assert cell.seeds == (0, 2)
    (judged,) = judge_all([open_scores(moved)])
    assert judged.notes == ["left out are the seeds 1, at which some strategy has no student."]


def test_results_need_no_weights(trained: Path, moved: Path) -> None:
    shutil.rmtree(moved / "students")
    shutil.rmtree(moved / "teacher")
    (judged,), (expected,) = judge_all([open_scores(moved)]), judge_all([open_scores(trained)])
    assert judged.verdict.pairs.equals(expected.verdict.pairs)


def test_a_table_of_scores_is_judged_and_has_neither_metrics_nor_splits(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    rows = [f"here,{s},{k},{0.5 + 0.1 * k + 0.001 * i},0.9" for i, s in enumerate("abc") for k in range(4)]
    path.write_text("# a comment\ncell,strategy,seed,score,teacher\n" + "\n".join(rows))
    (judged,) = judge_all([open_scores(path)], margin=Margin(0.05))
    assert judged.verdict.outcome == "equivalent"
    assert judged.teacher == 0.9
    with pytest.raises(InputError, match="is a table of scores: --metric and --split choose among a study's"):
        open_scores(path).cells(metric="accuracy")


def test_a_teacher_may_be_unknown_and_a_name_may_hold_any_sign(tmp_path: Path) -> None:
    """The teacher's column follows the same rules for comments and names as the scores."""
    path = tmp_path / "scores.csv"
    teachers = {"C# tasks": "0.9", "None": "–"}
    rows = [f"{cell},{s},{k},0.{5 + k},{t}" for cell, t in teachers.items() for s in "ab" for k in range(3)]
    path.write_text("# a comment\ncell,strategy,seed,score,teacher\n" + "\n".join(rows))
    known = {one.verdict.cell.name: one.teacher for one in judge_all([open_scores(path)], margin=Margin(0.05))}
    assert known["C# tasks"] == 0.9
    assert math.isnan(known["None"])


def test_a_cell_of_one_strategy_keeps_no_other_from_its_verdict(tmp_path: Path) -> None:
    rows = {"alone": ["one,none,0,0.5", "one,a,0,0.6"], "beside": ["two,a,0,0.5", "two,b,0,0.6"]}
    both, alone = tmp_path / "both.csv", tmp_path / "alone.csv"
    both.write_text("\n".join(["cell,strategy,seed,score", *rows["alone"], *rows["beside"]]))
    alone.write_text("\n".join(["cell,strategy,seed,score", *rows["alone"]]))
    assert [one.verdict.cell.name for one in judge_all([open_scores(both)], margin=Margin(1))] == ["two"]
    with pytest.raises(InputError, match=r"the cell one has 1 matched strategies \(a\)"):
        judge_all([open_scores(alone)], margin=Margin(1))


def test_the_papers_ratios_of_spread_and_gain() -> None:
    """The ratios of spread and gain equal those calculated by hand, and a single run decides nothing."""
    judged = judge_all([open_scores(PAPER)], margin=Margin(1))
    ratio = {one.verdict.cell.name: one.verdict.spread_of_gain.value for one in judged}
    expected = {
        "MNLI-m, copied": 0.25, "QNLI, random": 0.22, "QNLI, copied": 0.48, "WMT16 En-Ro, random": 0.15,
        "MNLI-m, random": 0.55, "SST-2, random": 0.81, "SST-2, copied": 0.91, "QQP accuracy, random": 0.95,
        "QQP accuracy, copied": 1.6, "DART, copied": 0.89, "HellaSwag, copied": 4.3,
    }  # fmt: skip
    assert {name: pytest.approx(value, abs=0.051 if value > 1 else 0.0051) for name, value in expected.items()} == {
        name: ratio[name] for name in expected
    }
    assert ratio["DART, random"] == ratio["WMT16 En-Ro, copied"] == math.inf
    assert {one.verdict.outcome for one in judged} == {"undecided"}
    assert all(len(one.verdict.cell.matched) in (3, 4) for one in judged)
    assert len(judged) == 18
