"""Every family of models from fine-tuning through plan, training and resumption to angles, on real data."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys.families import CAUSAL, FAMILIES, PAIRED, study_of_family, write_base
from typer.testing import CliRunner

from cli.main import app
from kd_train.study.plan import plan_study
from kd_train.study.score_logs import MetricsLog
from kd_train.study.study_file import Study
from kd_train.training.train_study import train_study
from layerangles import measure_angles
from layerangles.models.checkpoints import ModelCheckpoint, open_student

STUDENTS = ("none-seed0", "forward-seed0", "reverse-seed0")


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A family's study, run to its end without interruption."""
    folder = tmp_path_factory.mktemp(request.param)
    study = study_of_family(folder, request.param, write_base(folder / "base", request.param))
    train_study(study, device="cpu")
    return study


def test_the_plan_has_the_towers_of_every_family(trained: Study) -> None:
    plan = plan_study(trained)
    towers = {**dict.fromkeys(PAIRED, ("encoder", "decoder")), **dict.fromkeys(CAUSAL, ("decoder",))}
    expected = towers.get(trained.name, ("encoder",))
    assert plan.towers == expected
    assert plan.members["forward"].pairs == dict.fromkeys(expected, ((0, 0), (1, 2), (2, 4)))
    resolved = trained.folder / "study.resolved.yaml"
    shown = CliRunner().invoke(app, ["plan", str(resolved), "--json"])
    assert shown.exit_code == 0, shown.output
    assert set(json.loads(shown.output)["towers"]) == set(expected)


def test_teacher_and_students_are_scored_and_learn(trained: Study) -> None:
    log = MetricsLog(trained.folder, writes=False).read()
    metric = trained.task.load().metrics[0]
    for name in ("teacher", *STUDENTS):
        along = [m.value for m in log if (m.student, m.split, m.metric) == (name, "dev", metric)]
        assert len(along) >= 2
        assert all(value == value for value in along)
        losses = [m.value for m in log if (m.student, m.metric) == (name, "loss_ce")]
        assert losses[-1] < losses[0]
    matched = {m.student for m in log if m.metric == "loss_hidden" and m.value > 0}
    assert matched == {"forward-seed0", "reverse-seed0"}


def test_students_are_ordinary_models_that_know_their_layers(trained: Study) -> None:
    plan = plan_study(trained)
    for name in STUDENTS:
        student = open_student(trained.folder / "students" / name)
        assert student.matching is not None
        assert set(student.matching.towers) == set(plan.towers)
        model = trained.task.auto_model().from_pretrained(student.path)
        assert sum(p.numel() for p in model.parameters()) > 0
        assert not any("lora" in key for key in load_file(student.path / "model.safetensors"))


def test_the_angles_of_the_students_can_be_measured_in_every_tower(trained: Study) -> None:
    students = [trained.folder / "students" / name for name in STUDENTS]
    texts = trained.task.load().texts("dev")[:12]
    result = measure_angles(students, texts, steps=True, nulls=("N1",), device="cpu", max_length=32)
    assert tuple(result.dataset["tower"].values) == plan_study(trained).towers
    assert list(result.steps) == [0, 3, 6]
    angles = result.dataset["angle_deg"].sel(step=6, layer_a=1, layer_b=3)
    assert bool(((angles > 0) & (angles < 180)).all())


@pytest.mark.parametrize(
    "family", ["bart", *(pytest.param(name, marks=pytest.mark.long) for name in ("qwen3", "regression"))]
)
def test_a_killed_run_of_every_task_ends_as_the_uninterrupted_one(family: str, tmp_path: Path) -> None:
    """SIGKILL in the middle of the students' training; a second process resumes; the weights are the same."""
    base = write_base(tmp_path / "base", family)
    whole = study_of_family(tmp_path / "whole", family, base)
    train_study(whole, device="cpu")
    killed = study_of_family(tmp_path / "killed", family, base)
    file = tmp_path / "study.yaml"
    file.write_text(killed.model_dump_json(), encoding="utf-8")
    script = f"""
        import os, signal
        import torch
        from kd_train.training.bank import Bank
        from kd_train.study.study_file import read_study
        from kd_train.training.train_study import train_study
        torch.set_num_threads(1)
        step_of_bank = Bank.train_step
        def train_step(bank, micro_batches, step):
            if step == 5 and len(bank.members) > 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return step_of_bank(bank, micro_batches, step)
        Bank.train_step = train_step
        train_study(read_study({str(file)!r}), device="cpu")
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in killed.folder.glob("resume/seed0/step-*")] == ["step-4"]
    train_study(killed, resume=True, device="cpu")
    for name in STUDENTS:
        ours, theirs = (load_file(s.folder / f"students/{name}/model.safetensors") for s in (killed, whole))
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def test_an_adapted_teacher_is_an_ordinary_model(tmp_path: Path) -> None:
    study = study_of_family(tmp_path, "qwen3", write_base(tmp_path / "base", "qwen3"))
    train_study(study, device="cpu", seeds=())
    tuned = load_file(study.folder / "teacher/model.safetensors")
    base = load_file(tmp_path / "base/model.safetensors")
    assert tuned.keys() == base.keys()
    moved = {key for key in base if not torch.equal(tuned[key], base[key])}
    assert moved  # the adapters are in the weights of the linear layers, and nowhere else
    assert all("proj" in key for key in moved)
    assert ModelCheckpoint(study.folder / "teacher").load_model().config.num_hidden_layers == 4
