"""The bank: a student in company is the student alone, its updates are those of the definition, a state resumes."""

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import toy_bert, toy_tokenizer
from toys_training import (
    FAMILIES,
    FORWARD,
    REVERSE,
    differing,
    parameters_of,
    toy_bank,
    toy_family,
    toy_features,
    toy_member,
    toy_parts,
    toy_teacher,
    train,
)
from transformers import PreTrainedModel, get_scheduler

from kd_train.bank import DataOrder, Member, OptimizerSpec, _least_padding, split_by_length
from kd_train.losses import HiddenLoss
from kd_train.randomness import derive_seed, seeded

HIDDEN_WEIGHT = 3.0


def _company(teacher: PreTrainedModel) -> list[Member]:
    """Students of several strategies, widths and maps."""
    return [
        toy_member(teacher, "none", ()),
        toy_member(teacher, "forward", FORWARD),
        toy_member(teacher, "learned", REVERSE, width=24, init="random"),
        toy_member(teacher, "last", ((2, 4),)),
    ]


@pytest.mark.parametrize("name", ["none", "forward", "learned", "last"])
def test_a_student_in_a_bank_is_the_student_alone_to_the_bit(name: str) -> None:
    teacher = toy_teacher(dropout=0.1)
    together = _company(teacher)
    in_company = train(toy_bank(teacher, together), range(5))
    (alone,) = (member for member in _company(teacher) if member.name == name)
    by_itself = train(toy_bank(toy_teacher(dropout=0.1), [alone]), range(5))
    (same,) = (member for member in together if member.name == name)
    assert differing(parameters_of(alone), parameters_of(same)) == set()
    assert [losses[name] for losses in in_company] == [losses[name] for losses in by_itself]


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
        toy_bank(teacher, [member], seed=seed).train_step(toy_parts(0), 3)
        after.append(parameters_of(member))
    assert differing(after[0], after[1]) == set()
    assert differing(after[0], after[2])


def test_every_step_and_every_part_has_a_dropout_of_its_own() -> None:
    teacher = toy_teacher(dropout=0.1)
    (part,) = toy_parts(0, n_parts=1)

    def loss(step: int, n_repeated: int = 1) -> float:
        bank = toy_bank(teacher, [toy_member(teacher, "a", FORWARD)])
        return bank.train_step([part] * n_repeated, step)["a"]["total"]

    assert loss(0) == loss(0)
    assert len({loss(0), loss(1), loss(2)}) == 3
    assert loss(0, n_repeated=2) != pytest.approx(loss(0), rel=1e-4)  # else the mean of a part and itself


def _naive_update(
    teacher: PreTrainedModel, member: Member, kind: HiddenLoss, steps: int, spec: OptimizerSpec
) -> list[float]:
    """Train a member the plain way: one padded batch, the loss from its definition, torch's own AdamW."""
    trained = [p for p in [*member.model.parameters(), *member.maps.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=spec.learning_rate,
        foreach=False,
    )
    warmup, losses = spec.warmup * steps, []
    for step in range(steps):
        (batch,) = toy_parts(step, n_parts=1)
        with torch.no_grad():
            theirs = teacher.eval()(**batch.inputs, output_hidden_states=True)
        ours = member.model(**batch.inputs, output_hidden_states=True)
        n = len(batch.labels)
        log_s, log_t = ours.logits.log_softmax(-1), theirs.logits.log_softmax(-1)
        cross_entropy = -sum(log_s[i, batch.labels[i]] for i in range(n)) / n
        divergence = sum((log_t[i].exp() * (log_t[i] - log_s[i])).sum() for i in range(n)) / n
        of_pairs = []
        for student_layer, teacher_layer in member.pairs:
            terms = []
            for i, length in enumerate(batch.inputs["attention_mask"].sum(dim=1).tolist()):
                for position in range(length):
                    s = ours.hidden_states[student_layer][i, position]
                    t = theirs.hidden_states[teacher_layer][i, position]
                    if str(student_layer) in member.maps:
                        s = member.maps[str(student_layer)].weight @ s
                    squared = ((s - t) ** 2).sum()
                    terms.append(squared / len(t) if kind == "mse" else squared)
            mean = torch.stack(terms).mean()
            of_pairs.append(mean / n if kind == "paper_bert" else mean)
        loss = cross_entropy + divergence + HIDDEN_WEIGHT * sum(of_pairs) / len(of_pairs)
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


@pytest.mark.parametrize(
    ("kind", "student"),
    [("mse", {}), ("paper_bert", {}), ("mse", {"width": 24, "init": "random"})],
)
def test_training_is_that_of_the_definition(kind: HiddenLoss, student: dict[str, Any]) -> None:
    teacher, steps = toy_teacher(dropout=0), 8
    spec = OptimizerSpec(learning_rate=1e-3, warmup=0.25)
    naive, banked = (toy_member(teacher, "forward", FORWARD, **student) for _ in range(2))
    start = parameters_of(banked)
    expected = _naive_update(teacher, naive, kind, steps, spec)
    bank = toy_bank(teacher, [banked], total_steps=steps, hidden=kind, **spec.model_dump())
    got = train(bank, range(steps), n_parts=3)
    assert [losses["forward"]["total"] for losses in got] == pytest.approx(expected, rel=1e-4)
    for losses in got:
        terms = losses["forward"]
        assert terms["total"] == pytest.approx(terms["ce"] + terms["kl"] + HIDDEN_WEIGHT * terms["hidden"], rel=1e-5)
    reference = parameters_of(naive)
    for name, parameter in parameters_of(banked).items():
        # Adam divides by the gradient's size: where there is none but rounding, its sign is a matter of chance.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(parameter, reference[name], rtol=1e-3, atol=2e-5, msg=lambda m, n=name: n + m)
            assert (parameter - start[name]).abs().max() > 1e-4, name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_encoders_learns_by_the_definition(family: str) -> None:
    """The losses and the gradients of one batch, against a plain call of student and teacher without dropout."""
    teacher = toy_family(family)
    for name, value in teacher.config.to_dict().items():
        if "dropout" in name and value:
            setattr(teacher.config, name, 0.0)
    plain, banked = (toy_member(teacher, "a", ((1, 2), (2, 4))) for _ in range(2))
    (batch,) = toy_parts(0, n_parts=1)
    inputs = {k: v for k, v in batch.inputs.items() if k != "token_type_ids"}
    ours, theirs = (model(**inputs, output_hidden_states=True) for model in (plain.model, teacher.eval()))
    valid = inputs["attention_mask"].bool()
    squared = [(ours.hidden_states[s][valid] - theirs.hidden_states[t][valid].detach()) ** 2 for s, t in plain.pairs]
    log_s, log_t = ours.logits.log_softmax(-1), theirs.logits.log_softmax(-1).detach()
    expected = {
        "ce": -log_s[range(len(batch.labels)), batch.labels].mean(),
        "kl": (log_t.exp() * (log_t - log_s)).sum(dim=-1).mean(),
        "hidden": (squared[0].mean() + squared[1].mean()) / 2,
    }
    (expected["ce"] + expected["kl"] + HIDDEN_WEIGHT * expected["hidden"]).backward()

    parts = [
        part._replace(inputs={k: v for k, v in part.inputs.items() if k != "token_type_ids"}) for part in toy_parts(0)
    ]
    gradients: dict[str, torch.Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "kd_train.bank.Bank._update",
            lambda _self, member, _step: gradients.update(
                {n: p.grad.clone() for n, p in member.model.named_parameters() if p.grad is not None}
            ),
        )
        got = toy_bank(teacher, [banked]).train_step(parts, 0)["a"]
    assert got == pytest.approx({k: float(v.detach()) for k, v in expected.items()} | {"total": got["total"]}, rel=1e-4)
    for name, parameter in plain.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                gradients[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: n + m
            )


@pytest.mark.parametrize("kind", ["mse", "paper_bert", "unit", "cosine"])
def test_the_number_of_parts_changes_nothing_but_rounding(kind: HiddenLoss) -> None:
    teacher = toy_teacher(dropout=0)
    members = {n_parts: toy_member(teacher, "forward", FORWARD) for n_parts in (1, 4, 8)}
    losses = {
        n_parts: train(toy_bank(teacher, [member], hidden=kind), range(3), n_parts=n_parts)[-1]["forward"]
        for n_parts, member in members.items()
    }
    assert losses[4] == pytest.approx(losses[1], rel=1e-5)
    assert losses[8] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("n_parts", [4, 8])
def test_the_gradient_of_the_parts_is_the_gradient_of_the_batch(n_parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = toy_teacher(dropout=0)
    gradients: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        "kd_train.bank.Bank._update",
        lambda _self, member, _step: gradients.append(
            {n: p.grad.clone() for n, p in member.model.named_parameters() if p.grad is not None}
        ),
    )
    for n in (1, n_parts):
        toy_bank(teacher, [toy_member(teacher, "forward", FORWARD)]).train_step(toy_parts(0, n_parts=n), 0)
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
    assert {"map.0.weight", "map.1.weight", "map.2.weight"} <= start.keys()
    assert differing(theirs, dict(teacher.state_dict())) == set()


def test_matched_layers_come_nearer_to_their_targets() -> None:
    teacher = toy_teacher(dropout=0)
    for pairs in (FORWARD, REVERSE):
        member = toy_member(teacher, "student", pairs, init="random", embeddings="random")
        losses = train(toy_bank(teacher, [member], learning_rate=5e-3, total_steps=20), range(15))
        assert losses[-1]["student"]["hidden"] < 0.8 * losses[0]["student"]["hidden"]


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
    bank.train_step(toy_parts(0), 1)
    assert norms == pytest.approx({"calm": limit, "wild": limit}, rel=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_the_learning_rate_is_transformers_own_step_by_step(schedule: str) -> None:
    teacher, total = toy_teacher(), 10
    members = [toy_member(teacher, name, ()) for name in ("a", "b")]
    bank = toy_bank(teacher, members, total_steps=total, schedule=schedule, warmup=0.3, learning_rate=1e-3)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    reference = get_scheduler(schedule, optimizer, num_warmup_steps=3, num_training_steps=total)
    parts = toy_parts(0, batch_size=2)
    for step in range(total):
        bank.train_step(parts, step)
        for member in members:
            for group in bank._optimizers[member.name].param_groups:
                assert group["lr"] == pytest.approx(reference.get_last_lr()[0], rel=1e-12)
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


@pytest.mark.parametrize("stop", [0, 3])
def test_a_saved_state_goes_on_as_if_nothing_had_been(tmp_path: Path, stop: int) -> None:
    teacher = toy_teacher(dropout=0.1)
    members = _company(teacher)
    bank = toy_bank(teacher, members)
    train(bank, range(stop))
    bank.save(tmp_path / "state")
    train(bank, range(stop, 6))
    resumed = [
        toy_member(teacher, m.name, m.pairs, seed=99, width=m.model.config.hidden_size, init="random") for m in members
    ]
    other = toy_bank(teacher, resumed)
    other.load(tmp_path / "state")
    train(other, range(stop, 6))
    for a, b in zip(members, resumed, strict=True):
        assert differing(parameters_of(a), parameters_of(b)) == set()


def test_a_frozen_map_is_part_of_the_state(tmp_path: Path) -> None:
    teacher = toy_teacher()
    saved, other = (
        toy_member(teacher, "a", FORWARD, seed=seed, width=24, init="random", map="frozen") for seed in (0, 1)
    )
    toy_bank(teacher, [saved]).save(tmp_path / "state")
    toy_bank(teacher, [other]).load(tmp_path / "state")
    assert differing(parameters_of(saved), parameters_of(other)) == set()


@pytest.mark.parametrize(("n_examples", "batch_size"), [(20, 8), (16, 8), (5, 8), (1, 1)])
def test_every_example_comes_once_an_epoch(n_examples: int, batch_size: int) -> None:
    order = DataOrder(n_examples, batch_size, seed=0)
    assert order.steps_per_epoch == -(-n_examples // batch_size)
    for epoch in range(3):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [order.batch(step) for step in steps]
        assert sorted(row for batch in batches for row in batch) == list(range(n_examples))
        assert all(len(batch) == batch_size for batch in batches[:-1])


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    order = DataOrder(50, 10, seed=0)
    in_sequence = [order.batch(step) for step in range(20)]
    assert [DataOrder(50, 10, seed=0).batch(step) for step in range(20)] == in_sequence
    assert [order.batch(step) for step in reversed(range(20))] == in_sequence[::-1]
    assert in_sequence[:5] != in_sequence[5:10]
    assert in_sequence[:5] != [DataOrder(50, 10, seed=1).batch(step) for step in range(5)]


@pytest.mark.parametrize("n_parts", [1, 3, 8, 50])
def test_parts_hold_the_batch_and_sort_it_by_length(n_parts: int) -> None:
    features, labels = toy_features(8)
    parts = split_by_length(features, labels, toy_tokenizer(), n_parts)
    assert len(parts) <= n_parts
    rows = [
        (inputs[mask.bool()].tolist(), int(label))
        for part in parts
        for inputs, mask, label in zip(
            part.inputs["input_ids"], part.inputs["attention_mask"], part.labels, strict=True
        )
    ]
    expected = [(feature["input_ids"], label) for feature, label in zip(features, labels, strict=True)]
    assert sorted(rows) == sorted(expected)
    assert [len(ids) for ids, _ in rows] == sorted(len(ids) for ids, _ in expected)
    for part in parts:
        assert part.inputs["attention_mask"].any(dim=0).all()  # no column of nothing but PAD


@pytest.mark.parametrize("n_parts", [1, 2, 3, 5])
def test_parts_are_cut_where_padding_is_least(n_parts: int) -> None:
    lengths = sorted(torch.randint(3, 60, (9,), generator=torch.Generator().manual_seed(n_parts)).tolist())

    def padded(ends: tuple[int, ...]) -> int:
        return sum((end - start) * lengths[end - 1] for start, end in pairwise((0, *ends)))

    every = [(*ends, 9) for k in range(n_parts) for ends in combinations(range(1, 9), k)]
    ends = _least_padding(lengths, n_parts)
    assert len(ends) <= n_parts
    assert padded(ends) == min(map(padded, every))
    assert _least_padding([7] * 9, n_parts) == (9,)  # nothing to save: one part


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(0, "dropout", 7) == 8459355141554307173  # sha256sum of 0/dropout/7, halved
    assert len({derive_seed(*parts) for parts in ((0, "a"), (0, "b"), (1, "a"), ("0", "a", 0))}) == 4


def test_random_numbers_are_given_back() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(1, "x"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(1, "x"):
        assert torch.equal(torch.rand(2), inside)
