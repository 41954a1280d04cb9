"""Fifty recorded losses of two strategies: a change that moves them is seen, whatever its cause.

To record anew, after a change that is meant to move them:  python tests/test_trajectory.py
"""

import json
import platform
from pathlib import Path

import pytest
import torch
import transformers
from toys_training import FORWARD, toy_bank, toy_member, toy_teacher, train

RECORD = Path(__file__).with_name("data") / "trajectory.json"
STEPS = 50


def _losses() -> dict[str, list[float]]:
    """The total losses by strategy. Without dropout, whose masks are another machine's own."""
    teacher = toy_teacher(dropout=0)
    pairs = {"forward": FORWARD, "all_to_one": ((0, 2), (1, 2), (2, 2))}
    members = [toy_member(teacher, name, of) for name, of in pairs.items()]
    steps = train(toy_bank(teacher, members, total_steps=STEPS), range(STEPS))
    return {name: [losses[name]["total"] for losses in steps] for name in pairs}


def test_the_losses_are_the_recorded_ones() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    losses = _losses()
    assert losses.keys() == record["total_loss"].keys()
    for name, expected in record["total_loss"].items():
        assert losses[name] == pytest.approx(expected, rel=1e-4), f"recorded with {record['environment']}"
        assert expected[-1] < 0.8 * expected[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    environment = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    RECORD.write_text(json.dumps({"environment": environment, "total_loss": _losses()}, indent=1) + "\n")
