"""A small study for the commands: trained, and as a file."""

import shutil
from pathlib import Path

import pytest
import yaml
from toys.models import toy_bert, write_model
from toys.training import toy_study, write_task


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from kd_train.training.train_study import train_study

    root = tmp_path_factory.mktemp("cli")
    base = write_model(root / "base", toy_bert(layers=4, seed=0))
    return train_study(toy_study(root / "run", write_task(root / "data"), base), device="cpu")


@pytest.fixture
def trained(_trained_once: Path, tmp_path: Path) -> Path:
    """The directory of a trained study, the test's own: a teacher and two students with checkpoints."""
    return Path(shutil.copytree(_trained_once, tmp_path / "run"))


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A study file of the same study, to be changed by the test."""
    base = write_model(tmp_path / "base", toy_bert(layers=4, seed=0))
    study = toy_study(tmp_path / "run", write_task(tmp_path / "data"), base)
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study.model_dump(mode="json")), encoding="utf-8")
    return file
