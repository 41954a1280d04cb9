"""Means and intervals from the sums of a result."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from layerangles.results.variables import SUMS, VARIABLES, Sum, Variable
from layerangles.sums.clustered_interval import MOMENTS, clustered_interval

_PAIRS = ["layer_a", "layer_b"]


def derived(sums: xr.Dataset, confidence: float) -> xr.Dataset:
    """Add or replace everything that follows from a dataset's sums, by the table of variables.

    Args:
        sums: a dataset with sums; its other variables are kept.
        confidence: confidence level of the intervals.
    """
    sums = sums.assign_coords(moment=list(MOMENTS))
    data = sums.assign_coords(bin=np.round(np.linspace(-1, 1, sums.sizes["bin"] + 1)[:-1], 12))
    for variable in VARIABLES.values():
        if variable.name in SUMS or not variable.sums or any(one.name not in sums for one in variable.sums):
            continue
        values = _clustered(sums, variable, confidence) if variable.is_clustered else _ratio(sums, variable)
        if variable.unit == "°":
            values = {name: value.assign_attrs(units="degree") for name, value in values.items()}
        data = data.assign(values)
    return data


def _clustered(sums: xr.Dataset, variable: Variable, confidence: float) -> dict[str, xr.DataArray]:
    (one,) = variable.sums
    moments = sums[one.name]
    found = clustered_interval(list(np.moveaxis(moments.values, -1, 0)), confidence)
    like = moments.isel(moment=0, drop=True)
    return {name: like.copy(data=value) for name, value in zip((variable.name, *variable.ends), found, strict=True)}


def _ratio(sums: xr.Dataset, variable: Variable) -> dict[str, xr.DataArray]:
    """Total divided by the number of tokens; the number of tokens itself if there is no total."""
    *totals, count = (_total(sums, one, variable.dims) for one in variable.sums)
    if not totals:
        return {variable.name: count.astype(np.int64)}
    (total,) = totals
    values = total / count.where(count > 0)
    # Where tokens are not counted by layer, a layer that was not measured would have a mean of 0 instead of none.
    measured = sums["sum_layer_angle"].sel(moment="count", drop=True) > 0
    for dim in ("student_layer", "student_layer_b"):
        if dim in values.dims and dim not in count.dims:
            values = values.where(measured.rename(student_layer=dim))
    return {variable.name: values}


def _total(sums: xr.Dataset, one: Sum, dims: Sequence[str]) -> xr.DataArray:
    """A sum, added up over pairs if the variable has none; of a clustered sum, its number of tokens."""
    array = sums[one.name]
    if "moment" in array.dims:
        array = array.sel(moment="count", drop=True)
    return array.sum([dim for dim in _PAIRS if dim in array.dims and dim not in dims])
