"""An interrupted run is resumed to the result of the uninterrupted one, whatever ended it."""

import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toys.processes import Ended, in_processes
from toys.trained_studies import (
    CHANGING,
    WILD,
    TaughtTask,
    TrainedStudy,
    assert_same_study,
    model_files,
)

import kd_train.training.seed_run
import kd_train.training.teachers
from kd_train.study.score_logs import METRICS_FILE, MetricsLog
from kd_train.study.study_file import Study, read_study
from kd_train.training.bank import Bank
from kd_train.training.run import Run
from kd_train.training.train_study import train_study
from layerangles import open_student
from layerangles.models.weights import check_weights


@pytest.mark.parametrize("run", ["teacher", "seed0"])
def test_a_run_killed_after_a_saved_state_ends_as_the_uninterrupted_one(
    trained: TrainedStudy, tmp_path: Path, run: str
) -> None:
    """SIGKILL one step after a state was saved and metrics were written; another process resumes the run."""
    folder = tmp_path / "study"
    study_file = tmp_path / "study.yaml"
    study_file.write_text(trained.study(folder).model_dump_json(), encoding="utf-8")  # JSON is YAML
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
    # A kill may also cut a line off.
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"student": "tea')
    train_study(read_study(study_file), resume=True, device="cpu")
    assert_same_study(folder, trained.folder)


class _Kill(BaseException):
    """Passes every handler."""


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, call: int, *, after: bool) -> None:
    """Interrupt the run at the n-th call of a function, before or after its work."""
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
def test_a_run_interrupted_anywhere_ends_as_the_uninterrupted_one(
    trained: TrainedStudy, tmp_path: Path, where: Any, name: str, call: int, after: bool
) -> None:
    folder = tmp_path / "study"
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_at(patch, where, name, call, after=after)
        with pytest.raises(_Kill):
            train_study(trained.study(folder), device="cpu")
    train_study(trained.study(folder), resume=True, device="cpu")
    assert_same_study(folder, trained.folder)


def test_resuming_a_finished_study_changes_nothing(trained: TrainedStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_files(trained.folder), (trained.folder / METRICS_FILE).read_bytes()
    monkeypatch.setattr(Bank, "train_step", None)
    train_study(trained.study(trained.folder), resume=True, device="cpu")
    assert (model_files(trained.folder), (trained.folder / METRICS_FILE).read_bytes()) == before


_DO = """
    import json, os, resource, signal, sys
    from kd_train.training.bank import Bank
    from kd_train.study.study_file import read_study
    from kd_train.training.train_study import train_study
    step_of_bank = Bank.train_step
    def train_step(bank, micro_batches, step):
        if step == {step}:
            {what}
        return step_of_bank(bank, micro_batches, step)
    Bank.train_step = train_step
"""


def _in_a_process(study: Study, *, step: int, what: str, then: str) -> Ended:
    """Train in another process that runs a statement just before a step."""
    file = study.folder.with_suffix(".yaml")
    file.write_text(study.model_dump_json(), encoding="utf-8")  # JSON is YAML
    script = textwrap.dedent(_DO).format(step=step, what=what) + then.format(file=str(file))
    return in_processes(script)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 3, "keep": "best", "optimizer": "adafactor"},
        {"lora": {"rank": 4, "dropout": 0.1}, "keep": "best", "learning_rate": 1e-2},
    ],
    ids=["changing", "adapters"],
)
def test_a_killed_run_with_changing_maps_ends_as_the_uninterrupted_one(
    task: TaughtTask, tmp_path: Path, options: dict[str, Any]
) -> None:
    """SIGKILL in mid-run, with changing maps and a stopped student."""
    strategies = [*CHANGING[:3], CHANGING[4], WILD]
    whole, killed = (
        task.study(tmp_path / n, *strategies, training=options | {"checkpoints": [0.5]}) for n in ("whole", "killed")
    )
    train_study(whole, device="cpu")
    assert (whole.folder / "students" / "wild-seed0" / "stopped.json").exists()
    train = "train_study(read_study({file!r}), device='cpu')"
    done = _in_a_process(killed, step=5, what="os.kill(os.getpid(), signal.SIGKILL)", then=train)
    assert done.code == -signal.SIGKILL, done.err
    (state,) = killed.folder.glob("resume/seed0/step-*")
    assert state.name == "step-4"
    assert (state / "wild-seed0" / "stopped.json").exists()
    train_study(killed, resume=True, device="cpu")
    assert_same_study(killed.folder, whole.folder)


@pytest.mark.parametrize(
    ("limit", "step", "after"),
    [
        # The size that a file may have from a step on, in bytes: so much fits, and the next write does not.
        (200, 2, "metrics"),
        (20_000, 2, "checkpoint"),
        (150_000, 1, "state"),
    ],
)
def test_a_full_disk_ends_a_run_that_can_be_resumed(
    task: TaughtTask, calm: Study, tmp_path: Path, limit: int, step: int, after: str
) -> None:
    """If the system refuses to write, the command says so, complete files stay complete, and the run can be resumed."""
    full = task.study(tmp_path / "full", "none", "forward")
    what = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))"
    run = "sys.argv = ['layerangles', 'train', {file!r}]\nfrom layerangles_cli.main import run\nrun()\n"
    done = _in_a_process(full, step=step, what=what, then=run)
    assert done.code == 1, done.err
    assert "the disk is full: " in done.err
    assert f"Nothing half-written is left in {full.folder}" in done.err.replace("\n", "")
    assert "go on with --resume" in done.err
    assert "Traceback" not in done.err
    assert not [file for file in full.folder.rglob("*") if "partial" in file.name], after
    written = sorted(full.folder.rglob("model.safetensors"))
    students = [file.parent for file in written if "students" in file.parts]
    assert students
    for place in students:
        check_weights(place)
        assert open_student(place).load_model().config.num_hidden_layers == 2
        same = calm.folder / place.relative_to(full.folder)
        assert (same / "model.safetensors").read_bytes() == (place / "model.safetensors").read_bytes()
    train_study(full, resume=True, device="cpu")
    assert_same_study(full.folder, calm.folder)
