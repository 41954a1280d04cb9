"""The catalogue: keys, ways of measuring, scores, and studies that change while they are read."""

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
from toys.app_sources import Stub, kept, named, renamed, scored, slim
from toys.models import toy_texts, write_student
from toys.studies import ToyStudy
from toys.training import toy_study

from kd_train.outcome.opened_study import open_study
from layerangles import AngleResult, InputError, measure_angles
from layerangles.app.catalogue import Catalogue, way_of
from layerangles.app.sources import InMemory, Student, StudentDirectories
from layerangles.app.views import ViewRequest, resolve
from layerangles.equivalence.intervals import t_interval

# Keys


def test_keys_are_names_with_the_source_where_a_name_occurs_twice() -> None:
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


def test_seeds_of_one_strategy_and_source_have_the_same_prefix() -> None:
    one = Stub("one", named("a-seed1"), scored({"a-seed0": 0.5, "a-seed1": 0.6}))
    two = Stub("two", named("a-seed0"))
    snapshot = Catalogue([one, two]).read()
    assert list(snapshot.entries) == ["one: a-seed1", "two: a-seed0"]
    assert snapshot.scores["strategy"].tolist() == ["one: a", "one: a"]


def test_sources_of_one_name_are_numbered_and_keep_their_seeds_apart() -> None:
    one, two = Stub("s", named("a-seed0", "a-seed1")), Stub("s", named("a-seed1", "a-seed2", "b"))
    snapshot = Catalogue([one, two]).read()
    assert list(snapshot.entries) == ["s: a-seed0", "s: a-seed1", "s (2): a-seed1", "s (2): a-seed2", "b"]
    assert [snapshot.seeds(strategy) for strategy in ("s: a", "s (2): a")] == [[0, 1], [1, 2]]


def test_keys_are_unique_even_if_names_look_like_keys() -> None:
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
        assert side.layer_view.absence == f"there is no student {name!r} here"


def test_a_student_is_found_by_strategy_and_seed() -> None:
    snapshot = Catalogue([Stub("s", named("b-seed10", "a-seed2", "b-seed9", "mine", "a-seed007"))]).read()
    assert snapshot.strategies == ["b", "a", "mine"]
    assert [snapshot.seeds(name) for name in ("b", "a", "mine", "nobody")] == [[9, 10], [2, 7], [], []]
    assert snapshot.key("b", 9) == "b-seed9"
    assert snapshot.key("a", 7) == "a-seed007"
    assert snapshot.key("b", 3) == "b-seed10"  # no such seed: the first there is
    assert snapshot.key("mine", 3) == "mine"
    assert snapshot.key("nobody", 0) is None
    assert snapshot.key(None, None) is None


def test_the_way_of_a_result_names_its_space_and_unusual_settings(study: ToyStudy, result: AngleResult) -> None:
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


def test_scores_are_listed_by_key() -> None:
    one = Stub("one", named("a-seed0", "b-seed0"), scored({"a-seed0": 0.5, "b-seed0": 0.6}))
    two = Stub("two", named("a-seed0"), scored({"a-seed0": 0.7}, seed=3))
    scores = Catalogue([one, two]).read().scores
    assert scores["student"].tolist() == ["one: a-seed0", "b-seed0", "two: a-seed0"]
    assert scores["strategy"].tolist() == ["one: a", "b", "two: a"]
    assert scores["score"].tolist() == [0.5, 0.6, 0.7]
    assert scores["seed"].tolist() == [0, 0, 3]
    assert one.table["student"].tolist() == ["a-seed0", "b-seed0"]  # as it was


def test_scores_of_students_without_weights_or_results_are_listed() -> None:
    one = Stub("one", named("a-seed0"), scored({"a-seed0": 0.5, "a-seed1": 0.6, "lost-seed0": 0.1}))
    two = Stub("two", table=scored({"lost-seed0": 0.9}))
    catalogue = Catalogue([one, two])
    assert list(catalogue.read().entries) == ["a-seed0"]
    assert catalogue.read().scores["student"].tolist() == ["a-seed0", "a-seed1", "one: lost-seed0", "two: lost-seed0"]
    assert catalogue.read().scores["strategy"].tolist() == ["a", "a", "one: lost", "two: lost"]


def test_standings_put_the_best_first_for_either_direction_of_the_metric() -> None:
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


def test_a_single_seed_has_no_interval_and_without_scores_there_are_no_standings() -> None:
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


def test_a_study_that_is_being_written_shows_what_is_finished(young: Path, study: ToyStudy) -> None:
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


def test_sources_without_a_student_are_refused() -> None:
    with pytest.raises(InputError, match=r"^there is no student to compare in nothing\. Give student directories, a"):
        Catalogue([])
    with pytest.raises(
        InputError, match=r"there is no student to compare in one, two\..* a finished student or stored"
    ):
        Catalogue([Stub("one"), Stub("two")])


def test_sources_are_read_again_only_after_a_change() -> None:
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


def test_concurrent_threads_share_one_reading() -> None:
    source = Slow("slow", named("a"))
    catalogue = Catalogue([source])
    source.now, source.found = 1, named("b")
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda _: catalogue.read(), range(8)))
    assert source.n_read == 2
    assert {id(snapshot) for snapshot in read} == {id(catalogue.read())}
    assert list(read[0].entries) == ["b"]
