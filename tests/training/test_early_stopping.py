"""Students that diverge or stop improving are stopped, and the best state is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toys.models import toy_bert, write_model
from toys.trained_studies import (
    WILD,
    TaughtTask,
    matching_of,
    measured_lines,
    model_files,
    student_folder,
)
from toys.training import write_jsonl
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kd_train.study.score_logs import Measurement, MetricsLog
from kd_train.study.study_file import Study
from kd_train.training.bank import Bank
from kd_train.training.member import Member
from kd_train.training.run import TrainingContext
from kd_train.training.train_study import train_study
from layerangles.errors import RunError

# ---- students that diverge -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wild(task: TaughtTask, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A student that diverges, between two that do not."""
    study = task.study(tmp_path_factory.mktemp("wild") / "study", "none", WILD, "forward")
    train_study(study, device="cpu")
    return study


def test_a_diverged_student_is_marked_and_not_written(wild: Study) -> None:
    place = wild.folder / "students" / "wild-seed0"
    assert {file.name for file in place.iterdir()} == {"stopped.json", "checkpoints"}
    stopped = json.loads((place / "stopped.json").read_text(encoding="utf-8"))
    assert stopped.keys() == {"step", "reason", "failed"}
    assert stopped["failed"] is True
    assert stopped["reason"].startswith("its loss was ")
    assert stopped["reason"].endswith(f" in step {stopped['step'] + 1}")
    kept = {int(file.name.removeprefix("step-")) for file in (place / "checkpoints").iterdir()}
    assert kept == set(range(stopped["step"] + 1))  # none from after it stopped
    scored = [m for m in MetricsLog(wild.folder).read() if m.student == "wild-seed0"]
    assert {m.step for m in scored if m.split == "dev"} == set(range(1, stopped["step"] + 1))
    assert not [m for m in scored if m.split == "test"]


def test_a_diverged_student_has_no_effect_on_the_others(wild: Study, calm: Study) -> None:
    assert {name: content for name, content in model_files(wild.folder).items() if "wild" not in name} == model_files(
        calm.folder
    )
    assert measured_lines(wild.folder) - measured_lines(wild.folder, of="wild-seed0") == measured_lines(calm.folder)


def test_a_study_with_a_diverged_student_counts_as_finished(wild: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_files(wild.folder), measured_lines(wild.folder)
    monkeypatch.setattr(Bank, "train_step", None)
    train_study(wild, resume=True, device="cpu")
    assert (model_files(wild.folder), measured_lines(wild.folder)) == before


def test_a_run_ends_when_all_students_diverged(
    task: TaughtTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    step_of_bank = Bank.train_step
    monkeypatch.setattr(
        Bank,
        "train_step",
        lambda bank, micro_batches, step: steps.append(step) or step_of_bank(bank, micro_batches, step),
    )
    folder = train_study(task.study(tmp_path / "study", WILD), device="cpu")
    stopped = json.loads((folder / "students" / "wild-seed0" / "stopped.json").read_text(encoding="utf-8"))
    assert steps == list(range(stopped["step"] + 1))
    assert len(steps) < 8


def test_a_study_fails_if_its_teacher_diverges(task: TaughtTask, tmp_path: Path) -> None:
    tuning = {"max_steps": 6, "batch_size": 8, "learning_rate": 1e25}
    study = task.study(tmp_path / "study", "none", teacher={"model": str(task.teacher), "finetune": tuning})
    with pytest.raises(RunError, match=r"fine-tuning the teacher failed: its loss was .* Lower teacher\.finetune\.lea"):
        train_study(study, device="cpu")
    assert not (study.folder / "teacher").exists()
    assert not (study.folder / "students").exists()


# ---- early stopping, and the best state ----------------------------------------------------------------------------

# The dev score of each student after 1, 2, … steps, for metrics to be maximized and minimized.
_SCRIPT = {
    "peaks": [0.1, 0.5, 0.9, 0.2, 0.3, 0.4, 0.8, 0.7],
    "rises": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    "falls": [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
    "nothing": [float("nan")] * 8,
    "evens": [0.5, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6],
}
_SCRIPTED = [{"kind": "forward", "name": name} for name in _SCRIPT]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(context: TrainingContext, member: Member, step: int, splits: Any) -> None:
        name = member.name.removesuffix("-seed0")
        for split in splits:
            value = _SCRIPT[name][step - 1] if split == "dev" and name in _SCRIPT else 0.0
            context.report([Measurement(member.name, step, split, context.task.metrics[0], value)])

    monkeypatch.setattr(TrainingContext, "evaluate", evaluate)


def _numbers(folder: Path) -> dict[str, str]:
    """A regression: how many words a text has."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, n in (("train", 24), ("dev", 12)):
        rows = [{"text": " ".join("abc"[i % 3] * (1 + i % 5)), "label": float(1 + i % 5)} for i in range(n)]
        files[split] = str(write_jsonl(folder / f"{split}.jsonl", rows))
    return files


def _regression(task: TaughtTask, folder: Path, *strategies: Any, **training: Any) -> Study:
    teacher = folder.parent / "regressor"
    if not teacher.exists():
        write_model(teacher, toy_bert(layers=4, num_labels=1, problem_type="regression"))
    regression = {"kind": "regression", "files": _numbers(folder.parent / "numbers"), "metrics": ["mean_squared_error"]}
    regression["max_length"] = 16
    return task.study(folder, *strategies, task=regression, teacher={"model": str(teacher)}, training=training)


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("keep", ["last", "best"])
def test_students_that_stop_improving_are_stopped(task: TaughtTask, tmp_path: Path, keep: str) -> None:
    study = task.study(tmp_path / "study", *_SCRIPTED, training={"patience": 2, "keep": keep})
    train_study(study, device="cpu")
    # Two evaluations without improvement since the best one on dev, the earliest of equals.
    stopped = {"peaks": 5, "rises": 8, "falls": 3, "nothing": 8, "evens": 3}
    best = {"peaks": 3, "rises": 8, "falls": 1, "nothing": None, "evens": 1}
    for name, step in stopped.items():
        expected = best[name] or step if keep == "best" else step
        matching = matching_of(study, name)
        assert (name, matching["step"]) == (name, expected)
        assert (matching["best"] or {}).get("step") == best[name]
        kept = study.folder / "students" / f"{name}-seed0" / "checkpoints"
        assert {int(f.name.removeprefix("step-")) for f in kept.iterdir()} == set(range(step + 1)) - {8}
        if expected < 8:
            assert (student_folder(study, name) / "model.safetensors").read_bytes() == (
                student_folder(study, name, expected) / "model.safetensors"
            ).read_bytes()
        scored = [m for m in MetricsLog(study.folder).read() if m.student == f"{name}-seed0"]
        assert [m.step for m in scored if m.split == "dev"] == list(range(1, step + 1))
        assert [m.step for m in scored if m.split == "test"] == [expected]  # what is written is what is scored
        assert not (study.folder / "students" / f"{name}-seed0" / "stopped.json").exists()


@pytest.mark.usefixtures("scripted")
def test_the_best_state_is_kept_for_a_metric_to_be_minimized(task: TaughtTask, tmp_path: Path) -> None:
    study = _regression(task, tmp_path / "study", *_SCRIPTED, keep="best")
    train_study(study, device="cpu")
    best = {"peaks": 1, "rises": 1, "falls": 8, "nothing": 8, "evens": 2}
    assert {name: matching_of(study, name)["step"] for name in best} == best
    for name, step in best.items():
        if step < 8:
            assert (student_folder(study, name) / "model.safetensors").read_bytes() == (
                student_folder(study, name, step) / "model.safetensors"
            ).read_bytes()
            assert (student_folder(study, name) / "model.safetensors").read_bytes() != (
                student_folder(study, name, step + 1) / "model.safetensors"
            ).read_bytes()
    assert matching_of(study, "evens")["best"] == {"step": 2, "metric": "mean_squared_error", "value": 0.4}


def test_the_kept_student_has_the_score_of_its_best_step(task: TaughtTask, tmp_path: Path) -> None:
    """By transformers alone, with a learning rate that makes it better and worse."""
    study = _regression(task, tmp_path / "study", "forward", keep="best", learning_rate=2e-2, warmup=0.0)
    train_study(study, device="cpu")
    errors = {m.step: m.value for m in MetricsLog(study.folder).read() if m.split == "dev" and m.step > 0}
    best = matching_of(study, "forward")["best"]
    assert best == {"step": best["step"], "metric": "mean_squared_error", "value": min(errors.values())}
    assert errors[best["step"]] == min(errors.values()) < errors[8]
    place = study.folder / "students" / "forward-seed0"
    model = AutoModelForSequenceClassification.from_pretrained(place).eval()
    tokenizer = AutoTokenizer.from_pretrained(place)
    rows = [json.loads(line) for line in Path(study.task.files["dev"]).read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        squared = [(float(model(**tokenizer(r["text"], return_tensors="pt")).logits) - r["label"]) ** 2 for r in rows]
    assert sum(squared) / len(squared) == pytest.approx(best["value"], rel=1e-4)


@pytest.mark.usefixtures("scripted")
def test_the_best_state_records_its_map_up_to_its_step(task: TaughtTask, tmp_path: Path) -> None:
    strategies = [{"kind": "dynamic", "name": "peaks"}, {"kind": "attention", "name": "evens"}]
    study = task.study(tmp_path / "study", *strategies, training={"keep": "best"})
    train_study(study, device="cpu")
    for name, step in (("peaks", 3), ("evens", 4)):
        kept, then = matching_of(study, name), matching_of(study, name, step)
        assert kept["step"] == step
        assert (kept["changing"], kept["towers"]) == (then["changing"], then["towers"])
