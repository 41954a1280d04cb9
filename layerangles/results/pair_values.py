"""Aggregates over the tokens of a pair of teacher layers, as figures and the app show them."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from layerangles.errors import InputError
from layerangles.results.angle_result import AngleResult
from layerangles.results.variables import VARIABLES

Aggregation = Literal["mean", "median", "cosine", "acute"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


class Quantity(NamedTuple):
    """An aggregate over the tokens of a pair of teacher layers.

    Attributes:
        title: title of a colour bar.
        unit: unit, written after a number.
        caption: words before "tokens of 200 texts".
        values: computes it from a result's dataset.
        choice: the app's name for it, if that is not the title.
    """

    title: str
    unit: str
    caption: str
    values: Callable[[xr.Dataset], xr.DataArray]
    choice: str = ""


def _median(data: xr.Dataset) -> xr.DataArray:
    if "histogram" not in data:
        raise InputError("in gradient space there are no tokens, and so no median over them.")
    values: xr.DataArray = xr.apply_ufunc(_median_angle, data["histogram"], input_core_dims=[["bin"]])
    return values


def _angle_of_cosine(data: xr.Dataset) -> xr.DataArray:
    values: xr.DataArray = xr.apply_ufunc(lambda c: np.rad2deg(np.arccos(np.clip(c, -1, 1))), data["cosine"])
    return values


QUANTITIES: dict[str, Quantity] = {
    "mean": Quantity(VARIABLES["angle_deg"].label, "°", "mean over", lambda data: data["angle_deg"]),
    "median": Quantity("median angle", "°", "median over", _median),
    "cosine": Quantity("angle of the mean cosine", "°", "angle of the mean cosine over", _angle_of_cosine),
    "acute": Quantity(
        "acute tokens", " %", "share of acute", lambda data: 100 * data["acute_fraction"], "share of acute tokens"
    ),
}


def pair_values(data: xr.Dataset, aggregation: Aggregation, null: str | None = None) -> xr.DataArray:
    """An aggregate over tokens for every student layer and pair of teacher layers.

    Args:
        data: one student of an :class:`layerangles.AngleResult`.
        aggregation: ``"mean"`` of the angles in degrees; their ``"median"``, from the histogram and so to a hundredth
            of a cosine; the angle of the mean ``"cosine"`` in degrees; the share of ``"acute"`` angles in percent.
        null: the null whose mean angle is subtracted (the excess); only with ``"mean"``.

    Returns:
        ``[…, student_layer, layer_a, layer_b]``; NaN where there is no angle.

    Raises:
        InputError: unknown aggregation; a null that was not measured, or with another aggregation than the mean; a
            median without a histogram.
    """
    if aggregation not in AGGREGATIONS:
        raise InputError(f"the aggregation is {aggregation!r}; allowed are {', '.join(map(repr, AGGREGATIONS))}.")
    if null is None:
        return QUANTITIES[aggregation].values(data)
    if aggregation != "mean":
        raise InputError(f"the excess over {null} is known of mean angles alone, not of {aggregation!r}.")
    AngleResult(data).check_null(null)
    excess: xr.DataArray = data["excess_deg"].sel(null=null)
    return excess


def _median_angle(counts: np.ndarray) -> np.ndarray:
    """Median angle from token counts per cosine bin over [−1, 1] (last axis), linear in a bin; NaN without tokens."""
    n_bins = counts.shape[-1]
    cumulative = np.cumsum(counts, axis=-1, dtype=np.float64)
    total = cumulative[..., -1]
    half = total / 2
    index = np.argmax(cumulative >= half[..., None], axis=-1)
    within = np.take_along_axis(counts, index[..., None], axis=-1)[..., 0].astype(np.float64)
    below = np.take_along_axis(cumulative, index[..., None], axis=-1)[..., 0] - within
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = -1 + 2 / n_bins * (index + (half - below) / within)
        angle: np.ndarray = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))
    return np.where(total > 0, angle, np.nan)
