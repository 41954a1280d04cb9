"""Opened studies: the committed one, young ones, and directories that are refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import kd_train
from kd_train.outcome.scores import SCORE_COLUMNS
from layerangles.errors import InputError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "examples" / "results" / "movie-reviews"
MOST_BYTES = 200_000


@pytest.fixture
def young(tmp_path: Path) -> Path:
    """A study that has just begun, with nothing but its study file."""
    folder = tmp_path / "study"
    folder.mkdir()
    shutil.copy(RESULTS / "study.resolved.yaml", folder)
    return folder


@pytest.fixture
def growing(young: Path) -> Path:
    """A study with two finished students, a third in training, and log lines that are being written."""
    metrics = (RESULTS / "metrics.jsonl").read_text().splitlines(keepends=True)
    mine = [line for line in metrics if json.loads(line)["student"] in ("teacher", "none-seed0", "forward-seed0")]
    (young / "metrics.jsonl").write_text("".join(mine) + '{"student": "reverse-se')
    examples = (RESULTS / "examples.jsonl").read_text().splitlines(keepends=True)
    mine = [line for line in examples if json.loads(line)["student"] == "none-seed0"]
    (young / "examples.jsonl").write_text("".join(mine) + '{"student": "forw')
    for name in ("none-seed0", "forward-seed0", "reverse-seed0"):
        (young / "students" / name).mkdir(parents=True)
        if name != "reverse-seed0":
            (young / "students" / name / "matching.json").write_text("{}")
    return young


def test_the_package_names_it_and_imports_nothing_heavy_before() -> None:
    code = "import kd_train, sys; dir(kd_train); print('torch' in sys.modules, 'pandas' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split() == ["False", "False"]
    assert kd_train.open_study is kd_train.outcome.opened_study.open_study  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        kd_train.no_such_thing  # noqa: B018


def test_scores_are_those_of_the_files() -> None:
    folder = kd_train.open_study(RESULTS)
    scores = folder.scores()
    assert tuple(scores.columns) == SCORE_COLUMNS
    assert len(scores) == 90
    assert set(scores["split"]) == {"test"}
    assert set(scores["metric"]) == {"accuracy"}
    row = scores.set_index("student").loc["random-draw5-scratch-seed2"]
    assert (row["label"], row["strategy"], row["draw"], row["seed"]) == ("random-draw5-scratch", "random", 5, 2)
    assert (row["cell"], row["role"]) == ("movie-reviews-verdict (init random)", "matched")
    lines = map(json.loads, (RESULTS / "metrics.jsonl").read_text().splitlines())
    (logged,) = (
        line["value"]
        for line in lines
        if line["student"] == row.name and (line["split"], line["step"]) == ("test", 200)
    )
    assert row["score"] == logged


def test_intervals_are_students_t_over_examples() -> None:
    scores = kd_train.open_study(RESULTS).scores().set_index("student")
    lines = map(json.loads, (RESULTS / "examples.jsonl").read_text().splitlines())
    values = next(line["values"] for line in lines if line["student"] == "last-seed1")
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert scores.loc["last-seed1", ["ci_low", "ci_high"]].tolist() == pytest.approx([low, high], rel=1e-9)


def test_scores_without_example_scores_have_no_interval() -> None:
    scores = kd_train.open_study(RESULTS).scores(split="dev")
    assert set(scores["split"]) == {"dev"}
    assert scores[["ci_low", "ci_high"]].isna().all(axis=None)


def test_cells_are_made_of_the_same_rows() -> None:
    folder = kd_train.open_study(RESULTS)
    scores = folder.scores()
    for cell in folder.cells():
        mine = scores[scores["cell"] == cell.name]
        assert int(cell.scores.notnull().sum()) == len(mine)
        for row in mine.itertuples():
            assert float(cell.scores.sel(strategy=row.strategy, draw=row.draw, seed=row.seed)) == row.score


def test_the_committed_study_has_angles_and_is_undecided() -> None:
    folder = kd_train.open_study(RESULTS)
    assert folder.name == "movie-reviews-verdict"
    assert folder.directories() == []  # the weights are not kept
    assert [verdict.outcome for verdict in folder.verdicts()] == ["undecided", "undecided"]
    assert {verdict.outcome for verdict in folder.verdicts(margin=0.5)} == {"equivalent"}
    assert [len(result.students) for result in folder.angles()] == [18, 18, 18]


def test_texts_are_those_of_the_dev_split() -> None:
    folder = kd_train.open_study(RESULTS)
    assert folder.texts(3) == folder.study.task.load().texts("dev")[:3]
    assert len(folder.texts(3)) == 3


def test_in_a_notebook_the_best_strategy_comes_first_and_the_verdict_is_said() -> None:
    folder = kd_train.open_study(RESULTS)
    text = folder._repr_html_()
    assert len(text.encode()) < MOST_BYTES
    assert "<script" not in text
    names = re.findall(r"<tr>\s*<td>([^<]*)</td>", text)
    means = folder.scores().groupby(["cell", "strategy"])["score"].mean()
    copied = means["movie-reviews-verdict (init copied)"].sort_values(ascending=False)
    assert names[: len(copied)] == copied.index.tolist()
    assert "undecided. 13 of 15 pairs are within 0.01" in text
    assert text.startswith("<p>Study movie-reviews-verdict; classification, ")


def test_a_study_that_has_just_begun_has_no_scores(young: Path) -> None:
    folder = kd_train.open_study(young)
    assert (folder.directories(), folder.students(), folder.angles()) == ([], [], [])
    with pytest.raises(InputError, match="has no score on the split dev"):
        folder.scores()
    assert "has no score on the split dev" in folder._repr_html_()


def test_a_study_that_is_being_written_has_the_scores_of_finished_students(growing: Path) -> None:
    folder = kd_train.open_study(growing)
    assert [path.name for path in folder.directories()] == ["forward-seed0", "none-seed0"]
    scores = folder.scores()
    assert scores["student"].tolist() == ["none-seed0", "forward-seed0"]
    assert scores["ci_low"].notna().tolist() == [True, False]
    text = folder._repr_html_()
    assert "of 2 students" in text
    assert "can be compared from two on" in text


def test_a_cell_that_is_missing_a_seed_is_judged_on_the_others(young: Path) -> None:
    lines = (RESULTS / "metrics.jsonl").read_text().splitlines(keepends=True)
    (young / "metrics.jsonl").write_text("".join(line for line in lines if '"last-seed4"' not in line))
    copied, _ = kd_train.open_study(young).verdicts()
    assert copied.n_seeds == 4


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_other_paths_are_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    if what == "file":
        path.write_text("x")
    with pytest.raises(InputError, match=r"is no study's directory: it holds no study.resolved.yaml. Give what"):
        kd_train.open_study(path)
