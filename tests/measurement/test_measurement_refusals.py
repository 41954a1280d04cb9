"""Whatever is wrong with settings, texts, models or maps is refused in one message, before any work."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from toys.models import toy_bert, toy_tokenizer, write_model, write_student
from toys.studies import ToyStudy

from layerangles import InputError, measure_angles


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "student"}, r"space is 'student'; allowed are 'teacher', 'pull', 'gradient'\."),
        ({"final_norm": "none"}, r"final_norm is 'none'; allowed are 'pre', 'post'\."),
        ({"precision": "float16"}, r"precision is 'float16'; allowed are 'float32', 'bfloat16'\."),
        (
            {"device": "abacus"},
            r"the device 'abacus' is not there \(.*\)\. Allowed are auto, cpu, cuda, cuda:N",
        ),
        ({"device": "meta"}, r"the device 'meta' is not there \(.*\)\. Allowed are auto, cpu, cuda, cuda:N and mps"),
        ({"device": "cuda:99"}, r"the device 'cuda:99' is not there \(.*\)\. Allowed are auto, cpu, cuda"),
        ({"batch_size": 0}, r"batch_size is 0; allowed are 1 and more"),
        ({"students_per_pass": -1}, r"students_per_pass is -1; allowed are 1 and more"),
        ({"confidence": 95.0}, r"confidence is 95\.0; allowed is a number between 0 and 1, such as 0\.95"),
        ({"max_length": 2}, r"max_length is 2, of which this tokenizer needs 2 for special tokens"),
    ],
)
def test_settings_that_are_not_allowed_are_refused(study: ToyStudy, settings: dict, message: str) -> None:
    # The import hook would refuse a value outside a Literal before the function itself can.
    unchecked = getattr(measure_angles, "__wrapped__", measure_angles)
    with pytest.raises(InputError, match=message):
        unchecked(study.identity, study.texts, **({"device": "cpu"} | settings))


def test_no_texts_and_no_students_are_refused(study: ToyStudy) -> None:
    with pytest.raises(InputError, match=r"there are no texts to measure on: got an empty list"):
        measure_angles(study.identity, [], device="cpu")
    with pytest.raises(InputError, match=r"got no students\. Give at least one student directory"):
        measure_angles([], study.texts, device="cpu")


def test_texts_longer_than_the_models_are_refused(study: ToyStudy) -> None:
    with pytest.raises(InputError, match=r"a text has 100 tokens, more than the 64"):
        measure_angles(study.identity, ["a " * 200] * 2, max_length=100, device="cpu")
    assert (
        measure_angles(study.identity, ["a " * 200] * 2, max_length=64, device="cpu").dataset.attrs["n_truncated"] == 2
    )


def test_a_directory_that_is_no_student_is_refused(study: ToyStudy) -> None:
    with pytest.raises(InputError, match=r"holds no matching\.json"):
        measure_angles(study.teacher, study.texts, device="cpu")


def test_a_student_given_twice_is_refused(study: ToyStudy) -> None:
    with pytest.raises(InputError, match=r"students/identity is given twice\. Give every student once"):
        measure_angles([study.identity, study.deeper, study.identity / "."], study.texts, device="cpu")


def test_students_of_one_name_are_told_apart(tmp_path: Path, study: ToyStudy) -> None:
    paths = [
        write_student(tmp_path / place / "students" / "s", study.teacher, seed=seed)
        for seed, place in enumerate(("one", "two", "deep/two"))
    ]
    texts = study.texts[:2]
    assert measure_angles(paths[:2], texts, device="cpu").students == ["one/s", "two/s"]
    assert measure_angles(paths, texts, device="cpu").students == ["one/s", str(paths[1]), str(paths[2])]
    assert measure_angles([paths[0], study.identity], texts, device="cpu").students == ["s", "identity"]


def test_students_of_different_teachers_are_refused(tmp_path: Path, study: ToyStudy) -> None:
    other = write_model(tmp_path / "teacher", toy_bert(layers=4, seed=8))
    stranger = write_student(tmp_path / "stranger", other)
    with pytest.raises(InputError, match=r"identity and stranger have different teachers\. Measure them in two calls"):
        measure_angles([study.identity, stranger], study.texts, device="cpu")


def test_a_teacher_whose_weights_changed_is_refused(tmp_path: Path, study: ToyStudy) -> None:
    teacher = Path(shutil.copytree(study.teacher, tmp_path / "teacher"))
    student = write_student(tmp_path / "mine", teacher)
    write_model(teacher, toy_bert(layers=4, seed=8))
    with pytest.raises(InputError, match=r"teacher's weights changed since mine was trained"):
        measure_angles(student, study.texts, device="cpu")
    # Named explicitly, the teacher is taken as it is; but these are not the layers that training matched.
    assert measure_angles(student, study.texts, teacher=teacher, device="cpu").dataset["matched"].sum() == 0


def test_a_student_with_another_tokenizer_is_refused(tmp_path: Path, study: ToyStudy) -> None:
    other = write_student(tmp_path / "mine", study.teacher, tokenizer=toy_tokenizer(words="bacdefghijklmnop"))
    with pytest.raises(InputError, match=r"tokenizer of mine differs from its teacher's in 2 tokens"):
        measure_angles([study.identity, other], study.texts, device="cpu")


def test_a_model_of_another_width_is_refused(tmp_path: Path, study: ToyStudy) -> None:
    narrow = write_model(tmp_path / "narrow", toy_bert(layers=2, width=24))
    with pytest.raises(InputError, match=r"narrow has width 24, the teacher 32\. Two models that were never matched"):
        measure_angles(narrow, study.texts, teacher=study.teacher, device="cpu")


def test_students_without_a_layer_in_teacher_space_are_refused(tmp_path: Path, study: ToyStudy) -> None:
    narrow = write_student(tmp_path / "narrow", study.teacher, width=24, pairs=())
    with pytest.raises(InputError, match=r"no student layer .* widths are \[24\], the teacher's is 32, and no maps"):
        measure_angles(narrow, study.texts, device="cpu")


def test_maps_that_are_missing_or_of_another_shape_are_refused(tmp_path: Path, study: ToyStudy) -> None:
    lost = write_student(tmp_path / "lost", study.teacher, width=24, maps="learned")
    (lost / "matching_maps.safetensors").unlink()
    with pytest.raises(InputError, match=r"lost does not fit .*has no map for the matched layer 0"):
        measure_angles([study.identity, lost], study.texts, device="cpu")
    wrong = write_student(tmp_path / "wrong", study.teacher, width=24, maps="learned", teacher_width=40)
    with pytest.raises(InputError, match=r"map of layer 0 has the shape \(40, 24\), the models need \(32, 24\)"):
        measure_angles(wrong, study.texts, device="cpu")
    beyond = write_student(tmp_path / "beyond", study.teacher, pairs=((1, 9),))
    with pytest.raises(InputError, match=r"the pair \(1, 9\) names a layer that is not there"):
        measure_angles(beyond, study.texts, device="cpu")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, study: ToyStudy) -> None:
    model = toy_bert(layers=2)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight.fill_(torch.nan)
    diverged = write_student(tmp_path / "diverged", study.teacher, model=model)
    with pytest.raises(InputError, match=r"the states of diverged are not finite: its training diverged"):
        measure_angles([study.identity, diverged], study.texts, device="cpu")


def test_an_encoder_decoder_is_not_compared_with_an_encoder(tmp_path: Path, study: ToyStudy) -> None:
    path = Path(shutil.copytree(study.teacher, tmp_path / "t5"))
    (path / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 32, "num_layers": 2}))
    with pytest.raises(
        InputError, match=r"identity has the towers \('encoder',\), its teacher \('encoder', 'decoder'\)"
    ):
        measure_angles(study.identity, study.texts, teacher=path, device="cpu")
