"""The bank: many students trained behind one teacher pass, and its state to resume from.

All students of a bank share the teacher, the batch and the random numbers, and their losses are independent. A student
trained in a bank is therefore the student trained alone, to the bit on the CPU. Processes share the micro-batches of a
batch.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd_train.batches.model_inputs import ModelInputs
from kd_train.batches.order import shared_out
from kd_train.batches.packing import can_be_packed
from kd_train.matching.targets import TargetRequest, Targets, TeacherPass
from kd_train.optimizers import OptimizerSpec, build_optimizer, load_optimizer, optimizer_tensors, rate_factor
from kd_train.randomness import seeded
from kd_train.tasks.base import MicroBatch
from kd_train.training.member import Member, Stop, load_member, save_member
from kd_train.training.student_loss import BatchTotals, loss_terms
from kd_train.training.word_embeddings import WordEmbeddings
from layerangles.models.states import blocks, first_position, towers_of

# Timing on a GPU waits for all queued work, so only one step in this many is timed.
_TIMED_EVERY = 16


@dataclass
class _StepTally:
    """The loss terms of one member, summed over this process's micro-batches of a step, and its computing time."""

    terms: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, terms: Mapping[str, Tensor]) -> None:
        for name, value in terms.items():
            self.terms[name] = self.terms[name] + value.detach() if name in self.terms else value.detach()


class Bank:
    """Students, each with its optimizer, trained together on the targets of one teacher.

    Without a teacher the members learn from the labels alone, as a teacher does that is fine-tuned.

    Attributes:
        packs: whether batches are packed (:mod:`kd_train.batches.packing`) and need not be cut against padding.
    """

    def __init__(
        self,
        members: Sequence[Member],
        teacher: PreTrainedModel | None,
        *,
        optimizer: OptimizerSpec,
        total_steps: int,
        seed: int,
        accelerator: Accelerator,
        random_teacher: PreTrainedModel | None = None,
        compiled: bool = False,
    ) -> None:
        self.members, self.optimizer_spec, self.seed = members, optimizer, seed
        self.accelerator = accelerator
        self._teacher = TeacherPass(teacher, random_teacher, accelerator, seed) if teacher is not None else None
        for member in members:
            nn.Module.to(member.model, accelerator.device)
            member.maps.to(accelerator.device)
        if compiled:
            for model in [*(m.model for m in members), *([teacher] if teacher is not None else [])]:
                _compile(model)
        self._optimizers = {
            member.name: build_optimizer(
                (member.model, member.maps), optimizer, learning_rate=member.learning_rate or optimizer.learning_rate
            )
            for member in members
        }
        self._rate_factor = rate_factor(optimizer, total_steps)
        models = [member.model for member in members] + (self._teacher.models if self._teacher else [])
        # Every packing would compile the blocks again.
        self.packs = not compiled and all(can_be_packed(model) for model in models)
        self._first_position = first_position(members[0].model.config)

    @property
    def active(self) -> list[Member]:
        """The members that have not been stopped."""
        return [member for member in self.members if member.stopped is None]

    def train_step(self, micro_batches: Sequence[MicroBatch], step: int) -> dict[str, dict[str, float]]:
        """One optimizer step of every active member on one batch.

        A member whose loss or gradient is not finite is stopped, with the weights it had before the step.

        Args:
            micro_batches: the batch, from :func:`kd_train.batches.order.cut_by_length`; the same in all processes.
            step: the number of the step, from 0; it decides the learning rate and all random numbers.

        Returns:
            The loss terms of each member, unweighted, and their weighted sum ``total``.
        """
        members = self.active
        tallies = {member.name: _StepTally() for member in members}
        for pack in (True, False):
            alike = [member for member in members if self._is_packed(member) is pack]
            if alike:
                self._backward(alike, micro_batches, step, pack, tallies)
        losses = {}
        for member in members:
            start, tally = self._clock(step), tallies[member.name]
            losses[member.name] = self._over_processes(member, tally)
            self._update(member, step, losses[member.name]["total"])
            if step % _TIMED_EVERY == 0 or self.accelerator.device.type == "cpu":
                before, steps = member.seconds
                member.seconds = (before + tally.seconds + self._clock(step) - start, steps + 1)
        return losses

    def _is_packed(self, member: Member) -> bool:
        return self.packs and not (member.matched and member.loss.matched_tokens == "all")

    def _backward(
        self,
        members: Sequence[Member],
        micro_batches: Sequence[MicroBatch],
        step: int,
        pack: bool,
        tallies: Mapping[str, _StepTally],
    ) -> None:
        """Add the gradients of some members on this process's share of a batch."""
        device, totals = self.accelerator.device, BatchTotals(micro_batches)
        own = shared_out(micro_batches, self.accelerator.num_processes)[self.accelerator.process_index]
        batch = [
            ModelInputs(micro_batch, device, pack=pack, first_position=self._first_position)
            for micro_batch in micro_batches
        ]
        words = {member.name: WordEmbeddings.look_up(member.model, [batch[i] for i in own]) for member in members}
        for number, targets in zip(own, self._targets(batch, own, members, step), strict=True):
            inputs = batch[number]
            # One student after the other, so that the activations of only one are in memory.
            for member in members:
                start, tally = self._clock(step), tallies[member.name]
                member.model.train()
                with seeded(self.seed, "dropout", step, number):
                    terms = self._loss_terms(member, inputs, words[member.name], targets, totals, step)
                self.accelerator.backward(terms["total"])
                tally.add(terms)
                tally.seconds += self._clock(step) - start
        for looked_up in words.values():
            if looked_up is not None:
                looked_up.backward()

    def _clock(self, step: int) -> float:
        device = self.accelerator.device
        if device.type == "cuda" and step % _TIMED_EVERY == 0:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def _targets(
        self, batch: Sequence[ModelInputs], own: Sequence[int], members: Sequence[Member], step: int
    ) -> Iterable[Targets | None]:
        if self._teacher is None:
            return [None for _ in own]
        requested: dict[TargetRequest, set[int]] = {}
        for member in members:
            for request, layers in member.target_requests(step).items():
                requested.setdefault(request, set()).update(layers)
        return self._teacher.targets(batch, own, requested, step)

    def _loss_terms(
        self,
        member: Member,
        inputs: ModelInputs,
        words: WordEmbeddings | None,
        targets: Targets | None,
        totals: BatchTotals,
        step: int,
    ) -> dict[str, Float[Tensor, ""]]:
        """Run a member on a micro-batch. Without a teacher nothing is matched."""
        layers = member.student_layers(step) if targets is not None else set()
        embedded = inputs.inputs if words is None else words.embedded(inputs.inputs)
        with self.accelerator.autocast():
            output, states = inputs.run(member.model, embedded, layers=layers)
        return loss_terms(member, output.logits, states, inputs, targets, totals, step)

    def _over_processes(self, member: Member, tally: _StepTally) -> dict[str, float]:
        """The loss terms of a member, summed over the micro-batches of all processes."""
        names = ["ce", "total"]
        if self._teacher is not None:
            names = ["ce", "kl", *(["hidden"] if member.matched else []), "total"]
        zero = torch.zeros((), device=self.accelerator.device)
        values = self._summed(torch.stack([tally.terms.get(name, zero).float() for name in names]))
        return dict(zip(names, values.tolist(), strict=True))

    def _summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        total: Tensor = self.accelerator.reduce(values.to(self.accelerator.device))
        return total

    def _update(self, member: Member, step: int, loss: float) -> None:
        optimizer = self._optimizers[member.name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.accelerator.num_processes > 1:
            self._add_gradients(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.optimizer_spec.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = f"its loss was {loss}" if not math.isfinite(loss) else f"its gradient had the norm {norm}"
            member.stopped = Stop(step, f"{what} in step {step + 1}", failed=True)
            optimizer.zero_grad(set_to_none=True)
            return
        rate = member.learning_rate or self.optimizer_spec.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = rate * self._rate_factor(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for assignment in member.matched.values():
            if assignment.observed is not None:
                assignment.end_step(self._summed(assignment.observed).cpu())

    def _add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients of all processes in one message; a process without micro-batches has none.

        A parameter without a gradient in any process stays without one, so that the optimizer leaves it alone.
        """
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        had = torch.tensor([float(p.grad is not None) for p in parameters], device=gradients[0].device)
        summed = self._summed(torch.cat([had, *(gradient.flatten() for gradient in gradients)]))
        had, *pieces = torch.split(summed, [len(had), *(gradient.numel() for gradient in gradients)])
        for parameter, piece, times in zip(parameters, pieces, had.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter) if times else None

    def memory_bytes(self) -> dict[str, int]:
        """The memory of every member; see :meth:`Member.memory_bytes`."""
        return {member.name: member.memory_bytes(self._optimizers[member.name]) for member in self.members}

    def save(self, folder: Path) -> None:
        """Write all that later steps depend on: weights, maps, optimizers, assignments, and the stopped members."""
        for member in self.members:
            place = folder / member.name
            place.mkdir(parents=True)
            save_member(member, place)
            save_file(optimizer_tensors(self._optimizers[member.name]), place / "optimizer.safetensors")
            if member.stopped is not None:
                (place / "stopped.json").write_text(json.dumps(asdict(member.stopped)), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Restore the state that :meth:`save` wrote."""
        for member in self.members:
            place = folder / member.name
            load_member(member, place)
            load_optimizer(self._optimizers[member.name], load_file(place / "optimizer.safetensors"))
            if (stopped := place / "stopped.json").exists():
                member.stopped = Stop(**json.loads(stopped.read_text(encoding="utf-8")))


def _compile(model: PreTrainedModel) -> None:
    """Compile the blocks in place: they take most of the time, and the weights keep their names.

    Dropout then draws from the compiler's own generator: other masks, but still a function of the seed.
    """
    for tower in towers_of(model.config):
        for block in blocks(model, tower):
            block.compile(dynamic=True)
