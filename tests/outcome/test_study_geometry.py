"""Geometry beside scores, student by student; and the command that puts a study on one page."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from toys.command_line import Cli
from toys.models import toy_bert, write_model
from toys.training import toy_study, write_task

from kd_train.outcome import study_geometry as predictors
from kd_train.outcome.judging import judge_all
from kd_train.outcome.opened_study import OpenedStudy, open_study
from kd_train.outcome.study_geometry import predict_from
from kd_train.study.score_logs import Measurement, MetricsLog
from kd_train.study.study_file import write_resolved
from kd_train.training.train_study import train_study
from layerangles import AngleResult, measure_angles
from layerangles.equivalence import Margin
from layerangles.equivalence.gap_prediction import PREDICTORS, student_geometry
from layerangles.report.verdict_wording import reason_for

STRATEGIES = [
    "none",
    "forward",
    {"kind": "random", "mapping_seed": 0},
    {"kind": "random", "mapping_seed": 1},
    {"kind": "forward", "targets": "other_text"},
    {"kind": "none", "name": "none-scratch", "student": {"init": "random"}},
    {"kind": "forward", "name": "forward-scratch", "student": {"init": "random"}},
    {"kind": "reverse", "name": "reverse-scratch", "student": {"init": "random"}},
]
TEXTS = ["one small text", "another text of some words", "a third one", "and the last of all the texts"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predictors")
    base = write_model(root / "base", toy_bert(layers=4, seed=0))
    study = toy_study(root / "run", write_task(root / "data"), base, strategies=STRATEGIES, seeds=(0, 1))
    return train_study(study, device="cpu")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "study"))


def _measured(folder: Path) -> list[Path]:
    students = sorted((folder / "students").iterdir())
    (folder / "angles").mkdir()
    halves = (students[::2], students[1::2])
    return [
        measure_angles(half, TEXTS, alternatives="sums", steps=True).save(folder / "angles" / f"{i}.nc")
        for i, half in enumerate(halves)
    ]


def test_geometry_is_averaged_as_the_scores_are(folder: Path) -> None:
    _measured(folder)
    study = open_study(folder)
    judged = judge_all([study], margin=Margin(0.1))
    found = predict_from(judged)
    assert found is not None
    of = {name: row for r in study.angles() for name, row in student_geometry(r).iterrows()}
    assert list(found.cells.index) == ["toy (init copied)", "toy (init random)"]
    for one, suffix in zip(judged, ("", "-scratch"), strict=True):
        row = found.cells.loc[one.verdict.cell.name]
        assert row["gap"] == pytest.approx(one.verdict.spread.value)
        for predictor in ("excess_deg", "common_mode_ratio"):
            expected = np.mean([of[f"none{suffix}-seed{seed}"][predictor] for seed in (0, 1)])
            assert row[predictor] == pytest.approx(expected)
    drawn = [of[f"{label}-seed{seed}"]["excess_deg"] for label in ("random", "random-draw1") for seed in (0, 1)]
    assert found.strategies.loc[("toy (init copied)", "random"), "excess_deg"] == pytest.approx(np.mean(drawn))
    assert ("toy (init copied)", "forward-other_text") not in found.strategies.index
    scores = judged[0].verdict.strategies["score"]
    assert found.strategies.loc[("toy (init copied)", "random"), "score"] == pytest.approx(scores["random"])


def test_every_cell_has_its_own_example_scores(folder: Path) -> None:
    """Students of one strategy and seed in two cells are kept apart."""
    cells = open_study(folder).cells()
    assert len(cells) == 2
    for cell in cells:
        assert cell.examples is not None
        there = cell.scores.notnull().values
        assert np.allclose(cell.examples.mean("example").values[there], cell.scores.values[there])


def test_where_less_is_better_the_verdict_and_the_ranks_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = {"kind": "language_modelling", "files": {"train": "a.txt", "dev": "b.txt"}, "text": "text"}
    study = toy_study(tmp_path, {}, Path("base"), strategies=["none", "forward", "reverse"], seeds=(0, 1), task=task)
    write_resolved(study, tmp_path)
    perplexity = {"none": 30.0, "forward": 10.0, "reverse": 20.0}
    MetricsLog(tmp_path).append(
        Measurement(f"{name}-seed{seed}", 8, "dev", "perplexity", value + seed)
        for name, value in perplexity.items()
        for seed in (0, 1)
    )
    (judged,) = judge_all([open_study(tmp_path)], margin=Margin(1))
    assert not judged.verdict.cell.higher_is_better
    assert judged.verdict.gain.value == pytest.approx(15)
    assert reason_for(judged.verdict).startswith("forward is better than reverse by 10")
    geometry = pd.DataFrame(
        {name: [float(i) for i in range(6)] for name in PREDICTORS},
        index=pd.Index([f"{name}-seed{seed}" for name in perplexity for seed in (0, 1)], name="student"),
    )
    monkeypatch.setattr(predictors, "student_geometry", lambda _result: geometry)
    monkeypatch.setattr(OpenedStudy, "angles", lambda _study: [AngleResult(xr.Dataset())])
    found = predict_from([judged])
    assert found is not None
    assert found.strategies["score_rank"].to_dict() == {("toy", "forward"): 1, ("toy", "reverse"): 2}


def test_without_angles_no_gap_is_predicted(folder: Path) -> None:
    assert predict_from(judge_all([open_study(folder)])) is None


def test_the_report_measures_what_is_missing(folder: Path, cli: Cli) -> None:
    done = cli("report", folder, "--margin", 0.1, "--texts", 5, "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert content["verdicts"].keys() == {"toy (init copied)", "toy (init random)"}
    assert content["wrote"] == [str(folder / "angles" / "angles.nc"), str(folder / "report.html")]
    (angles,) = open_study(folder).angles()
    assert sorted(angles.students) == sorted(p.name for p in (folder / "students").iterdir() if "seed0" in p.name)
    assert angles.nulls == ["N0", "N1", "N5"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    for part in ("Does the choice of layers matter?", "toy (init random)", "SHA-256", "forward, random (2 draws)",
                 "the margin 0.1 was given after the study was run; its file states none."):  # fmt: skip
        assert part in page
    assert json.loads((folder / "environment.json").read_text())["torch"] in page
    assert cli("report", folder).code == 2  # the page is there
    assert cli("report", folder, "--overwrite").code == 0


def test_the_report_does_without_weights(folder: Path, cli: Cli) -> None:
    shutil.rmtree(folder / "students")
    done = cli("report", folder, "--output", "page.html")
    assert done.code == 0, done.err
    assert "Does the choice of layers matter?" in Path("page.html").read_text(encoding="utf-8")


def test_the_report_refuses_other_directories(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("report", "empty")
    assert done.code == 2
    assert "empty is no study's directory: it holds no study.resolved.yaml" in done.err
