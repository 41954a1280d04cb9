"""What can be shown of a pair of teacher layers: an angle, aggregated over tokens in one way or another."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from layerangles.errors import InputError

Aggregation = Literal["mean", "median", "cosine", "acute"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


class Quantity(NamedTuple):
    """How an aggregation is called.

    Attributes:
        title: for a colour bar.
        unit: behind a number.
    """

    title: str
    unit: str


QUANTITIES: dict[Aggregation, Quantity] = {
    "mean": Quantity("mean angle", "°"),
    "median": Quantity("median angle", "°"),
    "cosine": Quantity("angle of the mean cosine", "°"),
    "acute": Quantity("acute tokens", " %"),
}


def pair_values(data: xr.Dataset, aggregation: Aggregation, null: str | None = None) -> xr.DataArray:
    """One number for every student layer and pair of teacher layers.

    Args:
        data: a student's part of an :class:`layerangles.AngleResult`.
        aggregation: over the tokens. ``"mean"`` of the angles, degrees; their ``"median"``, from the histogram and so
            to a hundredth of a cosine; the angle of the mean ``"cosine"``; the share of ``"acute"`` angles, percent.
        null: subtract this null's mean angle (the excess); with ``"mean"`` alone.

    Returns:
        ``[…, student_layer, layer_a, layer_b]``; NaN where there is no angle.

    Raises:
        InputError: a null with another aggregation, whose null is not kept, or one that was not measured; no such
            aggregation; or a median where no histogram is kept.
    """
    if aggregation not in AGGREGATIONS:
        raise InputError(f"the aggregation is {aggregation!r}; allowed are {', '.join(map(repr, AGGREGATIONS))}.")
    if null is not None:
        if aggregation != "mean":
            raise InputError(f"the excess over {null} is known of mean angles alone, not of {aggregation!r}.")
        measured = [str(name) for name in data["null"].values] if "null" in data.dims else []
        if null not in measured:
            raise InputError(f"the null {null!r} was not measured; measured were {', '.join(measured) or 'none'}.")
        return data["excess_deg"].sel(null=null)
    values: xr.DataArray
    match aggregation:
        case "mean":
            values = data["angle_deg"]
        case "cosine":
            values = xr.apply_ufunc(lambda c: np.rad2deg(np.arccos(np.clip(c, -1, 1))), data["cosine"])
        case "acute":
            values = 100 * data["acute_fraction"]
        case "median":
            if "histogram" not in data:
                raise InputError("in gradient space there are no tokens, and so no median over them.")
            values = xr.apply_ufunc(_median_angle, data["histogram"], input_core_dims=[["bin"]])
    return values


def _median_angle(counts: np.ndarray) -> np.ndarray:
    """The median of angles from counts per cosine bin over [−1, 1] (last axis), linear within a bin; NaN for none."""
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
