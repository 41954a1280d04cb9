"""The metrics file: appended to, cut off by a kill, and gone on with."""

from pathlib import Path

import pytest

from kd_train.metrics import METRICS_FILE, Measurement, MetricsLog


def _dev(student: str, step: int, value: float, metric: str = "accuracy", split: str = "dev") -> Measurement:
    return Measurement(student, step, split, metric, value)


@pytest.fixture
def log(tmp_path: Path) -> MetricsLog:
    return MetricsLog(tmp_path)


def test_a_log_that_was_never_written_is_empty(log: MetricsLog) -> None:
    assert log.read() == []
    assert log.best("a", "accuracy") is None


def test_what_is_appended_is_read(log: MetricsLog, tmp_path: Path) -> None:
    lines = [_dev("a", 1, 0.5), _dev("b", 1, 1 / 3)]
    log.append(lines)
    log.append([_dev("a", 2, 0.25)])
    assert MetricsLog(tmp_path).read() == [*lines, _dev("a", 2, 0.25)]
    first = (tmp_path / METRICS_FILE).read_text(encoding="utf-8").splitlines()[0]
    assert first == '{"student": "a", "step": 1, "split": "dev", "metric": "accuracy", "value": 0.5}'


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_cut_off_by_a_kill_is_left_out(log: MetricsLog, tmp_path: Path, cut: int) -> None:
    log.append([_dev("a", 1, 0.5), _dev("a", 2, 0.75)])
    file = tmp_path / METRICS_FILE
    file.write_bytes(file.read_bytes()[:-cut])
    assert log.read() == [_dev("a", 1, 0.5)]
    log.forget_after(1, ["a"])
    log.append([_dev("a", 2, 0.75)])
    assert log.read() == [_dev("a", 1, 0.5), _dev("a", 2, 0.75)]


def test_forgetting_concerns_the_named_students_after_the_step(log: MetricsLog) -> None:
    log.append([_dev(student, step, 0.5) for step in (0, 2, 4) for student in ("a", "b")])
    log.forget_after(2, ["a"])
    assert log.read() == [_dev("a", 0, 0.5), _dev("b", 0, 0.5), _dev("a", 2, 0.5), _dev("b", 2, 0.5), _dev("b", 4, 0.5)]
    log.forget_after(-1, ["a", "b"])
    assert log.read() == []


def test_forgetting_may_concern_some_splits_alone(log: MetricsLog) -> None:
    kept, dropped = _dev("a", 2, 0.5, split="train"), _dev("a", 2, 0.5)
    log.append([kept, dropped])
    log.forget_after(1, ["a"], splits=("dev", "test"))
    assert log.read() == [kept]


def test_the_best_is_the_highest_on_dev_and_the_earliest_of_equals(log: MetricsLog) -> None:
    log.append(
        [
            _dev("a", 1, 0.5),
            _dev("a", 2, 0.75),
            _dev("a", 3, 0.75),
            _dev("a", 3, 0.9, metric="f1"),
            _dev("a", 3, 1.0, split="test"),
            _dev("b", 4, 1.0),
        ]
    )
    assert log.best("a", "accuracy") == _dev("a", 2, 0.75)
    assert log.best("a", "f1") == _dev("a", 3, 0.9, metric="f1")
    assert log.best("c", "accuracy") is None
