"""The sums against naive references, the interval against its definition and by simulation."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from layerangles.geometry.angles import TOKENS_PER_CHUNK, layer_pairs
from layerangles.geometry.shared_space import SharedSpace, Tokens
from layerangles.sums.angle_sums import N_BINS, AngleSums
from layerangles.sums.clustered_mean import ClusteredMean

Array = NDArray[np.float64]


def _clusters(rng: np.random.Generator, n_examples: int, n_cells: int = 1) -> tuple[list[Array], Tensor, Tensor]:
    """Values per example ``[cell, token]``, and their totals and counts ``[cell, example]``."""
    values = [rng.normal(60, 5, size=(n_cells, rng.integers(1, 9))) for _ in range(n_examples)]
    total = torch.tensor(np.stack([v.sum(axis=1) for v in values], axis=1))
    count = torch.tensor(np.stack([np.full(n_cells, float(v.shape[1])) for v in values], axis=1))
    return values, total, count


def _reference_interval(values: list[Array], confidence: float) -> tuple[float, float, float]:
    """Mean and interval of one cell, from the residuals of every example."""
    n = len(values)
    tokens = np.concatenate(values)
    mean = tokens.mean()
    residuals = np.array([np.sum(v - mean) for v in values])
    error = math.sqrt(n / (n - 1) * np.sum(residuals**2)) / len(tokens)
    half = stats.t.ppf(1 - (1 - confidence) / 2, n - 1) * error
    return mean, mean - half, mean + half


def update(sums: AngleSums, teacher: Tensor, vertex: Tensor, example: Tensor) -> None:
    """Add the tokens of a batch; every token's partner is the one before it."""
    number = torch.arange(len(example))
    space = SharedSpace(slice(0, len(vertex)), teacher, vertex)
    sums.update([space], Tokens(example, number.roll(1), example, number))


# --- ClusteredMean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("n_examples", [2, 3, 40])
def test_interval_follows_its_definition(n_examples: int, confidence: float) -> None:
    values, total, count = _clusters(np.random.default_rng(n_examples), n_examples, n_cells=3)
    mean = ClusteredMean.zeros(3)
    mean.add(total, count)
    low, high = mean.interval(confidence)
    for cell in range(3):
        expected = _reference_interval([v[cell] for v in values], confidence)
        assert (mean.mean()[cell].item(), low[cell].item(), high[cell].item()) == pytest.approx(expected, rel=1e-9)


def test_interval_equals_one_computed_by_hand() -> None:
    # Examples (1, 1) and (4): mean 2, residuals −2 and 2, variance 2/1 · 8 / 9, one degree of freedom.
    mean = ClusteredMean.zeros()
    mean.add(torch.tensor([2.0, 4.0]).double(), torch.tensor([2.0, 1.0]).double())
    low, high = mean.interval(0.5)  # Student's t with one degree of freedom has its upper quartile at 1
    assert mean.mean() == 2
    assert (low.item(), high.item()) == pytest.approx((2 - 4 / 3, 2 + 4 / 3))


def _simulated_coverage(*, between: float, within: float, n_examples: int = 40) -> tuple[float, float]:
    """How often the clustered interval, and that of independent tokens, hold the true mean of 60."""
    rng = np.random.default_rng(12)
    repetitions = 2000
    counts = rng.integers(1, 21, size=(repetitions, n_examples)).astype(np.float64)
    effect = rng.normal(0, between, size=counts.shape)
    noise = rng.normal(0, 1, size=counts.shape) * within * np.sqrt(counts)  # the sum of the tokens' noise
    totals = counts * (60 + effect) + noise
    mean = ClusteredMean.zeros(repetitions)
    mean.add(torch.from_numpy(totals), torch.from_numpy(counts))
    low, high = (end.numpy() for end in mean.interval(0.95))
    naive = 1.96 * math.sqrt(between**2 + within**2) / np.sqrt(counts.sum(axis=1))
    covered = (low <= 60) & (high >= 60)
    covered_naively = np.abs(totals.sum(axis=1) / counts.sum(axis=1) - 60) <= naive
    return covered.mean(), covered_naively.mean()


@pytest.mark.parametrize(("between", "within"), [(3.0, 5.0), (5.0, 1.0), (0.0, 5.0)])
def test_interval_covers_the_true_mean_of_clustered_tokens(between: float, within: float) -> None:
    covered, covered_naively = _simulated_coverage(between=between, within=within)
    assert 0.93 <= covered <= 0.97
    if between:  # the data is such that an interval blind to the clusters fails
        assert covered_naively < 0.85


def test_merging_parts_equals_the_whole() -> None:
    _, total, count = _clusters(np.random.default_rng(13), 30, n_cells=4)
    whole = ClusteredMean.zeros(4)
    whole.add(total, count)
    parts = []
    for piece in (slice(0, 7), slice(7, 8), slice(8, 30)):
        part = ClusteredMean.zeros(4)
        part.add(total[:, piece], count[:, piece])
        parts.append(part)
    in_order = parts[0].merge(parts[1]).merge(parts[2])
    other_order = parts[2].merge(parts[0].merge(parts[1]))
    one_by_one = ClusteredMean.zeros(4)
    for e in range(30):
        one_by_one.add(total[:, e : e + 1], count[:, e : e + 1])
    for merged in (in_order, other_order, one_by_one):
        for f in fields(ClusteredMean):
            assert getattr(merged, f.name).numpy() == pytest.approx(getattr(whole, f.name).numpy(), rel=1e-12)
        for got, expected in zip(merged.interval(), whole.interval(), strict=True):
            assert got.numpy() == pytest.approx(expected.numpy(), rel=1e-10)
    assert parts[0].n_examples.tolist() == [7] * 4  # merging left the parts alone


def test_one_example_has_a_mean_and_no_interval() -> None:
    mean = ClusteredMean.zeros(2)
    mean.add(torch.tensor([[30.0], [0.0]]).double(), torch.tensor([[3.0], [0.0]]).double())
    assert mean.mean().tolist() == pytest.approx([10, math.nan], nan_ok=True)
    assert all(end.isnan().all() for end in mean.interval())


def test_examples_without_a_token_that_counts_are_no_clusters() -> None:
    total, count = torch.tensor([30.0, 0.0, 8.0, 0.0]).double(), torch.tensor([3.0, 0.0, 1.0, 0.0]).double()
    with_empty, without = ClusteredMean.zeros(), ClusteredMean.zeros()
    with_empty.add(total, count)
    without.add(total[::2], count[::2])
    assert with_empty == without
    assert with_empty.n_examples == 2


def test_examples_that_agree_have_an_interval_of_no_width() -> None:
    mean = ClusteredMean.zeros()
    count = torch.tensor([1.0, 7.0, 13.0]).double()
    mean.add(59.3 * count, count)
    low, high = mean.interval()
    assert (low.item(), high.item()) == pytest.approx((59.3, 59.3), abs=1e-5)


# --- AngleSums ------------------------------------------------------------------------------------------------


def _scene(seed: int = 14, n_tokens: int = TOKENS_PER_CHUNK + 30) -> tuple[Tensor, Tensor, Tensor]:
    """Some tokens are degenerate, and the examples' tokens are not in one piece."""
    rng = np.random.default_rng(seed)
    teacher = torch.from_numpy(rng.normal(size=(4, n_tokens, 6))).float()
    vertex = torch.from_numpy(rng.normal(size=(3, n_tokens, 6))).float()
    vertex[0, 5], vertex[0, 70], vertex[2, 70] = teacher[1, 5], teacher[3, 70], teacher[0, 70]
    return teacher, vertex, torch.from_numpy(rng.integers(0, 9, size=n_tokens))


def _summed(teacher: Tensor, vertex: Tensor, example: Tensor) -> AngleSums:
    sums = AngleSums(len(vertex), len(teacher))
    update(sums, teacher, vertex, example)
    return sums


def _naive(teacher: Tensor, vertex: Tensor, example: Tensor) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """Per student layer and pair: the example and the cosine (NaN where degenerate) of every token."""
    t, v = teacher.double().numpy(), vertex.double().numpy()
    out: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for s in range(len(v)):
        for p, (i, j) in enumerate(zip(*(index.tolist() for index in layer_pairs(len(t))), strict=True)):
            out[s, p] = []
            for n in range(t.shape[1]):
                x, y = t[i, n] - v[s, n], t[j, n] - v[s, n]
                lengths = math.sqrt(x @ x) * math.sqrt(y @ y)
                out[s, p].append((int(example[n]), x @ y / lengths if lengths else math.nan))
    return out


def _clustered(tokens: list[tuple[int, float]]) -> list[Array]:
    angles: dict[int, list[float]] = {}
    for example, cosine in tokens:
        if not math.isnan(cosine):
            angles.setdefault(example, []).append(math.degrees(math.acos(cosine)))
    return [np.array(a) for a in angles.values()]


def test_sums_equal_a_naive_loop() -> None:
    scene = _scene()
    sums = _summed(*scene)
    naive = _naive(*scene)
    low, high = sums.angle.interval()
    for (s, p), tokens in naive.items():
        cosines = np.array([c for _, c in tokens if not math.isnan(c)])
        assert sums.n_degenerate[s, p] == len(tokens) - len(cosines)
        assert sums.angle.count[s, p] == len(cosines)
        assert sums.cosine_total[s, p].item() == pytest.approx(cosines.sum(), abs=1e-10)
        assert sums.n_acute[s, p] == np.sum(cosines > 0)
        expected = np.histogram(cosines, bins=N_BINS, range=(-1, 1))[0]
        assert sums.histogram[s, p].tolist() == expected.tolist()
        got = (sums.angle.mean()[s, p].item(), low[s, p].item(), high[s, p].item())
        assert got == pytest.approx(_reference_interval(_clustered(tokens), 0.95), rel=1e-9)
    assert sums.n_degenerate.sum() == 9  # three tokens, each with three pairs that hold the layer


def test_mean_over_all_pairs_of_a_student_layer_equals_a_naive_loop() -> None:
    scene = _scene()
    sums = _summed(*scene)
    naive = _naive(*scene)
    low, high = sums.layer_angle.interval()
    for s in range(3):
        pooled = [token for (layer, _), tokens in naive.items() if layer == s for token in tokens]
        got = (sums.layer_angle.mean()[s].item(), low[s].item(), high[s].item())
        assert got == pytest.approx(_reference_interval(_clustered(pooled), 0.95), rel=1e-9)


def test_every_token_is_in_the_histogram_or_degenerate() -> None:
    teacher, vertex, example = _scene()
    sums = _summed(teacher, vertex, example)
    assert torch.equal(sums.histogram.sum(dim=-1), sums.angle.count.long())
    assert (sums.angle.count.long() + sums.n_degenerate == teacher.shape[1]).all()


def test_degenerate_tokens_are_left_out_and_counted() -> None:
    teacher, vertex, example = _scene()
    sums = _summed(teacher, vertex, example)
    kept = torch.ones(teacher.shape[1], dtype=torch.bool)
    kept[[5, 70]] = False
    without = _summed(teacher[:, kept], vertex[:, kept], example[kept])
    a, b = layer_pairs(4)
    for s, n, i in ((0, 5, 1), (0, 70, 3), (2, 70, 0)):
        holds = (a == i) | (b == i)
        assert (sums.n_degenerate[s, holds] >= 1).all(), (s, n)
    # Layer 1 of the student has no degenerate token, and pairs without the layer keep theirs.
    assert (sums.n_degenerate[1] == 0).all()
    only = (((a == 1) & (b == 3)) | ((a == 3) & (b == 1))).nonzero().item()
    assert sums.n_degenerate[0, only] == 2
    assert sums.angle.total[0, only].item() == pytest.approx(without.angle.total[0, only].item(), rel=1e-12)
    assert sums.cosine_total[0, only].item() == pytest.approx(without.cosine_total[0, only].item(), rel=1e-12)
    assert torch.equal(sums.histogram[0, only], without.histogram[0, only])


def test_a_layer_whose_every_token_is_degenerate_has_no_mean() -> None:
    teacher, vertex, example = _scene()
    vertex[0] = teacher[2]
    sums = _summed(teacher, vertex, example)
    a, b = layer_pairs(4)
    holds = (a == 2) | (b == 2)
    assert sums.angle.mean()[0, holds].isnan().all()
    assert all(end[0, holds].isnan().all() for end in sums.angle.interval())
    assert (sums.n_degenerate[0, holds] == teacher.shape[1]).all()
    assert (sums.histogram[0, holds] == 0).all()
    assert sums.angle.mean()[0, ~holds].isfinite().all()
    assert sums.layer_angle.mean()[0].isfinite()


def test_histogram_bins_include_their_lower_end_and_the_last_its_upper() -> None:
    # From the origin: two layers in one direction, one in the opposite, one at a right angle.
    teacher = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])[:, None]
    sums = _summed(teacher, torch.zeros(1, 1, 2), torch.tensor([0]))
    pairs = list(zip(*(index.tolist() for index in layer_pairs(4)), strict=True))
    filled = {pair: sums.histogram[0, p].nonzero().item() for p, pair in enumerate(pairs)}
    middle = N_BINS // 2  # the bin that starts at a cosine of 0
    assert filled == {(0, 1): N_BINS - 1, (0, 2): 0, (1, 2): 0, (0, 3): middle, (1, 3): middle, (2, 3): middle}
    acute = {pair: sums.n_acute[0, p].item() for p, pair in enumerate(pairs)}
    assert acute == {pair: int(pair == (0, 1)) for pair in pairs}  # a right angle is not acute


def _assert_same_sums(got: AngleSums, expected: AngleSums) -> None:
    for name in ("n_acute", "n_degenerate", "histogram"):
        assert torch.equal(getattr(got, name), getattr(expected, name)), name
    assert got.cosine_total.numpy() == pytest.approx(expected.cosine_total.numpy(), rel=1e-12, abs=1e-12)
    for mean in ("angle", "layer_angle"):
        for f in fields(ClusteredMean):
            ours, theirs = getattr(getattr(got, mean), f.name), getattr(getattr(expected, mean), f.name)
            assert ours.numpy() == pytest.approx(theirs.numpy(), rel=1e-12), (mean, f.name)


def _parts(scene: tuple[Tensor, Tensor, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Three parts of whole examples, their examples counted from 0 in each."""
    teacher, vertex, example = scene
    return [
        (teacher[:, chosen], vertex[:, chosen], example[chosen] - first)
        for first, last in ((0, 2), (3, 3), (4, 8))
        for chosen in [(first <= example) & (example <= last)]
    ]


def test_batches_of_whole_examples_add_up() -> None:
    scene = _scene()
    batched = AngleSums(3, 4)
    for part in _parts(scene):
        update(batched, *part)
    _assert_same_sums(batched, _summed(*scene))


def test_merging_parts_of_the_data_equals_the_whole() -> None:
    scene = _scene()
    first, second, third = (_summed(*part) for part in _parts(scene))
    before = first.histogram.clone()
    _assert_same_sums(first.merge(second).merge(third), _summed(*scene))
    _assert_same_sums(third.merge(first.merge(second)), _summed(*scene))
    assert torch.equal(first.histogram, before)  # merging left the parts alone
    merged = first.merge(second)
    update(merged, *_parts(scene)[2])  # a merged sum goes on
    _assert_same_sums(merged, _summed(*scene))


def test_order_of_tokens_does_not_matter() -> None:
    teacher, vertex, example = _scene()
    order = torch.from_numpy(np.random.default_rng(15).permutation(len(example)))
    _assert_same_sums(_summed(teacher[:, order], vertex[:, order], example[order]), _summed(teacher, vertex, example))


def test_no_tokens_change_nothing() -> None:
    scene = _scene()
    sums = _summed(*scene)
    update(sums, torch.zeros(4, 0, 6), torch.zeros(3, 0, 6), torch.zeros(0, dtype=torch.int64))
    _assert_same_sums(sums, _summed(*scene))
    empty = AngleSums(3, 4)
    assert empty.angle.mean().isnan().all()


def test_sums_over_other_layers_are_not_merged() -> None:
    with pytest.raises(ValueError, match=r"same layers.*\[3, 6\] and \[2, 6\]"):
        AngleSums(3, 4).merge(AngleSums(2, 4))
