"""The steps of a bank: losses, gradients, learning rates, and the parameters that move."""

from dataclasses import replace

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
    toy_bank,
    toy_family,
    toy_member,
    toy_micro_batches,
    toy_random_teacher,
    toy_teacher,
    train,
)
from transformers import get_scheduler

from kd_train.matching.losses import HiddenLoss, LossSpec
from kd_train.training.member import Member


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
    """Collect the gradients of every step and member from now on, in place of the updates."""
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
def test_exactly_the_trained_parameters_move(kind: str, moves: bool) -> None:
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


def test_only_adapters_and_head_of_an_adapted_student_move() -> None:
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
def test_the_learning_rate_follows_the_schedule_of_transformers(schedule: str) -> None:
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


def test_without_a_teacher_the_loss_is_the_cross_entropy() -> None:
    member = Member("teacher", toy_bert(layers=2))
    losses = train(toy_bank(None, [member]), range(2))
    assert set(losses[0]["teacher"]) == {"ce", "total"}
    assert losses[0]["teacher"]["ce"] == losses[0]["teacher"]["total"]


def test_the_memory_of_a_student_is_that_of_all_its_tensors() -> None:
    teacher = toy_teacher()
    member = toy_member(teacher, "a", FORWARD, width=24, init="random", freeze_embeddings=True)
    bank = toy_bank(teacher, [member])
    train(bank, range(1))
    parameters = [*member.model.parameters(), *member.maps.parameters()]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    n_tensors = sum(p.requires_grad for p in parameters)
    # Weights, and for trained ones a gradient and AdamW's two moments; its step count takes 4 bytes per tensor.
    assert bank.memory_bytes() == {"a": 4 * (sum(p.numel() for p in parameters) + 3 * trained + n_tensors)}
