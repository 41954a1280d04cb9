"""The interval of a mean over tokens, clustered by example, from the moments of its clusters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MOMENTS = ("n_examples", "total", "count", "total_squared", "total_times_count", "count_squared")
"""Names of the moments, in the order in which they are stored."""


class MeanInterval(NamedTuple):
    """Means and the ends of their intervals, arrays of one shape; NaN where they are not defined."""

    mean: Array
    low: Array
    high: Array


def clustered_interval(moments: Sequence[Array], confidence: float) -> MeanInterval:
    """The mean over tokens and its two-sided interval by Student's t with ``n_examples − 1`` degrees of freedom.

    With the total ``s_e`` and the number ``n_e`` of an example's tokens, the mean is the ratio ``Σ s_e / Σ n_e`` and
    its variance the usual linearised one of a ratio of cluster totals,
    ``E/(E−1) · Σ (s_e − mean · n_e)² / (Σ n_e)²`` (Cochran, *Sampling Techniques*, 1977, section 9A).

    Args:
        moments: sums over examples, in the order of :data:`MOMENTS`.
        confidence: confidence level, between 0 and 1.

    Returns:
        Means, NaN without tokens; ends, NaN where fewer than two examples have tokens.
    """
    from scipy.special import stdtrit

    n, total, count, total_squared, total_times_count, count_squared = moments
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        squared_residual = total_squared - 2 * mean * total_times_count + mean**2 * count_squared
        # Sums of squares may come out a rounding error below zero where all examples agree.
        variance = n / (n - 1) * np.maximum(squared_residual, 0) / count**2
        half_width = stdtrit(np.where(n > 1, n - 1, np.nan), (1 + confidence) / 2) * np.sqrt(variance)
    return MeanInterval(mean, mean - half_width, mean + half_width)
