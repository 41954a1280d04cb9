"""A study from its file to its students: what is written, what is refused, and what a kill leaves to go on from."""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toys.models import toy_bert, toy_tokenizer, write_model
from toys.processes import in_processes
from toys.training import toy_examples, toy_study, toy_teacher, write_jsonl, write_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import kd_train.training.seed_run
import kd_train.training.teachers
from kd_train.students.construction import build_student
from kd_train.students.student_plan import plan_student
from kd_train.students.student_spec import StudentSpec
from kd_train.study.score_logs import METRICS_FILE, MetricsLog
from kd_train.study.study_file import RESOLVED_FILE, Study, read_study, study_of
from kd_train.training.bank import Bank
from kd_train.training.run import Run
from kd_train.training.train_study import train_study
from layerangles import InputError, measure_angles, open_student
from layerangles.models.weights import weights_sha256

STRATEGIES = ["none", "forward", {"kind": "random", "mapping_seed": 1}]
STUDENTS = ("forward-seed0", "none-seed0", "random-draw1-seed0")
MODEL_FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@dataclass(frozen=True)
class Toys:
    """A base model, the task's files, and a study that was trained on them without interruption."""

    root: Path
    base: Path
    files: dict[str, str]
    folder: Path

    def study(self, folder: Path, **changes: Any) -> Study:
        return toy_study(folder, self.files, self.base, **{"strategies": STRATEGIES} | changes)

    def as_it_is(self, folder: Path, teacher: Path, **changes: Any) -> Study:
        """A study of a teacher that is not fine-tuned."""
        return self.study(folder, teacher={"model": str(teacher)}, **changes)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    root = tmp_path_factory.mktemp("training")
    base = write_model(root / "base", toy_teacher())
    made = Toys(root, base, write_task(root / "task"), root / "study")
    train_study(made.study(made.folder), device="cpu")
    return made


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of the teacher and the students, by its path."""
    files = [file for place in ("teacher", "students") for file in (folder / place).rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _assert_same_study(got: Path, expected: Path) -> None:
    ours, theirs = _content(got), _content(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    lines = [(folder / METRICS_FILE).read_text(encoding="utf-8").splitlines() for folder in (got, expected)]
    lines = [["" if "seconds_per_step" in line else line for line in of] for of in lines]  # a clock never repeats
    assert Counter(lines[0]) == Counter(lines[1])
    assert max(Counter(line for line in lines[0] if line).values()) == 1
    assert not [file for file in got.rglob("*") if "partial" in file.name]
    assert not [*(got / "resume").rglob("*")]


def _accuracy(model_dir: Path, jsonl: str) -> float:
    """By transformers alone, one example at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(model_dir).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    rows = [json.loads(line) for line in Path(jsonl).read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        given = [int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax()) for row in rows]
    return sum(model.config.id2label[a] == row["label"] for a, row in zip(given, rows, strict=True)) / len(rows)


# ---- what is written -----------------------------------------------------------------------------------------------


def test_a_study_directory_is_that_of_the_design(toys: Toys) -> None:
    names = {file.name for file in toys.folder.iterdir() if file.is_file() or any(file.iterdir())}
    assert {name for name in names if not name.startswith(".")} == {
        "environment.json", "examples.jsonl", "metrics.jsonl", "students", "study.resolved.yaml", "teacher"
    }  # fmt: skip
    assert {file.name for file in (toys.folder / "teacher").iterdir()} == MODEL_FILES
    assert {file.name for file in (toys.folder / "students").iterdir()} == set(STUDENTS)
    for name in STUDENTS:
        student = toys.folder / "students" / name
        assert {f.name for f in student.iterdir()} == MODEL_FILES | {"README.md", "matching.json", "checkpoints"}
        assert {f.name for f in (student / "checkpoints").iterdir()} == {"step-0", "step-4"}
        for checkpoint in (student / "checkpoints").iterdir():
            assert {f.name for f in checkpoint.iterdir()} == MODEL_FILES | {"README.md", "matching.json"}
    assert read_study(toys.folder) == toys.study(toys.folder)
    assert study_of(toys.folder / "students" / "none-seed0") == toys.study(toys.folder)


def test_matching_json_says_how_a_student_was_made(toys: Toys) -> None:
    student = toys.folder / "students" / "random-draw1-seed0"
    for place, step in ((student, 8), (student / "checkpoints" / "step-4", 4)):
        content = json.loads((place / "matching.json").read_text(encoding="utf-8"))
        best = content.pop("best")
        assert content == {
            "schema_version": 1,
            "teacher": {
                "path": os.path.relpath(toys.folder / "teacher", place),
                "revision": None,
                "weights_sha256": weights_sha256(toys.folder / "teacher"),
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
    assert json.loads((toys.folder / "students/none-seed0/matching.json").read_text())["mapping_seed"] is None


def test_the_best_step_is_that_of_the_metrics(toys: Toys) -> None:
    for name in STUDENTS:
        scores = [
            (m.value, -m.step, m.step)
            for m in MetricsLog(toys.folder).read()
            if (m.student, m.split, m.metric) == (name, "dev", "accuracy")
        ]
        value, _, step = max(scores)
        best = json.loads((toys.folder / "students" / name / "matching.json").read_text())["best"]
        assert best == {"step": step, "metric": "accuracy", "value": value}


def test_the_metrics_are_complete(toys: Toys) -> None:
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
    got = [(m.student, m.step, m.split, m.metric) for m in MetricsLog(toys.folder).read()]
    assert sorted(got) == sorted(expected)


@pytest.mark.parametrize("name", [*STUDENTS, "teacher"])
def test_the_scores_are_those_of_the_saved_models(toys: Toys, name: str) -> None:
    place = toys.folder / ("teacher" if name == "teacher" else f"students/{name}")
    last = {m.split: m.value for m in MetricsLog(toys.folder).read() if m.student == name and m.metric == "accuracy"}
    for split in ("dev", "test"):
        assert last[split] == _accuracy(place, toys.files[split])


def test_students_start_from_their_teacher_and_move(toys: Toys) -> None:
    teacher = AutoModelForSequenceClassification.from_pretrained(toys.folder / "teacher")
    plan = plan_student(StudentSpec(layers=2), teacher.config)
    start = build_student(teacher, plan, auto_model=AutoModelForSequenceClassification, seed=0).state_dict()
    for name in STUDENTS:
        student = toys.folder / "students" / name
        first = load_file(student / "checkpoints" / "step-0" / "model.safetensors")
        later = load_file(student / "checkpoints" / "step-4" / "model.safetensors")
        last = load_file(student / "model.safetensors")
        assert all(torch.equal(first[key], start[key]) for key in first)
        assert all(not torch.equal(first[key], later[key]) for key in first)
        assert all(not torch.equal(later[key], last[key]) for key in first)


def test_the_teacher_was_fine_tuned_and_then_left_alone(toys: Toys) -> None:
    base, tuned = (load_file(place / "model.safetensors") for place in (toys.base, toys.folder / "teacher"))
    assert all(not torch.equal(base[key], tuned[key]) for key in base)
    config = json.loads((toys.folder / "teacher" / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}


def test_strategies_differ_and_equal_ones_do_not(toys: Toys) -> None:
    weights = {name: (toys.folder / f"students/{name}/model.safetensors").read_bytes() for name in STUDENTS}
    assert weights["none-seed0"] != weights["forward-seed0"]
    # This draw is the identity, which is forward: the same student to the bit.
    assert weights["random-draw1-seed0"] == weights["forward-seed0"]


def test_the_students_can_be_measured(toys: Toys) -> None:
    students = [toys.folder / "students" / name for name in STUDENTS]
    assert [checkpoint.step for checkpoint in open_student(students[0]).checkpoints()] == [0, 4, 8]
    texts = [row["text"] for row in toy_examples(6, seed=9)]
    result = measure_angles(students, texts, device="cpu")
    assert result.dataset["angle_deg"].sel(student="forward-seed0").notnull().any()
    assert set(result.students) == set(STUDENTS)


def test_narrower_students_keep_their_maps(toys: Toys, tmp_path: Path) -> None:
    student = {"layers": 2, "width": 24, "init": "random"}
    seeds = [1, 2]
    study = toys.as_it_is(tmp_path / "study", toys.folder / "teacher", student=student, seeds=seeds)
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
    assert matching["teacher"]["path"] == str((toys.folder / "teacher").resolve())
    assert matching["towers"]["encoder"]["map"] == "learned"
    assert [m.step for m in MetricsLog(folder).read() if m.student == "teacher"] == [0, 0]  # dev and test
    measured = measure_angles([forward], ["a b c", "d e"], device="cpu")
    assert measured.dataset["angle_deg"].notnull().any()


def test_a_moved_study_finds_its_teacher(toys: Toys, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(toys.folder, moved)
    teacher = open_student(moved / "students" / "forward-seed0" / "checkpoints" / "step-4").open_teacher()
    assert teacher.path == moved.resolve() / "teacher"


def test_labels_are_numbered_as_the_teacher_numbers_them(toys: Toys, tmp_path: Path) -> None:
    names = {"id2label": {0: "pos", 1: "neg"}, "label2id": {"pos": 0, "neg": 1}}
    teacher = write_model(tmp_path / "teacher", toy_bert(layers=4, **names))
    folder = train_study(toys.as_it_is(tmp_path / "study", teacher, strategies=["none"]), device="cpu")
    scores = {m.split: m.value for m in MetricsLog(folder).read() if m.student == "teacher"}
    assert scores["dev"] == _accuracy(teacher, toys.files["dev"])
    last = [m.value for m in MetricsLog(folder).read() if (m.student, m.split) == ("none-seed0", "dev")][-1]
    assert last == _accuracy(folder / "students" / "none-seed0", toys.files["dev"])


def test_one_process_trains_in_both_precisions(toys: Toys, tmp_path: Path) -> None:
    run = {"max_steps": 2, "batch_size": 8, "checkpoints": []}
    for precision in ("bfloat16", "float32"):
        study = toys.as_it_is(
            tmp_path / precision, toys.folder / "teacher", precision=precision, strategies=["forward"], training=run
        )
        train_study(study, device="cpu")
    weights = [load_file(tmp_path / p / "students/forward-seed0/model.safetensors") for p in ("bfloat16", "float32")]
    assert all(tensor.dtype == torch.float32 for tensor in weights[0].values())
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


# ---- what is refused -----------------------------------------------------------------------------------------------


def _refused(study: Study, message: str, **how: Any) -> None:
    with pytest.raises(InputError, match=message):
        train_study(study, device="cpu", **how)


def test_a_study_that_is_there_is_not_written_over(toys: Toys) -> None:
    before = _content(toys.folder)
    _refused(toys.study(toys.folder), "holds a study already. Continue it with --resume, replace it with --overwrite")
    assert _content(toys.folder) == before


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_study_is_never_deleted(toys: Toys, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    _refused(toys.study(tmp_path / "thesis"), "exists and holds no study, so it is left alone", overwrite=overwrite)
    _refused(toys.study(tmp_path / "thesis" / "chapter.tex"), "exists and holds no study", overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_a_study_is_not_replaced_while_it_holds_what_it_is_made_from(toys: Toys, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(toys.folder, folder)
    message = "lies in .*study, which is to be replaced and would be deleted first"
    _refused(toys.as_it_is(folder, folder / "teacher"), message, overwrite=True)
    files = write_task(folder / "task")
    _refused(toy_study(folder, files, toys.base), message, overwrite=True)
    assert (folder / "teacher" / "model.safetensors").exists()


def test_overwrite_leaves_nothing_of_the_old_study(toys: Toys, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    (folder / "students" / "old-seed0").mkdir(parents=True)
    (folder / RESOLVED_FILE).write_text("name: old\n")
    (folder / METRICS_FILE).write_text('{"student": "old"}\n')
    train_study(toys.study(folder), overwrite=True, device="cpu")
    _assert_same_study(folder, toys.folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"strategies": ["none"]}, "another strategies"),
        ({"loss": {"hidden": "cosine"}, "seeds": [5]}, "another seeds and another loss"),
    ],
)
def test_a_study_is_not_resumed_with_other_settings(toys: Toys, changes: dict[str, Any], named: str) -> None:
    before = _content(toys.folder)
    _refused(toys.study(toys.folder, **changes), f"was begun with {named}, so it cannot be resumed", resume=True)
    assert _content(toys.folder) == before


def test_wrong_data_are_told_before_the_old_study_is_gone(toys: Toys, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(toys.folder, folder)
    three = write_model(tmp_path / "three", toy_bert(layers=4, num_labels=3))
    bare = write_model(tmp_path / "bare", toy_bert(layers=4).bert)
    named = {"files": toys.files, "label_names": ["neg", "pos"], "max_length": 16}
    labels = r"the data have 2 \(neg, pos\), the teacher has 3"
    for study, message in [
        (toys.as_it_is(folder, three), labels),
        (toys.as_it_is(folder, three, task=named), labels),
        (
            toys.as_it_is(folder, bare),
            r"bare does not know the task classification: its weights lack classifier\.bias.*teacher\.finetune",
        ),
        (toys.study(folder, task={"files": {"train": "nowhere.csv", "dev": "nowhere.csv"}, "max_length": 16}), "exist"),
        (toys.study(folder, task={"files": toys.files, "max_length": 65}), "positions for 64 tokens"),
        (toys.study(folder, student={"layers": 5}), "deeper than its teacher"),
        (toys.as_it_is(folder, tmp_path / "nowhere"), "no model configuration at"),
    ]:
        _refused(study, message, overwrite=True)
    assert _content(folder) == _content(toys.folder)


def test_all_that_is_impossible_with_a_teacher_is_told_at_once(toys: Toys, tmp_path: Path) -> None:
    study = toys.study(
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


def test_texts_longer_than_the_tokenizer_allows(toys: Toys, tmp_path: Path) -> None:
    """RoBERTa has 514 positions and room for 512 tokens; its tokenizer knows."""
    tokenizer = toy_tokenizer()
    tokenizer.model_max_length = 8
    teacher = write_model(tmp_path / "teacher", toy_teacher(), tokenizer)
    _refused(toys.as_it_is(tmp_path / "study", teacher), "a text has 12 tokens, more than the 8")


def test_a_device_that_is_none(toys: Toys, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device is 'tpu'; training takes auto"):
        train_study(toys.study(tmp_path / "study"), device="tpu")


# ---- the teacher's cache -------------------------------------------------------------------------------------------


@pytest.fixture
def tunings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where teachers are fine-tuned."""
    places: list[Path] = []
    finetune = kd_train.training.teachers._finetune

    def spy(context: Any, *arguments: Any) -> None:
        places.append(context.folder / "teacher")
        finetune(context, *arguments)

    monkeypatch.setattr(kd_train.training.teachers, "_finetune", spy)
    return places


def test_a_teacher_is_fine_tuned_once(toys: Toys, tmp_path: Path, tunings: list[Path]) -> None:
    cache, short = tmp_path / "cache", {"max_steps": 1, "batch_size": 8, "checkpoints": []}
    first = train_study(toys.study(tmp_path / "first", training=short), teacher_cache=cache, device="cpu")
    again = train_study(toys.study(tmp_path / "again", training=short), teacher_cache=cache, device="cpu")
    assert tunings == [first / "teacher"]
    assert _content(first) == _content(again)
    last = [[m for m in MetricsLog(f).read() if m.student == "teacher" and m.step == 6] for f in (first, again)]
    assert {m.split for m in last[1]} == {"dev", "test"}
    assert set(last[1]) <= set(last[0])


@pytest.mark.parametrize("what", ["recipe", "data", "base"])
def test_another_teacher_is_not_taken_from_the_cache(
    toys: Toys, tmp_path: Path, tunings: list[Path], what: str
) -> None:
    files = write_task(tmp_path / "task")
    cache, short = tmp_path / "cache", {"max_steps": 1, "batch_size": 8, "checkpoints": []}
    recipe = {"max_steps": 1, "batch_size": 8}
    base = toys.base
    for run in ("first", "again"):
        teacher = {"model": str(base), "finetune": recipe}
        study = toy_study(tmp_path / run, files, base, teacher=teacher, training=short)
        train_study(study, teacher_cache=cache, device="cpu")
        if what == "recipe":
            recipe = recipe | {"learning_rate": 1e-3}
        elif what == "data":  # other texts, as many as before, in the same file
            write_jsonl(Path(files["train"]), toy_examples(40, seed=77))
        else:
            base = write_model(tmp_path / "base", toy_bert(layers=4, seed=8))
    assert len(tunings) == 2


# ---- interruption --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["teacher", "seed0"])
def test_a_killed_run_goes_on_as_if_nothing_had_been(toys: Toys, tmp_path: Path, run: str) -> None:
    """SIGKILL in mid-run, one step after a state was saved and metrics were written; then another process goes on."""
    folder = tmp_path / "study"
    study_file = tmp_path / "study.yaml"
    study_file.write_text(toys.study(folder).model_dump_json(), encoding="utf-8")  # JSON is YAML
    script = f"""
        import os, signal
        from kd_train.training.bank import Bank
        from kd_train.study.study_file import read_study
        from kd_train.training.train_study import train_study
        step_of_bank = Bank.train_step
        def train_step(bank, micro_batches, step):
            if step == 5 and (bank._teacher is None) == {run == "teacher"}:
                os.kill(os.getpid(), signal.SIGKILL)
            return step_of_bank(bank, micro_batches, step)
        Bank.train_step = train_step
        train_study(read_study({str(study_file)!r}), device="cpu")
    """
    (killed,) = in_processes(script)
    assert killed.code == -signal.SIGKILL, killed.err
    (state,) = folder.glob("resume/*/step-*")
    assert state.relative_to(folder).as_posix() == f"resume/{run}/step-4"
    # A kill may cut off a line too.
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"student": "tea')
    train_study(read_study(study_file), resume=True, device="cpu")
    _assert_same_study(folder, toys.folder)


class _Kill(BaseException):
    """Passes every handler."""


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, call: int, *, after: bool) -> None:
    """Let the n-th call of a function interrupt the run, before or after its work."""
    original: Callable[..., Any] = getattr(where, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise _Kill
        result = original(*args, **kwargs)
        if calls == call:
            raise _Kill
        return result

    monkeypatch.setattr(where, name, wrapped)


@pytest.mark.parametrize(
    ("where", "name", "call", "after"),
    [
        (Bank, "train_step", 1, False),  # before anything
        (kd_train.training.teachers, "_finetune", 1, True),  # the teacher is there, its scores are not
        (MetricsLog, "append", 14, True),
        (kd_train.training.seed_run, "write_student", 2, True),  # some first checkpoints are there
        (Run, "_save_state", 3, True),
        (Run, "_save_state", 4, False),
        (kd_train.training.seed_run, "write_student", 7, True),  # the first student is there, the others are not
        (kd_train.training.seed_run, "write_student", 9, True),  # all are there
    ],
)
def test_wherever_a_run_is_interrupted_it_goes_on(
    toys: Toys, tmp_path: Path, where: Any, name: str, call: int, after: bool
) -> None:
    folder = tmp_path / "study"
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_at(patch, where, name, call, after=after)
        with pytest.raises(_Kill):
            train_study(toys.study(folder), device="cpu")
    train_study(toys.study(folder), resume=True, device="cpu")
    _assert_same_study(folder, toys.folder)


def test_a_finished_study_is_left_as_it_is_by_resume(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _content(toys.folder), (toys.folder / METRICS_FILE).read_bytes()
    monkeypatch.setattr(Bank, "train_step", None)
    train_study(toys.study(toys.folder), resume=True, device="cpu")
    assert (_content(toys.folder), (toys.folder / METRICS_FILE).read_bytes()) == before


def test_a_second_seed_leaves_the_first_alone(toys: Toys, tmp_path: Path) -> None:
    """The students of a seed are the same whatever other seeds and strategies are trained."""
    study = toys.study(tmp_path / "study", seeds=[3, 0], strategies=["forward", "last"])
    folder = train_study(study, device="cpu")
    for seed, is_same in ((0, True), (3, False)):
        ours = (folder / f"students/forward-seed{seed}/model.safetensors").read_bytes()
        theirs = (toys.folder / "students/forward-seed0/model.safetensors").read_bytes()
        assert (ours == theirs) == is_same
    first = [load_file(folder / f"students/last-seed{k}/checkpoints/step-0/model.safetensors") for k in (0, 3)]
    assert not torch.equal(first[0]["classifier.weight"], first[1]["classifier.weight"])
