"""Many students behind one teacher pass: the training step, and the state to resume from.

All students of a bank share the teacher, the batch and the random numbers; their losses do not touch. A student
trained in a bank is therefore the student trained alone, to the bit on the CPU. Processes share the
micro-batches of a batch.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from kd_train.batches.model_inputs import ModelInputs, chosen_tokens, labelled
from kd_train.batches.order import shared_out
from kd_train.batches.packing import can_be_packed
from kd_train.matching.losses import (
    BatchCounts,
    Tokens,
    hidden_loss,
    label_loss,
    over_pairs,
    prediction_divergence,
)
from kd_train.matching.targets import TargetRequest, Targets, TeacherPass
from kd_train.optimizers import OptimizerSpec, build_optimizer, load_optimizer, optimizer_tensors, rate_factor
from kd_train.randomness import seeded
from kd_train.students.learned_maps import name_of
from kd_train.tasks.base import IGNORED, MicroBatch
from kd_train.training.member import Member, Stop, load_member, save_member
from layerangles.layers import Tower
from layerangles.models.states import blocks, first_position, towers_of

# On a GPU, work is queued: to know whose time it was, the queue must be emptied. Done in every so many steps only.
_TIMED_EVERY = 16


@dataclass(frozen=True)
class _Words:
    """The word embeddings of one batch for one student, looked up once for all micro-batches.

    The gradient of an embedding matrix is as large as the matrix, whatever the batch. Looked up once a micro-batch it
    would be filled with zeros and added up as often, which costs more than a tenth of a whole step. (With a head tied
    to the embeddings it is filled by every micro-batch anyway; so this is for encoders.)
    """

    vocabulary: Int[Tensor, " word"]
    looked_up: Float[Tensor, "word dim"]
    leaf: Float[Tensor, "word dim"]

    @classmethod
    def look_up(cls, model: PreTrainedModel, calls: Sequence[ModelInputs]) -> "_Words | None":
        if towers_of(model.config) != ("encoder",) or not calls:
            return None
        tokens = torch.cat([call.inputs["input_ids"].flatten() for call in calls])
        vocabulary: Tensor = tokens.unique()  # type: ignore[no-untyped-call]
        looked_up = model.get_input_embeddings()(vocabulary)
        return cls(vocabulary, looked_up, looked_up.detach().requires_grad_(looked_up.requires_grad))

    def embedded(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a micro-batch with vectors in place of token ids."""
        rows = torch.searchsorted(self.vocabulary, inputs["input_ids"])
        others = {name: value for name, value in inputs.items() if name != "input_ids"}
        return others | {"inputs_embeds": torch.nn.functional.embedding(rows, self.leaf)}

    def backward(self) -> None:
        """Pass what all micro-batches left at the words on to the embedding matrix."""
        if self.leaf.grad is not None:
            torch.autograd.backward(self.looked_up, self.leaf.grad)


class _Batch:
    """A batch in micro-batches, and what its means are divided by."""

    def __init__(self, micro_batches: Sequence[MicroBatch]) -> None:
        self.micro_batches = micro_batches
        self.counts = BatchCounts(
            examples=sum(len(micro_batch.labels) for micro_batch in micro_batches),
            predictions=sum(
                len(micro_batch.labels) if micro_batch.labels.ndim == 1 else int((micro_batch.labels != IGNORED).sum())
                for micro_batch in micro_batches
            ),
        )
        self._tokens: dict[tuple[Tower, Tokens], int] = {}

    def n_tokens(self, tower: Tower, tokens: Tokens) -> int:
        """The matched tokens of the whole batch."""
        key = (tower, tokens)
        if key not in self._tokens:
            self._tokens[key] = sum(
                int(chosen_tokens(micro_batch, tower, tokens).sum()) for micro_batch in self.micro_batches
            )
        return self._tokens[key]


class Bank:
    """Students, each with its optimizer, trained together on the targets of one teacher.

    Without a teacher the members learn from the labels alone: that is how a teacher itself is fine-tuned.

    Attributes:
        packs: whether no padding is computed (:mod:`kd_train.batches.packing`); a batch need not be cut then.
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
        models = [member.model for member in members] + (list(self._teacher.models.values()) if self._teacher else [])
        # A compiled block would be compiled anew for every packing.
        self.packs = not compiled and all(can_be_packed(model) for model in models)
        self._first_position = first_position(members[0].model.config)

    @property
    def active(self) -> list[Member]:
        """The members that are still trained."""
        return [member for member in self.members if member.stopped is None]

    def train_step(self, micro_batches: Sequence[MicroBatch], step: int) -> dict[str, dict[str, float]]:
        """One optimizer step of every active member on one batch.

        A member whose loss or gradient is not finite is stopped, with the weights it had before the step.

        Args:
            micro_batches: the batch, from :func:`kd_train.batches.order.cut_by_length`; the same in all processes.
            step: the number of the step, from 0: it decides dropout, learning rate and all that is random.

        Returns:
            The loss terms of each member, unweighted, and their weighted sum ``total``.
        """
        batch, members = _Batch(micro_batches), self.active
        totals: dict[str, dict[str, Tensor]] = {member.name: {} for member in members}
        seconds = dict.fromkeys(totals, 0.0)
        for pack in (True, False):
            alike = [member for member in members if self._is_packed(member) is pack]
            if alike:
                self._backward(alike, batch, step, pack, totals, seconds)
        losses = {}
        for member in members:
            start = self._clock(step)
            losses[member.name] = self._everywhere(self._terms_of(member), totals[member.name])
            self._update(member, step, losses[member.name]["total"])
            if step % _TIMED_EVERY == 0 or self.accelerator.device.type == "cpu":
                before, steps = member.seconds
                member.seconds = (before + seconds[member.name] + self._clock(step) - start, steps + 1)
        return losses

    def _is_packed(self, member: Member) -> bool:
        return self.packs and not (member.matched and member.loss.matched_tokens == "all")

    def _backward(
        self,
        members: Sequence[Member],
        batch: _Batch,
        step: int,
        pack: bool,
        totals: dict[str, dict[str, Tensor]],
        seconds: dict[str, float],
    ) -> None:
        """Add this process's share of a batch to the gradients of some members, to their terms and to their time."""
        device, micro_batches = self.accelerator.device, batch.micro_batches
        own = shared_out(micro_batches, self.accelerator.num_processes)[self.accelerator.process_index]
        calls = [
            ModelInputs(micro_batch, device, pack=pack, first_position=self._first_position)
            for micro_batch in micro_batches
        ]
        words = {member.name: _Words.look_up(member.model, [calls[i] for i in own]) for member in members}
        for number, targets in zip(own, self._targets(calls, own, members, step), strict=True):
            call = calls[number]
            # One student after the other, so that the activations of only one are in memory.
            for member in members:
                start = self._clock(step)
                member.model.train()
                looked_up = words[member.name]
                inputs = looked_up.embedded(call.inputs) if looked_up else call.inputs
                with seeded(self.seed, "dropout", step, number):
                    terms = self._terms(member, inputs, call, targets, batch, step)
                self.accelerator.backward(terms["total"])
                so_far = totals[member.name]
                for name, value in terms.items():
                    so_far[name] = so_far[name] + value.detach() if name in so_far else value.detach()
                seconds[member.name] += self._clock(step) - start
        for looked_up in words.values():
            if looked_up is not None:
                looked_up.backward()

    def _terms_of(self, member: Member) -> list[str]:
        if self._teacher is None:
            return ["ce", "total"]
        return ["ce", "kl", *(["hidden"] if member.matched else []), "total"]

    def _clock(self, step: int) -> float:
        device = self.accelerator.device
        if device.type == "cuda" and step % _TIMED_EVERY == 0:
            torch.cuda.synchronize(device)
        return time.perf_counter()

    def _targets(self, calls: Sequence[ModelInputs], own: Sequence[int], members: Sequence[Member], step: int) -> Any:
        if self._teacher is None:
            return [None for _ in own]
        wanted: dict[TargetRequest, set[int]] = {}
        for member in members:
            for key, layers in member.wanted(step).items():
                wanted.setdefault(key, set()).update(layers)
        return self._teacher.targets(calls, own, wanted, step)

    def _terms(
        self,
        member: Member,
        inputs: Mapping[str, Tensor],
        call: ModelInputs,
        targets: Targets | None,
        batch: _Batch,
        step: int,
    ) -> dict[str, Float[Tensor, ""]]:
        loss = member.loss
        # Nothing is matched without a teacher.
        wanted = member.wanted(step) if targets is not None else {}
        layers = {layer for key in wanted for layer in member.assignments[key.tower].student_layers(step)}
        with self.accelerator.autocast():
            output, states = call.run(member.model, inputs, layers=layers)
        predictions, labels = labelled(output.logits, call.micro_batch.labels)
        terms = {"ce": label_loss(predictions, labels, batch.counts)}
        total = loss.ce_weight * terms["ce"]
        if targets is not None:
            terms["kl"] = prediction_divergence(predictions, targets.predictions, loss, batch.counts)
            total = total + loss.kl_weight * terms["kl"]
        if targets is not None and wanted:
            terms["hidden"] = self._hidden(member, states, call, targets, batch, step)
            total = total + loss.hidden_weight * terms["hidden"]
        return terms | {"total": total}

    def _hidden(
        self,
        member: Member,
        states: Mapping[str, Sequence[Tensor | None]],
        call: ModelInputs,
        targets: Targets,
        batch: _Batch,
        step: int,
    ) -> Float[Tensor, ""]:
        """The losses of all towers, added."""
        loss, by_tower = member.loss, []
        for key in member.wanted(step):
            assignment = member.assignments[key.tower]
            layers = assignment.student_layers(step)
            chosen = call.states(states, key.tower, layers, key.tokens)
            mapped = {
                layer: member.maps[name](state) if (name := name_of(key.tower, layer)) in member.maps else state
                for layer, state in zip(layers, chosen, strict=True)
            }
            losses = [
                hidden_loss(
                    loss.hidden,
                    student,
                    teacher,
                    n_tokens=batch.n_tokens(key.tower, loss.averaged_tokens),
                    n_examples=batch.counts.examples,
                    valid=call.micro_batch.valid[key.tower].flatten() if key.tokens == "all" else None,
                )
                for student, teacher in assignment.matched(step, mapped, targets.states[key])
            ]
            by_tower.append(over_pairs(loss.hidden, losses))
        return torch.stack(by_tower).sum()

    def _everywhere(self, terms: Sequence[str], own: Mapping[str, Tensor]) -> dict[str, float]:
        """The terms of a member, over the micro-batches of all processes."""
        zero = torch.zeros((), device=self.accelerator.device)
        values = self._summed(torch.stack([own.get(name, zero).float() for name in terms]))
        return dict(zip(terms, values.tolist(), strict=True))

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
        """Sum the gradients of all processes, in one message; a process without micro-batches has none.

        What no process has a gradient of stays without one: an optimizer does not touch it then.
        """
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        had = torch.tensor([float(p.grad is not None) for p in parameters], device=gradients[0].device)
        summed = self._summed(torch.cat([had, *(gradient.flatten() for gradient in gradients)]))
        had, *pieces = torch.split(summed, [len(had), *(gradient.numel() for gradient in gradients)])
        for parameter, piece, times in zip(parameters, pieces, had.tolist(), strict=True):
            parameter.grad = piece.view_as(parameter) if times else None

    def memory_bytes(self) -> dict[str, int]:
        """By member: weights, gradients and optimizer; see :meth:`Member.memory_bytes`."""
        return {member.name: member.memory_bytes(self._optimizers[member.name]) for member in self.members}

    def save(self, folder: Path) -> None:
        """Write all that a later step depends on: weights, maps, optimizers, changing maps, and who is stopped."""
        for member in self.members:
            place = folder / member.name
            place.mkdir(parents=True)
            save_member(member, place)
            save_file(optimizer_tensors(self._optimizers[member.name]), place / "optimizer.safetensors")
            if member.stopped is not None:
                (place / "stopped.json").write_text(json.dumps(asdict(member.stopped)), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        for member in self.members:
            place = folder / member.name
            load_member(member, place)
            load_optimizer(self._optimizers[member.name], load_file(place / "optimizer.safetensors"))
            if (stopped := place / "stopped.json").exists():
                member.stopped = Stop(**json.loads(stopped.read_text(encoding="utf-8")))


def _compile(model: PreTrainedModel) -> None:
    """Compile the blocks, in place: they are where the time goes, and the weights keep their names.

    Dropout then draws from the compiler's own generator: other masks than without, still a function of the seed.
    """
    for tower in towers_of(model.config):
        for block in blocks(model, tower):
            block.compile(dynamic=True)
