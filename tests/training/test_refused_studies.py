"""Studies that are refused before anything is written or deleted."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from toys.models import toy_bert, toy_tokenizer, write_model
from toys.trained_studies import TrainedStudy, assert_same_study, model_files
from toys.training import toy_study, toy_teacher, write_task

from kd_train.study.score_logs import METRICS_FILE
from kd_train.study.study_file import RESOLVED_FILE, Study
from kd_train.training.train_study import train_study
from layerangles import InputError


def _refused(study: Study, message: str, **how: Any) -> None:
    with pytest.raises(InputError, match=message):
        train_study(study, device="cpu", **how)


def test_an_existing_study_is_not_overwritten(trained: TrainedStudy) -> None:
    before = model_files(trained.folder)
    _refused(
        trained.study(trained.folder), "holds a study already. Continue it with --resume, replace it with --overwrite"
    )
    assert model_files(trained.folder) == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_directory_that_holds_no_study_is_never_deleted(
    trained: TrainedStudy, tmp_path: Path, overwrite: bool
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    _refused(trained.study(tmp_path / "thesis"), "exists and holds no study, so it is left alone", overwrite=overwrite)
    _refused(trained.study(tmp_path / "thesis" / "chapter.tex"), "exists and holds no study", overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_study_that_holds_its_own_inputs_is_not_replaced(trained: TrainedStudy, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(trained.folder, folder)
    message = "lies in .*study, which is to be replaced and would be deleted first"
    _refused(trained.as_it_is(folder, folder / "teacher"), message, overwrite=True)
    files = write_task(folder / "task")
    _refused(toy_study(folder, files, trained.base), message, overwrite=True)
    assert (folder / "teacher" / "model.safetensors").exists()


def test_overwrite_leaves_nothing_of_the_old_study(trained: TrainedStudy, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    (folder / "students" / "old-seed0").mkdir(parents=True)
    (folder / RESOLVED_FILE).write_text("name: old\n")
    (folder / METRICS_FILE).write_text('{"student": "old"}\n')
    train_study(trained.study(folder), overwrite=True, device="cpu")
    assert_same_study(folder, trained.folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"strategies": ["none"]}, "another strategies"),
        ({"loss": {"hidden": "cosine"}, "seeds": [5]}, "another seeds and another loss"),
    ],
)
def test_a_study_is_not_resumed_with_other_settings(trained: TrainedStudy, changes: dict[str, Any], named: str) -> None:
    before = model_files(trained.folder)
    _refused(trained.study(trained.folder, **changes), f"was begun with {named}, so it cannot be resumed", resume=True)
    assert model_files(trained.folder) == before


def test_wrong_data_are_reported_before_the_old_study_is_deleted(trained: TrainedStudy, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(trained.folder, folder)
    three = write_model(tmp_path / "three", toy_bert(layers=4, num_labels=3))
    bare = write_model(tmp_path / "bare", toy_bert(layers=4).bert)
    named = {"files": trained.files, "label_names": ["neg", "pos"], "max_length": 16}
    labels = r"the data have 2 \(neg, pos\), the teacher has 3"
    for study, message in [
        (trained.as_it_is(folder, three), labels),
        (trained.as_it_is(folder, three, task=named), labels),
        (
            trained.as_it_is(folder, bare),
            r"bare does not know the task classification: its weights lack classifier\.bias.*teacher\.finetune",
        ),
        (
            trained.study(folder, task={"files": {"train": "nowhere.csv", "dev": "nowhere.csv"}, "max_length": 16}),
            "exist",
        ),
        (trained.study(folder, task={"files": trained.files, "max_length": 65}), "positions for 64 tokens"),
        (trained.study(folder, student={"layers": 5}), "deeper than its teacher"),
        (trained.as_it_is(folder, tmp_path / "nowhere"), "no model configuration at"),
    ]:
        _refused(study, message, overwrite=True)
    assert model_files(folder) == model_files(trained.folder)


def test_everything_impossible_with_a_teacher_is_reported_at_once(trained: TrainedStudy, tmp_path: Path) -> None:
    study = trained.study(
        tmp_path / "study",
        student={"layers": 4},
        strategies=[
            "in_order_random",
            {"kind": "all_to_one", "teacher_layer": 9},
            {"kind": "forward", "student": {"width": 30, "init": "random"}},
        ],
    )
    with pytest.raises(InputError) as caught:
        train_study(study)
    for part in ("width 30 would have 3.75 heads", "in_order_random draws 4", "teacher layer 9"):
        assert part in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_texts_longer_than_the_tokenizer_allows_are_refused(trained: TrainedStudy, tmp_path: Path) -> None:
    """RoBERTa has 514 positions and room for 512 tokens; its tokenizer knows."""
    tokenizer = toy_tokenizer()
    tokenizer.model_max_length = 8
    teacher = write_model(tmp_path / "teacher", toy_teacher(), tokenizer)
    _refused(trained.as_it_is(tmp_path / "study", teacher), "a text has 12 tokens, more than the 8")


def test_an_unknown_device_is_refused(trained: TrainedStudy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device is 'tpu'; training takes auto"):
        train_study(trained.study(tmp_path / "study"), device="tpu")
