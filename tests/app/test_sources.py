"""Sources: the steps of students, results kept in their directories, and files that change."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toys.app_sources import Stub, kept, named, renamed, slim
from toys.models import write_student
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError
from layerangles.app.catalogue import Catalogue, StudentEntry
from layerangles.app.sources import InMemory, ResultFile, Student, StudentDirectories


@pytest.fixture
def student(tmp_path: Path, study: ToyStudy) -> Path:
    """A student's directory that the test may change."""
    return Path(shutil.copytree(study.identity, tmp_path / "mine-seed3"))


def entry_of(source: Any) -> StudentEntry:
    (entry,) = Catalogue([source]).read().entries.values()
    return entry


# Steps


def test_steps_of_checkpoints_are_known_before_anything_is_measured(study_with_steps: Sequence[Path]) -> None:
    entries = Catalogue([StudentDirectories(study_with_steps)]).read().entries
    assert {key: entry.steps for key, entry in entries.items()} == {"late": [10, 30], "early": [0, 10, 20]}
    assert all(not entry.student.results for entry in entries.values())


def test_a_student_without_checkpoints_has_one_state(student: Path) -> None:
    assert entry_of(StudentDirectories([student])).steps == []


def test_other_directories_are_not_steps(tmp_path: Path, study_with_steps: Sequence[Path]) -> None:
    path = Path(shutil.copytree(study_with_steps[1], tmp_path / "early"))
    checkpoint = path / "checkpoints" / "step-10"
    for name in ("step-x", "step-²", "step-", "step--5", "step-٣", "other-5"):
        shutil.copytree(checkpoint, checkpoint.with_name(name))
    shutil.copytree(checkpoint, checkpoint.with_name("step-15"))
    (checkpoint.with_name("step-15") / "matching.json").unlink()  # being written
    shutil.copytree(checkpoint, checkpoint.with_name("step-40"))  # left over from a longer training
    assert entry_of(StudentDirectories([path])).steps == [0, 10, 20]


def test_steps_of_a_result_are_those_of_the_student(stepped: AngleResult) -> None:
    assert stepped.steps == [0, 10, 20, 30]
    entries = Catalogue([InMemory(stepped)]).read().entries
    assert {key: entry.steps for key, entry in entries.items()} == {"late": [10, 30], "early": [0, 10, 20]}


def test_steps_of_checkpoints_and_results_are_united(study_with_steps: Sequence[Path], stepped: AngleResult) -> None:
    at_0 = AngleResult(stepped.dataset.sel(student=["early"], step=[0]))
    other = AngleResult(at_0.dataset.assign_coords(step=[7]))
    assert StudentEntry("k", Stub(), Student("early", study_with_steps[1], lambda: (at_0, other))).steps == [
        0,
        7,
        10,
        20,
    ]


# What is kept in a student's directory


def test_a_result_kept_in_a_students_directory_is_found(student: Path, study: ToyStudy) -> None:
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


def test_a_student_without_weights_has_no_kept_result(student: Path, study: ToyStudy) -> None:
    kept(student, study.texts)
    next(student.glob("*.safetensors")).unlink()
    assert entry_of(StudentDirectories([student])).student.results == ()


def test_a_kept_result_of_another_student_is_ignored(student: Path, study: ToyStudy, result: AngleResult) -> None:
    slim(result).save(student / "angles.nc")  # of "identity", which has the same weights
    assert entry_of(StudentDirectories([student])).student.results == ()


def test_a_half_written_kept_result_is_ignored(student: Path, study: ToyStudy) -> None:
    kept(student, study.texts)
    file = student / "angles.nc"
    file.write_bytes(file.read_bytes()[:5000])
    assert entry_of(StudentDirectories([student])).student.results == ()


def test_a_directory_is_listed_once_its_student_is_finished(tmp_path: Path, student: Path, study: ToyStudy) -> None:
    young = tmp_path / "young"
    catalogue = Catalogue([StudentDirectories([student, young])])
    assert list(catalogue.read().entries) == ["mine-seed3"]
    write_student(young, study.teacher)
    assert list(catalogue.read().entries) == ["mine-seed3", "young"]
    assert catalogue.sources[0].name == "2 students"
    (student / "matching.json").unlink()  # trained anew: it comes last
    assert list(catalogue.read().entries) == ["young"]


# Result files


def test_a_file_is_read_again_only_after_it_was_replaced(tmp_path: Path, result: AngleResult) -> None:
    path = renamed(slim(result), "a", "b").save(tmp_path / "angles.nc")
    catalogue = Catalogue([ResultFile(path)])
    first = catalogue.read()
    assert list(first.entries) == ["a", "b"]
    assert catalogue.read() is first
    renamed(slim(result), "c", "d", "e").save(path, overwrite=True)
    assert list(catalogue.read().entries) == ["c", "d", "e"]
    assert list(first.entries) == ["a", "b"]  # whoever holds the old one keeps it whole


@pytest.mark.parametrize("damage", ["cut", "gone", "empty", "text"])
def test_a_half_written_file_has_no_students_until_it_is_whole(
    tmp_path: Path, result: AngleResult, damage: str
) -> None:
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


def test_a_file_of_another_kind_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.nc is not a file"):
        ResultFile(tmp_path / "nothing.nc")
    (tmp_path / "text.nc").write_text("no result")
    with pytest.raises(InputError, match=r"text\.nc is damaged, or no netCDF file"):
        ResultFile(tmp_path / "text.nc")


def test_results_alone_have_neither_scores_nor_texts(tmp_path: Path, result: AngleResult) -> None:
    for source in (
        InMemory(result),
        ResultFile(slim(result).save(tmp_path / "angles.nc")),
        StudentDirectories([tmp_path]),
    ):
        assert not len(source.scores())
        with pytest.raises(InputError, match=r"this student belongs to no study\. Name a file of texts with --data"):
            source.texts()
    assert StudentDirectories([tmp_path], lambda: ["a b"]).texts() == ["a b"]
