"""The sample of tokens is that of lowest hash, whatever batches, order and parts the data come in."""

import pytest
import torch
from torch import Tensor

from layerangles.sums import token_sample
from layerangles.sums.token_sample import TokenSample


def _keys(n_examples: int, n_each: int = 7) -> tuple[Tensor, Tensor]:
    """Example and position of every token."""
    return torch.arange(n_examples).repeat_interleave(n_each), torch.arange(n_each).repeat(n_examples)


def _states(example: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """States that tell whose they are: 3 teacher layers of width 2, 2 student layers of width 1."""
    token = torch.stack([example, position], dim=-1).float()
    return torch.stack([token + 1000 * layer for layer in range(3)]), torch.stack([token[:, :1], -token[:, 1:]])


def _filled(order: Tensor, batch_size: int, *, max_tokens: int = 50) -> TokenSample:
    """A sample of 60 examples' tokens that come in some order and batches."""
    example, position = _keys(60)
    sample = TokenSample(max_tokens)
    for batch in order.split(batch_size):
        e, p = example[batch], position[batch]
        sample.update(*_states(e, p), e, p)
    return sample


def _equal(a: TokenSample, b: TokenSample) -> bool:
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("teacher", "student", "example", "position"))


def _reference_splitmix64(x: int) -> int:
    mask = 2**64 - 1
    z = (x + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def _reference_priority(example: int, position: int) -> int:
    z = _reference_splitmix64((_reference_splitmix64(example) + position) % 2**64)
    return z - 2**64 if z >= 2**63 else z


def test_hash_is_splitmix64() -> None:
    assert _reference_splitmix64(0) == 0xE220A8397B1DCDAF  # the published first output for the seed 0
    x = [0, 1, 12345, 2**62, -1]
    expected = [_reference_splitmix64(v % 2**64) for v in x]
    assert [v % 2**64 for v in token_sample._splitmix64(torch.tensor(x)).tolist()] == expected


def test_sample_is_the_tokens_of_lowest_priority() -> None:
    example, position = _keys(60)
    sample = _filled(torch.arange(420), 420)
    ranked = sorted(zip(example.tolist(), position.tolist(), strict=True), key=lambda key: _reference_priority(*key))
    assert list(zip(sample.example.tolist(), sample.position.tolist(), strict=True)) == ranked[:50]


@pytest.mark.parametrize("batch_size", [5, 49, 120])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_sample_does_not_depend_on_batches_or_order(batch_size: int, seed: int | None) -> None:
    rng = torch.Generator().manual_seed(seed or 0)
    order = torch.arange(420) if seed is None else torch.randperm(420, generator=rng)
    sample = _filled(order, batch_size)
    assert _equal(sample, _filled(torch.arange(420), 420))
    teacher, student = _states(sample.example, sample.position)  # the states are still those of their tokens
    assert torch.equal(sample.teacher, teacher)
    assert torch.equal(sample.student, student)


def test_size_is_bounded() -> None:
    sample = _filled(torch.arange(420), 16)
    assert len(sample) == sample.teacher.shape[1] == len(sample.example) == 50
    assert sample._teacher.shape[1] == len(sample._position) == 50
    assert len(_filled(torch.arange(30), 16)) == 30


def test_most_tokens_are_turned_away_without_a_look_at_their_states(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = _filled(torch.arange(420), 420)
    worst = max(
        _reference_priority(*key) for key in zip(sample.example.tolist(), sample.position.tolist(), strict=True)
    )
    position = torch.tensor([p for p in range(7, 99) if _reference_priority(0, p) > worst])
    example = torch.zeros_like(position)
    assert len(position) > 10
    monkeypatch.setattr(TokenSample, "_allocate", lambda *_: pytest.fail("looked at the states"))
    sample.update(*_states(example, position), example, position)


@pytest.mark.parametrize("n_first", [0, 20, 210, 420])
def test_merged_parts_are_the_sample_of_the_whole(n_first: int) -> None:
    order = torch.randperm(420, generator=torch.Generator().manual_seed(3))
    one, other = _filled(order[:n_first], 32), _filled(order[n_first:], 32)
    whole = _filled(torch.arange(420), 420)
    assert _equal(one.merge(other), whole)
    assert _equal(other.merge(one), whole)
    assert len(one) == min(n_first, 50)  # left as they were
    assert len(TokenSample().merge(TokenSample())) == 0


def test_sample_begun_in_inference_mode_can_be_added_to() -> None:
    example, position = _keys(2)
    teacher, student = _states(example, position)
    sample = TokenSample(5)
    with torch.inference_mode():
        sample.update(teacher, student, example, position)
    sample.update(teacher.double().requires_grad_(), student, example + 2, position)
    assert (sample.teacher.dtype, sample.teacher.requires_grad) == (torch.float32, False)


def test_sample_refuses_other_layers_and_sizes() -> None:
    sample = _filled(torch.arange(30), 30)
    example, position = _keys(1)
    teacher, student = _states(example, position)
    with pytest.raises(ValueError, match=r"got \(layers, width\).*\[\(2, 2\), \(2, 1\)\].*has \[\(3, 2\), \(2, 1\)\]"):
        sample.update(teacher[:2], student, example, position + 1)
    with pytest.raises(ValueError, match="max_tokens 50 and 51"):
        sample.merge(TokenSample(51))
    with pytest.raises(ValueError, match="max_tokens must be at least 1; got 0"):
        TokenSample(0)
