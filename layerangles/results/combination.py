"""Datasets combined over students, steps and towers, and merged over disjoint shards of the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from layerangles.errors import InputError
from layerangles.results.derivation import derived
from layerangles.results.variables import DERIVED, SUMS
from layerangles.settings import MUST_AGREE

_OUTER: Any = {"join": "outer", "data_vars": "minimal", "coords": "minimal", "compat": "override"}
_OF_THE_STUDENT = ("weights_sha256", "matched")  # equal on all shards


def combine_parts(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Combine measurements of different students, steps or towers; students keep their order."""
    fill = _fill_values(parts)
    combined = xr.combine_by_coords(list(parts), fill_value=fill, combine_attrs="override", **_OUTER)
    if not isinstance(combined, xr.Dataset):
        raise TypeError("datasets combine to a dataset")
    # combine_by_coords sorts students and towers by name.
    order = {
        dim: list(dict.fromkeys(str(v) for part in parts for v in part[dim].values)) for dim in ("student", "tower")
    }
    return combined.sel(order).transpose("student", "step", "tower", ..., missing_dims="ignore")


def concat_students(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Concatenate students; see :meth:`layerangles.AngleResult.concat_students`."""
    if not datasets:
        raise InputError("there is nothing to join: got no results. Give at least one.")
    _check_comparable(datasets, "results", "Measure both in one call, or with the same settings.")
    names = [str(name) for data in datasets for name in data["student"].values]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"the student {repeated[0]!r} occurs in more than one result; rename it or leave one out.")
    if len({"step" in data.dims for data in datasets}) > 1:
        raise InputError("some results have a step axis and some have none; take one step of the former (at_step).")
    if len({tuple(data["null"].values) if "null" in data.dims else () for data in datasets}) > 1:
        raise InputError("some results have other nulls than others. Measure all with the same nulls.")
    summed = all("sum_angle" in data for data in datasets)
    measured = [data.drop_vars(DERIVED, errors="ignore") for data in datasets] if summed else list(datasets)
    fill = _fill_values(measured)
    joined = xr.concat(measured, dim="student", fill_value=fill, combine_attrs="override", **_OUTER)
    if summed:
        joined = derived(joined, datasets[0].attrs["confidence"])
    return joined.assign_attrs(datasets[0].attrs)


def merge_shards(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Merge shards; see :meth:`layerangles.AngleResult.merge_shards`."""
    if not datasets:
        raise InputError("there is nothing to merge: got no results. Give at least one.")
    _check_comparable(datasets, "shards", "Measure all shards with the same settings.")
    for data in datasets:
        _check_additive(data)
    first = datasets[0]
    shards = _disjoint_shards([str(data.attrs["shards"]) for data in datasets])
    parts = [data[[name for name in data.data_vars if name in SUMS]] for data in datasets]
    try:
        xr.align(*parts, join="exact", copy=False)
    except ValueError as error:
        raise InputError(
            "the shards hold other students, steps or nulls than one another. Measure the same."
        ) from error
    for name in _OF_THE_STUDENT:
        if any((first[name] != data[name]).any() for data in datasets):
            raise InputError(f"a student's {name} differ between the shards. Measure the same students.")
    total = sum(parts[1:], parts[0]).assign({name: first[name] for name in _OF_THE_STUDENT})
    n_examples = sum(int(data.attrs["n_examples"]) for data in datasets)
    dataset = derived(total, first.attrs["confidence"])
    dataset.attrs = first.attrs | {"shards": shards, "n_examples": n_examples}
    return dataset


def _check_comparable(datasets: Sequence[xr.Dataset], what: str, next_step: str) -> None:
    first = datasets[0].attrs
    for data in datasets[1:]:
        for key in MUST_AGREE:
            if first[key] != data.attrs[key]:
                raise InputError(
                    f"these {what} are not comparable: {key} is {first[key]!r} in one and {data.attrs[key]!r} in "
                    f"another. {next_step}"
                )


def _check_additive(data: xr.Dataset) -> None:
    if "sum_angle" not in data:
        raise InputError("results in gradient space or in the paper's convention are no sums: they do not add up.")
    if data.attrs["maps"].startswith("fitted") or data.attrs["preprocessing"] not in ("raw", "unit"):
        raise InputError(
            "every shard has fitted its own maps or its own preprocessing, so that these are not parts of one "
            "measurement. Measure in one pass, with several processes if need be (accelerate launch)."
        )
    if data.attrs["stopped"] != "all texts":
        raise InputError("a shard was stopped early (until), so that it is not all of its data. Measure it whole.")


def _disjoint_shards(given: Sequence[str]) -> str:
    """``i,j/n`` for the shards ``i/n`` and ``j/n``.

    Raises:
        InputError: shards overlap, or are parts of different divisions.
    """
    numbers = [number for shards in given for number in shards.rsplit("/", 1)[0].split(",")]
    counts = {shards.rsplit("/", 1)[1] for shards in given}
    if len(counts) > 1 or len(set(numbers)) < len(numbers):
        raise InputError(f"the shards overlap: got {', '.join(given)}. Give each of the shards 0/n to n-1/n once.")
    return f"{','.join(sorted(numbers, key=int))}/{counts.pop()}"


def _fill_values(parts: Sequence[xr.Dataset]) -> dict[Any, Any]:
    """Fill values by variable: 0 for sums and counts, the empty string for hashes, else NaN."""
    by_kind = {"f": np.nan, "i": 0, "O": "", "U": ""}
    return {
        name: 0 if name in SUMS else by_kind[variable.dtype.kind]
        for part in parts
        for name, variable in part.data_vars.items()
    }
