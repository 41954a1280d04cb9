"""The bank: students in company equal the student alone, dropout is shared, and a saved state is restored."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys.training import (
    FORWARD,
    REVERSE,
    differing,
    parameters_of,
    toy_adapted,
    toy_assignment,
    toy_bank,
    toy_member,
    toy_micro_batches,
    toy_random_teacher,
    toy_redrawn,
    toy_teacher,
    train,
)
from transformers import PreTrainedModel

from kd_train.matching.losses import LossSpec
from kd_train.training.member import Member

# ---- company -------------------------------------------------------------------------------------------------------

_COMPANY: dict[str, Callable[[PreTrainedModel], Member]] = {
    "none": lambda t: toy_member(t, "none", ()),
    "forward": lambda t: toy_member(t, "forward", FORWARD),
    "learned": lambda t: toy_member(t, "learned", REVERSE, width=24, init="random"),
    "shared": lambda t: toy_member(t, "shared", REVERSE, width=24, init="random", share_map=True),
    "last": lambda t: toy_member(t, "last", ((2, 4),)),
    "deeper": lambda t: toy_member(t, "deeper", ((0, 0), (1, 2), (2, 3), (3, 4)), layers=3),
    "cosine": lambda t: toy_member(t, "cosine", FORWARD, loss=LossSpec(hidden="cosine", temperature=2.0)),
    "first-token": lambda t: toy_member(t, "first-token", FORWARD, loss=LossSpec(hidden="patient")),
    "faster": lambda t: replace(toy_member(t, "faster", FORWARD), learning_rate=3e-3),
    "frozen-embeddings": lambda t: toy_member(t, "frozen-embeddings", FORWARD, freeze_embeddings=True),
    "attention": lambda t: toy_member(t, "attention", toy_assignment("attention")),
    "dynamic": lambda t: toy_member(t, "dynamic", toy_assignment("dynamic")),
    "redrawn": lambda t: toy_member(t, "redrawn", toy_redrawn()),
    "adapters": lambda t: toy_adapted(toy_member(t, "adapters", FORWARD), dropout=0.1),
    "random_teacher": lambda t: toy_member(t, "random_teacher", ((1, 2), (2, 4)), targets="random_teacher"),
    "other_text": lambda t: toy_member(t, "other_text", ((1, 3),), targets="other_text"),
    "other_text-first": lambda t: toy_member(
        t, "other_text-first", ((1, 3),), targets="other_text", loss=LossSpec(tokens="first")
    ),
    "shuffled_tokens": lambda t: toy_member(t, "shuffled_tokens", ((1, 2),), targets="shuffled_tokens"),
    "gaussian": lambda t: toy_member(t, "gaussian", ((1, 2), (2, 4)), targets="gaussian"),
    "gaussian-last": lambda t: toy_member(t, "gaussian-last", ((2, 4),), targets="gaussian"),
}
_Trained = tuple[dict[str, Tensor], list[dict[str, float]]]


def _trained(names: Sequence[str], n_steps: int = 3, **optimizer: Any) -> dict[str, _Trained]:
    """The parameters and the losses of some of the company after a few steps together."""
    teacher = toy_teacher(dropout=0.1)
    members = [_COMPANY[name](teacher) for name in names]
    bank = toy_bank(teacher, members, random_teacher=toy_random_teacher(), **optimizer)
    losses = train(bank, range(n_steps), n_micro_batches=2)
    return {m.name: (parameters_of(m), [of_step[m.name] for of_step in losses]) for m in members}


@pytest.fixture(scope="module")
def company() -> dict[str, _Trained]:
    return _trained(list(_COMPANY))


@pytest.mark.parametrize("name", _COMPANY)
def test_a_student_in_a_bank_is_the_student_alone_to_the_bit(name: str, company: dict[str, _Trained]) -> None:
    parameters, losses = _trained([name])[name]
    assert differing(parameters, company[name][0]) == set()
    assert losses == company[name][1]


def test_a_student_is_the_same_in_a_bank_with_a_loss_that_counts_pad() -> None:
    after = []
    for others in ((), (LossSpec(hidden="paper_qwen"),)):
        teacher = toy_teacher(dropout=0.1)
        member = toy_member(teacher, "a", FORWARD)
        bank = toy_bank(teacher, [member, *(toy_member(teacher, "pad", FORWARD, loss=loss) for loss in others)])
        train(bank, range(2), n_micro_batches=1)
        after.append(parameters_of(member))
    assert differing(*after) == set()


def test_every_student_of_the_bank_has_another_loss(company: dict[str, _Trained]) -> None:
    after = [company[name][1][-1]["total"] for name in _COMPANY]
    assert len(set(after)) == len(after)


def test_all_students_of_a_seed_see_the_same_dropout() -> None:
    teacher = toy_teacher(dropout=0.1)
    members = [toy_member(teacher, name, pairs) for name, pairs in (("a", ()), ("b", FORWARD), ("c", ()))]
    train(toy_bank(teacher, members), range(5))
    a, b, c = (parameters_of(member) for member in members)
    assert differing(a, c) == set()
    assert differing(a, b)


def test_dropout_is_on_and_follows_from_the_seed() -> None:
    teacher = toy_teacher(dropout=0.1)
    after = []
    for seed, torch_seed in ((0, 1), (0, 2), (1, 1)):
        member = toy_member(teacher, "forward", FORWARD)
        torch.manual_seed(torch_seed)
        toy_bank(teacher, [member], seed=seed).train_step(toy_micro_batches(0), 3)
        after.append(parameters_of(member))
    assert differing(after[0], after[1]) == set()
    assert differing(after[0], after[2])


def test_every_step_and_every_micro_batch_has_a_dropout_of_its_own() -> None:
    teacher = toy_teacher(dropout=0.1)
    (micro_batch,) = toy_micro_batches(0, n_micro_batches=1)

    def loss(step: int, n_repeated: int = 1) -> float:
        bank = toy_bank(teacher, [toy_member(teacher, "a", FORWARD)])
        return bank.train_step([micro_batch] * n_repeated, step)["a"]["total"]

    assert loss(0) == loss(0)
    assert len({loss(0), loss(1), loss(2)}) == 3
    assert loss(0, n_repeated=2) != pytest.approx(loss(0), rel=1e-4)  # else the mean of a micro-batch and itself


# ---- divergence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_micro_batches", [3])
def test_a_student_that_diverges_stops_without_effect_on_the_others(n_micro_batches: int) -> None:
    teacher = toy_teacher(dropout=0.1)
    names = ["forward", "gaussian", "attention"]
    members = [_COMPANY[name](teacher) for name in names]
    wild = replace(toy_member(teacher, "wild", FORWARD), learning_rate=1e25)
    bank = toy_bank(teacher, [members[0], wild, *members[1:]])
    before, steps = parameters_of(wild), 0
    for step in range(5):
        before = parameters_of(wild) if wild.stopped is None else before
        losses = bank.train_step(toy_micro_batches(step, n_micro_batches=n_micro_batches), step)
        steps += "wild" in losses
    assert wild.stopped is not None
    assert (wild.stopped.failed, wild.stopped.step) == (True, steps - 1)  # so many steps led to its weights
    assert wild.stopped.reason.startswith("its loss was ")
    assert wild.stopped.reason.endswith(f" in step {steps}")
    assert 1 < steps < 5
    assert differing(before, parameters_of(wild)) == set()  # those before the step that failed
    assert all(parameter.isfinite().all() for parameter in before.values())
    assert [member.name for member in bank.active] == names
    alone = [_COMPANY[name](toy_teacher(dropout=0.1)) for name in names]
    train(toy_bank(teacher, alone), range(5), n_micro_batches=n_micro_batches)
    for member, same in zip(members, alone, strict=True):
        assert differing(parameters_of(member), parameters_of(same)) == set()


def test_a_gradient_that_is_not_finite_stops_a_student() -> None:
    teacher = toy_teacher()
    member = toy_member(teacher, "a", FORWARD)
    start = parameters_of(member)
    member.model.classifier.bias.register_hook(lambda gradient: gradient * float("nan"))
    losses = train(toy_bank(teacher, [member]), range(2))
    assert member.stopped is not None
    assert member.stopped.reason == "its gradient had the norm nan in step 1"
    assert member.stopped.step == 0
    assert losses[1] == {}
    assert differing(start, parameters_of(member)) == set()


# ---- states to resume from -----------------------------------------------------------------------------------------


_RESUMED = (
    "none", "learned", "shared", "frozen-embeddings", "attention", "dynamic", "redrawn", "adapters", "gaussian"
)  # fmt: skip


@pytest.mark.parametrize(("stop", "optimizer"), [(0, "adamw"), (2, "adamw"), (2, "adafactor")])
def test_a_restored_state_trains_like_the_uninterrupted_bank(tmp_path: Path, stop: int, optimizer: str) -> None:
    def members(teacher: PreTrainedModel) -> list[Member]:
        return [_COMPANY[name](teacher) for name in _RESUMED]

    teacher = toy_teacher(dropout=0.1)
    options: dict[str, Any] = {"optimizer": optimizer}
    uninterrupted = members(teacher)
    bank = toy_bank(teacher, uninterrupted, **options)
    train(bank, range(stop))
    bank.save(tmp_path / "state")
    train(bank, range(stop, 4))
    resumed = members(teacher)
    for member in resumed:  # what is loaded must not have been there already
        for parameter in [*member.model.parameters(), *member.maps.parameters()]:
            parameter.data.fill_(0.5)
    other = toy_bank(teacher, resumed, **options)
    other.load(tmp_path / "state")
    train(other, range(stop, 4))
    for a, b in zip(uninterrupted, resumed, strict=True):
        assert differing(parameters_of(a), parameters_of(b)) == set(), a.name
        assert a.assignments["encoder"].record(4) == b.assignments["encoder"].record(4), a.name
        assert a.assignments["encoder"].pairs(4) == b.assignments["encoder"].pairs(4), a.name


def test_a_stopped_student_stays_stopped_after_a_restore(tmp_path: Path) -> None:
    teacher = toy_teacher()

    def members() -> list[Member]:
        wild = replace(toy_member(teacher, "wild", FORWARD), learning_rate=1e25)
        return [toy_member(teacher, "calm", FORWARD), wild]

    calm, wild = members()
    bank = toy_bank(teacher, [calm, wild])
    train(bank, range(4))
    bank.save(tmp_path / "state")
    calm_again, wild_again = members()
    other = toy_bank(teacher, [calm_again, wild_again])
    other.load(tmp_path / "state")
    assert wild_again.stopped == wild.stopped
    assert calm_again.stopped is None
    assert [member.name for member in other.active] == ["calm"]


def test_a_frozen_map_is_part_of_the_state(tmp_path: Path) -> None:
    teacher = toy_teacher()
    saved, other = (
        toy_member(teacher, "a", FORWARD, seed=seed, width=24, init="random", map="frozen") for seed in (0, 1)
    )
    toy_bank(teacher, [saved]).save(tmp_path / "state")
    toy_bank(teacher, [other]).load(tmp_path / "state")
    assert differing(parameters_of(saved), parameters_of(other)) == set()
