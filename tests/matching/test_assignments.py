"""The targets of student layers at a step: fixed, redrawn, mixed or nearest."""

import random
from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from torch import Tensor

from kd_train.matching.assignments import (
    Assignment,
    Attention,
    DynamicAssignment,
    Fixed,
    Redrawn,
    monotone_assignment,
)
from kd_train.matching.strategies import Strategy, assign, layer_pairs
from layerangles.layers import LayerPair

PAIRS = ((0, 0), (1, 2), (2, 4))


def _states(n_layers: int, n_tokens: int, *, seed: int, dim: int = 3) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {layer: torch.randn(n_tokens, dim, generator=generator) for layer in range(n_layers + 1)}


def _assigned(strategy: Strategy, *, steps_per_epoch: int = 10, **options: bool) -> Assignment:
    settings = {"tower": "encoder", "embedding_pair": True} | options
    return assign(strategy, 2, 4, steps_per_epoch=steps_per_epoch, **settings)


def test_a_fixed_map_is_the_same_in_every_step() -> None:
    fixed = Fixed(PAIRS)
    student, teacher = _states(2, 5, seed=0), _states(4, 5, seed=1)
    for step in (0, 7):
        assert fixed.pairs(step) == PAIRS
        assert (fixed.student_layers(step), fixed.teacher_layers(step)) == ((0, 1, 2), (0, 2, 4))
        for (ours, theirs), (s, t) in zip(fixed.matched(step, student, teacher), PAIRS, strict=True):
            assert ours is student[s]
            assert theirs is teacher[t]
    assert (fixed.record(7), fixed.state(), fixed.observed) == (None, {}, None)


def test_layers_of_an_assignment_are_distinct_and_ascending() -> None:
    fixed = Fixed(((2, 1), (1, 4), (1, 1)))
    assert (fixed.student_layers(0), fixed.teacher_layers(0)) == ((1, 2), (1, 4))


def _draws(strategy: Strategy) -> Callable[[int], tuple[LayerPair, ...]]:
    """The n-th draw: numpy's generator, seeded with the mapping seed, whether it is the decoder, and n."""

    def draw(number: int) -> tuple[LayerPair, ...]:
        seed = strategy.mapping_seed or 0
        generator = np.random.default_rng([seed, 0, number] if number else seed)
        targets = generator.permutation(2) * 2 + 2
        return ((0, 0), *enumerate(map(int, targets), start=1))

    return draw


@pytest.mark.parametrize(("redraw", "every"), [(3, 3), ("epoch", 10), (1, 1)])
def test_a_map_is_drawn_anew_every_so_many_steps(redraw: int | str, every: int) -> None:
    strategy = Strategy(kind="random", mapping_seed=5, redraw=redraw)
    redrawn, draw = _assigned(strategy), _draws(strategy)
    for step in range(25):
        assert redrawn.pairs(step) == draw(step // every)
        assert redrawn.pairs_before(step) == draw(max(step - 1, 0) // every)
    assert len({redrawn.pairs(step) for step in range(60)}) == 2
    assert [redrawn.pairs(step) for step in reversed(range(25))][::-1] == [redrawn.pairs(step) for step in range(25)]
    for steps in (0, 1, every, every + 1, 25):
        record = redrawn.record(steps)
        assert (record["kind"], record["every_steps"]) == ("redrawn", every)
        starts = list(range(0, max(steps, 1), every))
        assert [d["from_step"] for d in record["draws"]] == starts
        assert [d["pairs"] for d in record["draws"]] == [list(map(list, draw(n))) for n in range(len(starts))]
    assert redrawn.state() == {}


def test_the_first_draw_is_that_of_a_map_drawn_once() -> None:
    for kind in ("random", "in_order_random"):
        once = layer_pairs(Strategy(kind=kind, mapping_seed=3), 2, 4)
        assert _assigned(Strategy(kind=kind, mapping_seed=3, redraw=7)).pairs(0) == once
        assert _assigned(Strategy(kind=kind, mapping_seed=3)).pairs(99) == once


def test_attention_mixes_all_teacher_layers_token_by_token() -> None:
    attention = _assigned(Strategy(kind="attention"))
    student, teacher = _states(2, 5, seed=0), _states(4, 5, seed=1)
    assert (attention.student_layers(0), attention.teacher_layers(0)) == ((1, 2), (1, 2, 3, 4))
    matched = attention.matched(0, student, teacher)
    assert len(matched) == 2
    sums = torch.zeros(2, 4)
    for layer, (ours, mixture) in enumerate(matched, start=1):
        assert ours is student[layer]
        for token in range(5):
            scores = [float(student[layer][token] @ teacher[i][token]) for i in (1, 2, 3, 4)]
            weights = torch.tensor(scores).exp() / torch.tensor(scores).exp().sum()
            expected = sum(weights[i - 1] * teacher[i][token] for i in (1, 2, 3, 4))
            torch.testing.assert_close(mixture[token], expected)
            sums[layer - 1] += weights
    torch.testing.assert_close(attention.observed, sums.double(), rtol=1e-5, atol=1e-6)


def test_attention_passes_its_gradient_on_to_the_weights() -> None:
    student, teacher = _states(2, 5, seed=0), _states(4, 5, seed=1)
    student[1].requires_grad_()
    (_, mixture), _ = _assigned(Strategy(kind="attention")).matched(0, student, teacher)
    mixture.sum().backward()
    assert student[1].grad is not None
    assert student[1].grad.abs().sum() > 0


def test_attention_reports_the_mean_weights_over_all_tokens_so_far() -> None:
    attention = _assigned(Strategy(kind="attention"))
    assert attention.record(0) == {"kind": "attention", "mean_weights": [[0.0] * 4] * 2}  # nothing seen
    whole = {kind: _states(n, 9, seed=n) for kind, n in (("student", 2), ("teacher", 4))}
    for tokens in (slice(0, 4), slice(4, 6)):  # a batch of two micro-batches
        attention.matched(0, *({k: v[tokens] for k, v in whole[kind].items()} for kind in ("student", "teacher")))
    attention.end_step(attention.observed)
    assert attention.observed.abs().sum() == 0  # a new step, a new sum
    attention.matched(1, *({k: v[6:] for k, v in whole[kind].items()} for kind in ("student", "teacher")))
    attention.end_step(attention.observed)
    at_once = _assigned(Strategy(kind="attention"))
    at_once.matched(0, whole["student"], whole["teacher"])
    weights = at_once.observed / 9
    torch.testing.assert_close(torch.tensor(attention.record(2)["mean_weights"]).double(), weights)
    assert torch.allclose(weights.sum(dim=1), torch.ones(2).double())
    other = _assigned(Strategy(kind="attention"))
    other.load_state({name: tensor.clone() for name, tensor in attention.state().items()})
    assert other.record(2) == attention.record(2)


def _mean_squared(a: Tensor, b: Tensor) -> float:
    return float(((a - b) ** 2).mean())


@pytest.mark.parametrize("embedding_pair", [True, False])
def test_a_dynamic_map_is_chosen_on_the_batch_of_the_step_before(embedding_pair: bool) -> None:
    nearest = _assigned(Strategy(kind="dynamic"), embedding_pair=embedding_pair)
    first = ((0, 0),) if embedding_pair else ()
    chosen = [(1, 2)]
    for step in range(12):
        assert nearest.pairs(step) == (*first, *zip(chosen[-1], (2, 4), strict=True))
        assert nearest.student_layers(step) == (*((0,) if embedding_pair else ()), 1, 2)
        student, teacher = _states(2, 6, seed=step), _states(4, 6, seed=100 + step)
        for tokens in (slice(0, 2), slice(2, 6)):
            ours, theirs = ({k: v[tokens] for k, v in of.items()} for of in (student, teacher))
            matched = nearest.matched(step, ours, theirs)
            assert [(id(s), id(t)) for s, t in matched] == [
                (id(ours[s]), id(theirs[t])) for s, t in nearest.pairs(step)
            ]
        errors = {(s, t): _mean_squared(student[s], teacher[t]) for s in (1, 2) for t in (2, 4)}
        nearest.end_step(nearest.observed)
        best = min([(1, 1), (1, 2), (2, 2)], key=lambda layers: errors[layers[0], 2] + errors[layers[1], 4])
        chosen.append(best)
        other = _assigned(Strategy(kind="dynamic"), embedding_pair=embedding_pair)
        other.load_state({name: tensor.clone() for name, tensor in nearest.state().items()})
        assert other.pairs(step + 1) == nearest.pairs(step + 1)
        assert other.record(step + 1) == nearest.record(step + 1)
        for of in (nearest, other):  # what led to the state after this step
            assert of.pairs_before(step + 1) == (*first, *zip(chosen[-2], (2, 4), strict=True))
    assert len(set(chosen)) == 3
    used = chosen[:-1]
    counts = [[sum(layers[column] == row for layers in used) for column in (0, 1)] for row in (1, 2)]
    assert nearest.record(12) == {"kind": "dynamic", "teacher_layers": [2, 4], "steps": counts}


def test_candidates_that_are_not_chosen_are_not_trained() -> None:
    nearest = _assigned(Strategy(kind="dynamic"), embedding_pair=False)
    student = {layer: state.requires_grad_() for layer, state in _states(2, 6, seed=0).items()}
    matched = nearest.matched(0, student, _states(4, 6, seed=1))
    assert not nearest.observed.requires_grad
    sum((s - t).sum() for s, t in matched).backward()
    assert (student[1].grad is not None, student[2].grad is not None) == (True, True)


@pytest.mark.parametrize(("n_students", "n_targets"), [(1, 1), (1, 3), (3, 1), (3, 3), (4, 6), (5, 2)])
def test_a_monotone_map_is_the_best_of_all(n_students: int, n_targets: int) -> None:
    rng = random.Random(0)  # noqa: S311
    for _ in range(50):
        errors = torch.tensor([[rng.random() for _ in range(n_targets)] for _ in range(n_students)])
        every = combinations_with_replacement(range(1, n_students + 1), n_targets)

        def total(layers: tuple[int, ...], errors: Tensor = errors) -> float:
            return sum(float(errors[row - 1, column]) for column, row in enumerate(layers))

        best = min(every, key=total)
        assert monotone_assignment(errors) == best


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("forward", Fixed), ("none", Fixed), ("random", Fixed), ("attention", Attention), ("dynamic", DynamicAssignment)],
)
def test_every_strategy_has_its_assignment(kind: str, expected: type[Assignment]) -> None:
    assert type(_assigned(Strategy(kind=kind))) is expected
    assert type(_assigned(Strategy(kind="random", redraw=2))) is Redrawn


def test_towers_are_drawn_independently() -> None:
    for kind in ("random", "in_order_random"):
        drawn = {
            tower: [
                assign(Strategy(kind=kind, redraw=1), 4, 8, tower=tower, embedding_pair=False, steps_per_epoch=1).pairs(
                    step
                )
                for step in range(6)
            ]
            for tower in ("encoder", "decoder")
        }
        assert drawn["encoder"] != drawn["decoder"]
