"""Fitted maps and their held-out R² against numpy, scipy and scikit-learn on explicit matrices."""

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from torch import Tensor

from layerangles.errors import InputError
from layerangles.sums.map_fitting import MAP_KINDS, RIDGE_PENALTY, MapSums, fit_map, is_held_out, target_layer

N_EXAMPLES, TOKENS_EACH = 60, 12
WIDTHS = [(8, 8), (6, 9), (9, 6)]
Array = NDArray[np.float64]


def _example(n_examples: int = N_EXAMPLES) -> Tensor:
    return torch.arange(n_examples).repeat_interleave(TOKENS_EACH)


def _planted(student_dim: int, teacher_dim: int, *, noise: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Students of unequal variances and far means, and a teacher that is linear in them but for noise."""
    rng = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    n = N_EXAMPLES * TOKENS_EACH
    student = randn(n, student_dim) * torch.linspace(0.5, 3, student_dim).double() + 5 * randn(student_dim)
    teacher = student @ randn(student_dim, teacher_dim) + 7 * randn(teacher_dim) + noise * randn(n, teacher_dim)
    return student, teacher, _example()


def _sums(student: Tensor, teacher: Tensor, example: Tensor, batch: int = 10**9) -> MapSums:
    sums = MapSums()
    for start in range(0, len(example), batch):
        tokens = slice(start, start + batch)
        sums.update(student[tokens], teacher[tokens], example[tokens])
    return sums


def _naive(student: Array, teacher: Array, kind: str) -> tuple[Array, Array]:
    """``W [teacher_dim, student_dim]`` and ``b`` from the states themselves."""
    s, t = student - student.mean(0), teacher - teacher.mean(0)
    match kind:
        case "identity":
            return np.eye(t.shape[1]), np.zeros(t.shape[1])
        case "ridge":  # least squares with one more row of data a dimension, as large as the penalty's root
            rows = np.diag(np.sqrt(RIDGE_PENALTY * (s**2).sum(0)))
            weight = np.linalg.lstsq(
                np.vstack([s, rows]), np.vstack([t, np.zeros((s.shape[1], t.shape[1]))]), rcond=None
            )[0].T
        case _:
            weight = scipy.linalg.polar(t.T @ s)[0]  # the nearest orthogonal matrix to the cross-products
    return weight, teacher.mean(0) - weight @ student.mean(0)


def _kinds(widths: tuple[int, int]) -> list[str]:
    return [kind for kind in MAP_KINDS if kind != "identity" or widths[0] == widths[1]]


CASES = [(*widths, kind) for widths in WIDTHS for kind in _kinds(widths)]


@pytest.mark.parametrize(("student_dim", "teacher_dim", "kind"), CASES)
def test_map_and_r2_are_those_of_explicit_matrices(student_dim: int, teacher_dim: int, kind: str) -> None:
    student, teacher, example = _planted(student_dim, teacher_dim)
    fitted = fit_map(_sums(student, teacher, example), kind)
    s, t, held_out = student.numpy(), teacher.numpy(), is_held_out(example).numpy()

    weight, bias = _naive(s, t, kind)
    assert fitted.map.weight.numpy() == pytest.approx(weight, abs=1e-9)
    assert (fitted.map.bias is None) == (kind == "identity")
    if fitted.map.bias is not None:
        assert fitted.map.bias.numpy() == pytest.approx(bias, abs=1e-9)
    assert fitted.map.apply(student).numpy() == pytest.approx(s @ weight.T + bias, abs=1e-8)

    weight, bias = _naive(s[~held_out], t[~held_out], kind)  # R² is that of a map which has not seen the held-out part
    expected = r2_score(t[held_out], s[held_out] @ weight.T + bias, multioutput="variance_weighted")
    assert fitted.r2 == pytest.approx(expected, rel=1e-9)


def test_planted_map_is_recovered() -> None:
    student, teacher, example = _planted(6, 9, noise=0.0)
    fitted = fit_map(_sums(student, teacher, example), "ridge")
    assert 1 - 1e-5 < fitted.r2 <= 1
    truth = torch.linalg.lstsq(student - student.mean(0), teacher - teacher.mean(0)).solution.T
    assert fitted.map.weight.numpy() == pytest.approx(truth.numpy(), rel=5e-3, abs=5e-3)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_planted_rotation_is_recovered_up_to_its_scale(scale: float) -> None:
    student, _, example = _planted(8, 8)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).double()).Q
    fitted = fit_map(_sums(student, scale * student @ rotation.T + 4, example), "orthogonal")
    assert fitted.map.weight.numpy() == pytest.approx(rotation.numpy(), abs=1e-9)
    # Without a scale, (1 − 1/scale)² of the variance is left, and a little for the two parts' different means.
    assert fitted.r2 == pytest.approx(1 - (1 - 1 / scale) ** 2, abs=1e-12 if scale == 1 else 0.01)
    assert fitted.r2 <= 1


def test_orthogonal_map_is_scipys_procrustes() -> None:
    student, teacher, example = _planted(8, 8)
    s, t = (x.numpy() - x.numpy().mean(0) for x in (student, teacher))
    expected, _ = scipy.linalg.orthogonal_procrustes(s, t)  # ‖s R − t‖, rows are tokens
    assert fit_map(_sums(student, teacher, example), "orthogonal").map.weight.numpy() == pytest.approx(
        expected.T, abs=1e-9
    )


@pytest.mark.parametrize(("student_dim", "teacher_dim"), WIDTHS)
def test_orthogonal_map_has_orthonormal_columns_or_rows(student_dim: int, teacher_dim: int) -> None:
    weight = fit_map(_sums(*_planted(student_dim, teacher_dim)), "orthogonal").map.weight
    assert weight.shape == (teacher_dim, student_dim)
    product = weight.T @ weight if student_dim <= teacher_dim else weight @ weight.T
    assert product.numpy() == pytest.approx(np.eye(min(student_dim, teacher_dim)), abs=1e-12)


def test_independent_states_are_not_explained() -> None:
    student, _, example = _planted(8, 8)
    teacher = _planted(8, 8, seed=1)[0]
    sums = _sums(student, teacher, example)
    r2 = {kind: fit_map(sums, kind).r2 for kind in MAP_KINDS}
    assert -0.1 < r2["ridge"] < 0.02
    assert r2["orthogonal"] < 0
    assert r2["identity"] < -1


def test_identical_states_are_explained_by_the_identity() -> None:
    student, _, example = _planted(8, 8)
    assert fit_map(_sums(student, student, example), "identity").r2 == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("batch", [5, 100])
def test_batches_and_merged_parts_give_the_same_map(batch: int) -> None:
    student, teacher, example = _planted(6, 9)
    whole = fit_map(_sums(student, teacher, example), "ridge")
    half = 301  # in the middle of an example
    first = _sums(student[:half], teacher[:half], example[:half], batch)
    second = _sums(student[half:], teacher[half:], example[half:], batch)
    for sums in (
        _sums(student, teacher, example, batch),
        first.merge(second),
        second.merge(first),
        MapSums().merge(first).merge(MapSums()).merge(second),
    ):
        fitted = fit_map(sums, "ridge")
        assert fitted.r2 == pytest.approx(whole.r2, rel=1e-11)
        assert fitted.map.weight.numpy() == pytest.approx(whole.map.weight.numpy(), abs=1e-11)
        assert fitted.map.bias is not None
        assert whole.map.bias is not None
        assert fitted.map.bias.numpy() == pytest.approx(whole.map.bias.numpy(), abs=1e-10)
    assert first.fitting.count + first.held_out.count == half  # merging has changed neither part


def test_rogue_dimensions_and_far_offsets_cost_no_precision() -> None:
    student, teacher, example = _planted(8, 8)
    expected = fit_map(_sums(student, teacher, example, 50), "ridge")
    scale = torch.ones(8, dtype=torch.float64)
    scale[3] = 1000.0
    far = 1e6 * torch.arange(1, 9).double()  # raw products of these would lose 12 digits
    fitted = fit_map(_sums(student * scale + far, teacher - far, example, 50), "ridge")
    assert fitted.r2 == pytest.approx(expected.r2, abs=1e-7)
    assert (fitted.map.weight * scale).numpy() == pytest.approx(expected.map.weight.numpy(), rel=1e-7, abs=1e-7)


def test_dimensions_that_do_not_vary_have_no_weight() -> None:
    student, teacher, example = _planted(8, 9)
    student[:, 2] = 0.1
    fitted = fit_map(_sums(student, teacher, example, 7), "ridge")
    without = fit_map(_sums(student[:, [0, 1, 3, 4, 5, 6, 7]], teacher, example), "ridge")
    assert (fitted.map.weight[:, 2] == 0).all()
    assert fitted.r2 == pytest.approx(without.r2, rel=1e-9)


@pytest.mark.parametrize("kind", MAP_KINDS)
def test_r2_is_nan_where_nothing_can_be_tested(kind: str) -> None:
    student, teacher, example = _planted(8, 8)
    held_out = is_held_out(example)
    for part in (held_out, ~held_out):
        assert np.isnan(fit_map(_sums(student[part], teacher[part], example[part]), kind).r2)
    assert np.isnan(fit_map(_sums(student, torch.full_like(teacher, 0.1), example, 100), kind).r2)


def test_held_out_part_follows_the_keys_alone() -> None:
    keys = torch.arange(1000)
    held_out = is_held_out(keys)
    assert keys[held_out][:3].tolist() == [0, 5, 10]
    permutation = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(is_held_out(keys[permutation]), held_out[permutation])
    for step in range(1, 11):  # neither texts of some class nor a shard are held out as a whole
        for start in range(step):
            assert 0.1 < held_out[start::step].float().mean() < 0.3
    assert is_held_out(keys + 10**12).float().mean().item() == pytest.approx(0.2, abs=0.005)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(InputError, match=r"got the widths 6 and 9\. Fit the map \"ridge\" or \"orthogonal\" instead"):
        fit_map(_sums(*_planted(6, 9)), "identity")
    with pytest.raises(InputError, match=r"no map 'procrustes' to fit; allowed are identity, ridge, orthogonal"):
        fit_map(_sums(*_planted(6, 9)), "procrustes")
    with pytest.raises(InputError, match=r"needs tokens to be fitted to; got none"):
        fit_map(MapSums(), "ridge")
    with pytest.raises(ValueError, match=r"same dimensions can be merged; got .* \[6, 9\] and \[9, 6\]"):
        _sums(*_planted(6, 9)).merge(_sums(*_planted(9, 6)))
    student, teacher, example = _planted(8, 8)
    student[5, 5] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        fit_map(_sums(student, teacher, example), "ridge")


def test_target_layers_are_those_of_forward_matching() -> None:
    from kd_train.matching.strategies import forward_targets

    for teacher_layers in range(1, 30):
        for student_layers in range(1, teacher_layers + 1):
            got = [target_layer(j, student_layers, teacher_layers) for j in range(student_layers + 1)]
            assert got == [0, *forward_targets(student_layers, teacher_layers)]
    assert [target_layer(j, 4, 2) for j in range(5)] == [0, 1, 1, 2, 2]  # a student may be deeper
    with pytest.raises(ValueError, match="has the layers 0 to 3; got 4"):
        target_layer(4, 3, 12)
