"""The teacher's statistics against numpy on all the data at once, and every preprocessing against its definition."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from layerangles.errors import InputError
from layerangles.geometry.angles import vertex_cosines
from layerangles.geometry.preprocessing import Preprocessing, PreprocessingKind, TeacherStatistics, parse_preprocessing

N_TEACHER, N_STUDENT, N_TOKENS, DIM = 4, 2, 90, 7


def _states(seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    offset = 3 * torch.randn(DIM, generator=rng)
    scale = torch.linspace(0.5, 4, DIM)
    teacher = torch.randn(N_TEACHER, N_TOKENS, DIM, generator=rng) * scale + offset
    teacher += torch.randn(N_TEACHER, 1, DIM, generator=rng)
    return teacher, torch.randn(N_STUDENT, N_TOKENS, DIM, generator=rng) + offset


def _statistics(teacher: Tensor, batch: int = 10**9) -> TeacherStatistics:
    statistics = TeacherStatistics()
    for start in range(0, teacher.shape[1], batch):
        statistics.update(teacher[:, start : start + batch])
    return statistics


@pytest.mark.parametrize("batch", [1, 13, 1000])
def test_statistics_are_numpys(batch: int) -> None:
    teacher, _ = _states()
    half = 40
    for statistics in (
        _statistics(teacher, batch),
        _statistics(teacher[:, half:], batch).merge(_statistics(teacher[:, :half], batch)),
        TeacherStatistics().merge(_statistics(teacher, batch)).merge(TeacherStatistics()),
    ):
        t = teacher.double().numpy()
        assert statistics.count == N_TOKENS
        assert statistics.mean.numpy() == pytest.approx(t.mean(1), rel=1e-12)
        assert statistics.squares.numpy() == pytest.approx(t.var(1) * N_TOKENS, rel=1e-12)
        assert statistics.pooled_mean().numpy() == pytest.approx(t.mean((0, 1)), rel=1e-12)
        assert statistics.pooled_std().numpy() == pytest.approx(t.std((0, 1)), rel=1e-12)


def test_merging_leaves_both_as_they_were() -> None:
    teacher, _ = _states()
    first, empty = _statistics(teacher[:, :40]), TeacherStatistics()
    before = dataclasses.asdict(first)
    grown = empty.merge(first)
    grown.update(teacher[:, 40:])
    first.merge(_statistics(teacher[:, 40:]))
    assert empty.count == 0
    assert first.count == before["count"]
    assert torch.equal(first.mean, before["mean"])
    assert torch.equal(first.squares, before["squares"])


def test_no_tokens_change_nothing() -> None:
    teacher, _ = _states()
    statistics = _statistics(teacher)
    statistics.update(teacher[:, :0])
    assert statistics.count == N_TOKENS
    assert statistics.pooled_std().isfinite().all()


def test_far_means_cost_no_precision() -> None:
    teacher = _states()[0].double()
    far = teacher + 1e6 * torch.arange(DIM)  # raw sums of squares of these would lose 12 digits
    assert _statistics(far, 11).squares.numpy() == pytest.approx(_statistics(teacher).squares.numpy(), rel=1e-8)


def test_share_is_that_of_the_dot_products_of_all_pairs_of_tokens() -> None:
    teacher, _ = _states()
    statistics = _statistics(teacher)
    t = teacher.double()
    products = torch.einsum("lnd,lmd->ld", t, t)  # every token with every token, dimension by dimension
    expected = products / products.sum(dim=-1, keepdim=True)
    assert statistics.share().numpy() == pytest.approx(expected.numpy(), rel=1e-9)
    assert statistics.share().sum(dim=-1).numpy() == pytest.approx(1.0, abs=1e-12)


def test_planted_rogue_dimensions_are_found() -> None:
    teacher, _ = _states()
    teacher[:, :, 5] -= 1000
    teacher[2, :, 1] += 3000
    statistics = _statistics(teacher, 20)
    index, share = statistics.top_dimensions(2)
    assert index[:, 0].tolist() == [5, 5, 1, 5]
    assert index[2].tolist() == [1, 5]
    assert share[[0, 1, 3], 0].min() > 0.999
    assert share[2].numpy() == pytest.approx([0.9, 0.1], abs=0.01)
    assert statistics.top_dimensions(100)[0].shape == (N_TEACHER, DIM)
    assert torch.equal(statistics.top_dimensions()[1], statistics.share().sort(dim=-1, descending=True).values[:, :5])


def test_share_of_a_mean_of_zero_is_nan() -> None:
    assert _statistics(torch.zeros(1, 3, DIM)).share().isnan().all()


def _prepared(kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    teacher, vertex = _states()
    prepared = Preprocessing.of(kind, _statistics(teacher, 25))
    return teacher, vertex, prepared.apply(teacher), prepared.apply(vertex)


def test_raw_changes_nothing() -> None:
    teacher, vertex, new_teacher, new_vertex = _prepared("raw")
    assert torch.equal(teacher, new_teacher)
    assert torch.equal(vertex, new_vertex)


def test_centred_moves_teacher_and_vertex_together() -> None:
    teacher, vertex, new_teacher, new_vertex = _prepared("centred")
    mean = teacher.double().numpy().mean((0, 1))
    assert new_teacher.numpy() == pytest.approx(teacher.numpy() - mean, abs=1e-5)
    assert new_vertex.numpy() == pytest.approx(vertex.numpy() - mean, abs=1e-5)
    difference = teacher[:, None] - vertex
    assert (new_teacher[:, None] - new_vertex).numpy() == pytest.approx(difference.numpy(), abs=1e-5)
    assert vertex_cosines(new_teacher, new_vertex).numpy() == pytest.approx(
        vertex_cosines(teacher, vertex).numpy(), abs=1e-5
    )


def test_z_uses_the_teachers_mean_and_deviation_for_both() -> None:
    teacher, vertex, new_teacher, new_vertex = _prepared("z")
    t = teacher.double().numpy()
    mean, std = t.mean((0, 1)), t.std((0, 1))
    assert new_teacher.numpy() == pytest.approx((teacher.numpy() - mean) / std, abs=1e-5)
    assert new_vertex.numpy() == pytest.approx((vertex.numpy() - mean) / std, abs=1e-5)
    assert new_teacher.double().std(dim=(0, 1), correction=0).numpy() == pytest.approx(1.0, abs=1e-5)


def test_unit_scales_every_state_and_leaves_zero() -> None:
    states, _ = _states()
    states[1, 2] = 0
    unit = Preprocessing.of("unit").apply(states)
    norm = np.linalg.norm(states.numpy(), axis=-1, keepdims=True)
    norm[1, 2] = 1
    assert unit.numpy() == pytest.approx(states.numpy() / norm, abs=1e-6)
    assert (unit[1, 2] == 0).all()
    # Where both a vertex and a teacher layer are zero there is no direction, and the angle says so.
    assert vertex_cosines(unit, unit[1:2])[0, 0, 2, 2].isfinite()
    assert vertex_cosines(unit, unit[1:2])[0, 1, :, 2].isnan().all()


def test_drop_leaves_out_the_dimensions_with_the_largest_pooled_share() -> None:
    teacher, vertex = _states()
    teacher[:, :, 4] -= 1000
    teacher[:, :, 2] += 200
    teacher[0, :, 6] += 500  # in one layer only: 125 in the pooled mean
    statistics = _statistics(teacher, 25)
    for k, kept in ((1, [0, 1, 2, 3, 5, 6]), (2, [0, 1, 3, 5, 6]), (3, [0, 1, 3, 5])):
        prepared = Preprocessing.of(f"drop-{k}", statistics)
        assert torch.equal(prepared.apply(teacher), teacher[..., kept])
        assert torch.equal(prepared.apply(vertex), vertex[..., kept])


@pytest.mark.parametrize("kind", ["raw", "centred", "z", "unit", "drop-2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_and_leading_dimensions_are_kept(kind: str, dtype: torch.dtype) -> None:
    teacher, vertex = _states()
    prepared = Preprocessing.of(kind, _statistics(teacher))
    whole = prepared.apply(vertex.to(dtype))
    assert whole.dtype == dtype
    assert whole.shape[:-1] == vertex.shape[:-1]
    assert torch.equal(prepared.apply(vertex[1, 3].to(dtype)), whole[1, 3])


def test_names_are_read() -> None:
    assert parse_preprocessing("drop-12") == PreprocessingKind("drop-K", 12)
    needs = {text: parse_preprocessing(text).needs_statistics for text in ("raw", "centred", "z", "unit", "drop-3")}
    assert needs == {"raw": False, "centred": True, "z": True, "unit": False, "drop-3": True}


@pytest.mark.parametrize("text", ["centered", "", "drop-0", "drop-", "drop-K", "drop--1", "drop-1.5", "Raw", "drop-3 "])
def test_unknown_names_say_what_is_allowed(text: str) -> None:
    with pytest.raises(InputError, match=r"allowed are raw, centred, z, unit, drop-K, .* as in 'drop-3'") as error:
        parse_preprocessing(text)
    assert repr(text) in str(error.value)


def test_errors_say_what_to_do() -> None:
    teacher, _ = _states()
    statistics = _statistics(teacher)
    with pytest.raises(InputError, match="nothing of the teacher's 7 dimensions; allowed are drop-1 to drop-6"):
        Preprocessing.of("drop-7", statistics)
    teacher = teacher[:3].double()
    teacher[:, :, 3] = 0.1  # three of these have a mean that rounding leaves above 0.1
    with pytest.raises(InputError, match=r"constant in 1 of 7 dimensions \(the first is 3\)\. .* use 'centred'"):
        Preprocessing.of("z", _statistics(teacher, 7))
    for nothing in (None, TeacherStatistics()):
        with pytest.raises(ValueError, match="'z' needs statistics of the teacher over one token or more; got none"):
            Preprocessing.of("z", nothing)
    with pytest.raises(ValueError, match=r"same layers and dimensions can be merged; got .* \[4, 7\] and \[3, 7\]"):
        statistics.merge(_statistics(teacher))
