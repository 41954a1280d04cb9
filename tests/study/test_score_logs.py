"""The metrics file: appended to, cut off by a kill, and gone on with."""

import subprocess
import sys
from pathlib import Path

import pytest

from kd_train.study.score_logs import METRICS_FILE, Measurement, MetricsLog


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


def test_the_best_may_be_the_lowest(log: MetricsLog) -> None:
    log.append([_dev("a", 1, 0.5), _dev("a", 2, 0.25), _dev("a", 3, 0.25), _dev("a", 4, 0.75)])
    assert log.best("a", "accuracy", higher_is_better=False) == _dev("a", 2, 0.25)


def test_what_is_no_number_is_never_the_best(log: MetricsLog) -> None:
    log.append([_dev("a", 1, float("nan")), _dev("a", 3, 0.25), _dev("a", 2, 0.5), _dev("b", 1, float("nan"))])
    assert log.dev("a", "accuracy") == [_dev("a", 2, 0.5), _dev("a", 3, 0.25)]
    assert log.best("a", "accuracy") == _dev("a", 2, 0.5)
    assert log.best("a", "accuracy", higher_is_better=False) == _dev("a", 3, 0.25)
    assert log.best("b", "accuracy") is None


def test_what_was_written_before_is_known_to_the_next(log: MetricsLog, tmp_path: Path) -> None:
    log.append([_dev("a", 2, 0.75)])
    again = MetricsLog(tmp_path)
    assert again.best("a", "accuracy") == _dev("a", 2, 0.75)
    again.forget_after(1, ["a"])
    assert again.best("a", "accuracy") is None


def test_of_several_processes_one_writes_and_all_know(log: MetricsLog, tmp_path: Path) -> None:
    silent = MetricsLog(tmp_path, writes=False)
    silent.append([_dev("a", 1, 0.5)])
    assert silent.best("a", "accuracy") == _dev("a", 1, 0.5)
    assert not (tmp_path / METRICS_FILE).exists()
    log.append([_dev("a", 2, 0.25)])
    silent.forget_after(-1, ["a"])
    assert silent.dev("a", "accuracy") == []
    assert log.read() == [_dev("a", 2, 0.25)]


def test_jobs_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each appends its own students' lines, and drops some of them, as jobs of one study do."""
    script = """
import sys
from pathlib import Path
from kd_train.study.score_logs import Measurement, MetricsLog
log = MetricsLog(Path(sys.argv[1]))
for step in range(40):
    log.append([Measurement(sys.argv[2], step, "dev", "accuracy", 0.5)])
    if step % 10 == 9:
        log.forget_after(step - 1, [sys.argv[2]])
"""
    jobs = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in ("a", "b")]
    assert [job.wait() for job in jobs] == [0, 0]
    lines = MetricsLog(tmp_path).read()
    for name in ("a", "b"):
        assert [m.step for m in lines if m.student == name] == [step for step in range(40) if step % 10 != 9]
