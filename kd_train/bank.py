"""Many students behind one teacher pass: the training step, the order of the data, the state to resume from.

All students of a bank share the teacher, the batch and the random numbers; their losses do not touch. A student
trained in a bank is therefore the student trained alone, to the bit on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from kd_train.evaluate import Features
from kd_train.losses import BatchCounts, LossSpec, cross_entropy, hidden_loss, prediction_divergence
from kd_train.randomness import derive_seed, seeded
from layerangles.checkpoints import LayerPair
from layerangles.states import counted_states, forward_with_states
from layerangles.texts import pad


class OptimizerSpec(BaseModel):
    """How a model is optimized: AdamW with a schedule over all steps of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of all steps")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    max_grad_norm: float = Field(default=1.0, gt=0, description="each student's gradient is clipped by itself")


@dataclass
class Member:
    """One student of a bank: its model, its maps into teacher space, and the pairs of layers it is matched on."""

    name: str
    model: PreTrainedModel
    pairs: tuple[LayerPair, ...] = ()
    maps: nn.ModuleDict = field(default_factory=nn.ModuleDict)


class Part(NamedTuple):
    """Examples of like length out of one batch, padded to the longest of them."""

    inputs: dict[str, Tensor]
    labels: Int[Tensor, " example"]


class Targets(NamedTuple):
    """What the teacher says on one part: its logits, and the valid tokens' states of the layers that are asked for."""

    logits: Float[Tensor, "example label"]
    states: dict[int, Float[Tensor, "token dim"]]


@dataclass(frozen=True)
class _Words:
    """The word embeddings of one batch for one student, looked up once for all parts.

    The gradient of an embedding matrix is as large as the matrix, whatever the batch. Looked up part by part it would
    be filled with zeros and added up once a part, which costs more than a tenth of a whole step.
    """

    vocabulary: Int[Tensor, " word"]
    looked_up: Float[Tensor, "word dim"]
    leaf: Float[Tensor, "word dim"]

    @classmethod
    def look_up(cls, model: PreTrainedModel, parts: Sequence[Part]) -> "_Words":
        tokens = torch.cat([part.inputs["input_ids"].flatten() for part in parts])
        vocabulary: Tensor = tokens.unique()  # type: ignore[no-untyped-call]
        looked_up = model.get_input_embeddings()(vocabulary)
        return cls(vocabulary, looked_up, looked_up.detach().requires_grad_(looked_up.requires_grad))

    def embedded(self, part: Part) -> dict[str, Tensor]:
        """The inputs of a part with vectors in place of token ids."""
        rows = torch.searchsorted(self.vocabulary, part.inputs["input_ids"])
        others = {name: value for name, value in part.inputs.items() if name != "input_ids"}
        return others | {"inputs_embeds": torch.nn.functional.embedding(rows, self.leaf)}

    def backward(self) -> None:
        """Pass what all parts left at the words on to the embedding matrix."""
        if self.leaf.grad is not None:
            torch.autograd.backward(self.looked_up, self.leaf.grad)


class DataOrder:
    """Which examples make up the batch of a step: a permutation an epoch, a function of (seed, epoch) alone."""

    def __init__(self, n_examples: int, batch_size: int, seed: int) -> None:
        self.n_examples, self.batch_size, self.seed = n_examples, batch_size, seed
        self.steps_per_epoch = -(-n_examples // batch_size)
        self._epoch = -1
        self._permutation: list[int] = []

    def batch(self, step: int) -> list[int]:
        """The rows of the batch of ``step``, counted from 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            self._permutation = torch.randperm(self.n_examples, generator=generator).tolist()
            self._epoch = epoch
        return self._permutation[position * self.batch_size : (position + 1) * self.batch_size]


def split_by_length(
    features: Features, labels: Sequence[int], tokenizer: PreTrainedTokenizerBase, n_parts: int
) -> list[Part]:
    """Cut a batch into at most ``n_parts`` parts of like length, so that little of what is computed is padding.

    The batch stays what it is: its gradient is the sum over the parts (see :mod:`kd_train.losses`).
    """
    order = sorted(range(len(features)), key=lambda i: len(features[i]["input_ids"]))
    ends = _least_padding([len(features[i]["input_ids"]) for i in order], n_parts)
    parts = [order[start:end] for start, end in pairwise((0, *ends))]
    return [
        Part(pad(tokenizer, [features[i] for i in rows]), torch.tensor([labels[i] for i in rows])) for rows in parts
    ]


def _least_padding(lengths: Sequence[int], n_parts: int) -> tuple[int, ...]:
    """Where parts of these ascending lengths end so that, padded, they hold the fewest tokens (dynamic programming)."""
    # For every number of examples: the tokens that they fill, and the ends of their parts.
    best: list[tuple[int, tuple[int, ...]]] = [(n * longest, (n,)) for n, longest in enumerate(lengths, start=1)]
    for _ in range(n_parts - 1):
        one_more = [
            [
                (tokens + (n - start) * longest, (*ends, n))
                for start, (tokens, ends) in enumerate(best[: n - 1], start=1)
            ]
            for n, longest in enumerate(lengths, start=1)
        ]
        # The first of equals: no part more than it takes.
        best = [min([fewer, *more], key=lambda cut: cut[0]) for fewer, more in zip(best, one_more, strict=True)]
    return best[-1][1]


class Bank:
    """Students, each with its optimizer, trained together on the targets of one teacher.

    Without a teacher the members learn from the labels alone: that is how a teacher itself is fine-tuned.
    """

    def __init__(
        self,
        members: Sequence[Member],
        teacher: PreTrainedModel | None,
        *,
        loss: LossSpec,
        optimizer: OptimizerSpec,
        total_steps: int,
        seed: int,
        accelerator: Accelerator,
    ) -> None:
        self.members, self.loss, self.optimizer_spec, self.seed = members, loss, optimizer, seed
        self.accelerator = accelerator
        self.teacher = teacher
        if teacher is not None:
            nn.Module.to(teacher, accelerator.device).train(False)
        for member in members:
            nn.Module.to(member.model, accelerator.device)
            member.maps.to(accelerator.device)
        self._optimizers = {member.name: _adamw(member, optimizer) for member in members}
        # transformers' schedule, taken as what it is: a function of the step.
        self._rate_at = get_scheduler(
            optimizer.schedule,
            next(iter(self._optimizers.values())),
            num_warmup_steps=round(optimizer.warmup * total_steps),
            num_training_steps=total_steps,
        ).lr_lambdas[0]
        self._target_layers = sorted({teacher_layer for member in members for _, teacher_layer in member.pairs})

    def train_step(self, parts: Sequence[Part], step: int) -> dict[str, dict[str, float]]:
        """One optimizer step of every member on one batch; the loss terms of each, unweighted, and their ``total``.

        Args:
            parts: the batch, from :func:`split_by_length`.
            step: the number of the step, from 0: it decides dropout and learning rate.
        """
        counts = BatchCounts(
            examples=sum(len(part.labels) for part in parts),
            tokens=sum(int(part.inputs["attention_mask"].sum()) for part in parts),
        )
        sums: dict[str, dict[str, Tensor]] = {member.name: {} for member in self.members}
        on_device = [self._on_device(part) for part in parts]
        words = {member.name: _Words.look_up(member.model, on_device) for member in self.members}
        for number, part in enumerate(on_device):
            targets = self._targets(part)
            # One student after the other, so that the activations of only one are in memory.
            for member in self.members:
                member.model.train()
                with seeded(self.seed, "dropout", step, number):
                    terms = self._terms(member, words[member.name].embedded(part), part, targets, counts)
                self.accelerator.backward(terms["total"])
                for name, value in terms.items():
                    sums[member.name][name] = sums[member.name].get(name, value.new_zeros(())) + value.detach()
        for member in self.members:
            words[member.name].backward()
            self._update(member, step)
        return {member: {name: float(value) for name, value in terms.items()} for member, terms in sums.items()}

    def _on_device(self, part: Part) -> Part:
        device = self.accelerator.device
        return Part({k: v.to(device) for k, v in part.inputs.items()}, part.labels.to(device))

    def _targets(self, part: Part) -> Targets | None:
        if self.teacher is None:
            return None
        valid = part.inputs["attention_mask"].bool()
        with torch.no_grad(), self.accelerator.autocast():
            if not self._target_layers:
                return Targets(self.teacher(**part.inputs).logits.float(), {})
            output, by_tower = forward_with_states(self.teacher, part.inputs)
            (states,) = by_tower.values()
            chosen = counted_states([states[layer] for layer in self._target_layers], valid).float()
        return Targets(output.logits.float(), dict(zip(self._target_layers, chosen, strict=True)))

    def _terms(
        self,
        member: Member,
        inputs: dict[str, Tensor],
        part: Part,
        targets: Targets | None,
        counts: BatchCounts,
    ) -> dict[str, Float[Tensor, ""]]:
        loss = self.loss
        states: tuple[Tensor, ...] = ()
        with self.accelerator.autocast():
            if member.pairs and loss.hidden_weight:
                output, by_tower = forward_with_states(member.model, inputs)
                (states,) = by_tower.values()
            else:
                output = member.model(**inputs)
        logits = output.logits.float()
        terms = {"ce": cross_entropy(logits, part.labels, counts)}
        total = loss.ce_weight * terms["ce"]
        if targets is not None:
            terms["kl"] = prediction_divergence(logits, targets.logits, loss.temperature, counts)
            total = total + loss.kl_weight * terms["kl"]
        if targets is not None and states:
            terms["hidden"] = self._hidden(member, states, targets, part.inputs["attention_mask"].bool(), counts)
            total = total + loss.hidden_weight * terms["hidden"]
        return terms | {"total": total}

    def _hidden(
        self, member: Member, states: Sequence[Tensor], targets: Targets, valid: Tensor, counts: BatchCounts
    ) -> Float[Tensor, ""]:
        """The mean over the matched pairs."""
        layers = sorted({student_layer for student_layer, _ in member.pairs})
        chosen = counted_states([states[layer] for layer in layers], valid).float()
        mapped = {
            layer: member.maps[str(layer)](state) if str(layer) in member.maps else state
            for layer, state in zip(layers, chosen, strict=True)
        }
        losses = [hidden_loss(self.loss.hidden, mapped[s], targets.states[t], counts) for s, t in member.pairs]
        return torch.stack(losses).mean()

    def _update(self, member: Member, step: int) -> None:
        optimizer = self._optimizers[member.name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.accelerator.clip_grad_norm_(parameters, self.optimizer_spec.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = self.optimizer_spec.learning_rate * self._rate_at(step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        """Write the weights, maps and optimizer states of all members: all that a later step depends on."""
        for member in self.members:
            place = folder / member.name
            place.mkdir(parents=True)
            save_model(member.model, str(place / "model.safetensors"))
            save_model(member.maps, str(place / "maps.safetensors"))
            state = self._optimizers[member.name].state_dict()["state"]
            tensors = {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}
            save_file(tensors, place / "optimizer.safetensors")

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote."""
        for member in self.members:
            place = folder / member.name
            load_model(member.model, place / "model.safetensors")
            load_model(member.maps, place / "maps.safetensors")
            optimizer = self._optimizers[member.name]
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in load_file(place / "optimizer.safetensors").items():
                index, key = name.split(".", 1)
                state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _adamw(member: Member, spec: OptimizerSpec) -> torch.optim.AdamW:
    """Fused AdamW over what is trained; no decay of biases and norms."""
    trained = [p for module in (member.model, member.maps) for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=spec.learning_rate, fused=True)
