"""The bank: a student in company is the student alone, its updates are those of the definition, a state resumes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toys.models import toy_bert
from toys.training import (
    FAMILIES,
    FORWARD,
    REVERSE,
    differing,
    parameters_of,
    toy_adapted,
    toy_assignment,
    toy_bank,
    toy_family,
    toy_member,
    toy_micro_batches,
    toy_random_teacher,
    toy_redrawn,
    toy_teacher,
    train,
)
from transformers import PreTrainedModel, get_scheduler

from kd_train.matching.losses import HiddenLoss, LossSpec
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


def test_a_student_is_the_same_beside_one_that_counts_pad() -> None:
    after = []
    for others in ((), (LossSpec(hidden="paper_qwen"),)):
        teacher = toy_teacher(dropout=0.1)
        member = toy_member(teacher, "a", FORWARD)
        bank = toy_bank(teacher, [member, *(toy_member(teacher, "pad", FORWARD, loss=loss) for loss in others)])
        train(bank, range(2), n_micro_batches=1)
        after.append(parameters_of(member))
    assert differing(*after) == set()


def test_the_company_is_mixed(company: dict[str, _Trained]) -> None:
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


# ---- losses and gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_encoders_learns_by_the_definition(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses and the gradients of one batch, against a plain call of student and teacher without dropout."""
    teacher = toy_family(family)
    for name, value in teacher.config.to_dict().items():
        if "dropout" in name and value:
            setattr(teacher.config, name, 0.0)
    pairs = ((1, 2), (2, 4))
    plain, banked = (toy_member(teacher, "a", pairs) for _ in range(2))
    (batch,) = toy_micro_batches(0, n_micro_batches=1)
    inputs = {k: v for k, v in batch.inputs.items() if k != "token_type_ids"}
    ours, theirs = (model(**inputs, output_hidden_states=True) for model in (plain.model, teacher.eval()))
    valid = inputs["attention_mask"].bool()
    squared = [(ours.hidden_states[s][valid] - theirs.hidden_states[t][valid].detach()) ** 2 for s, t in pairs]
    log_s, log_t = ours.logits.log_softmax(-1), theirs.logits.log_softmax(-1).detach()
    expected = {
        "ce": -log_s[range(len(batch.labels)), batch.labels].mean(),
        "kl": (log_t.exp() * (log_t - log_s)).sum(dim=-1).mean(),
        "hidden": (squared[0].mean() + squared[1].mean()) / 2,
    }
    (expected["ce"] + expected["kl"] + 3 * expected["hidden"]).backward()

    micro_batches = [
        micro_batch._replace(inputs={k: v for k, v in micro_batch.inputs.items() if k != "token_type_ids"})
        for micro_batch in toy_micro_batches(0)
    ]
    gradients = _gradients(monkeypatch)
    got = toy_bank(teacher, [banked]).train_step(micro_batches, 0)["a"]
    assert got == pytest.approx(
        {k: float(v.detach()) for k, v in expected.items()} | {"total": got["total"]}, rel=1e-4, abs=1e-7
    )
    for name, parameter in plain.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                gradients[0][name], parameter.grad, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: n + m
            )


def _gradients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """What each step of each member collects in place of being updated, from now on."""
    gradients: list[dict[str, Tensor]] = []
    monkeypatch.setattr(
        "kd_train.training.bank.Bank._update",
        lambda _self, member, _step, _loss: gradients.append(
            {n: p.grad.clone() for n, p in member.model.named_parameters() if p.grad is not None}
        ),
    )
    return gradients


@pytest.mark.parametrize("kind", ["mse", "patient", "paper_bert", "paper_bart"])
def test_the_number_of_micro_batches_changes_nothing_but_rounding(kind: HiddenLoss) -> None:
    teacher = toy_teacher(dropout=0)
    spec = LossSpec(hidden=kind)
    losses = {
        n_micro_batches: train(
            toy_bank(teacher, [toy_member(teacher, "forward", FORWARD, loss=spec)]),
            range(2),
            n_micro_batches=n_micro_batches,
        )[-1]["forward"]
        for n_micro_batches in (1, 8)
    }
    assert losses[8] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("targets", ["other_text", "shuffled_tokens", "gaussian", "random_teacher"])
def test_controls_are_the_same_in_any_number_of_micro_batches(targets: str) -> None:
    teacher = toy_teacher(dropout=0)
    losses = [
        train(
            toy_bank(
                teacher, [toy_member(teacher, "a", FORWARD, targets=targets)], random_teacher=toy_random_teacher()
            ),
            range(2),
            n_micro_batches=n_micro_batches,
        )[-1]["a"]
        for n_micro_batches in (1, 8)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    plain = train(toy_bank(teacher, [toy_member(teacher, "a", FORWARD)]), range(2))[-1]["a"]
    assert losses[0]["hidden"] != pytest.approx(plain["hidden"], rel=1e-2)


@pytest.mark.parametrize("targets", ["shuffled_tokens", "gaussian"])
def test_random_controls_follow_from_seed_and_step(targets: str) -> None:
    teacher = toy_teacher(dropout=0)

    def hidden(seed: int, step: int, torch_seed: int) -> float:
        torch.manual_seed(torch_seed)
        bank = toy_bank(teacher, [toy_member(teacher, "a", ((1, 2),), targets=targets)], seed=seed)
        return bank.train_step(toy_micro_batches(0), step)["a"]["hidden"]

    assert hidden(0, 3, 1) == hidden(0, 3, 2)
    assert len({hidden(0, 3, 1), hidden(1, 3, 1), hidden(0, 4, 1)}) == 3


@pytest.mark.parametrize("n_micro_batches", [4, 8])
def test_the_gradient_of_the_micro_batches_is_the_gradient_of_the_batch(
    n_micro_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = toy_teacher(dropout=0)
    gradients = _gradients(monkeypatch)
    for n in (1, n_micro_batches):
        toy_bank(teacher, [toy_member(teacher, "forward", FORWARD)]).train_step(
            toy_micro_batches(0, n_micro_batches=n), 0
        )
    whole, summed = gradients
    assert whole.keys() == summed.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(summed[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize(("kind", "moves"), [("learned", True), ("frozen", False), ("orthogonal", False)])
def test_everything_that_is_trained_moves_and_nothing_else(kind: str, moves: bool) -> None:
    teacher = toy_teacher()
    theirs = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    member = toy_member(teacher, "forward", FORWARD, width=24, init="random", map=kind)
    start = parameters_of(member)
    train(toy_bank(teacher, [member]), range(3))
    moved = differing(start, parameters_of(member))
    expected = {name for name in start if moves or not name.startswith("map.")}
    assert moved == expected
    assert {f"map.encoder_{layer}.weight" for layer in range(3)} <= start.keys()
    assert differing(theirs, dict(teacher.state_dict())) == set()


def test_of_a_student_with_adapters_only_these_and_the_head_move() -> None:
    teacher = toy_teacher()
    member = toy_adapted(toy_member(teacher, "a", FORWARD, map="learned"))
    start = parameters_of(member)
    train(toy_bank(teacher, [member]), range(3))
    moved = differing(start, parameters_of(member))
    adapters = {name for name in start if "lora_" in name}
    head = {f"classifier.modules_to_save.default.{what}" for what in ("weight", "bias")}
    maps = {f"map.encoder_{layer}.weight" for layer in range(3)}
    assert moved == adapters | head | maps
    assert len(adapters) == 2 * (2 * 6 + 1)  # A and B of six linear layers a block, and of the pooler


def test_frozen_embeddings_stay_and_all_else_moves() -> None:
    teacher = toy_teacher()
    member = toy_member(teacher, "a", FORWARD, freeze_embeddings=True)
    start = parameters_of(member)
    train(toy_bank(teacher, [member], weight_decay=0.5), range(3))
    unmoved = start.keys() - differing(start, parameters_of(member))
    assert unmoved == {"bert.embeddings.word_embeddings.weight"}


def test_matched_layers_come_nearer_to_their_targets() -> None:
    teacher = toy_teacher(dropout=0)
    for pairs in (FORWARD, REVERSE):
        member = toy_member(teacher, "student", pairs, init="random", embeddings="random")
        losses = train(toy_bank(teacher, [member], learning_rate=5e-3, total_steps=20), range(15))
        assert losses[-1]["student"]["hidden"] < 0.8 * losses[0]["student"]["hidden"]


def test_without_a_hidden_weight_nothing_is_matched() -> None:
    teacher = toy_teacher(dropout=0)
    spec = LossSpec(hidden_weight=0.0)
    members = [toy_member(teacher, "weightless", FORWARD, loss=spec), toy_member(teacher, "none", ())]
    losses = train(toy_bank(teacher, members), range(3))
    assert set(losses[0]["weightless"]) == {"ce", "kl", "total"}
    assert differing(*(parameters_of(member) for member in members)) == set()


def test_each_student_is_clipped_by_itself() -> None:
    teacher = toy_teacher(dropout=0)
    limit = 1e-3
    # With AdamW a common factor of all gradients would hardly show; plain descent shows it.
    member, wild = toy_member(teacher, "calm", ()), toy_member(teacher, "wild", FORWARD)
    bank = toy_bank(teacher, [member, wild], max_grad_norm=limit)
    norms: dict[str, float] = {}
    for of in (member, wild):
        optimizer = bank._optimizers[of.name]

        def step(optimizer: torch.optim.Optimizer = optimizer, name: str = of.name) -> None:
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norms[name] = float(torch.sqrt(sum(g.square().sum() for g in grads)))

        optimizer.step = step
    bank.train_step(toy_micro_batches(0), 1)
    assert norms == pytest.approx({"calm": limit, "wild": limit}, rel=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_the_learning_rate_is_transformers_own_step_by_step(schedule: str) -> None:
    teacher, total = toy_teacher(), 10
    members = [toy_member(teacher, "a", ()), replace(toy_member(teacher, "b", ()), learning_rate=5e-4)]
    bank = toy_bank(teacher, members, total_steps=total, schedule=schedule, warmup=0.3, learning_rate=1e-3)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    reference = get_scheduler(schedule, optimizer, num_warmup_steps=3, num_training_steps=total)
    micro_batches = toy_micro_batches(0, batch_size=2)
    for step in range(total):
        bank.train_step(micro_batches, step)
        for member, share in zip(members, (1.0, 0.5), strict=True):
            for group in bank._optimizers[member.name].param_groups:
                assert group["lr"] == pytest.approx(share * reference.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        reference.step()


def test_biases_and_norms_do_not_decay() -> None:
    teacher = toy_teacher()
    member = toy_member(teacher, "a", FORWARD, width=24, init="random")
    decay = {
        id(p): group["weight_decay"]
        for group in toy_bank(teacher, [member], weight_decay=0.5)._optimizers["a"].param_groups
        for p in group["params"]
    }
    for name, parameter in [*member.model.named_parameters(), *member.maps.named_parameters()]:
        is_exempt = name.endswith("bias") or "LayerNorm" in name
        assert decay.pop(id(parameter)) == (0.0 if is_exempt else 0.5), name
    assert not decay


def test_without_a_teacher_the_labels_alone_teach() -> None:
    member = Member("teacher", toy_bert(layers=2))
    losses = train(toy_bank(None, [member]), range(2))
    assert set(losses[0]["teacher"]) == {"ce", "total"}
    assert losses[0]["teacher"]["ce"] == losses[0]["teacher"]["total"]


def test_the_memory_is_that_of_all_its_tensors() -> None:
    teacher = toy_teacher()
    member = toy_member(teacher, "a", FORWARD, width=24, init="random", freeze_embeddings=True)
    bank = toy_bank(teacher, [member])
    train(bank, range(1))
    parameters = [*member.model.parameters(), *member.maps.parameters()]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    n_tensors = sum(p.requires_grad for p in parameters)
    # Weights, and of what is trained a gradient and AdamW's two moments; AdamW counts each tensor's steps in 4 bytes.
    assert bank.memory_bytes() == {"a": 4 * (sum(p.numel() for p in parameters) + 3 * trained + n_tensors)}


# ---- divergence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_micro_batches", [3])
def test_a_student_that_diverges_stops_and_the_others_never_notice(n_micro_batches: int) -> None:
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


def test_a_gradient_that_is_no_number_stops_a_student() -> None:
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
def test_a_saved_state_goes_on_as_if_nothing_had_been(tmp_path: Path, stop: int, optimizer: str) -> None:
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


def test_who_is_stopped_stays_stopped(tmp_path: Path) -> None:
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
