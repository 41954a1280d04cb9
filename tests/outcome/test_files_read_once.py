"""An opened study reads each of its files once, and again only after it changed."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from toys.command_line import Cli

from kd_train.outcome.judging import judge_all
from kd_train.outcome.opened_study import open_study
from kd_train.outcome.study_geometry import predict_from
from layerangles import AngleResult

RESULTS = Path(__file__).parents[2] / "examples" / "results" / "movie-reviews"
READ = ("study.resolved.yaml", "metrics.jsonl", "examples.jsonl")
_COUNTERS: list[Counter[str]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _COUNTERS:
        _COUNTERS[-1][str(arguments[0])] += 1


sys.addaudithook(_hook)  # which Python cannot take away again


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """The number of times that each file was opened, or its angles loaded."""
    counter: Counter[str] = Counter()
    load = AngleResult.load

    def counted(path: Path) -> AngleResult:
        counter[str(path)] += 1
        return load(path)

    monkeypatch.setattr(AngleResult, "load", counted)
    _COUNTERS.append(counter)
    yield counter
    _COUNTERS.pop()


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The committed study with one result of angles."""
    folder = tmp_path / "study"
    (folder / "angles").mkdir(parents=True)
    for name in (*READ, "angles/final-seed1.nc"):
        shutil.copy(RESULTS / name, folder / name)
    return folder


def test_the_verdict_command_reads_each_file_once(study: Path, cli: Cli, opened: Counter[str]) -> None:
    assert cli("verdict", study, "--margin", 0.01).code == 0
    assert {name: opened[str(study / name)] for name in READ} == dict.fromkeys(READ, 1)


def test_scores_verdicts_angles_and_gap_prediction_share_what_was_read(study: Path, opened: Counter[str]) -> None:
    one = open_study(study)
    judged = judge_all([one])
    assert predict_from(judged) is not None
    assert (len(one.scores()), len(one.students()), len(one.angles())) == (90, 18, 1)
    assert one.teacher_scores()
    of_study = {str(Path(path).relative_to(study)): n for path, n in opened.items() if path.startswith(str(study))}
    assert of_study == dict.fromkeys((*READ, "angles/final-seed1.nc"), 1)


def test_a_file_that_changed_is_read_again(study: Path, opened: Counter[str]) -> None:
    one = open_study(study)
    before, version = one.scores(), one.version()
    metrics = study / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["student"] != "last-seed4"]
    metrics.write_text("".join(kept))
    opened.clear()
    assert len(one.scores()) == len(before) - 1
    assert one.version() != version
    assert (opened[str(metrics)], opened[str(study / "examples.jsonl")]) == (1, 0)
