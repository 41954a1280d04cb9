"""Student directories: what is written is read; what is wrong with one is said in one message."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys.models import toy_bert, toy_tokenizer, write_model, write_student
from toys.studies import ToyStudy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from layerangles.errors import InputError
from layerangles.files import sha256_of_file
from layerangles.geometry.maps import MatchingMaps
from layerangles.models.checkpoints import (
    ModelCheckpoint,
    check_same_tokenizer,
    load_config,
    load_tokenizer,
    open_student,
    resolve,
    tokenizer_sha256,
)
from layerangles.models.matching_file import MAPS_FILE, MATCHING_FILE, Matching
from layerangles.models.weights import check_weights, weight_files, weights_sha256


@pytest.fixture
def student(tmp_path: Path, study: ToyStudy) -> Path:
    """A copy of the student with learned maps, to be damaged."""
    return Path(shutil.copytree(study.learned, tmp_path / "students" / "mine"))


def _edit_json(file: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# --- what is written is read ----------------------------------------------------------------------------------


def test_a_student_directory_is_read_as_it_was_written(study: ToyStudy) -> None:
    opened = open_student(study.learned)
    assert opened.name == "learned"
    assert opened.step == 0
    assert opened.matching is not None
    assert opened.matching.towers["encoder"].pairs == ((0, 0), (1, 2))
    assert opened.matching.towers["encoder"].map == "learned"
    assert opened.matching.strategy == {"kind": "forward"}
    assert opened.config.hidden_size == 24
    assert opened.weights_sha256 == sha256_of_file(study.learned / "model.safetensors")
    assert set(opened.load_maps().by_layer) == {("encoder", 0), ("encoder", 1)}
    assert opened.load_maps().by_layer["encoder", 1].weight.shape == (32, 24)
    assert open_student(study.identity).load_maps() == MatchingMaps()
    assert Matching.model_validate_json((study.learned / MATCHING_FILE).read_bytes()) == opened.matching


def test_a_student_directory_is_one_of_transformers(study: ToyStudy) -> None:
    loaded = AutoModelForSequenceClassification.from_pretrained(study.learned)
    expected = toy_bert(layers=2, width=24, seed=3)
    for name, weight in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert AutoTokenizer.from_pretrained(study.learned).get_vocab() == toy_tokenizer().get_vocab()
    card = (study.learned / "README.md").read_text()
    assert "# learned\n" in card
    assert "encoder: 0 → 0, 1 → 2 (maps: learned)" in card


def test_a_model_is_loaded_without_its_head_in_float32_for_evaluation(tmp_path: Path) -> None:
    model = toy_bert(layers=2).to(torch.bfloat16)
    loaded = ModelCheckpoint(write_model(tmp_path / "half", model)).load_model()
    assert type(loaded).__name__ == "BertModel"
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not loaded.training


def test_a_student_is_overwritten_only_when_asked(tmp_path: Path, study: ToyStudy) -> None:
    path = write_student(tmp_path / "s", study.teacher, maps="learned", width=24)
    before = weights_sha256(path)
    with pytest.raises(InputError, match=r"exists already\. Choose another path, or replace it with overwrite"):
        write_student(path, study.teacher, seed=5)
    assert weights_sha256(path) == before
    write_student(path, study.teacher, seed=5, overwrite=True)
    assert weights_sha256(path) != before
    assert open_student(path).load_maps() == MatchingMaps()  # the old maps are gone


def test_a_student_that_could_not_be_written_is_not_half_there(
    tmp_path: Path, study: ToyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(MatchingMaps, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        write_student(tmp_path / "s", study.teacher, maps="learned", width=24)
    assert list((tmp_path / "s").glob("*")) == []
    with pytest.raises(InputError):
        open_student(tmp_path / "s")


def test_checkpoints_come_by_step_and_the_final_state_last(study_with_steps: list[Path]) -> None:
    late, early = study_with_steps
    checkpoints = open_student(early).checkpoints()
    assert [c.step for c in checkpoints] == [0, 10, 20]
    assert [c.name for c in checkpoints] == ["early"] * 3
    assert checkpoints[-1].path == early
    assert [c.step for c in open_student(late).checkpoints()] == [10, 30]
    alone = open_student(early / "checkpoints" / "step-10")
    assert (alone.name, alone.step) == ("early", 10)
    assert [c.step for c in alone.checkpoints()] == [10]


def test_a_checkpoint_of_the_final_step_is_not_counted_twice(tmp_path: Path, study: ToyStudy) -> None:
    path = write_student(tmp_path / "s", study.teacher, step=20)
    for step in (9, 10, 20):
        write_student(path / "checkpoints" / f"step-{step}", study.teacher, step=step)
    assert [c.step for c in open_student(path).checkpoints()] == [9, 10, 20]


def test_hash_of_several_weight_files_is_that_of_their_list(tmp_path: Path) -> None:
    one, two = torch.ones(2), torch.zeros(2)
    save_file({"a": one}, tmp_path / "model-1.safetensors")
    alone = weights_sha256(tmp_path)
    assert alone == sha256_of_file(tmp_path / "model-1.safetensors")
    save_file({"b": two}, tmp_path / "model-2.safetensors")
    save_file({"encoder.0.weight": two}, tmp_path / MAPS_FILE)  # maps are no weights of the model
    assert [file.name for file in weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    both = weights_sha256(tmp_path)
    assert both != alone
    save_file({"b": one}, tmp_path / "model-2.safetensors")
    assert weights_sha256(tmp_path) != both


# --- the teacher ----------------------------------------------------------------------------------------------


def test_a_relative_teacher_is_found_from_the_student(tmp_path: Path) -> None:
    teacher = write_model(tmp_path / "teacher", toy_bert(layers=2))
    student = write_student(tmp_path / "students" / "s", teacher)
    _edit_json(student / MATCHING_FILE, lambda m: m["teacher"].update(path="../../teacher"))
    assert open_student(student).open_teacher().path == teacher.resolve()


def test_a_teacher_whose_weights_changed_is_refused(tmp_path: Path) -> None:
    teacher = write_model(tmp_path / "teacher", toy_bert(layers=2))
    student = open_student(write_student(tmp_path / "mine", teacher))
    student.open_teacher()
    old = weights_sha256(teacher)[:12]
    write_model(teacher, toy_bert(layers=2, seed=9))
    with pytest.raises(InputError, match=r"teacher's weights changed since mine was trained") as raised:
        student.open_teacher()
    for part in (old, weights_sha256(teacher)[:12], "Restore the teacher", "--teacher"):
        assert part in str(raised.value)


def test_a_teacher_that_is_nowhere_is_refused(student: Path) -> None:
    _edit_json(student / MATCHING_FILE, lambda m: m["teacher"].update(path="nobody/no-such-teacher"))
    with pytest.raises(InputError, match=r'"nobody/no-such-teacher" is neither a directory here nor .*hub .*spelling'):
        open_student(student).open_teacher()


def test_a_name_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InputError, match=r'"no such: name" is neither a directory here nor to be had from the hub'):
        resolve("no such: name")


def test_a_student_without_a_matching_does_not_know_its_teacher(study: ToyStudy) -> None:
    from layerangles.models.checkpoints import StudentCheckpoint

    with pytest.raises(InputError, match=r"does not know its teacher\. Name it explicitly \(--teacher\)"):
        StudentCheckpoint(study.teacher).open_teacher()
    assert StudentCheckpoint(study.teacher).step == 0


# --- what is wrong with a directory ---------------------------------------------------------------------------


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no-such is not a directory\. Give a student directory, such as STUDY/stud"):
        open_student(tmp_path / "no-such")


def test_a_directory_without_a_matching_file_is_refused(study: ToyStudy) -> None:
    with pytest.raises(InputError, match=r"teacher holds no matching\.json, so it is not a student .*--teacher and"):
        open_student(study.teacher)


def test_all_that_is_wrong_in_a_matching_file_is_listed(student: Path) -> None:
    def spoil(matching: dict) -> None:
        matching["schema_version"] = 99
        matching["towers"]["encoder"]["map"] = "magic"
        matching["towers"]["encoder"]["pairs"][0] = [-1, 0]
        matching["strategy"] = {"name": "forward"}
        matching["colour"] = "red"
        del matching["seed"]

    _edit_json(student / MATCHING_FILE, spoil)
    with pytest.raises(InputError) as raised:
        open_student(student)
    for part in (
        "matching.json is not valid: ",
        "schema_version: Input should be 1",
        "towers.encoder.map: Input should be 'identity', 'learned', 'frozen', 'orthogonal' or 'pca'",
        "towers.encoder.pairs.0.0: Input should be greater than or equal to 0",
        'a strategy needs a "kind", such as {"kind": "forward"}',
        "colour: Extra inputs are not permitted",
        "seed: Field required",
        "Schema version 1 is understood.",
    ):
        assert part in str(raised.value)


def test_a_matching_file_that_is_no_json_is_refused(student: Path) -> None:
    (student / MATCHING_FILE).write_text("{")
    with pytest.raises(InputError, match=r"matching\.json is not valid: file: Invalid JSON"):
        open_student(student)


def test_truncated_weights_are_refused(student: Path) -> None:
    file = student / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged or cut short \(.*\)\. Copy it again"):
        open_student(student)


@pytest.mark.parametrize("pickled", [True, False])
def test_missing_and_pickled_weights_are_refused(student: Path, pickled: bool) -> None:
    (student / "model.safetensors").unlink()
    hint = ""
    if pickled:
        torch.save({}, student / "pytorch_model.bin")
        hint = " It has pytorch_model.bin; convert it, since pickled weights are not read."
    with pytest.raises(InputError, match=re.escape("holds no weights (*.safetensors)." + hint) + "$"):
        check_weights(student)


def test_weights_that_lack_a_block_are_refused(student: Path) -> None:
    _edit_json(student / "config.json", lambda config: config.update(num_hidden_layers=3))
    with pytest.raises(InputError, match=r"16 weights of BertModel are missing, encoder\.layer\.2.* save the model"):
        open_student(student).load_model()


def test_weights_without_head_or_pooler_are_accepted(student: Path) -> None:
    file = student / "model.safetensors"
    weights = load_file(file)
    kept = {name: w for name, w in weights.items() if "pooler" not in name and "classifier" not in name}
    assert len(kept) == len(weights) - 4
    save_file(kept, file, metadata={"format": "pt"})
    assert open_student(student).load_model().config.num_hidden_layers == 2


def test_a_missing_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model configuration at .* Give the directory or the hub name"):
        load_config(str(tmp_path))


def test_a_missing_tokenizer_is_refused(tmp_path: Path, study: ToyStudy) -> None:
    model = Path(shutil.copytree(study.teacher, tmp_path / "model"))
    for file in model.glob("*token*"):
        file.unlink()
    (model / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"holds no tokenizer that can be read \(.*\)\. Save one beside the model"):
        load_tokenizer(model)


def test_another_tokenizer_is_refused() -> None:
    ours = toy_tokenizer()
    check_same_tokenizer(ours, toy_tokenizer(padding_side="left"), "mine")
    with pytest.raises(
        InputError,
        match=r"tokenizer of mine differs from its teacher's in 2 tokens: 'a' is 6 in the student and 5 in the teacher",
    ):
        check_same_tokenizer(ours, toy_tokenizer(words="bacdefghijklmnop"), "mine")
    with pytest.raises(InputError, match=r"in 1 tokens: 'p' is absent in the student and 20 in the teacher"):
        check_same_tokenizer(ours, toy_tokenizer(words="abcdefghijklmno"), "mine")


def test_hash_of_a_tokenizer_depends_on_its_vocabulary() -> None:
    assert tokenizer_sha256(toy_tokenizer()) == tokenizer_sha256(toy_tokenizer(padding_side="left"))
    assert tokenizer_sha256(toy_tokenizer()) != tokenizer_sha256(toy_tokenizer(words="bacdefghijklmnop"))
