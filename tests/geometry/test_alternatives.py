"""CKA and recoverability gap against naive references, and their invariances."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold
from torch import Tensor

from layerangles.geometry.alternatives import debiased_cka, recoverability_gap

Array = NDArray[np.float64]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _rotation(dim: int) -> Tensor:
    return torch.linalg.qr(_random(dim, dim, seed=99).double())[0]


class Sample(NamedTuple):
    """States at the same tokens, and the example of each."""

    teacher: Tensor
    student: Tensor
    example: Tensor


# --- debiased CKA ---------------------------------------------------------------------------------------------


def _reference_hsic(x: Array, y: Array) -> float:
    """Song et al. (2012), equation 5, term by term."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ l) + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3)))


def _reference_cka(x: Tensor, y: Tensor) -> float:
    a, b = x.double().numpy(), y.double().numpy()
    return _reference_hsic(a, b) / math.sqrt(_reference_hsic(a, a) * _reference_hsic(b, b))


def _cka(x: Tensor, y: Tensor) -> float:
    return debiased_cka([x, y])[0, 1].item()


def _biased_cka(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    return float((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


@pytest.mark.parametrize("n_tokens", [4, 5, 30, 300])
def test_cka_follows_its_definition(n_tokens: int) -> None:
    x = _random(n_tokens, 6) + 2
    y = x[:, :4] + _random(n_tokens, 4, seed=1)
    assert _cka(x, y) == pytest.approx(_reference_cka(x, y), abs=1e-10)


def test_cka_of_every_two_states_follows_the_definition() -> None:
    teacher = _random(4, 300, 6).cumsum(dim=0)
    student = teacher[:2, :, :5] + _random(2, 300, 5, seed=1)
    states = [*teacher, *student]
    expected = torch.tensor([[_reference_cka(x, y) for y in states] for x in states], dtype=torch.float64)
    torch.testing.assert_close(debiased_cka(states), expected, rtol=0, atol=1e-10)


def test_cka_of_independent_states_is_0_in_the_mean() -> None:
    draws = [(_random(20, 200, seed=seed), _random(20, 200, seed=1000 + seed)) for seed in range(200)]
    values = np.array([_cka(x, y) for x, y in draws])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))
    assert min(_biased_cka(x, y) for x, y in draws) > 0.8


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda x: x,
    "rotation": lambda x: x @ _rotation(x.shape[-1]),
    "scale": lambda x: 1000 * x,
    "translation": lambda x: x + 100 * _random(x.shape[-1], seed=5).double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_cka_is_invariant(change: str) -> None:
    x = _random(40, 8).double()
    y = x[:, :5] ** 2 + x[:, 3:]
    changed = CHANGES[change](x)
    assert _cka(changed, x) == pytest.approx(1, abs=1e-9)
    assert _cka(changed, y) == pytest.approx(_cka(x, y), abs=1e-9)
    assert _cka(y, changed) == pytest.approx(_cka(x, y), abs=1e-9)
    assert 0.1 < _cka(x, y) < 0.95


def test_cka_does_not_depend_on_the_order_of_tokens() -> None:
    x, y = _random(300, 8), _random(300, 8) + _random(300, 8, seed=1)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert _cka(x[order], y[order]) == pytest.approx(_cka(x, y), abs=1e-12)
    assert abs(_cka(x[order], y)) < 0.2


def test_cka_of_a_constant_is_undefined() -> None:
    assert math.isnan(_cka(torch.full((11, 3), 0.1, dtype=torch.float64), _random(11, 3)))


def test_cka_needs_four_tokens() -> None:
    x = _random(3, 2)
    with pytest.raises(ValueError, match="at least 4 tokens; got 3"):
        debiased_cka([x, x])
    with pytest.raises(ValueError, match="got 0"):
        debiased_cka([])


# --- recoverability gap ---------------------------------------------------------------------------------------


def _reference_gap(x: Array, y: Array, example: Array) -> float:
    """Nested cross-validation, one fit of scikit-learn's for each penalty and fold."""
    folds = [test for _, test in GroupKFold(5).split(x, groups=example)]

    def predictions(left_out: set[int], test: int, relative: float) -> Array:
        train = np.concatenate([fold for i, fold in enumerate(folds) if i not in left_out])
        penalty = relative * len(train) * x[train].var(axis=0).mean()
        fitted: Array = Ridge(alpha=penalty).fit(x[train], y[train]).predict(x[folds[test]])
        return fitted

    predicted = np.empty_like(y)
    for k, fold in enumerate(folds):

        def error(relative: float, k: int = k) -> float:
            neighbours = ((k - 1) % 5, (k + 1) % 5)
            return sum(((predictions({k, v}, v, relative) - y[folds[v]]) ** 2).sum() for v in neighbours)

        predicted[fold] = predictions({k}, k, min(np.logspace(-8, 4, 25), key=error))
    return 1 - float(r2_score(y, predicted, multioutput="variance_weighted"))


def _cells(n_examples: int, *, noise: float, seed: int = 0) -> Sample:
    """Increments that are linear in the student's layer 0 plus noise, and new to its layer 1; states far from 0."""
    example = torch.arange(n_examples).repeat_interleave(7)
    n_tokens = len(example)
    student = _random(2, n_tokens, 6, seed=seed) * torch.tensor([5.0, 2, 1, 1, 0.5, 0.1]) + 3
    increments = torch.stack([student[0] @ _random(6, 4, seed=seed + k) for k in (1, 2)])
    increments = increments + noise * _random(2, n_tokens, 4, seed=seed + 3) + 10
    first = _random(1, n_tokens, 4, seed=seed + 4)
    return Sample(torch.cat([first, increments]).cumsum(dim=0), student, example)


@pytest.mark.parametrize(("n_examples", "noise"), [(5, 0.5), (13, 3.0), (40, 10.0)])
def test_gap_equals_a_loop_of_scikit_learn(n_examples: int, noise: float) -> None:
    sample = _cells(n_examples, noise=noise)
    gap = recoverability_gap(*sample)
    teacher, student = sample.teacher.double(), sample.student.double().numpy()
    assert gap.shape == (2, 3)
    assert bool(gap[:, 0].isnan().all())
    for s, i in ((0, 2), (1, 1)):
        increment = (teacher[i] - teacher[i - 1]).numpy()
        expected = _reference_gap(student[s], increment, sample.example.numpy())
        assert gap[s, i].item() == pytest.approx(expected, rel=1e-8)


def test_gap_equals_the_reference_with_more_dimensions_than_tokens() -> None:
    example = torch.arange(6).repeat_interleave(7)
    student, teacher = _random(1, 42, 60), _random(2, 42, 3, seed=1)
    teacher[1] = teacher[0] + 5 * student[0, :, :3] + _random(42, 3, seed=2)
    sample = Sample(teacher, student, example)
    increment = (sample.teacher[1].double() - sample.teacher[0].double()).numpy()
    expected = _reference_gap(sample.student[0].double().numpy(), increment, sample.example.numpy())
    assert recoverability_gap(*sample)[0, 1].item() == pytest.approx(expected, rel=1e-5)


def test_gap_is_0_where_the_student_has_the_increment() -> None:
    gap = recoverability_gap(*_cells(40, noise=0.0))
    assert gap[0, 1:].max().item() < 1e-9
    assert gap.nan_to_num(0).min().item() >= 0


def test_gap_is_1_where_the_student_has_nothing() -> None:
    gap = recoverability_gap(*_cells(250, noise=1.0))
    assert gap[1, 1:].tolist() == pytest.approx([1, 1], abs=0.02)


def test_gap_is_the_known_share_of_noise() -> None:
    example = torch.arange(280).repeat_interleave(7)
    student, noise = _random(1, len(example), 8), _random(len(example), 8, seed=1)
    increment = student[0] @ _rotation(8).float() + 0.5 * noise
    gap = recoverability_gap(*Sample(torch.stack([noise, noise + increment]), student, example))
    assert gap[0, 1].item() == pytest.approx(0.25 / 1.25, abs=0.01)


def test_gap_is_measured_on_examples_that_were_not_fitted() -> None:
    # What a student knows of an example, and of no other, does not count.
    example = torch.arange(30).repeat_interleave(8)
    student = _random(30, 40)[example][None] + 0.01 * _random(1, 240, 40, seed=1)
    increment = _random(30, 4, seed=2)[example]
    gap = recoverability_gap(*Sample(torch.stack([0 * increment, increment]), student, example))
    assert gap[0, 1].item() > 0.9


@pytest.mark.parametrize("change", CHANGES)
def test_gap_is_invariant(change: str) -> None:
    sample = _cells(20, noise=2.0)
    changed = Sample(CHANGES[change](sample.teacher.double()), CHANGES[change](sample.student.double()), sample.example)
    expected = Sample(sample.teacher, sample.student, sample.example)
    torch.testing.assert_close(
        recoverability_gap(*changed), recoverability_gap(*expected), rtol=1e-4, atol=0, equal_nan=True
    )


def test_gap_of_one_cell_does_not_depend_on_the_others() -> None:
    sample = _cells(20, noise=2.0)
    part = Sample(sample.teacher[1:], sample.student[1:], sample.example)
    whole = Sample(sample.teacher, sample.student, sample.example)
    torch.testing.assert_close(recoverability_gap(*part)[0, 1], recoverability_gap(*whole)[1, 2])


def test_gap_is_undefined_without_five_examples_or_variation() -> None:
    assert bool(recoverability_gap(*_cells(4, noise=1.0)).isnan().all())
    nothing = torch.zeros(0, 0, 0)
    assert recoverability_gap(nothing, nothing, torch.zeros(0, dtype=torch.int64)).shape == (0, 0)
    example = torch.arange(8).repeat_interleave(7)
    teacher = _random(2, 56, 3)
    teacher = torch.stack([teacher[0], teacher[1], teacher[1]])  # the last block adds nothing
    student = torch.stack([_random(56, 3, seed=1), torch.full((56, 3), 0.1)])
    gap = recoverability_gap(*Sample(teacher, student, example))
    assert gap.isnan().tolist() == [[True, False, True], [True, True, True]]
