"""Encoder-decoders and decoders in the bank: losses and gradients, example by example and without padding."""

from typing import Any

import pytest
import torch
from torch import Tensor
from toys.language_models import (
    FAMILIES,
    PAIRED,
    auto_model,
    language_features,
    language_micro_batches,
    language_teacher,
)
from toys.training import toy_bank
from transformers import PreTrainedModel

from kd_train.matching.assignments import Fixed
from kd_train.matching.controls import TargetKind
from kd_train.matching.losses import LossSpec
from kd_train.students.construction import build_student
from kd_train.students.learned_maps import build_maps, name_of
from kd_train.students.student_plan import plan_student
from kd_train.students.student_spec import StudentSpec
from kd_train.tasks.base import IGNORED, Feature
from kd_train.training.member import Member
from layerangles.layers import Tower
from layerangles.models.states import blocks, towers_of

PAIRS: dict[Tower, tuple[tuple[int, int], ...]] = {
    "encoder": ((0, 0), (1, 2), (2, 4)),
    "decoder": ((1, 3), (2, 2)),
}


def _without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and "drop" in name:
                setattr(module, name, 0.0)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def _member(family: str, teacher: PreTrainedModel, *, towers: tuple[Tower, ...], **options: Any) -> Member:
    width = {"width": 16, "init": "random"} if options.pop("narrow", False) else {}
    plan = plan_student(StudentSpec(layers=2, **width), teacher.config)
    student = _without_dropout(build_student(teacher, plan, auto_model=auto_model(family), seed=0))
    assignments = {tower: Fixed(PAIRS[tower]) for tower in towers}
    matched = {tower: assignment.student_layers(0) for tower, assignment in assignments.items()}
    maps = build_maps(plan, teacher.config.hidden_size, matched, seed=0)
    return Member("student", student, assignments, maps, **options)


def _alone(model: PreTrainedModel, feature: Feature) -> tuple[Tensor, dict[str, list[Tensor]]]:
    """Logits and states of one example, unpadded; the outputs of the blocks before any final norm."""
    states: dict[str, list[Tensor]] = {}
    hooks = []
    for tower in towers_of(model.config):
        kept = states.setdefault(tower, [])

        def hook(_module: Any, arguments: Any, options: Any, result: Any, kept: list[Tensor] = kept) -> None:
            if not kept:
                kept.append(arguments[0] if arguments else options["hidden_states"])
            kept.append(result[0] if isinstance(result, tuple) else result)

        hooks += [block.register_forward_hook(hook, with_kwargs=True) for block in blocks(model, tower)]
    inputs = {name: torch.tensor([feature[name]]) for name in feature if name != "labels"}
    logits = model(**inputs).logits[0]
    for handle in hooks:
        handle.remove()
    return logits, {tower: [state[0] for state in of] for tower, of in states.items()}


def _expected(family: str, member: Member, teacher: PreTrainedModel) -> dict[str, Tensor]:
    """The terms of the loss, from their definitions."""
    loss = member.loss
    ce, kl, hidden = [], [], {tower: [[] for _ in PAIRS[tower]] for tower in member.assignments}
    for feature in language_features(family):
        ours, our_states = _alone(member.model, feature)
        with torch.no_grad():
            theirs, their_states = _alone(teacher, feature)
        for position, label in enumerate(feature["labels"]):
            if label != IGNORED:
                log_s, log_t = ours[position].log_softmax(-1), theirs[position].log_softmax(-1)
                ce.append(-log_s[label])
                kl.append((log_t.exp() * (log_t - log_s)).sum())
        for tower, by_pair in hidden.items():
            for (s, t), errors in zip(PAIRS[tower], by_pair, strict=True):
                name = name_of(tower, s)
                weight = member.maps[name].weight if name in member.maps else None
                n = 1 if loss.matched_tokens == "first" else len(our_states[tower][s])
                for position in range(n):
                    state = our_states[tower][s][position]
                    state = state if weight is None else weight @ state
                    errors.append(((state - their_states[tower][t][position]) ** 2).mean())
    by_tower = [torch.stack([torch.stack(errors).mean() for errors in by_pair]) for by_pair in hidden.values()]
    of_towers = [of.sum() if loss.hidden == "paper_bart" else of.mean() for of in by_tower]
    terms = {"ce": torch.stack(ce).mean(), "kl": torch.stack(kl).mean(), "hidden": torch.stack(of_towers).sum()}
    return terms | {"total": terms["ce"] + terms["kl"] + 3 * terms["hidden"]}


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in FAMILIES),
        ("bart", {"loss": LossSpec(hidden="paper_bart")}),
        ("t5", {"loss": LossSpec(tokens="first")}),
        ("t5", {"narrow": True}),
        ("qwen3", {"narrow": True, "loss": LossSpec(tokens="first")}),
        ("bart", {"towers": ("decoder",)}),
        ("marian", {"towers": ("encoder",)}),
    ],
)
def test_losses_and_gradients_follow_the_definition(
    family: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = language_teacher(family)
    every: tuple[Tower, ...] = ("encoder", "decoder") if family in PAIRED else ("decoder",)
    plain, banked = (_member(family, teacher, **{"towers": every} | options) for _ in range(2))
    plain.model.train()
    expected = _expected(family, plain, teacher)
    expected["total"].backward()
    gradients: dict[str, Tensor] = {}
    monkeypatch.setattr(
        "kd_train.training.bank.Bank._update",
        lambda _self, member, _step, _loss: gradients.update(
            {name: p.grad.clone() for name, p in _parameters(member).items() if p.grad is not None}
        ),
    )
    got = toy_bank(teacher, [banked]).train_step(language_micro_batches(family, 3), 0)["student"]
    assert got == pytest.approx({name: float(term.detach()) for name, term in expected.items()}, rel=1e-4)
    reference = {name: p.grad for name, p in _parameters(plain).items() if p.grad is not None}
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        scale = float(reference[name].abs().max())
        torch.testing.assert_close(
            gradient, reference[name], rtol=1e-3, atol=1e-5 + 1e-4 * scale, msg=lambda m, n=name: n + m
        )


def _parameters(member: Member) -> dict[str, torch.nn.Parameter]:
    return dict([*member.model.named_parameters(), *((f"map.{k}", p) for k, p in member.maps.named_parameters())])


@pytest.mark.parametrize("targets", ["other_text", "shuffled_tokens", "gaussian"])
@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_controls_of_every_tower_are_the_same_in_any_number_of_micro_batches(family: str, targets: TargetKind) -> None:
    teacher = language_teacher(family)
    towers: tuple[Tower, ...] = ("encoder", "decoder") if family in PAIRED else ("decoder",)
    losses = [
        toy_bank(teacher, [_member(family, teacher, towers=towers, targets=of)]).train_step(
            language_micro_batches(family, n_micro_batches), 0
        )["student"]
        for of, n_micro_batches in ((targets, 1), (targets, 4), ("teacher", 1))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0]["hidden"] != pytest.approx(losses[2]["hidden"], rel=1e-2)
