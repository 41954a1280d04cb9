"""A trained study of classification, and a copy of it to be changed."""

import shutil
from pathlib import Path

import pytest
from toys.models import toy_bert, write_model
from toys.training import toy_study, write_task

from kd_train.training.train_study import train_study

STRATEGIES = [
    "none",
    "forward",
    "reverse",
    {"kind": "random", "mapping_seed": 0},
    {"kind": "random", "mapping_seed": 1},
    {"kind": "forward", "targets": "other_text"},
]


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five strategies and a control, seeds 0 to 2, the margin 0.2."""
    root = tmp_path_factory.mktemp("results")
    base = write_model(root / "base", toy_bert(layers=4, seed=0))
    study = toy_study(
        root / "run",
        write_task(root / "data"),
        base,
        strategies=STRATEGIES,
        seeds=(0, 1, 2),
        task={"files": write_task(root / "data"), "max_length": 16, "test_from_train": 10},
        verdict={"margin": 0.2},
    )
    return train_study(study, device="cpu")


@pytest.fixture
def moved(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "moved"))
