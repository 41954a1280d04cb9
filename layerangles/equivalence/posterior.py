"""Posterior probabilities that differences lie in the region of practical equivalence (ROPE), the margin."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from layerangles.equivalence.decision import Margin, Moments, differences, gain

_DRAWS = 20_000


class Rope(NamedTuple):
    """Posterior probabilities, 0 to 1.

    Attributes:
        inside: of a pair's difference within the margin, ``[pair]``.
        below: of a second strategy that is better by more than the margin, ``[pair]``.
        above: of a first strategy that is better by more than the margin, ``[pair]``; the three add up to 1.
        all_inside: of all pairs' differences within the margin.
    """

    inside: Float[np.ndarray, " pair"]
    below: Float[np.ndarray, " pair"]
    above: Float[np.ndarray, " pair"]
    all_inside: float


def rope(given: Moments, n_matched: int, margin: Margin, *, rng_seed: int = 0) -> Rope:
    """Posterior probabilities under the reference prior, by draws of the strategies' expected scores.

    Scores are taken as normal and paired by seed. The posterior of a pair's difference is Student's t with n − 1
    degrees of freedom, centred on the mean difference and scaled by the standard error (Benavoli et al., 2017, without
    the correlation of cross-validation). The draws are joint over strategies, so that a margin that is a share of the
    gain varies with them.
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
