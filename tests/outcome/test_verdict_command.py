"""The commands verdict and plan --pilot on a trained study and on a table of scores."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from toys.command_line import Cli

from kd_train.outcome.judging import judge_all
from kd_train.outcome.opened_study import open_scores
from layerangles.notation import siunitx_uncertainty
from layerangles.report.verdict_wording import reason_for


def test_the_command_and_the_function_agree(trained: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("verdict", trained, "--json", "--latex", "table.tex", "--csv", "table.csv")
    assert done.code == 0, done.err
    (printed,) = json.loads(done.out)["cells"]
    (judged,) = judge_all([open_scores(trained)])
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


def test_the_command_prints_the_reason_and_every_pair(trained: Path, cli: Cli) -> None:
    done = cli("verdict", trained, "--pairs")
    assert done.code == 0, done.err
    (judged,) = judge_all([open_scores(trained)])
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
        score = siunitx_uncertainty(own.mean(), half)
        gain = siunitx_uncertainty(gains.mean(), of_gain, signed=True)
        assert f"{name} & {score} & {gain} & 3" in latex


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
def test_wrong_options_are_refused_with_a_message(trained: Path, cli: Cli, arguments: list[str], message: str) -> None:
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
