"""Bayesian probabilities that differences lie in a region of practical equivalence (ROPE): the margin."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from layerangles.equivalence.decision import Margin, Moments, differences, gain

_DRAWS = 20_000


class Rope(NamedTuple):
    """Posterior probabilities, 0 to 1.

    Attributes:
        inside: that a pair's difference lies within the margin, ``[pair]``.
        above: that the first strategy is better by more than it; ``below``: the second. The three add up to 1.
        all_inside: that all pairs do.
    """

    inside: Float[np.ndarray, " pair"]
    below: Float[np.ndarray, " pair"]
    above: Float[np.ndarray, " pair"]
    all_inside: float


def rope(given: Moments, n_matched: int, margin: Margin, *, rng_seed: int = 0) -> Rope:
    """The probabilities under the reference prior, by draws from the posterior of the strategies' expected scores.

    Scores are normal and paired by seed; a pair's difference then has Student's t with n − 1 degrees of freedom as its
    posterior, its centre the mean difference and its scale the standard error (Benavoli et al., 2017, without the
    correlation of cross-validation). The draws are joint, so that a margin that is a share of the gain is drawn along.
    """
    rng = np.random.default_rng(rng_seed)
    values, vectors = np.linalg.eigh(given.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0) / given.n_seeds)
    degrees = given.n_seeds - 1
    stretch = np.sqrt(degrees / rng.chisquare(degrees, (_DRAWS, 1)))
    means = given.mean + stretch * (rng.standard_normal((_DRAWS, len(given.mean))) @ root.T)
    drawn = means @ differences(n_matched, len(given.mean)).T
    size = margin.size * np.maximum(0, means @ gain(n_matched)) if margin.of_gain else np.full(_DRAWS, margin.size)
    inside: Bool[np.ndarray, "draw pair"] = np.abs(drawn) < size[:, None]
    return Rope(
        inside=inside.mean(axis=0),
        below=(~inside & (drawn < 0)).mean(axis=0),
        above=(~inside & (drawn >= 0)).mean(axis=0),
        all_inside=float(inside.all(axis=1).mean()),
    )
