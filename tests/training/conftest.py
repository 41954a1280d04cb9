"""Studies that several files of tests share."""

import pytest
from toys.models import write_model
from toys.trained_studies import TaughtTask, TrainedStudy
from toys.training import toy_teacher, write_task

from kd_train.study.study_file import Study
from kd_train.training.train_study import train_study


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    root = tmp_path_factory.mktemp("trained")
    base = write_model(root / "base", toy_teacher())
    made = TrainedStudy(root, base, write_task(root / "task"), root / "study")
    train_study(made.study(made.folder), device="cpu")
    return made


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> TaughtTask:
    root = tmp_path_factory.mktemp("taught")
    return TaughtTask(root, write_model(root / "teacher", toy_teacher()), write_task(root / "task"))


@pytest.fixture(scope="session")
def calm(task: TaughtTask, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study in which no student diverges."""
    study = task.study(tmp_path_factory.mktemp("calm") / "study", "none", "forward")
    train_study(study, device="cpu")
    return study
