"""``layerangles angles`` refuses bad options, broken students and texts that it cannot read."""

import shutil
from pathlib import Path

from toys.command_line import Cli, refused
from toys.models import toy_bert, toy_tokenizer, write_model
from toys.studies import ToyStudy


def test_angles_refuses_anything_but_students(cli: Cli, trained: Path, tmp_path: Path) -> None:
    refused(cli("angles", "nowhere"), "nowhere is not a directory")
    refused(
        cli("angles", trained / "teacher", "--data", trained / "metrics.jsonl", "--text", "student"), "matching.json"
    )
    refused(cli("angles"), "give student directories")
    refused(cli("angles", "--teacher", "x"), "belong together")
    refused(cli("angles", trained / "students" / "none-seed0", "--png", "x.svg"), "must end in .png")
    refused(cli("angles", trained / "students" / "none-seed0", "--split", "train2"), "no split 'train2'")
    assert list(tmp_path.iterdir()) == [trained]


def test_angles_refuses_truncated_weights(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = trained / "students" / "none-seed0"
    weights = student / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(cli("angles", student), "model.safetensors is damaged or cut short")


def test_angles_refuses_another_teacher(cli: Cli, trained: Path, tmp_path: Path) -> None:
    copy = trained
    write_model(copy / "teacher", toy_bert(layers=4, seed=5))
    refused(
        cli("angles", copy / "students" / "none-seed0"), "weights changed since none-seed0 was trained", "--teacher"
    )


def test_angles_refuses_another_tokenizer(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = trained / "students" / "none-seed0"
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["extra"])
    tokenizer.save_pretrained(student)
    refused(cli("angles", student), "the tokenizer of none-seed0 differs", "'extra'")


def test_angles_without_texts_are_refused(cli: Cli, study: ToyStudy) -> None:
    refused(cli("angles", study.identity), "--data")


def test_angles_refuses_wrong_values_of_options(cli: Cli, trained: Path, tmp_path: Path) -> None:
    student = trained / "students" / "none-seed0"
    refused(cli("angles", student, "--null", "N9"), "no null 'N9'", "N0, N1")
    refused(cli("angles", student, "--preprocessing", "whitened"), "'whitened'", "drop-K")
    refused(cli("angles", student, "--shard", "3"), "--shard is '3'", "0/4 to 3/4")
    refused(cli("angles", student, "--trajectory", "x.gif"), "must end in .html")
    refused(cli("angles", student, "--trajectory", "x.html", "--no-steps"), "--trajectory needs checkpoints")
    (tmp_path / "one.txt").write_text("a b c\n", encoding="utf-8")
    refused(cli("angles", student, "--data", "one.txt"), "too few", "two examples")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9 cr\u00e8me\nth\u00e9\n".encode("latin-1"))
    refused(cli("angles", student, "--data", "latin.txt"), "latin.txt", "UTF-8")


def test_angles_refuses_weights_that_are_not_finite(cli: Cli, trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    student = trained / "students" / "none-seed0"
    weights = load_file(student / "model.safetensors")
    name = next(name for name in weights if name.endswith("output.dense.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, student / "model.safetensors", metadata={"format": "pt"})
    refused(cli("angles", student, "--no-steps"), "the states of none-seed0 are not finite", "train it anew")


def test_angles_refuses_maps_of_the_wrong_shape(cli: Cli, study: ToyStudy, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    student = Path(shutil.copytree(study.learned, tmp_path / "students" / "learned"))
    text = (student / "matching.json").read_text(encoding="utf-8")
    (student / "matching.json").write_text(text.replace("../../teacher", str(study.teacher)), encoding="utf-8")
    maps = load_file(student / "matching_maps.safetensors")
    maps["encoder.1.weight"] = maps["encoder.1.weight"][:, :-1].contiguous()
    save_file(maps, student / "matching_maps.safetensors")
    (tmp_path / "texts.txt").write_text("a b c\nd e\n", encoding="utf-8")
    refused(cli("angles", student, "--data", "texts.txt"), "the map of layer 1 has the shape (32, 23)", "(32, 24)")
