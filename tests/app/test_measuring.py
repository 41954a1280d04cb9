"""Measuring on demand: progress, where results are kept, and failures."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from toys.app_sources import Stub, named, slim
from toys.models import toy_texts, write_student
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles
from layerangles.app.catalogue import Catalogue, StudentEntry
from layerangles.app.measuring import Measurer, MeasuringPlan, Progress
from layerangles.app.sources import StudentDirectories
from layerangles.app.views import ViewRequest, resolve

TEXTS = toy_texts(12, seed=3)
MEASURE = "layerangles.measurement.measure_angles.measure_angles"
PLAN = MeasuringPlan(max_length=32, device="cpu")


@pytest.fixture
def measurer() -> Iterator[Measurer]:
    measurer = Measurer(PLAN)
    yield measurer
    measurer.close()


@pytest.fixture
def student(tmp_path: Path, study: ToyStudy) -> Path:
    return Path(shutil.copytree(study.learned, tmp_path / "mine-seed3"))


def catalogue_of(*paths: Path, texts: Sequence[str] = TEXTS) -> Catalogue:
    return Catalogue([StudentDirectories(paths, lambda: texts)])


def entries_of(*paths: Path, texts: Sequence[str] = TEXTS) -> list[StudentEntry]:
    return list(catalogue_of(*paths, texts=texts).read().entries.values())


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def ended(measurer: Measurer, key: str, way: str) -> Progress | None:
    """What is said of a measurement when it has come to its end: nothing, or what was wrong."""
    until(lambda: (known := measurer.progress(key, way)) is None or known.failed)
    return measurer.progress(key, way)


@pytest.fixture
def slimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is only what a test looks at, for the time that writing takes."""
    monkeypatch.setattr(MEASURE, lambda *a, **settings: slim(measure_angles(*a, **settings)))


# What is measured, and where it is kept


def test_a_result_in_teacher_space_is_kept_in_the_students_directory_and_found(
    student: Path, measurer: Measurer
) -> None:
    catalogue = catalogue_of(student)
    (entry,) = catalogue.read().entries.values()
    assert resolve(ViewRequest(), catalogue.read(), measurer.unkept).first.can_be_measured
    measurer.ask([entry], "teacher")
    assert ended(measurer, "mine-seed3", "teacher") is None
    assert measurer.n_done == 1
    assert measurer.unkept("mine-seed3", "teacher") is None
    (found,) = catalogue.read().entries["mine-seed3"].student.results
    assert found == AngleResult.load(student / "angles.nc")
    page = resolve(ViewRequest(), catalogue.read(), measurer.unkept)
    assert page.first.result == found
    assert not page.first.can_be_measured
    assert page.nulls == ["N0", "N1", "N5"]
    again = measure_angles(student, TEXTS, nulls=("N0", "N1", "N5"), alternatives="sums", max_length=32, device="cpu")
    assert found == again
    assert "common_mode_ratio" in found.dataset
    assert [path.name for path in student.glob(".*")] == []  # nothing half-written is left


@pytest.mark.parametrize("way", ["pull", "gradient"])
def test_results_in_other_spaces_are_kept_in_memory(student: Path, measurer: Measurer, way: str) -> None:
    before = sorted(path.name for path in student.iterdir())
    catalogue = catalogue_of(student)
    measurer.ask(list(catalogue.read().entries.values()), way)
    assert ended(measurer, "mine-seed3", way) is None
    assert sorted(path.name for path in student.iterdir()) == before
    result = measurer.unkept("mine-seed3", way)
    assert result is not None
    assert result.dataset.attrs["space"] == way
    page = resolve(ViewRequest(way=way), catalogue.read(), measurer.unkept)
    assert page.first.result == result
    assert page.table()["first"].notna().all()
    assert measurer.unkept("mine-seed3", "teacher") is None
    assert measurer.unkept("another", way) is None


@pytest.mark.usefixtures("slimmed")
def test_checkpoints_are_measured_at_every_step(tmp_path: Path, study_with_steps: Sequence[Path]) -> None:
    path = Path(shutil.copytree(study_with_steps[1], tmp_path / "early"))
    catalogue, measurer = catalogue_of(path), Measurer(PLAN)
    measurer.ask(list(catalogue.read().entries.values()), "teacher")
    assert ended(measurer, "early", "teacher") is None
    for step in (0, 10, 20):
        page = resolve(ViewRequest(step=step), catalogue.read(), measurer.unkept)
        assert (page.first.layer_view.absence, page.first.step) == ("", step)
    assert AngleResult.load(path / "angles.nc").steps == [0, 10, 20]
    measurer.close()


def test_a_result_is_kept_in_memory_if_the_directory_is_not_writable(
    student: Path, measurer: Measurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (student / "angles.nc").write_text("of an older version")
    before = sorted(path.name for path in student.iterdir())
    monkeypatch.setattr(xr.Dataset, "to_netcdf", refuse)
    catalogue = catalogue_of(student)
    measurer.ask(list(catalogue.read().entries.values()), "teacher")
    assert ended(measurer, "mine-seed3", "teacher") is None
    assert sorted(path.name for path in student.iterdir()) == before
    assert (student / "angles.nc").read_text() == "of an older version"
    result = measurer.unkept("mine-seed3", "teacher")
    assert result is not None
    assert resolve(ViewRequest(), catalogue.read(), measurer.unkept).first.result == result


@pytest.mark.usefixtures("slimmed")
def test_a_stale_result_is_replaced(student: Path, study: ToyStudy, measurer: Measurer) -> None:
    catalogue = catalogue_of(student)
    for seed in (5, 6):
        write_student(student, study.teacher, seed=seed, overwrite=True)
        (entry,) = catalogue.read().entries.values()
        assert entry.student.results == ()
        measurer.ask([entry], "teacher")
        assert ended(measurer, "mine-seed3", "teacher") is None
        assert len(catalogue.read().entries["mine-seed3"].student.results) == 1
    assert measurer.n_done == 2


# Texts


@pytest.mark.parametrize(("n", "chosen"), [(4, [0, 2, 5, 7]), (1, [0]), (10, list(range(10))), (99, list(range(10)))])
def test_texts_are_drawn_evenly(n: int, chosen: list[int]) -> None:
    texts = [f"text {i}" for i in range(10)]
    source = Stub(found=named("a"), given=texts)
    (entry,) = Catalogue([source]).read().entries.values()
    assert MeasuringPlan(n_texts=n).texts(entry) == [texts[i] for i in chosen]


def test_students_are_measured_as_planned(student: Path) -> None:
    measurer = Measurer(MeasuringPlan(n_texts=7, max_length=5, device="cpu"))
    measurer.ask(entries_of(student), "pull")
    assert ended(measurer, "mine-seed3", "pull") is None
    result = measurer.unkept("mine-seed3", "pull")
    assert result is not None
    attributes = result.dataset.attrs
    assert (attributes["n_examples"], attributes["max_length"], attributes["device"]) == (7, 5, "cpu")
    measurer.close()


# How far it is


def test_progress_rises(student: Path, measurer: Measurer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Progress | None] = []

    def watched(*arguments: Any, progress: Callable[[str, float], None], **settings: Any) -> AngleResult:
        def tell(words: str, share: float) -> None:
            progress(words, share)
            seen.append(measurer.progress("mine-seed3", "teacher"))

        seen.append(measurer.progress("mine-seed3", "teacher"))
        return slim(measure_angles(*arguments, progress=tell, **settings))

    monkeypatch.setattr(MEASURE, watched)
    measurer.ask(entries_of(student, texts=toy_texts(70)), "teacher")
    assert ended(measurer, "mine-seed3", "teacher") is None
    told = [progress for progress in seen if progress is not None]
    assert told[0] == Progress("mine-seed3: opening", 0.0)
    shares = [progress.share for progress in told]
    assert len(shares) == 1 + 3  # 70 texts are three batches
    assert shares == sorted(set(shares))
    assert shares[-1] == 1
    assert {progress.words for progress in told[1:]} == {"mine-seed3: angles"}
    assert not any(progress.failed for progress in told)


class Gate:
    """Stands for measuring: waits until it may go on, and notes what it was asked for."""

    def __init__(self, result: AngleResult) -> None:
        self.result, self.open = result, threading.Event()
        self.asked: list[tuple[str, str]] = []
        self.at_once = threading.Lock()

    def __call__(self, directory: Path, _texts: Any, *, space: str, **_: Any) -> AngleResult:
        assert self.at_once.acquire(blocking=False)  # one after another
        self.asked.append((directory.name, space))
        assert self.open.wait(30)
        self.at_once.release()
        if directory.name == "broken":
            raise RuntimeError("the disk is on fire")
        return self.result


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, result: AngleResult) -> Iterator[Gate]:
    gate = Gate(slim(result))
    monkeypatch.setattr(MEASURE, gate)
    yield gate
    gate.open.set()


@pytest.fixture
def three(tmp_path: Path) -> list[StudentEntry]:
    """Three students, which need no weights where nothing is measured."""
    for name in ("a", "b", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "matching.json").write_text("{}")
    return entries_of(*(tmp_path / name for name in ("a", "b", "broken")))


def test_a_student_requested_twice_is_measured_once(gate: Gate, three: list[StudentEntry], measurer: Measurer) -> None:
    a, b, _ = three
    measurer.ask([a, a], "teacher")
    until(lambda: len(gate.asked) == 1)
    measurer.ask([a, b], "teacher")
    measurer.ask([b, a], "teacher")
    measurer.ask([a], "pull")  # which is another measurement
    assert measurer.progress("a", "teacher") == Progress("a: opening", 0.0)
    assert measurer.progress("b", "teacher") == Progress("b waits", 0.0)
    assert measurer.progress("b", "pull") is None
    assert measurer.n_done == 0
    gate.open.set()
    until(lambda: measurer.n_done == 3)
    assert gate.asked == [("a", "teacher"), ("b", "teacher"), ("a", "pull")]
    assert [measurer.progress(key, "teacher") for key in "ab"] == [None, None]
    measurer.ask([a], "teacher")  # and once more when it is over
    until(lambda: measurer.n_done == 4)


def test_a_failure_is_reported_and_the_next_student_is_measured(
    gate: Gate, three: list[StudentEntry], measurer: Measurer
) -> None:
    a, _, broken = three
    gate.open.set()
    measurer.ask([broken, a], "teacher")
    failed = ended(measurer, "broken", "teacher")
    assert failed == Progress("broken could not be measured: the disk is on fire", failed=True)
    assert ended(measurer, "a", "teacher") is None
    assert (a.student.directory or Path()).joinpath("angles.nc").exists()
    assert measurer.n_done == 1
    measurer.ask([broken], "teacher")  # what has failed may be tried again
    until(lambda: len(gate.asked) == 3)
    assert gate.asked[-1] == ("broken", "teacher")
    assert ended(measurer, "broken", "teacher") == failed


def test_the_error_of_a_student_is_reported(tmp_path: Path, student: Path, study: ToyStudy, measurer: Measurer) -> None:
    stranger = write_student(tmp_path / "stranger", study.teacher, pairs=((1, 9),))
    measurer.ask(entries_of(stranger), "teacher")
    failed = ended(measurer, "stranger", "teacher")
    assert failed is not None
    assert failed.words.startswith("stranger could not be measured: ")
    assert "the pair (1, 9) names a layer that is not there" in failed.words
    (entry,) = Catalogue([StudentDirectories([student])]).read().entries.values()
    measurer.ask([entry], "teacher")
    failed = ended(measurer, "mine-seed3", "teacher")
    assert failed is not None
    assert "this student belongs to no study. Name a file of texts with --data." in failed.words
    assert measurer.n_done == 0


def test_a_student_without_weights_is_not_measured(gate: Gate, measurer: Measurer) -> None:
    gate.open.set()
    entries = list(Catalogue([Stub(found=named("a"))]).read().entries.values())
    measurer.ask(entries, "teacher")
    assert measurer.progress("a", "teacher") is None
    assert gate.asked == []


def test_no_measurement_starts_after_the_end(gate: Gate, three: list[StudentEntry], measurer: Measurer) -> None:
    measurer.ask(three[:2], "teacher")
    until(lambda: len(gate.asked) == 1)
    measurer.close()
    gate.open.set()
    assert ended(measurer, "a", "teacher") is None
    measurer._pool.shutdown(wait=True)
    assert gate.asked == [("a", "teacher")]


def test_a_running_measurement_ends_with_the_app(
    three: list[StudentEntry], measurer: Measurer, result: AngleResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()

    def endless(*_: Any, progress: Callable[[str, float], None], **__: Any) -> AngleResult:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            progress("angles", 0.5)
            told.set()
            time.sleep(0.01)
        return result

    monkeypatch.setattr(MEASURE, endless)
    measurer.ask(three[:1], "teacher")
    assert told.wait(30)
    measurer.close()
    failed = ended(measurer, "a", "teacher")
    assert failed == Progress("a could not be measured: the app has ended", failed=True)
    assert not (three[0].student.directory or Path()).joinpath("angles.nc").exists()
