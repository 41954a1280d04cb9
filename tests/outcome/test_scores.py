"""From a trained study, or a file of scores, to cells and verdicts; and the commands plan and verdict on them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from toys.command_line import Cli
from toys.models import toy_bert, write_model
from toys.training import toy_study, write_task

from kd_train.outcome.scores import judge_paths, read_cells, study_cells, teacher_scores
from kd_train.study.score_logs import ExampleScores, ExamplesLog, MetricsLog
from kd_train.training.train_study import train_study
from layerangles.equivalence import Margin
from layerangles.errors import InputError
from layerangles.report.latex import plus_minus
from layerangles.report.verdict_wording import reason_for

SEEDS = (0, 1, 2)
PAPER = Path(__file__).parents[2] / "examples" / "results" / "paper" / "scores.csv"
STRATEGIES = [
    "none",
    "forward",
    "reverse",
    {"kind": "random", "mapping_seed": 0},
    {"kind": "random", "mapping_seed": 1},
    {"kind": "forward", "targets": "other_text"},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    base = write_model(root / "base", toy_bert(layers=4, seed=0))
    study = toy_study(
        root / "run",
        write_task(root / "data"),
        base,
        strategies=STRATEGIES,
        seeds=SEEDS,
        task={"files": write_task(root / "data"), "max_length": 16, "test_from_train": 10},
        verdict={"margin": 0.2},
    )
    return train_study(study, device="cpu")


def _measured(folder: Path) -> dict[tuple[str, str], float]:
    return {(m.student, m.split): m.value for m in MetricsLog(folder).read() if m.metric == "accuracy"}


def test_scores_are_those_of_the_metrics_file(trained: Path) -> None:
    (cell,) = study_cells(trained)
    measured = _measured(trained)
    assert (cell.name, cell.metric, cell.higher_is_better, cell.seeds) == ("toy", "accuracy", True, SEEDS)
    assert dict(cell.roles) == {
        "none": "none", "forward": "matched", "reverse": "matched", "random": "matched",
        "forward-other_text": "control",
    }  # fmt: skip
    for strategy in ("none", "forward", "reverse", "forward-other_text"):
        for seed in SEEDS:
            found = float(cell.scores.sel(strategy=strategy, draw=0, seed=seed))
            assert found == measured[f"{strategy}-seed{seed}", "test"]
    for draw, label in ((0, "random"), (1, "random-draw1")):
        found = cell.scores.sel(strategy="random", draw=draw).values
        assert found.tolist() == [measured[f"{label}-seed{seed}", "test"] for seed in SEEDS]
    assert math.isnan(cell.scores.sel(strategy="forward", draw=1, seed=0))


def test_example_scores_average_to_the_score(trained: Path) -> None:
    (cell,) = study_cells(trained)
    assert cell.examples is not None
    assert cell.examples.sizes["example"] == 20  # 10 of the file's and 10 of the training split's
    there = cell.scores.notnull().values
    assert np.allclose(cell.examples.mean("example").values[there], cell.scores.values[there])
    assert set(np.unique(cell.examples.values[there])) <= {0.0, 1.0}


def test_without_a_test_split_dev_decides_and_is_told_once(tmp_path: Path) -> None:
    files = {split: path for split, path in write_task(tmp_path / "data").items() if split != "test"}
    base = write_model(tmp_path / "base", toy_bert(layers=4, seed=0))
    strategies = ["none", "forward", "reverse"]
    folder = train_study(toy_study(tmp_path / "run", files, base, strategies=strategies), device="cpu")
    (cell,) = study_cells(folder)
    assert cell.examples is not None
    assert np.allclose(cell.examples.mean("example").values, cell.scores.values)
    told = [(m.student, m.step, m.split, m.metric) for m in MetricsLog(folder).read()]
    assert len(told) == len(set(told))


def test_another_split_may_be_asked_for(trained: Path) -> None:
    (cell,) = study_cells(trained, split="dev")
    measured = [m for m in MetricsLog(trained).read() if (m.student, m.split) == ("forward-seed1", "dev")]
    assert float(cell.scores.sel(strategy="forward", draw=0, seed=1)) == max(measured, key=lambda m: m.step).value
    assert cell.examples is None  # only what decides is kept example by example


def test_the_teacher_is_known(trained: Path) -> None:
    assert teacher_scores(trained) == {"accuracy": _measured(trained)["teacher", "test"]}
    (judged,) = judge_paths([trained])
    assert judged.teacher == teacher_scores(trained)["accuracy"]


def test_the_margin_is_the_studys_unless_another_is_given(trained: Path) -> None:
    (stated,) = judge_paths([trained])
    assert stated.verdict.margin == Margin(0.2)
    assert stated.notes == []
    (given,) = judge_paths([trained], margin=Margin(0.9))
    assert given.verdict.margin == Margin(0.9)
    assert given.notes == ["the margin 0.9 was given after the study was run; its file states 0.2."]
    assert judge_paths([trained], margin=Margin(0.2))[0].notes == []


def test_a_student_that_is_not_finished_is_left_out(trained: Path, moved: Path) -> None:
    (moved / "students" / "reverse-seed1" / "matching.json").unlink()
    (cell,) = study_cells(moved)
    assert math.isnan(cell.scores.sel(strategy="reverse", draw=0, seed=1))
    assert cell.seeds == (0, 2)
    (judged,) = judge_paths([moved])
    assert judged.notes == ["left out are the seeds 1, at which some strategy has no student."]


def test_results_need_no_weights(trained: Path, moved: Path) -> None:
    shutil.rmtree(moved / "students")
    shutil.rmtree(moved / "teacher")
    (judged,), (expected,) = judge_paths([moved]), judge_paths([trained])
    assert judged.verdict.pairs.equals(expected.verdict.pairs)


@pytest.fixture
def moved(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "moved"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metric": "f1"}, "has no f1 on the split test; scored are accuracy"),
        ({"split": "tset"}, "has no score on the split tset; there are scores on dev, test"),
    ],
)
def test_what_was_not_scored(trained: Path, asked: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study_cells(trained, **asked)


def test_a_file_of_scores(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    rows = [f"here,{s},{k},{0.5 + 0.1 * k + 0.001 * i},0.9" for i, s in enumerate("abc") for k in range(4)]
    path.write_text("# a comment\ncell,strategy,seed,score,teacher\n" + "\n".join(rows))
    (judged,) = judge_paths([path], margin=Margin(0.05))
    assert judged.verdict.outcome == "equivalent"
    assert judged.teacher == 0.9
    with pytest.raises(InputError, match="is a table of scores: --metric and --split choose among a study's"):
        read_cells(path, metric="accuracy")


def test_a_teacher_may_be_unknown_and_a_name_may_hold_any_sign(tmp_path: Path) -> None:
    """The teacher's column is read as the scores are: what is a comment there is one here."""
    path = tmp_path / "scores.csv"
    teachers = {"C# tasks": "0.9", "None": "–"}
    rows = [f"{cell},{s},{k},0.{5 + k},{t}" for cell, t in teachers.items() for s in "ab" for k in range(3)]
    path.write_text("# a comment\ncell,strategy,seed,score,teacher\n" + "\n".join(rows))
    known = {one.verdict.cell.name: one.teacher for one in judge_paths([path], margin=Margin(0.05))}
    assert known["C# tasks"] == 0.9
    assert math.isnan(known["None"])


def test_a_cell_of_one_strategy_keeps_no_other_from_its_verdict(tmp_path: Path) -> None:
    rows = {"alone": ["one,none,0,0.5", "one,a,0,0.6"], "beside": ["two,a,0,0.5", "two,b,0,0.6"]}
    both, alone = tmp_path / "both.csv", tmp_path / "alone.csv"
    both.write_text("\n".join(["cell,strategy,seed,score", *rows["alone"], *rows["beside"]]))
    alone.write_text("\n".join(["cell,strategy,seed,score", *rows["alone"]]))
    assert [one.verdict.cell.name for one in judge_paths([both], margin=Margin(1))] == ["two"]
    with pytest.raises(InputError, match=r"the cell one has 1 matched strategies \(a\)"):
        judge_paths([alone], margin=Margin(1))


def test_the_papers_table() -> None:
    """Its ratios of spread and gain, as they were calculated from it apart; and that one run decides nothing."""
    judged = judge_paths([PAPER], margin=Margin(1))
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


def test_a_resumed_study_has_every_student_once(tmp_path: Path) -> None:
    log = ExamplesLog(tmp_path)
    log.append([ExampleScores("a", 5, "test", "accuracy", (1.0, 0.0))])
    log.append([ExampleScores("a", 5, "test", "accuracy", (0.0, 0.5)), ExampleScores("b", 5, "test", "f", (0.25,))])
    found = log.read()
    assert found["a", "test", "accuracy"].values == (0.0, 0.5)
    assert found["b", "test", "f"].values == (0.25,)
    assert '"values": [1, 0]' in (tmp_path / "examples.jsonl").read_text()


def test_a_process_that_does_not_write_leaves_no_examples(tmp_path: Path) -> None:
    ExamplesLog(tmp_path, writes=False).append([ExampleScores("a", 5, "test", "accuracy", (1.0,))])
    assert not list(tmp_path.iterdir())


def test_the_command_and_the_function_agree(trained: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("verdict", trained, "--json", "--latex", "table.tex", "--csv", "table.csv")
    assert done.code == 0, done.err
    (printed,) = json.loads(done.out)["cells"]
    (judged,) = judge_paths([trained])
    verdict = judged.verdict
    assert printed["verdict"] == verdict.outcome
    assert printed["reason"] == reason_for(verdict)
    assert [row["difference"] for row in printed["pairs"]] == pytest.approx(verdict.pairs["difference"].tolist())
    assert printed["seeds_used"] == [0, 1, 2]
    table = (tmp_path / "table.csv").read_text().splitlines()
    assert table[0].startswith("cell,metric,seeds,strategies,none,worst,best,spread,")
    assert f",{verdict.outcome}," in table[1]
    latex = (tmp_path / "table.tex").read_text()
    assert r"\toprule" in latex
    assert r"forward-other\_text (control)" in latex
    again = cli("verdict", trained, "--latex", "table.tex")
    assert again.code == 2
    assert "table.tex" in again.err


def test_the_command_prints_a_row_a_cell(trained: Path, cli: Cli) -> None:
    done = cli("verdict", trained, "--pairs")
    assert done.code == 0, done.err
    (judged,) = judge_paths([trained])
    assert reason_for(judged.verdict) in done.out
    assert (
        len([line for line in done.out.splitlines() if line.strip().startswith("forward") and "reverse" in line]) == 1
    )


def test_the_latex_rows_hold_each_mean_with_its_own_interval(tmp_path: Path, cli: Cli) -> None:
    scores = {"none": (0.5, 0.6, 0.7), "a": (0.61, 0.72, 0.80), "b": (0.62, 0.70, 0.83)}
    rows = [f"here,{name},{seed},{value}" for name, values in scores.items() for seed, value in enumerate(values)]
    (tmp_path / "scores.csv").write_text("\n".join(["cell,strategy,seed,score", *rows]))
    assert cli("verdict", "scores.csv", "--margin", 0.1, "--latex", "table.tex").code == 0
    latex = (tmp_path / "table.tex").read_text()
    t = 4.302652729911275  # of 2 degrees of freedom
    for name in ("a", "b"):
        own, gains = np.array(scores[name]), np.array(scores[name]) - np.array(scores["none"])
        half, of_gain = (t * values.std(ddof=1) / math.sqrt(3) for values in (own, gains))
        assert f"{name} & {plus_minus(own.mean(), half)} & {plus_minus(gains.mean(), of_gain, sign=True)} & 3" in latex


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margin", "0.1", "--margin-of-gain", "0.1"], "give either --margin or --margin-of-gain"),
        (["--margin", "-1"], "the margin is -1.0; allowed are finite numbers above 0"),
        (["--alpha", "1.5"], "alpha is 1.5; allowed are numbers between 0 and 0.5"),
        (["--power", "0"], "power is 0.0; allowed are numbers between 0 and 1"),
        (["nowhere.csv"], "nowhere.csv does not exist"),
        (["--split", "nope"], "has no score on the split nope"),
    ],
)
def test_mistakes_are_told(trained: Path, cli: Cli, arguments: list[str], message: str) -> None:
    done = cli("verdict", trained, *arguments)
    assert done.code == 2
    assert message in done.err


def test_the_plan_shows_the_design_and_counts_seeds(trained: Path, cli: Cli) -> None:
    done = cli("plan", trained, "--pilot", trained, "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    (cell,) = content["design"]["cells"]
    assert cell["strategies"] == {"forward": 1, "reverse": 1, "random": 2}
    assert content["design"]["margin"] == {"size": 0.2, "of_gain": False}
    (need,) = content["needs"]
    assert (need["its seeds"], need["strategies"]) == (3, 3)
    shown = cli("plan", trained, "--pilot", trained)
    assert "forward, reverse, random (2 draws)" in shown.out
    assert "Seeds needed for a probability of 0.8" in shown.out
    refused = cli("plan", trained, "--set", "verdict.margin=null", "--pilot", trained)
    assert refused.code == 2
    assert "the study states no margin" in refused.err
