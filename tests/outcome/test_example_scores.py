"""The log of example scores keeps the last scores of every student."""

from pathlib import Path

from kd_train.study.score_logs import ExampleScores, ExamplesLog, read_examples


def test_a_resumed_study_has_every_student_once(tmp_path: Path) -> None:
    log = ExamplesLog(tmp_path)
    log.append([ExampleScores("a", 5, "test", "accuracy", (1.0, 0.0))])
    log.append([ExampleScores("a", 5, "test", "accuracy", (0.0, 0.5)), ExampleScores("b", 5, "test", "f", (0.25,))])
    found = read_examples(tmp_path / "examples.jsonl")
    assert found["a", "test", "accuracy"].values == (0.0, 0.5)
    assert found["b", "test", "f"].values == (0.25,)
    assert '"values": [1, 0]' in (tmp_path / "examples.jsonl").read_text()


def test_a_process_that_does_not_write_leaves_no_examples(tmp_path: Path) -> None:
    ExamplesLog(tmp_path, writes=False).append([ExampleScores("a", 5, "test", "accuracy", (1.0,))])
    assert not list(tmp_path.iterdir())
