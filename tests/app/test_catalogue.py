"""What can be compared: students of all sources under keys of their own, as they come, change and go."""

import json
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from toys.app_sources import Stub, named, renamed, scored, slim
from toys.models import toy_texts, write_student
from toys.studies import ToyStudy
from toys.training import toy_study

from kd_train.outcome.opened_study import open_study
from layerangles import AngleResult, InputError, measure_angles
from layerangles.app.catalogue import Catalogue, StudentEntry, way_of
from layerangles.app.sources import InMemory, ResultFile, Student, StudentDirectories
from layerangles.app.views import ViewRequest, resolve
from layerangles.equivalence.intervals import t_interval


@pytest.fixture(scope="module")
def stepped(study_with_steps: Sequence[Path], study: ToyStudy) -> AngleResult:
    """Both students of the stepped study at all their steps."""
    return measure_angles(study_with_steps, study.texts[:4], steps=True, device="cpu")


@pytest.fixture
def student(tmp_path: Path, study: ToyStudy) -> Path:
    """A student's directory that the test may change."""
    return Path(shutil.copytree(study.identity, tmp_path / "mine-seed3"))


def entry_of(source: Any) -> StudentEntry:
    (entry,) = Catalogue([source]).read().entries.values()
    return entry


# Keys


def test_a_name_that_occurs_once_is_the_key_and_others_name_their_source() -> None:
    one, two = Stub("one", named("a-seed0", "b-seed0")), Stub("two", named("a-seed0", "c"))
    entries = Catalogue([one, two]).read().entries
    assert list(entries) == ["one: a-seed0", "b-seed0", "two: a-seed0", "c"]
    assert [(e.key, e.source.name, e.student.name) for e in entries.values()] == [
        ("one: a-seed0", "one", "a-seed0"),
        ("b-seed0", "one", "b-seed0"),
        ("two: a-seed0", "two", "a-seed0"),
        ("c", "two", "c"),
    ]
    assert [e.strategy for e in entries.values()] == ["one: a", "b", "two: a", "c"]


def test_the_seeds_of_a_strategy_stay_together_where_another_source_has_one_more() -> None:
    one = Stub("one", named("a-seed1"), scored({"a-seed0": 0.5, "a-seed1": 0.6}))
    two = Stub("two", named("a-seed0"))
    snapshot = Catalogue([one, two]).read()
    assert list(snapshot.entries) == ["one: a-seed1", "two: a-seed0"]
    assert snapshot.scores["strategy"].tolist() == ["one: a", "one: a"]


def test_sources_of_one_name_are_numbered_and_their_seeds_stay_apart() -> None:
    one, two = Stub("s", named("a-seed0", "a-seed1")), Stub("s", named("a-seed1", "a-seed2", "b"))
    snapshot = Catalogue([one, two]).read()
    assert list(snapshot.entries) == ["s: a-seed0", "s: a-seed1", "s (2): a-seed1", "s (2): a-seed2", "b"]
    assert [snapshot.seeds(strategy) for strategy in ("s: a", "s (2): a")] == [[0, 1], [1, 2]]


def test_sources_of_one_name_and_names_that_look_like_keys() -> None:
    sources = [Stub("s", named("a", "a")), Stub("s", named("a")), Stub("t", named("s: a", "s (2): a", "s (3): a"))]
    entries = Catalogue(sources).read().entries
    assert len(entries) == 6
    assert all(key == entry.key for key, entry in entries.items())
    assert [(e.source, e.student) for e in entries.values()] == [(s, student) for s in sources for student in s.found]


def test_a_key_is_never_a_path(study_with_steps: Sequence[Path], result: AngleResult) -> None:
    path = str(study_with_steps[0])
    hostile = [path, "../../../../etc/passwd", "/etc/passwd"]
    snapshot = Catalogue([InMemory(renamed(result, *hostile))]).read()
    assert list(snapshot.entries) == hostile
    for name in hostile:
        assert snapshot.entries[name].steps == []  # which that directory has
        side = resolve(ViewRequest(first=name, way="pull"), snapshot).first
        assert (side.result, side.can_be_measured) == (None, False)
    known = Catalogue([StudentDirectories(study_with_steps)]).read()
    for name in (*hostile, f"{path}/.", "late/checkpoints/step-10", "late/../late"):
        side = resolve(ViewRequest(first=name), known).first
        assert (side.entry, side.can_be_measured) == (None, False)
        assert side.sight.absence == f"there is no student {name!r} here"


def test_strategies_seeds_and_the_student_that_is_meant() -> None:
    snapshot = Catalogue([Stub("s", named("b-seed10", "a-seed2", "b-seed9", "mine", "a-seed007"))]).read()
    assert snapshot.strategies == ["b", "a", "mine"]
    assert [snapshot.seeds(name) for name in ("b", "a", "mine", "nobody")] == [[9, 10], [2, 7], [], []]
    assert snapshot.key("b", 9) == "b-seed9"
    assert snapshot.key("a", 7) == "a-seed007"
    assert snapshot.key("b", 3) == "b-seed10"  # no such seed: the first there is
    assert snapshot.key("mine", 3) == "mine"
    assert snapshot.key("nobody", 0) is None
    assert snapshot.key(None, None) is None


# Steps


def test_steps_of_checkpoints_are_known_before_anything_is_measured(study_with_steps: Sequence[Path]) -> None:
    entries = Catalogue([StudentDirectories(study_with_steps)]).read().entries
    assert {key: entry.steps for key, entry in entries.items()} == {"late": [10, 30], "early": [0, 10, 20]}
    assert all(not entry.student.results for entry in entries.values())


def test_a_student_without_checkpoints_has_one_state(student: Path) -> None:
    assert entry_of(StudentDirectories([student])).steps == []


def test_what_is_no_checkpoint_is_no_step(tmp_path: Path, study_with_steps: Sequence[Path]) -> None:
    path = Path(shutil.copytree(study_with_steps[1], tmp_path / "early"))
    checkpoint = path / "checkpoints" / "step-10"
    for name in ("step-x", "step-²", "step-", "step--5", "step-٣", "other-5"):
        shutil.copytree(checkpoint, checkpoint.with_name(name))
    shutil.copytree(checkpoint, checkpoint.with_name("step-15"))
    (checkpoint.with_name("step-15") / "matching.json").unlink()  # being written
    shutil.copytree(checkpoint, checkpoint.with_name("step-40"))  # left over from a longer training
    assert entry_of(StudentDirectories([path])).steps == [0, 10, 20]


def test_a_result_has_the_steps_at_which_this_student_was_measured(stepped: AngleResult) -> None:
    assert stepped.steps == [0, 10, 20, 30]
    entries = Catalogue([InMemory(stepped)]).read().entries
    assert {key: entry.steps for key, entry in entries.items()} == {"late": [10, 30], "early": [0, 10, 20]}


def test_steps_of_checkpoints_and_results_together(study_with_steps: Sequence[Path], stepped: AngleResult) -> None:
    at_0 = AngleResult(stepped.dataset.sel(student=["early"], step=[0]))
    other = AngleResult(at_0.dataset.assign_coords(step=[7]))
    assert StudentEntry("k", Stub(), Student("early", study_with_steps[1], lambda: (at_0, other))).steps == [
        0,
        7,
        10,
        20,
    ]


# What is kept in a student's directory


def kept(student: Path, texts: list[str]) -> AngleResult:
    result = slim(measure_angles(student, texts[:4], device="cpu"))
    result.save(student / "angles.nc")
    return result


def test_what_is_kept_beside_a_student_is_found_once_it_is_there(student: Path, study: ToyStudy) -> None:
    catalogue = Catalogue([StudentDirectories([student])])
    assert catalogue.read().entries["mine-seed3"].student.results == ()
    result = kept(student, study.texts)
    assert catalogue.read().entries["mine-seed3"].student.results == (result,)
    assert catalogue.read().entries["mine-seed3"].results("teacher") == [result]
    assert catalogue.read().entries["mine-seed3"].results("pull") == []


def test_angles_of_other_weights_are_stale(student: Path, study: ToyStudy) -> None:
    kept(student, study.texts)
    catalogue = Catalogue([StudentDirectories([student])])
    assert len(catalogue.read().entries["mine-seed3"].student.results) == 1
    write_student(student, study.teacher, seed=77, overwrite=True)  # trained anew
    assert catalogue.read().entries["mine-seed3"].student.results == ()


def test_a_student_whose_weights_are_gone_breaks_nothing(student: Path, study: ToyStudy) -> None:
    kept(student, study.texts)
    next(student.glob("*.safetensors")).unlink()
    assert entry_of(StudentDirectories([student])).student.results == ()


def test_angles_of_another_student_are_not_this_ones(student: Path, study: ToyStudy, result: AngleResult) -> None:
    slim(result).save(student / "angles.nc")  # of "identity", which has the same weights
    assert entry_of(StudentDirectories([student])).student.results == ()


def test_half_written_angles_beside_a_student_are_skipped(student: Path, study: ToyStudy) -> None:
    kept(student, study.texts)
    file = student / "angles.nc"
    file.write_bytes(file.read_bytes()[:5000])
    assert entry_of(StudentDirectories([student])).student.results == ()


def test_a_directory_that_becomes_a_student(tmp_path: Path, student: Path, study: ToyStudy) -> None:
    young = tmp_path / "young"
    catalogue = Catalogue([StudentDirectories([student, young])])
    assert list(catalogue.read().entries) == ["mine-seed3"]
    write_student(young, study.teacher)
    assert list(catalogue.read().entries) == ["mine-seed3", "young"]
    assert catalogue.sources[0].name == "2 students"
    (student / "matching.json").unlink()  # trained anew: it comes last
    assert list(catalogue.read().entries) == ["young"]


# Result files


def test_a_file_that_is_replaced_is_read_again_and_otherwise_not(tmp_path: Path, result: AngleResult) -> None:
    path = renamed(slim(result), "a", "b").save(tmp_path / "angles.nc")
    catalogue = Catalogue([ResultFile(path)])
    first = catalogue.read()
    assert list(first.entries) == ["a", "b"]
    assert catalogue.read() is first
    renamed(slim(result), "c", "d", "e").save(path, overwrite=True)
    assert list(catalogue.read().entries) == ["c", "d", "e"]
    assert list(first.entries) == ["a", "b"]  # whoever holds the old one keeps it whole


@pytest.mark.parametrize("damage", ["cut", "gone", "empty", "text"])
def test_a_file_that_is_half_written_for_a_while(tmp_path: Path, result: AngleResult, damage: str) -> None:
    path = renamed(slim(result), "a").save(tmp_path / "angles.nc")
    whole = path.read_bytes()
    catalogue = Catalogue([ResultFile(path), Stub(found=named("other"))])
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no result " * 100}[damage])
    assert list(catalogue.read().entries) == ["other"]
    path.write_bytes(whole)
    assert list(catalogue.read().entries) == ["a", "other"]


def test_a_file_that_is_no_result_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.nc is not a file"):
        ResultFile(tmp_path / "nothing.nc")
    (tmp_path / "text.nc").write_text("no result")
    with pytest.raises(InputError, match=r"text\.nc is damaged, or no netCDF file"):
        ResultFile(tmp_path / "text.nc")


def test_what_is_only_angles_has_neither_scores_nor_texts(tmp_path: Path, result: AngleResult) -> None:
    for source in (
        InMemory(result),
        ResultFile(slim(result).save(tmp_path / "angles.nc")),
        StudentDirectories([tmp_path]),
    ):
        assert not len(source.scores())
        with pytest.raises(InputError, match=r"this student belongs to no study\. Name a file of texts with --data"):
            source.texts()
    assert StudentDirectories([tmp_path], lambda: ["a b"]).texts() == ["a b"]


def test_how_a_result_was_measured_in_words(study: ToyStudy, result: AngleResult) -> None:
    settings: dict[str, dict[str, Any]] = {
        "teacher": {},
        "pull": {"space": "pull"},
        "teacher · unit": {"preprocessing": "unit"},
        "teacher · paper": {"convention": "paper", "max_length": 16},
        "teacher · fitted: ridge": {"fit": "ridge"},
        "pull · post": {"space": "pull", "final_norm": "post"},
    }
    texts = study.texts[:6]
    results = [measure_angles(study.identity, texts, device="cpu", **more) for more in settings.values()]
    assert [way_of(one) for one in results] == list(settings)
    snapshot = Catalogue([Stub(found=[Student("identity", None, lambda: results)])]).read()
    assert snapshot.ways == ["teacher", "pull", "gradient", *sorted(list(settings)[2:])]
    for way, one in zip(settings, results, strict=True):
        assert snapshot.entries["identity"].results(way) == [one]


# Scores


def test_scores_are_told_by_keys() -> None:
    one = Stub("one", named("a-seed0", "b-seed0"), scored({"a-seed0": 0.5, "b-seed0": 0.6}))
    two = Stub("two", named("a-seed0"), scored({"a-seed0": 0.7}, seed=3))
    scores = Catalogue([one, two]).read().scores
    assert scores["student"].tolist() == ["one: a-seed0", "b-seed0", "two: a-seed0"]
    assert scores["strategy"].tolist() == ["one: a", "b", "two: a"]
    assert scores["score"].tolist() == [0.5, 0.6, 0.7]
    assert scores["seed"].tolist() == [0, 0, 3]
    assert one.table["student"].tolist() == ["a-seed0", "b-seed0"]  # as it was


def test_scores_of_students_of_whom_nothing_else_is_here() -> None:
    one = Stub("one", named("a-seed0"), scored({"a-seed0": 0.5, "a-seed1": 0.6, "lost-seed0": 0.1}))
    two = Stub("two", table=scored({"lost-seed0": 0.9}))
    catalogue = Catalogue([one, two])
    assert list(catalogue.read().entries) == ["a-seed0"]
    assert catalogue.read().scores["student"].tolist() == ["a-seed0", "a-seed1", "one: lost-seed0", "two: lost-seed0"]
    assert catalogue.read().scores["strategy"].tolist() == ["a", "a", "one: lost", "two: lost"]


def test_standings_put_the_best_first_whichever_way_is_better() -> None:
    students = named(*(f"{name}-seed{seed}" for name in "abc" for seed in (0, 1, 2)))
    values = dict(zip([s.name for s in students], [1, 2, 6, 4, 4, 4, 0, 1, 2], strict=True))
    up = scored({name: float(value) for name, value in values.items()})
    down = scored({name: float(value) for name, value in values.items()}, metric="loss", higher_is_better=False)
    standings = Catalogue([Stub("s", students, pd.concat([up, down]))]).read().standings()
    assert list(standings) == ["strategy", "metric", "split", "n_seeds", "score", "ci_low", "ci_high"]
    accuracy, loss = (standings[standings["metric"] == metric] for metric in ("accuracy", "loss"))
    assert accuracy["strategy"].tolist() == ["b", "a", "c"]
    assert accuracy["score"].tolist() == [4, 3, 1]
    assert loss["strategy"].tolist() == ["c", "a", "b"]
    assert loss["score"].tolist() == [1, 3, 4]
    row = accuracy.iloc[1]
    assert tuple(row[["score", "ci_low", "ci_high"]]) == tuple(t_interval(np.array([1.0, 2.0, 6.0]), 0.95))
    assert row["ci_low"] < 3 < row["ci_high"]
    assert set(standings["n_seeds"]) == {3}


def test_a_single_seed_has_no_interval_and_no_scores_are_no_standings() -> None:
    catalogue = Catalogue([Stub("s", named("a-seed0"), scored({"a-seed0": 0.5}))])
    (row,) = catalogue.read().standings().to_dict("records")
    assert (row["strategy"], row["n_seeds"], row["score"]) == ("a", 1, 0.5)
    assert np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert not len(Catalogue([Stub(found=named("a"))]).read().standings())


# A study that is being written


@pytest.fixture
def young(tmp_path: Path, study: ToyStudy) -> Path:
    """A study of two cells, which share their students without matching; nothing of it is trained."""
    strategies = [
        "none",
        "forward",
        {"kind": "forward", "name": "strong", "loss": {"hidden": "mse", "hidden_weight": 5}},
    ]
    files = {"train": "t.jsonl", "dev": str(tmp_path / "dev.jsonl")}
    rows = [{"text": text, "label": ("neg", "pos")[i % 2]} for i, text in enumerate(toy_texts(6))]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(tmp_path / "dev.jsonl", tmp_path / "t.jsonl")
    files["train"] = str(tmp_path / "t.jsonl")
    spec = toy_study(tmp_path / "run", files, study.teacher, strategies=strategies, seeds=[0, 1])
    spec.folder.mkdir()
    (spec.folder / "study.resolved.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    return spec.folder


def log(folder: Path, *students: str) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        for student in students:
            line = {"student": student, "step": 8, "split": "dev", "metric": "accuracy", "value": 0.5}
            file.write(json.dumps(line | {"value": 0.6 if student.endswith("1") else 0.5}) + "\n")


def test_a_study_that_is_being_written(young: Path, study: ToyStudy) -> None:
    source = open_study(young)
    with pytest.raises(InputError, match=r"there is no student to compare in toy\. Give student directories, a study"):
        Catalogue([source])
    catalogue = Catalogue([source, Stub(found=named("other"))])
    students = young / "students"
    (students / "none-seed0").mkdir(parents=True)  # begun
    assert list(catalogue.read().entries) == ["other"]

    none = write_student(students / "none-seed0", study.teacher, pairs=())
    entries = catalogue.read().entries
    assert list(entries) == ["none-seed0", "other"]
    assert (entries["none-seed0"].student.directory, entries["none-seed0"].student.results) == (none, ())

    (young / "angles").mkdir()
    (young / "angles" / "final.nc").write_bytes(b"half")
    assert catalogue.read().entries["none-seed0"].student.results == ()
    measured = slim(measure_angles([none, study.deeper], study.texts[:4], teacher=study.teacher, device="cpu"))
    measured.save(young / "angles" / "final.nc", overwrite=True)
    entries = catalogue.read().entries
    assert set(entries) == {"none-seed0", "deeper", "other"}
    assert entries["none-seed0"].student.results == (measured,)
    assert (entries["deeper"].student.directory, entries["deeper"].student.results) == (None, (measured,))
    own = kept(none, study.texts)
    assert catalogue.read().entries["none-seed0"].student.results == (measured, own)

    assert not len(catalogue.read().scores)
    log(young, "teacher", "none-seed0")
    assert catalogue.read().scores["student"].tolist() == ["none-seed0"]
    with (young / "metrics.jsonl").open("a") as file:
        file.write('{"student": "forward-seed0", "st')
    assert catalogue.read().scores["student"].tolist() == ["none-seed0"]
    assert source.texts() == toy_texts(6)

    write_student(none / "checkpoints" / "step-0", study.teacher, pairs=())
    write_student(none, study.teacher, pairs=(), step=8, overwrite=True)
    assert catalogue.read().entries["none-seed0"].steps == [0, 8]


def test_a_student_of_several_cells_is_one_student(young: Path) -> None:
    log(young, *(f"{name}-seed{seed}" for name in ("none", "forward", "strong") for seed in (0, 1)))
    source = open_study(young)
    assert source.scores()["student"].tolist().count("none-seed0") == 2
    standings = Catalogue([source, Stub(found=named("other"))]).read().standings()
    assert standings["n_seeds"].tolist() == [2, 2, 2]
    assert standings["score"].tolist() == pytest.approx([0.55] * 3)
    low, high = t_interval(np.array([0.5, 0.6]), 0.95)[1:]
    assert standings["ci_low"].tolist() == pytest.approx([low] * 3)
    assert standings["ci_high"].tolist() == pytest.approx([high] * 3)


# The catalogue


def test_nothing_to_compare() -> None:
    with pytest.raises(InputError, match=r"^there is no student to compare in nothing\. Give student directories, a"):
        Catalogue([])
    with pytest.raises(
        InputError, match=r"there is no student to compare in one, two\..* a finished student or stored"
    ):
        Catalogue([Stub("one"), Stub("two")])


def test_sources_are_read_again_only_when_one_has_changed() -> None:
    one, two = Stub("one", named("a")), Stub("two", named("b"))
    catalogue = Catalogue([one, two])
    for _ in range(3):
        assert list(catalogue.read().entries) == ["a", "b"]
    assert (one.n_read, two.n_read) == (1, 1)
    two.found, two.now = named("b", "c"), 1
    assert list(catalogue.read().entries) == ["a", "b", "c"]
    assert (one.n_read, two.n_read) == (2, 2)
    one.found, two.found, one.now = (), (), 1
    assert catalogue.read().entries == {}  # all are gone, and that is no mistake of the one who looks


class Slow(Stub):
    """Takes a moment, and may not be read by two at once."""

    at_once = threading.Lock()

    def students(self) -> Sequence[Student]:
        assert self.at_once.acquire(blocking=False)
        time.sleep(0.02)
        self.at_once.release()
        return super().students()


def test_threads_that_ask_at_once_wait_for_one_reading() -> None:
    source = Slow("slow", named("a"))
    catalogue = Catalogue([source])
    source.now, source.found = 1, named("b")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: catalogue.read(), range(8)))
    assert source.n_read == 2
    assert {id(snapshot) for snapshot in read} == {id(catalogue.read())}
    assert list(read[0].entries) == ["b"]
