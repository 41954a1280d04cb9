"""Training by the bank against a naive loop, token by token, with every loss written from its definition."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import pytest
import torch
from torch import Tensor
from toys.training import (
    DRAWS,
    FORWARD,
    parameters_of,
    toy_assignment,
    toy_bank,
    toy_member,
    toy_micro_batches,
    toy_plan,
    toy_random_teacher,
    toy_redrawn,
    toy_teacher,
    train,
)
from transformers import PreTrainedModel
from transformers.optimization import Adafactor

from kd_train.matching.losses import HiddenLoss, LossSpec
from kd_train.optimizers import OptimizerSpec
from kd_train.randomness import seeded
from kd_train.students.principal_maps import PrincipalMaps, set_principal_maps
from kd_train.tasks.base import MicroBatch
from kd_train.training.member import Member
from layerangles.layers import LayerPair


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def _standardized(values: Tensor) -> Tensor:
    return (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()


_NAIVE_ERRORS: dict[HiddenLoss, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda s, t: ((s - t) ** 2).mean(),
    "layer_norm": lambda s, t: ((_standardized(s) - _standardized(t)) ** 2).mean(),
    "unit": lambda s, t: ((_unit(s) - _unit(t)) ** 2).sum(),
    "cosine": lambda s, t: 1 - s @ t / s.norm() / t.norm(),
    "patient": lambda s, t: ((_unit(s) - _unit(t)) ** 2).sum(),
    "paper_bert": lambda s, t: ((s - t) ** 2).sum(),
    "paper_bart": lambda s, t: ((s - t) ** 2).mean(),
    "paper_qwen": lambda s, t: ((_unit(s) - _unit(t)) ** 2).sum(),
}
_ADDED = ("patient", "paper_bart", "paper_t5")


@dataclass
class _Naive:
    """One student, trained the plain way: one padded batch, token by token, the losses from their definitions."""

    teacher: PreTrainedModel
    member: Member
    loss: LossSpec
    strategy: str = "fixed"
    pairs: tuple[LayerPair, ...] = FORWARD
    seed: int = 0
    weights: list[Tensor] = field(default_factory=list)  # attention's: [student layer, teacher layer], by step
    chosen: list[tuple[int, ...]] = field(default_factory=list)  # dynamic's, by step

    def step(self, batch: MicroBatch, step: int) -> Tensor:
        """The whole loss of one batch."""
        n, lengths = len(batch.labels), batch.inputs["attention_mask"].sum(dim=1).tolist()
        with torch.no_grad():
            theirs = self.teacher.eval()(**batch.inputs, output_hidden_states=True)
        ours = self.member.model(**batch.inputs, output_hidden_states=True)
        log_s = (ours.logits / self.loss.temperature).log_softmax(-1)
        log_t = (theirs.logits / self.loss.temperature).log_softmax(-1)
        log_m = ((log_s.exp() + log_t.exp()) / 2).log()
        of_each = {
            "forward_kl": log_t.exp() * (log_t - log_s),
            "reverse_kl": log_s.exp() * (log_s - log_t),
            "jensen_shannon": (log_t.exp() * (log_t - log_m) + log_s.exp() * (log_s - log_m)) / 2,
        }[self.loss.divergence]
        divergence = self.loss.temperature**2 * of_each.sum() / n
        cross_entropy = -sum(ours.logits.log_softmax(-1)[i, batch.labels[i]] for i in range(n)) / n
        hidden = self._hidden(ours.hidden_states, self._targets(batch, theirs.hidden_states, step), lengths)
        return self.loss.ce_weight * cross_entropy + self.loss.kl_weight * divergence + self.loss.hidden_weight * hidden

    def _targets(self, batch: MicroBatch, theirs: Sequence[Tensor], step: int) -> Callable[[int, int, int], Tensor]:
        """The target at a layer, example and position."""
        lengths = batch.inputs["attention_mask"].sum(dim=1).tolist()
        kind = self.member.targets
        if kind == "random_teacher":
            with torch.no_grad():
                theirs = toy_random_teacher()(**batch.inputs, output_hidden_states=True).hidden_states
        if kind == "other_text":

            def other(layer: int, example: int, position: int) -> Tensor:
                there = (example + 1) % len(lengths)
                return theirs[layer][there, position % lengths[there]]

            return other
        if kind == "shuffled_tokens":
            with seeded(self.seed, "control", kind, step):
                keys = torch.rand(sum(lengths)).split(lengths)
            order = [sorted(range(len(of)), key=of.tolist().__getitem__) for of in keys]
            return lambda layer, example, position: theirs[layer][example, order[example][position]]
        return lambda layer, example, position: theirs[layer][example, position]

    def _mapped(self, state: Tensor, layer: int) -> Tensor:
        name = f"encoder_{layer}"
        return self.member.maps[name].weight @ state if name in self.member.maps else state

    def _hidden(self, ours: Sequence[Tensor], target: Callable[[int, int, int], Tensor], lengths: list[int]) -> Tensor:
        kind, longest = self.loss.hidden, ours[0].shape[1]
        places = [(i, p) for i, length in enumerate(lengths) for p in range(length)]
        if kind in ("paper_t5", "paper_qwen"):
            places = [(i, p) for i in range(len(lengths)) for p in range(longest)]
        if kind == "patient" or self.loss.tokens == "first":
            places = [(i, 0) for i in range(len(lengths))]

        def of_pair(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
            if kind == "paper_t5":
                s, t = (_standardized(torch.stack(list(states))) for states in (student, teacher))
                valid = torch.tensor([p < lengths[i] for i, p in places])
                return ((s - t)[valid] ** 2).mean()
            errors = [_NAIVE_ERRORS[kind](s, t) for s, t in zip(student, teacher, strict=True)]
            mean = torch.stack(errors).mean()
            return mean / len(lengths) if kind == "paper_bert" else mean

        def student_states(layer: int) -> list[Tensor]:
            return [self._mapped(ours[layer][place], layer) for place in places]

        def teacher_states(layer: int) -> list[Tensor]:
            return [target(layer, *place) for place in places]

        if self.strategy == "attention":
            matched, seen = [], torch.zeros(2, 4)
            for layer in (1, 2):
                mixtures = []
                for place, state in zip(places, student_states(layer), strict=True):
                    candidates = [target(i, *place) for i in (1, 2, 3, 4)]
                    scores = torch.stack([state @ candidate for candidate in candidates])
                    weights = scores.exp() / scores.exp().sum()
                    seen[layer - 1] += weights.detach()
                    mixtures.append(sum(w * c for w, c in zip(weights, candidates, strict=True)))
                matched.append((student_states(layer), mixtures))
            self.weights.append(seen)
        else:
            matched = [(student_states(s), teacher_states(t)) for s, t in self.pairs]
        losses = torch.stack([of_pair(*pair) for pair in matched])
        if self.strategy == "dynamic":
            self._choose(
                {
                    (s, t): float(self._mse(student_states(s), teacher_states(t)).detach())
                    for s in (1, 2)
                    for t in (2, 4)
                }
            )
        return losses.sum() if kind in _ADDED else losses.mean()

    @staticmethod
    def _mse(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        return torch.stack([_NAIVE_ERRORS["mse"](s, t) for s, t in zip(student, teacher, strict=True)]).mean()

    def _choose(self, errors: dict[tuple[int, int], float]) -> None:
        """The next step's map: of all that are monotone, the one of least error on this batch."""
        every = combinations_with_replacement((1, 2), 2)
        self.chosen.append(tuple(s for s, _ in self.pairs if s))
        best = min(every, key=lambda layers: sum(errors[s, t] for s, t in zip(layers, (2, 4), strict=True)))
        self.pairs = ((0, 0), *zip(best, (2, 4), strict=True))

    def train(self, steps: int, spec: OptimizerSpec) -> list[float]:
        """All steps; the losses before each."""
        trained = [p for p in [*self.member.model.parameters(), *self.member.maps.parameters()] if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        if spec.optimizer == "adafactor":
            optimizer: torch.optim.Optimizer = Adafactor(
                groups, lr=spec.learning_rate, scale_parameter=False, relative_step=False, warmup_init=False
            )
        else:
            optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, foreach=False)
        warmup, losses = spec.warmup * steps, []
        for step in range(steps):
            if self.strategy == "redrawn":
                self.pairs = DRAWS[step // 2]
            (batch,) = toy_micro_batches(step, n_micro_batches=1)
            loss = self.step(batch, step)
            optimizer.zero_grad()
            loss.backward()
            gradients = [p.grad for p in trained if p.grad is not None]
            norm = torch.sqrt(sum(g.square().sum() for g in gradients))
            for gradient in gradients:
                gradient.mul_(min(1.0, spec.max_grad_norm / float(norm)))
            share = step / warmup if step < warmup else (steps - step) / (steps - warmup)
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * share
            optimizer.step()
            losses.append(float(loss.detach()))
        return losses


_NARROW = {"width": 24, "init": "random"}
_KINDS = {**{kind: {"hidden": kind} for kind in _NAIVE_ERRORS}, "paper_t5": {"hidden": "paper_t5"}}
_DEFINITIONS: dict[str, dict[str, Any]] = {
    **{name: {"loss": loss} for name, loss in _KINDS.items()},
    "first token": {"loss": {"tokens": "first", "divergence": "reverse_kl", "temperature": 2.0}},
    "weights": {
        "loss": {
            "ce_weight": 0.5,
            "kl_weight": 2.0,
            "hidden_weight": 1.0,
            "temperature": 2.0,
            "divergence": "jensen_shannon",
        }
    },
    "learned": {"student": _NARROW},
    "shared": {"student": _NARROW | {"share_map": True}},
    "frozen": {"student": _NARROW | {"map": "frozen"}},
    "pca": {"student": _NARROW | {"map": "pca"}},
    "learned of one width": {"student": {"map": "learned"}, "loss": {"hidden": "layer_norm"}},
    "frozen embeddings": {"student": {"freeze_embeddings": True}},
    "attention": {"strategy": "attention"},
    "attention with maps": {"strategy": "attention", "student": _NARROW},
    "dynamic": {"strategy": "dynamic", "student": {"copied_layers": (4, 1)}},
    "dynamic with maps": {"strategy": "dynamic", "student": _NARROW},
    "redrawn": {"strategy": "redrawn"},
    "other_text": {"targets": "other_text"},
    "shuffled_tokens": {"targets": "shuffled_tokens"},
    "random_teacher": {"targets": "random_teacher"},
    "adafactor": {"optimizer": "adafactor", "rate": 3e-3, "student": _NARROW},
}


def _toy_assignment(strategy: str) -> Any:
    made = {
        "attention": toy_assignment("attention"),
        "dynamic": toy_assignment("dynamic"),
        "redrawn": toy_redrawn(),
    }
    return made.get(strategy, FORWARD)


def _is_moved_by_chance(name: str) -> bool:
    # Adam divides by the gradient's size: where it is rounding alone, its sign is random.
    return name.endswith("key.bias")


@pytest.mark.parametrize("name", _DEFINITIONS)
def test_training_follows_the_definition(name: str) -> None:
    given = _DEFINITIONS[name]
    teacher, steps = toy_teacher(dropout=0), 4
    spec = OptimizerSpec(learning_rate=given.get("rate", 1e-3), warmup=0.5, optimizer=given.get("optimizer", "adamw"))
    loss, strategy = LossSpec(**given.get("loss", {})), given.get("strategy", "fixed")
    plain, banked = (
        toy_member(
            teacher,
            "student",
            _toy_assignment(strategy),
            loss=loss,
            targets=given.get("targets", "teacher"),
            **given.get("student", {}),
        )
        for _ in range(2)
    )
    if name == "pca":
        plan = toy_plan(teacher, **given["student"])
        students = [PrincipalMaps(member.maps, plan, {"encoder": FORWARD}) for member in (plain, banked)]
        set_principal_maps(students, teacher, toy_micro_batches(0), torch.device("cpu"))
    start = parameters_of(banked)
    naive = _Naive(teacher, plain, loss, strategy)
    expected = naive.train(steps, spec)
    bank = toy_bank(teacher, [banked], total_steps=steps, random_teacher=toy_random_teacher(), **spec.model_dump())
    got = train(bank, range(steps), n_micro_batches=1 if loss.matched_tokens == "all" else 3)
    assert [losses["student"]["total"] for losses in got] == pytest.approx(expected, rel=1e-4)
    for losses in got:
        terms = losses["student"]
        total = sum(getattr(loss, f"{term}_weight") * terms[term] for term in ("ce", "kl", "hidden"))
        assert terms["total"] == pytest.approx(total, rel=1e-5)
    reference = parameters_of(plain)
    unmoved = set()
    for key, parameter in parameters_of(banked).items():
        if not _is_moved_by_chance(key):
            torch.testing.assert_close(parameter, reference[key], rtol=1e-3, atol=2e-5, msg=lambda m, k=key: k + m)
            if (parameter - start[key]).abs().max() <= 1e-4:
                unmoved.add(key)
    maps_stay = name in ("frozen", "pca")
    assert {key for key in unmoved if key.startswith("map.")} == {key for key in start if "map." in key and maps_stay}
    words = {key for key in unmoved if "word_embeddings" in key}
    assert words == ({"bert.embeddings.word_embeddings.weight"} if name == "frozen embeddings" else set())
    assert {key for key in unmoved if "map." not in key} == words
    record = banked.assignments["encoder"].record(steps)
    if strategy == "attention":
        weights = torch.stack(naive.weights).sum(dim=0)
        torch.testing.assert_close(
            torch.tensor(record["mean_weights"]), weights / weights.sum(dim=1, keepdim=True), rtol=1e-3, atol=1e-5
        )
    if strategy == "dynamic":
        counts = [[sum(c[column] == row for c in naive.chosen) for column in (0, 1)] for row in (1, 2)]
        assert record == {"kind": "dynamic", "teacher_layers": [2, 4], "steps": counts}
        if name == "dynamic":
            assert len(set(naive.chosen)) > 1  # else it would have been forward
