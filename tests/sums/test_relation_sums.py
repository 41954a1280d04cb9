"""Common-mode ratio, distances and structured cosine against their definitions."""

import pytest
import torch
from torch import Tensor

from layerangles.geometry.relations import common_mode_ratio, mean_pairwise_distances
from layerangles.sums.relation_sums import RelationSums

N_TEACHER, N_STUDENT, N_TOKENS, DIM = 5, 3, 130, 12
MATCHED = {0: 0, 1: 2, 2: 4}


def _states(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    teacher = torch.randn(N_TEACHER, N_TOKENS, DIM, generator=rng) + 3
    return teacher, torch.randn(N_STUDENT, N_TOKENS, DIM, generator=rng) + 3, torch.arange(N_TOKENS) // 13


def _sums(teacher: Tensor, vertex: Tensor, example: Tensor, matched: dict[int, int] | None = None) -> RelationSums:
    sums = RelationSums(N_STUDENT, N_TEACHER, MATCHED if matched is None else matched)
    sums.update(teacher, vertex, example)
    return sums


def test_common_mode_ratio_and_distances_are_those_of_the_kernel() -> None:
    teacher, vertex, example = _states()
    sums = _sums(teacher, vertex, example)
    ratios = common_mode_ratio(teacher, vertex)
    assert sums.common_mode.mean().numpy() == pytest.approx(ratios.mean(dim=-1).numpy(), rel=1e-9)
    assert sums.student_common_mode.mean().item() == pytest.approx(ratios.mean().item(), rel=1e-9)
    distances = mean_pairwise_distances(teacher, vertex)
    t = N_TEACHER
    for got, expected in (
        (sums.teacher_teacher, distances[:t, :t]),
        (sums.teacher_student, distances[t:, :t]),
        (sums.student_student, distances[t:, t:]),
    ):
        assert (got / sums.n_tokens).numpy() == pytest.approx(expected.numpy(), rel=1e-9)


def test_structured_cosine_from_its_definition() -> None:
    teacher, vertex, example = _states()
    sums = _sums(teacher, vertex, example, {0: 1, 2: 4})
    between_teacher = (teacher[1] - teacher[4]).double()
    between_student = (vertex[0] - vertex[2]).double()
    expected = torch.nn.functional.cosine_similarity(between_teacher, between_student, dim=-1).mean()
    got = sums.structured / sums.structured_count
    assert got[0, 2].item() == pytest.approx(expected.item(), abs=1e-9)
    assert got[2, 0].item() == pytest.approx(got[0, 2].item(), abs=1e-15)
    assert sums.structured_count.nonzero().tolist() == [[0, 2], [2, 0]]  # neither a layer with itself, nor unmatched


def test_two_layers_matched_to_one_have_no_structured_cosine() -> None:
    sums = _sums(*_states(), {0: 2, 1: 2, 2: 4})
    assert sums.structured_count[0, 1] == 0
    assert sums.structured_count[0, 2] == N_TOKENS


def test_layers_that_coincide_have_no_structured_cosine() -> None:
    teacher, vertex, example = _states()
    teacher[2:] = 1000 * teacher[2:]
    teacher[4] = teacher[2]
    sums = _sums(teacher, vertex, example)
    assert sums.structured_count[1, 2] == 0  # matched to layers 2 and 4
    assert sums.structured_count[0, 1] == N_TOKENS


def test_tokens_without_a_spread_have_no_ratio() -> None:
    teacher, vertex, example = _states()
    teacher[:, 4] = teacher[:1, 4]
    sums = _sums(teacher, vertex, example)
    assert sums.common_mode.count.tolist() == [N_TOKENS - 1] * N_STUDENT
    keep = torch.arange(N_TOKENS) != 4
    expected = common_mode_ratio(teacher[:, keep], vertex[:, keep]).mean(dim=-1)
    assert sums.common_mode.mean().numpy() == pytest.approx(expected.numpy(), rel=1e-6)


def test_layers_that_coincide_have_no_distance() -> None:
    teacher, vertex, example = _states()
    teacher[3] = teacher[1]
    sums = _sums(teacher * 1000, vertex, example)
    assert sums.teacher_teacher[1, 3] / sums.n_tokens <= 1e-7 * 1000 * teacher.norm(dim=-1).mean()
    assert (sums.teacher_teacher.diagonal() == 0).all()


def test_merged_parts_are_the_whole() -> None:
    teacher, vertex, example = _states()
    half = int((example < 5).sum())
    first = _sums(teacher[:, :half], vertex[:, :half], example[:half])
    second = _sums(teacher[:, half:], vertex[:, half:], example[half:] - 5)
    whole, merged = _sums(teacher, vertex, example), first.merge(second)
    assert merged.common_mode.interval()[0].numpy() == pytest.approx(whole.common_mode.interval()[0].numpy(), rel=1e-9)
    assert merged.student_student.numpy() == pytest.approx(whole.student_student.numpy(), rel=1e-12)
    assert merged.n_tokens == N_TOKENS
