"""Fifty recorded losses of a study of every task: a change that moves them is seen, whatever its cause.

To record anew, after a change that is meant to move them:  python tests/training/test_recorded_losses.py
"""

import json
import platform
import tempfile
from pathlib import Path

import pytest
import torch
import transformers
from toys.families import study_of_family, write_base
from toys.training import toy_bank, toy_micro_batches, toy_teacher

from kd_train.batches.order import DataOrder, cut_by_length
from kd_train.students.construction import build_student
from kd_train.students.learned_maps import build_maps
from kd_train.students.student_plan import plan_student
from kd_train.students.student_spec import StudentSpec
from kd_train.study.plan import plan_study
from kd_train.training.member import Member
from layerangles.models.checkpoints import load_tokenizer, quiet_transformers

RECORD = Path(__file__).with_name("recorded_losses.json")
STEPS = 50
# The tasks, each with a family of models. Classification has no family: its toys are older.
TASKS = {
    "classification": "",
    "regression": "regression",
    "sequence_to_sequence": "bart",
    "language_modelling": "llama",
}
STRATEGIES = ["forward", {"kind": "all_to_one", "name": "all_to_one"}]


def _classification() -> dict[str, list[float]]:
    """The total losses by strategy. Without dropout, whose masks are another machine's own."""
    from toys.training import FORWARD, toy_member

    teacher = toy_teacher(dropout=0)
    pairs = {"forward": FORWARD, "all_to_one": ((0, 2), (1, 2), (2, 2))}
    bank = toy_bank(teacher, [toy_member(teacher, name, of) for name, of in pairs.items()], total_steps=STEPS)
    steps = [bank.train_step(toy_micro_batches(step), step) for step in range(STEPS)]
    return {name: [losses[name]["total"] for losses in steps] for name in pairs}


def _family(family: str, folder: Path) -> dict[str, list[float]]:
    """The same for a family: its study's task, teacher, students and batches, without dropout."""
    study = study_of_family(folder, family, write_base(folder / "base", family), strategies=STRATEGIES)
    plan = plan_study(study)
    task, tokenizer = study.task.load(), load_tokenizer(folder / "base")
    with quiet_transformers():
        torch.manual_seed(0)
        teacher = study.task.auto_model().from_pretrained(folder / "base", **task.head())
    for module in teacher.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        if hasattr(teacher.config, name):
            setattr(teacher.config, name, 0.0)
    features = task.encode("train", tokenizer, plan.teacher)
    order = DataOrder(len(features), study.training.batch_size, seed=0)
    members = []
    for label, member in plan.members.items():
        assignments = plan.assignments(member, steps_per_epoch=order.steps_per_epoch)
        model = build_student(
            teacher,
            plan_student(StudentSpec(layers=2), teacher.config),
            auto_model=study.task.auto_model(),
            seed=0,
        )
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        matched = {tower: assignment.student_layers(0) for tower, assignment in assignments.items()}
        maps = build_maps(member.student, 32, matched, seed=0)
        members.append(Member(label, model, assignments, maps, study.loss))
    bank = toy_bank(teacher, members, total_steps=STEPS, learning_rate=4e-3)
    steps = []
    for step in range(STEPS):
        rows = [features[i] for i in order.batch(step)]
        steps.append(bank.train_step(cut_by_length(rows, task, tokenizer, 3), step))
    return {label: [losses[label]["total"] for losses in steps] for label in plan.members}


def _losses(task: str, folder: Path) -> dict[str, list[float]]:
    return _family(TASKS[task], folder) if TASKS[task] else _classification()


@pytest.mark.parametrize("task", TASKS)
def test_the_losses_are_the_recorded_ones(task: str, tmp_path: Path) -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    losses = _losses(task, tmp_path)
    expected_of = record["total_loss"][task]
    assert losses.keys() == expected_of.keys()
    for name, expected in expected_of.items():
        assert losses[name] == pytest.approx(expected, rel=1e-4), f"recorded with {record['environment']}"
        assert expected[-1] < 0.97 * expected[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    environment = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        recorded = {task: _losses(task, Path(scratch) / task) for task in TASKS}
    RECORD.write_text(json.dumps({"environment": environment, "total_loss": recorded}, indent=1) + "\n")
