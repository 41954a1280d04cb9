"""Trackers beside the metrics file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys.trained_studies import TaughtTask

from kd_train.study.score_logs import MetricsLog
from kd_train.study.study_file import read_study
from kd_train.training.train_study import train_study
from layerangles import InputError


def test_trackers_log_all_measurements(task: TaughtTask, tmp_path: Path) -> None:
    study = task.study(tmp_path / "study", "forward", report_to=["tensorboard"])
    train_study(study, device="cpu")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[tuple[str, int], float] = {}
    for file in (study.folder / "trackers").rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        found |= {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
    expected = {(f"{m.student}/{m.split}/{m.metric}", m.step): m.value for m in MetricsLog(study.folder).read()}
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(value, rel=1e-6) for key, value in expected.items())


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused(
    task: TaughtTask, tmp_path: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Callable[[str], Any] = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == tracker else found(name, *more))
    study = task.study(tmp_path / "study", "forward", report_to=[tracker])
    with pytest.raises(
        InputError, match=f"report_to names {tracker}, which is not installed. Run: pip install {tracker}"
    ):
        train_study(study, device="cpu")
    assert not study.folder.exists()


def test_a_resumed_study_may_report_to_another_tracker(task: TaughtTask, tmp_path: Path) -> None:
    study = task.study(tmp_path / "study", "none", training={"max_steps": 1, "checkpoints": []})
    train_study(study, device="cpu")
    again = study.model_copy(update={"report_to": ("tensorboard",)})
    assert train_study(again, resume=True, device="cpu") == study.folder
    assert read_study(study.folder).report_to == ("tensorboard",)
