"""The directories of a trained study: files, scores, maps, labels and precision."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys.models import toy_bert, write_model
from toys.trained_studies import (
    TaughtTask,
    TrainedStudy,
)
from toys.training import toy_examples
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kd_train.students.construction import build_student
from kd_train.students.student_plan import plan_student
from kd_train.students.student_spec import StudentSpec
from kd_train.study.score_logs import MetricsLog
from kd_train.study.study_file import read_study, study_of
from kd_train.training.train_study import train_study
from layerangles import measure_angles, open_student
from layerangles.models.weights import weights_sha256

STUDENTS = ("forward-seed0", "none-seed0", "random-draw1-seed0")
MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def _accuracy(model_dir: Path, jsonl: str) -> float:
    """By transformers alone, one example at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = [json.loads(line) for line in Path(jsonl).read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        given = [int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax()) for row in rows]
    return sum(model.config.id2label[a] == row["label"] for a, row in zip(given, rows, strict=True)) / len(rows)


def test_a_study_directory_holds_the_documented_files(trained: TrainedStudy) -> None:
    names = {file.name for file in trained.folder.iterdir() if file.is_file() or any(file.iterdir())}
    assert {name for name in names if not name.startswith(".")} == {
        "environment.json", "examples.jsonl", "metrics.jsonl", "students", "study.resolved.yaml", "teacher"
    }  # fmt: skip
    assert {file.name for file in (trained.folder / "teacher").iterdir()} == MODEL_FILES
    assert {file.name for file in (trained.folder / "students").iterdir()} == set(STUDENTS)
    for name in STUDENTS:
        student = trained.folder / "students" / name
        assert {f.name for f in student.iterdir()} == MODEL_FILES | {"README.md", "matching.json", "checkpoints"}
        assert {f.name for f in (student / "checkpoints").iterdir()} == {"step-0", "step-4"}
        for checkpoint in (student / "checkpoints").iterdir():
            assert {f.name for f in checkpoint.iterdir()} == MODEL_FILES | {"README.md", "matching.json"}
    assert read_study(trained.folder) == trained.study(trained.folder)
    assert study_of(trained.folder / "students" / "none-seed0") == trained.study(trained.folder)


def test_matching_json_records_how_a_student_was_made(trained: TrainedStudy) -> None:
    student = trained.folder / "students" / "random-draw1-seed0"
    for place, step in ((student, 8), (student / "checkpoints" / "step-4", 4)):
        content = json.loads((place / "matching.json").read_text(encoding="utf-8"))
        best = content.pop("best")
        assert content == {
            "schema_version": 1,
            "teacher": {
                "path": os.path.relpath(trained.folder / "teacher", place),
                "revision": None,
                "weights_sha256": weights_sha256(trained.folder / "teacher"),
            },
            "strategy": {"kind": "random", "mapping_seed": 1},
            "seed": 0,
            "mapping_seed": 1,
            "step": step,
            "towers": {"encoder": {"pairs": [[0, 0], [1, 2], [2, 4]], "map": "identity"}},
            "init": {
                "kind": "copied",
                "copied_layers": {"encoder": [2, 4]},
                "embeddings": "copied",
                "freeze_embeddings": False,
            },
            "loss": {
                "hidden": "mse",
                "tokens": None,
                "divergence": "forward_kl",
                "ce_weight": 1.0,
                "kl_weight": 1.0,
                "hidden_weight": 3.0,
                "temperature": 1.0,
                "learning_rate": 1e-3,
                "share_map": False,
            },
            "targets": "teacher",
            "changing": None,
        }
        assert (best is None) == (step < 8)
    assert json.loads((trained.folder / "students/none-seed0/matching.json").read_text())["mapping_seed"] is None


def test_the_best_step_is_that_of_the_metrics(trained: TrainedStudy) -> None:
    for name in STUDENTS:
        scores = [
            (m.value, -m.step, m.step)
            for m in MetricsLog(trained.folder).read()
            if (m.student, m.split, m.metric) == (name, "dev", "accuracy")
        ]
        value, _, step = max(scores)
        best = json.loads((trained.folder / "students" / name / "matching.json").read_text())["best"]
        assert best == {"step": step, "metric": "accuracy", "value": value}


def test_the_metrics_are_complete(trained: TrainedStudy) -> None:
    terms = {"teacher": ("ce", "total")}
    expected = []
    for name in (*STUDENTS, "teacher"):
        steps, last = ((1, 2, 3, 4, 5, 6), 6) if name == "teacher" else ((3, 6, 8), 8)
        for term in terms.get(name, ("ce", "kl", "hidden", "total")):
            expected += [(name, step, "train", f"loss_{term}") for step in steps]
        expected += [(name, step, "dev", "accuracy") for step in steps]
        expected.append((name, last, "test", "accuracy"))
        if name != "teacher":
            expected += [(name, last, "train", "memory_mib"), (name, last, "train", "seconds_per_step")]
    got = [(m.student, m.step, m.split, m.metric) for m in MetricsLog(trained.folder).read()]
    assert sorted(got) == sorted(expected)


@pytest.mark.parametrize("name", [*STUDENTS, "teacher"])
def test_the_scores_are_those_of_the_saved_models(trained: TrainedStudy, name: str) -> None:
    place = trained.folder / ("teacher" if name == "teacher" else f"students/{name}")
    last = {m.split: m.value for m in MetricsLog(trained.folder).read() if m.student == name and m.metric == "accuracy"}
    for split in ("dev", "test"):
        assert last[split] == _accuracy(place, trained.files[split])


def test_students_start_from_their_teacher_and_move(trained: TrainedStudy) -> None:
    teacher = AutoModelForSequenceClassification.from_pretrained(trained.folder / "teacher")
    plan = plan_student(StudentSpec(layers=2), teacher.config)
    start = build_student(teacher, plan, auto_model=AutoModelForSequenceClassification, seed=0).state_dict()
    for name in STUDENTS:
        student = trained.folder / "students" / name
        first = load_file(student / "checkpoints" / "step-0" / "model.safetensors")
        later = load_file(student / "checkpoints" / "step-4" / "model.safetensors")
        last = load_file(student / "model.safetensors")
        assert all(torch.equal(first[key], start[key]) for key in first)
        assert all(not torch.equal(first[key], later[key]) for key in first)
        assert all(not torch.equal(later[key], last[key]) for key in first)


def test_the_teacher_was_fine_tuned_and_then_left_alone(trained: TrainedStudy) -> None:
    base, tuned = (load_file(place / "model.safetensors") for place in (trained.base, trained.folder / "teacher"))
    assert all(not torch.equal(base[key], tuned[key]) for key in base)
    config = json.loads((trained.folder / "teacher" / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}


def test_students_differ_exactly_if_their_strategies_do(trained: TrainedStudy) -> None:
    weights = {name: (trained.folder / f"students/{name}/model.safetensors").read_bytes() for name in STUDENTS}
    assert weights["none-seed0"] != weights["forward-seed0"]
    # This draw is the identity, which is forward: the same student to the bit.
    assert weights["random-draw1-seed0"] == weights["forward-seed0"]


def test_the_students_can_be_measured(trained: TrainedStudy) -> None:
    students = [trained.folder / "students" / name for name in STUDENTS]
    assert [checkpoint.step for checkpoint in open_student(students[0]).checkpoints()] == [0, 4, 8]
    texts = [row["text"] for row in toy_examples(6, seed=9)]
    result = measure_angles(students, texts, device="cpu")
    assert result.dataset["angle_deg"].sel(student="forward-seed0").notnull().any()
    assert set(result.students) == set(STUDENTS)


def test_narrower_students_keep_their_maps(trained: TrainedStudy, tmp_path: Path) -> None:
    student = {"layers": 2, "width": 24, "init": "random"}
    seeds = [1, 2]
    study = trained.as_it_is(tmp_path / "study", trained.folder / "teacher", student=student, seeds=seeds)
    folder = train_study(study, device="cpu")
    assert not (folder / "teacher").exists()
    assert {f.name for f in (folder / "students").iterdir()} == {
        f"{s}-seed{k}" for s in ("none", "forward", "random-draw1") for k in seeds
    }
    forward = folder / "students" / "forward-seed1"
    maps = load_file(forward / "matching_maps.safetensors")
    at_first = load_file(forward / "checkpoints" / "step-0" / "matching_maps.safetensors")
    assert {key: tuple(weight.shape) for key, weight in maps.items()} == {
        f"encoder.{layer}.weight": (32, 24) for layer in range(3)
    }
    assert all(not torch.equal(maps[key], at_first[key]) for key in maps)
    assert not (folder / "students" / "none-seed1" / "matching_maps.safetensors").exists()
    assert not [key for key in load_file(forward / "model.safetensors") if "map" in key]
    matching = json.loads((forward / "matching.json").read_text())
    assert matching["teacher"]["path"] == str((trained.folder / "teacher").resolve())
    assert matching["towers"]["encoder"]["map"] == "learned"
    assert [m.step for m in MetricsLog(folder).read() if m.student == "teacher"] == [0, 0]  # dev and test
    measured = measure_angles([forward], ["a b c", "d e"], device="cpu")
    assert measured.dataset["angle_deg"].notnull().any()


def test_a_moved_study_finds_its_teacher(trained: TrainedStudy, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(trained.folder, moved)
    teacher = open_student(moved / "students" / "forward-seed0" / "checkpoints" / "step-4").open_teacher()
    assert teacher.path == moved.resolve() / "teacher"


def test_labels_are_numbered_as_the_teacher_numbers_them(trained: TrainedStudy, tmp_path: Path) -> None:
    names = {"id2label": {0: "pos", 1: "neg"}, "label2id": {"pos": 0, "neg": 1}}
    teacher = write_model(tmp_path / "teacher", toy_bert(layers=4, **names))
    folder = train_study(trained.as_it_is(tmp_path / "study", teacher, strategies=["none"]), device="cpu")
    scores = {m.split: m.value for m in MetricsLog(folder).read() if m.student == "teacher"}
    assert scores["dev"] == _accuracy(teacher, trained.files["dev"])
    last = [m.value for m in MetricsLog(folder).read() if (m.student, m.split) == ("none-seed0", "dev")][-1]
    assert last == _accuracy(folder / "students" / "none-seed0", trained.files["dev"])


def test_one_process_trains_in_both_precisions(trained: TrainedStudy, tmp_path: Path) -> None:
    run = {"max_steps": 2, "batch_size": 8, "checkpoints": []}
    for precision in ("bfloat16", "float32"):
        study = trained.as_it_is(
            tmp_path / precision, trained.folder / "teacher", precision=precision, strategies=["forward"], training=run
        )
        train_study(study, device="cpu")
    weights = [load_file(tmp_path / p / "students/forward-seed0/model.safetensors") for p in ("bfloat16", "float32")]
    assert all(tensor.dtype == torch.float32 for tensor in weights[0].values())
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_second_seed_leaves_the_first_alone(trained: TrainedStudy, tmp_path: Path) -> None:
    """The students of a seed are the same whatever other seeds and strategies are trained."""
    study = trained.study(tmp_path / "study", seeds=[3, 0], strategies=["forward", "last"])
    folder = train_study(study, device="cpu")
    for seed, is_same in ((0, True), (3, False)):
        ours = (folder / f"students/forward-seed{seed}/model.safetensors").read_bytes()
        theirs = (trained.folder / "students/forward-seed0/model.safetensors").read_bytes()
        assert (ours == theirs) == is_same
    first = [load_file(folder / f"students/last-seed{k}/checkpoints/step-0/model.safetensors") for k in (0, 3)]
    assert not torch.equal(first[0]["classifier.weight"], first[1]["classifier.weight"])


def test_students_with_adapters_are_ordinary_models(task: TaughtTask, tmp_path: Path) -> None:
    study = task.study(tmp_path / "study", "forward", training={"lora": {"rank": 4}, "learning_rate": 1e-2})
    train_study(study, device="cpu")
    teacher = load_file(task.teacher / "model.safetensors")
    student = load_file(study.folder / "students" / "forward-seed0" / "model.safetensors")
    first = load_file(study.folder / "students/forward-seed0/checkpoints/step-0/model.safetensors")
    assert student.keys() == first.keys() <= teacher.keys()
    assert torch.equal(
        first["bert.encoder.layer.1.output.dense.weight"], teacher["bert.encoder.layer.3.output.dense.weight"]
    )
    moved = {name for name in student if not torch.equal(student[name], first[name])}
    linears = {n for n in student if n.endswith("weight") and "LayerNorm" not in n and "embeddings" not in n}
    assert moved == linears | {"classifier.bias"}
    (_, *_, last) = open_student(study.folder / "students" / "forward-seed0").checkpoints()
    assert last.load_model().config.num_hidden_layers == 2
