"""Posterior probabilities agree with the t distribution and with each other."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from layerangles.equivalence.decision import Margin, moments
from layerangles.equivalence.posterior import rope

ERROR = 4 * math.sqrt(0.25 / 20_000)  # of a probability from 20,000 draws


def _scores(n_seeds: int = 6, rng_seed: int = 0) -> np.ndarray:
    """Three strategies, then none, correlated within a seed."""
    rng = np.random.default_rng(rng_seed)
    means = np.array([0.80, 0.83, 0.85, 0.60])
    return means + 0.05 * rng.standard_normal((n_seeds, 1)) + 0.03 * rng.standard_normal((n_seeds, 4))


def _posterior(values: np.ndarray) -> stats.distributions.rv_frozen:
    return stats.t(len(values) - 1, loc=values.mean(), scale=stats.sem(values))


@pytest.mark.parametrize("n_seeds", [2, 3, 6, 40])
def test_a_pairs_probabilities_are_those_of_students_t(n_seeds: int) -> None:
    scores, size = _scores(n_seeds), 0.03
    found = rope(moments(scores), 3, Margin(size))
    for pair, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
        exact = _posterior(scores[:, a] - scores[:, b])
        assert found.below[pair] == pytest.approx(exact.cdf(-size), abs=ERROR)
        assert found.above[pair] == pytest.approx(exact.sf(size), abs=ERROR)
        assert found.inside[pair] == pytest.approx(exact.cdf(size) - exact.cdf(-size), abs=ERROR)


def test_a_margin_of_the_gain_varies_with_the_draws() -> None:
    """Beyond it: a − b − f · gain > 0, a contrast with a t distribution of its own (the gain is surely positive).

    None scatters, so that the margin does; with a fixed one, the probabilities would be others.
    """
    scores, share = _scores(), 0.2
    scores[:, 3] += [0.2, -0.2, 0.1, -0.1, 0.15, -0.15]
    found = rope(moments(scores), 3, Margin(share, of_gain=True))
    size = share * (scores[:, :3].mean(axis=1) - scores[:, 3])
    for pair, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
        d = scores[:, a] - scores[:, b]
        assert found.above[pair] == pytest.approx(_posterior(d - size).sf(0), abs=ERROR)
        assert found.below[pair] == pytest.approx(_posterior(d + size).cdf(0), abs=ERROR)
    fixed = rope(moments(scores), 3, Margin(size.mean()))
    assert np.abs(fixed.inside - found.inside).max() > 3 * ERROR


def test_without_a_gain_nothing_is_inside() -> None:
    scores = _scores()
    scores[:, 3] += 1
    found = rope(moments(scores), 3, Margin(100, of_gain=True))
    assert found.inside.tolist() == [0, 0, 0]
    assert found.all_inside == 0
    exact = _posterior(scores[:, 0] - scores[:, 1])
    assert found.above[0] == pytest.approx(exact.sf(0), abs=ERROR)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(2, 8), st.floats(0.001, 0.5), st.booleans())
def test_probabilities_add_up_to_one(rng_seed: int, n_seeds: int, size: float, of_gain: bool) -> None:
    found = rope(moments(_scores(n_seeds, rng_seed)), 3, Margin(size, of_gain))
    assert found.inside + found.below + found.above == pytest.approx(np.ones(3))
    assert found.all_inside <= found.inside.min()
    assert found.all_inside >= 1 - (1 - found.inside).sum() - 1e-9  # Bonferroni


def test_draws_are_joint() -> None:
    """With b equal to c, b − a is inside in exactly the draws in which c − a is."""
    scores = _scores()[:, [0, 1, 1]]
    found = rope(moments(scores), 3, Margin(0.03))
    assert found.inside[0] == pytest.approx(found.inside[1], abs=1e-3)
    assert found.inside[2] == 1
    assert found.all_inside == pytest.approx(found.inside[0], abs=1e-3)


def test_scores_without_variance_have_probabilities_of_0_and_1() -> None:
    found = rope(moments(np.tile([0.5, 0.5, 0.7], (4, 1))), 3, Margin(0.1))
    assert found.inside.tolist() == [1, 0, 0]
    assert found.below.tolist() == [0, 1, 1]
    assert found.all_inside == 0
