"""Control targets: their source, the properties they keep, and their randomness."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from kd_train.matching.controls import TARGETS, TargetKind, control_targets

# Texts by micro-batch of the batch: 3, 1, 4 and 2 tokens.
LENGTHS = ((3, 1), (4,), (2,))
LAYERS = (2, 5)
TRANSFORMED = [kind for kind, source in TARGETS.items() if source.transform is not None]
DIM = 8


def _states(seed: int = 0) -> list[Tensor]:
    """By micro-batch ``[layer, token, dim]``; no two states are alike."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(LAYERS), sum(of_micro_batch), DIM, generator=generator) * 3 for of_micro_batch in LENGTHS]


def _examples(lengths: Sequence[Sequence[int]] = LENGTHS) -> list[Tensor]:
    numbers = iter(range(10))
    return [torch.cat([torch.full((n,), next(numbers)) for n in of_micro_batch]) for of_micro_batch in lengths]


def _made(kind: TargetKind, states: list[Tensor] | None = None, *, seed: int = 0, step: int = 0) -> Tensor:
    """``[layer, token, dim]`` of the whole batch."""
    made = control_targets(kind, states or _states(), _examples(), layers=LAYERS, seed=seed, step=step)
    assert [micro_batch.shape for micro_batch in made] == [micro_batch.shape for micro_batch in _states()]
    return torch.cat(made, dim=1)


def _by_text(tokens: Tensor) -> list[Tensor]:
    return list(tokens.split([n for of_micro_batch in LENGTHS for n in of_micro_batch], dim=1))


def test_other_text_takes_the_states_of_the_next_text() -> None:
    made, texts = _by_text(_made("other_text")), _by_text(torch.cat(_states(), dim=1))
    for number, of_text in enumerate(made):
        other = texts[(number + 1) % len(texts)]
        for position in range(of_text.shape[1]):
            assert torch.equal(of_text[:, position], other[:, position % other.shape[1]])


def test_shuffled_tokens_stay_in_their_text_and_change_places() -> None:
    moved = 0
    for step in range(5):
        made, texts = _by_text(_made("shuffled_tokens", step=step)), _by_text(torch.cat(_states(), dim=1))
        for of_text, own in zip(made, texts, strict=True):
            places = [
                next(p for p in range(own.shape[1]) if torch.equal(own[:, p], of_text[:, q]))  # in all layers alike
                for q in range(own.shape[1])
            ]
            assert sorted(places) == list(range(own.shape[1]))
            moved += places != sorted(places)
    assert moved > 5  # of 5 x 3 texts that have something to change


def test_tokens_are_shuffled_evenly() -> None:
    firsts = torch.zeros(4)
    own = _by_text(torch.cat(_states(), dim=1))[2][0]
    for step in range(400):
        first = _by_text(_made("shuffled_tokens", step=step))[2][0, 0]
        firsts += (own == first).all(dim=-1)
    assert firsts.sum() == 400
    assert (firsts - 100).abs().max() < 35  # four standard deviations


def test_gaussian_targets_have_the_norms_of_the_states_and_nothing_else_of_them() -> None:
    states = torch.cat(_states(), dim=1)
    made = torch.stack([_made("gaussian", step=step) for step in range(200)])
    torch.testing.assert_close(made.norm(dim=-1), states.norm(dim=-1).expand(200, -1, -1), rtol=1e-5, atol=0)
    cosines = torch.nn.functional.cosine_similarity(made, states.expand_as(made), dim=-1)
    # Of random directions in n dimensions the cosine has the mean 0 and the variance 1/n.
    assert abs(float(cosines.mean())) < 4 / (DIM * cosines.numel()) ** 0.5
    assert float(cosines.var()) == pytest.approx(1 / DIM, rel=0.1)
    between_layers = torch.nn.functional.cosine_similarity(made[:, 0], made[:, 1], dim=-1)
    assert float(between_layers.var()) == pytest.approx(1 / DIM, rel=0.2)


@pytest.mark.parametrize("kind", TRANSFORMED)
def test_seed_and_step_decide_what_is_random(kind: TargetKind) -> None:
    torch.manual_seed(1)
    first = _made(kind, seed=3, step=7)
    torch.manual_seed(2)
    assert torch.equal(_made(kind, seed=3, step=7), first)
    is_random = kind != "other_text"
    assert torch.equal(_made(kind, seed=4, step=7), first) != is_random
    assert torch.equal(_made(kind, seed=3, step=8), first) != is_random


@pytest.mark.parametrize("kind", TRANSFORMED)
def test_the_number_of_micro_batches_changes_nothing(kind: TargetKind) -> None:
    whole = torch.cat(_states(), dim=1)
    lengths = [n for of_micro_batch in LENGTHS for n in of_micro_batch]
    one = control_targets(kind, [whole], _examples([lengths]), layers=LAYERS, seed=0, step=0)
    micro_batches = list(whole.split(lengths, dim=1))
    four = control_targets(kind, micro_batches, _examples([[n] for n in lengths]), layers=LAYERS, seed=0, step=0)
    assert torch.equal(one[0], _made(kind))
    assert torch.equal(torch.cat(four, dim=1), one[0])


@pytest.mark.parametrize("kind", TRANSFORMED)
def test_a_layer_does_not_depend_on_which_others_are_asked_for(kind: TargetKind) -> None:
    both = _made(kind)
    only = control_targets(
        kind, [micro_batch[1:] for micro_batch in _states()], _examples(), layers=LAYERS[1:], seed=0, step=0
    )
    assert torch.equal(torch.cat(only, dim=1), both[1:])


@pytest.mark.parametrize("kind", TRANSFORMED)
def test_control_targets_differ_from_the_teachers_states(kind: TargetKind) -> None:
    assert not torch.equal(_made(kind), torch.cat(_states(), dim=1))
