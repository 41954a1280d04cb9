"""One student of a bank: its model, maps, assignments and loss, and its state on disk."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn
from transformers import PreTrainedModel

from kd_train.matching.assignments import Assignment
from kd_train.matching.controls import TEACHER_STATES, TargetKind
from kd_train.matching.losses import LossSpec
from kd_train.matching.targets import TargetRequest
from kd_train.optimizers import optimizer_tensors
from layerangles.layers import Tower


@dataclass(frozen=True)
class Stop:
    """The reason why a member was stopped after ``step`` steps: it failed, or it stopped improving."""

    step: int
    reason: str
    failed: bool


@dataclass
class Member:
    """One student of a bank, with everything that it does not share with the others.

    Attributes:
        name: the name of its directory.
        model: the student.
        assignments: its targets, by tower; empty for a teacher.
        maps: its maps into teacher space, from :func:`kd_train.students.learned_maps.build_maps`.
        loss: its loss.
        targets: the kind of its targets, a key of :data:`kd_train.matching.controls.TARGETS`.
        learning_rate: its own, if not the bank's.
        adapters: peft's wrapper around the model, where only adapters are trained.
        stopped: why it was stopped; None while it is trained.
        seconds: the time of its share of the timed steps, and their number.
    """

    name: str
    model: PreTrainedModel
    assignments: dict[Tower, Assignment] = field(default_factory=dict)
    maps: nn.ModuleDict = field(default_factory=nn.ModuleDict)
    loss: LossSpec = field(default_factory=LossSpec)
    targets: TargetKind = TEACHER_STATES
    learning_rate: float | None = None
    adapters: Any = None
    stopped: Stop | None = None
    seconds: tuple[float, int] = (0.0, 0)

    @property
    def matched(self) -> dict[Tower, Assignment]:
        """The assignments that are part of its loss."""
        return self.assignments if self.loss.hidden_weight else {}

    def target_requests(self, step: int) -> dict[TargetRequest, tuple[int, ...]]:
        """The requests for the targets of a step, with the teacher layers of each."""
        requests = {
            TargetRequest(self.targets, tower, self.loss.matched_tokens): assignment.teacher_layers(step)
            for tower, assignment in self.matched.items()
        }
        return {request: layers for request, layers in requests.items() if layers}

    def student_layers(self, step: int) -> set[int]:
        """The student layers whose states a step needs, in any tower."""
        towers = [request.tower for request in self.target_requests(step)]
        return {layer for tower in towers for layer in self.assignments[tower].student_layers(step)}

    def memory_bytes(self, optimizer: torch.optim.Optimizer) -> int:
        """The memory of its weights, gradients and optimizer, without activations."""
        parameters = [*self.model.parameters(), *self.maps.parameters()]
        held = sum(p.nbytes * (2 if p.requires_grad else 1) for p in parameters)
        return held + sum(tensor.nbytes for tensor in optimizer_tensors(optimizer).values())


def save_member(member: Member, folder: Path) -> None:
    """Write a member's weights, its maps and the state of its assignments, without its optimizer."""
    save_model(member.model, str(folder / "model.safetensors"))
    save_model(member.maps, str(folder / "maps.safetensors"))
    for tower, assignment in member.assignments.items():
        if state := assignment.state():
            save_file(state, folder / f"{tower}.safetensors")


def load_member(member: Member, folder: Path) -> None:
    """Restore the state that :func:`save_member` wrote."""
    load_model(member.model, folder / "model.safetensors")
    load_model(member.maps, folder / "maps.safetensors")
    for tower, assignment in member.assignments.items():
        if (file := folder / f"{tower}.safetensors").exists():
            assignment.load_state(load_file(file))
