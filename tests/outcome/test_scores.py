"""The scores of a trained study are those of its logs, student by student and example by example."""

import math
from pathlib import Path

import numpy as np
import pytest
from toys.models import toy_bert, write_model
from toys.training import toy_study, write_task

from kd_train.outcome.opened_study import open_study
from kd_train.study.score_logs import MetricsLog
from kd_train.training.train_study import train_study
from layerangles.errors import InputError

SEEDS = (0, 1, 2)


def _measured(folder: Path) -> dict[tuple[str, str], float]:
    return {(m.student, m.split): m.value for m in MetricsLog(folder).read() if m.metric == "accuracy"}


def test_scores_are_those_of_the_metrics_file(trained: Path) -> None:
    (cell,) = open_study(trained).cells()
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
    (cell,) = open_study(trained).cells()
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
    (cell,) = open_study(folder).cells()
    assert cell.examples is not None
    assert np.allclose(cell.examples.mean("example").values, cell.scores.values)
    told = [(m.student, m.step, m.split, m.metric) for m in MetricsLog(folder).read()]
    assert len(told) == len(set(told))


def test_scores_on_dev_are_those_of_the_last_step(trained: Path) -> None:
    (cell,) = open_study(trained).cells(split="dev")
    measured = [m for m in MetricsLog(trained).read() if (m.student, m.split) == ("forward-seed1", "dev")]
    assert float(cell.scores.sel(strategy="forward", draw=0, seed=1)) == max(measured, key=lambda m: m.step).value
    assert cell.examples is None  # only what decides is kept example by example


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metric": "f1"}, "has no f1 on the split test; scored are accuracy"),
        ({"split": "tset"}, "has no score on the split tset; there are scores on dev, test"),
    ],
)
def test_unknown_metrics_and_splits_are_refused(trained: Path, asked: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_study(trained).cells(**asked)
