"""Sums become labelled arrays, and labelled sums become means and intervals.

A result keeps its sums (``sum_…``, over no tokens: 0), and everything else is derived from them. So results of parts
of the data add up to the result of the whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from layerangles.geometry.alternatives import debiased_cka, recoverability_gap
from layerangles.geometry.angles import layer_pairs
from layerangles.geometry.gradients import gradient_cosines
from layerangles.geometry.preprocessing import TeacherStatistics
from layerangles.geometry.student_tower import StudentTower
from layerangles.layers import LayerPair, Tower
from layerangles.sums.angle_sums import AngleSums
from layerangles.sums.clustered_mean import ClusteredMean
from layerangles.sums.relation_sums import RelationSums
from layerangles.sums.token_sample import TokenSample

Array = npt.NDArray[Any]
Dims = tuple[str, ...]

MOMENTS = ("n_examples", "total", "count", "total_squared", "total_times_count", "count_squared")
_SQUARE = ("layer_a", "layer_b")
_BEFORE = ("student", "step", "tower")

# Where each sum of AngleSums goes: the name it gets, and its dimensions, "pair" standing for the two teacher layers.
_ANGLE_SUMS: dict[str, tuple[str, Dims]] = {
    "angle": ("sum_angle", ("student_layer", "pair")),
    "layer_angle": ("sum_layer_angle", ("student_layer",)),
    "student_angle": ("sum_student_angle", ()),
    "excess": ("sum_excess", ("null", "student_layer", "pair")),
    "layer_excess": ("sum_layer_excess", ("null", "student_layer")),
    "student_excess": ("sum_student_excess", ("null",)),
    "null_total": ("sum_null", ("null", "student_layer", "pair")),
    "null_count": ("sum_null_tokens", ("null", "student_layer", "pair")),
    "cosine_total": ("sum_cosine", ("student_layer", "pair")),
    "n_acute": ("sum_acute", ("student_layer", "pair")),
    "n_degenerate": ("n_degenerate", ("student_layer", "pair")),
    "histogram": ("histogram", ("student_layer", "pair", "bin")),
}
_RELATION_SUMS: dict[str, tuple[str, Dims]] = {
    "common_mode": ("sum_common_mode", ("student_layer",)),
    "student_common_mode": ("sum_student_common_mode", ()),
    "teacher_teacher": ("sum_distance_teacher_teacher", ("layer_a", "layer_b")),
    "teacher_student": ("sum_distance_teacher_student", ("student_layer", "layer_a")),
    "student_student": ("sum_distance_student_student", ("student_layer", "student_layer_b")),
    "structured": ("sum_structured", ("student_layer", "student_layer_b")),
    "structured_count": ("sum_structured_tokens", ("student_layer", "student_layer_b")),
    "n_tokens": ("sum_tokens", ()),
}


def labelled(sums: AngleSums, layers: Sequence[int], n_student_layers: int, n_teacher_layers: int) -> xr.Dataset:
    """The sums of one student (at one step, in one tower); 0 in layers that are not measured.

    Args:
        sums: over the layers that are measured.
        layers: which those are.
        n_student_layers: how many the student has, the embedding output included.
        n_teacher_layers: how many the teacher has.
    """
    variables = _arrays(sums, _ANGLE_SUMS, layers, n_student_layers, n_teacher_layers)
    return xr.Dataset(variables, coords=_coordinates(n_student_layers, n_teacher_layers, nulls=sums.nulls))


def labelled_relations(
    sums: RelationSums, layers: Sequence[int], n_student_layers: int, n_teacher_layers: int
) -> xr.Dataset:
    """As :func:`labelled`, for distances and their like."""
    variables = _arrays(sums, _RELATION_SUMS, layers, n_student_layers, n_teacher_layers)
    coordinates = _coordinates(n_student_layers, n_teacher_layers)
    return xr.Dataset(variables, coords=coordinates | {"student_layer_b": np.arange(n_student_layers)})


def _coordinates(n_student_layers: int, n_teacher_layers: int, nulls: Sequence[str] = ()) -> dict[str, Any]:
    return {
        "student_layer": np.arange(n_student_layers),
        "layer_a": np.arange(n_teacher_layers),
        "layer_b": np.arange(n_teacher_layers),
        **({"null": np.array(nulls, dtype=object)} if nulls else {}),
    }


def _arrays(
    sums: AngleSums | RelationSums,
    places: dict[str, tuple[str, Dims]],
    layers: Sequence[int],
    n_student_layers: int,
    n_teacher_layers: int,
) -> dict[str, tuple[Dims, Array]]:
    variables = {}
    for attribute, (name, dims) in places.items():
        value, axes = getattr(sums, attribute), list(dims)
        if isinstance(value, ClusteredMean):
            value = torch.stack([getattr(value, moment) for moment in MOMENTS], dim=-1)
            axes.append("moment")
        if "null" in axes and not value.shape[axes.index("null")]:
            continue
        array = value.cpu().numpy()
        for dim in ("student_layer", "student_layer_b"):
            if dim in axes:
                array = _spread(array, axes.index(dim), layers, n_student_layers)
        if "pair" in axes:
            at = axes.index("pair")
            array = _squared(array, at, n_teacher_layers)
            axes[at : at + 1] = _SQUARE
        variables[name] = (tuple(axes), array)
    return variables


def _spread(array: Array, axis: int, places: Sequence[int], size: int, fill: float = 0) -> Array:
    """Entries put to their places along an axis, ``fill`` elsewhere."""
    out = np.full((*array.shape[:axis], size, *array.shape[axis + 1 :]), fill, dtype=array.dtype)
    out[(slice(None),) * axis + (list(places),)] = array
    return out


def _squared(array: Array, axis: int, n_layers: int) -> Array:
    """An axis of pairs becomes two of layers, symmetric, 0 on the diagonal."""
    a, b = (index.numpy() for index in layer_pairs(n_layers))
    out = np.zeros((*array.shape[:axis], n_layers, n_layers, *array.shape[axis + 1 :]), dtype=array.dtype)
    before: tuple[Any, ...] = (slice(None),) * axis
    out[(*before, a, b)] = out[(*before, b, a)] = array
    return out


def labelled_alternatives(
    sample: TokenSample, layers: Sequence[int], n_student_layers: int, n_teacher_layers: int
) -> xr.Dataset:
    """Debiased CKA and recoverability gap of one student; NaN in layers that are not measured."""
    cka = debiased_cka([*sample.teacher, *sample.student]).numpy()
    t, places = n_teacher_layers, list(layers)
    teacher_student = _spread(cka[t:, :t], 0, places, n_student_layers, np.nan)
    student_student = _spread(
        _spread(cka[t:, t:], 0, places, n_student_layers, np.nan), 1, places, n_student_layers, np.nan
    )
    gap = _spread(
        recoverability_gap(sample.teacher, sample.student, sample.example).numpy(), 0, places, n_student_layers, np.nan
    )
    variables = {
        "cka_teacher_teacher": (_SQUARE, cka[:t, :t]),
        "cka_teacher_student": (("student_layer", "layer_a"), teacher_student),
        "cka_student_student": (("student_layer", "student_layer_b"), student_student),
        "recoverability_gap": (("student_layer", "layer_a"), gap),
    }
    coordinates = _coordinates(n_student_layers, n_teacher_layers)
    return xr.Dataset(variables, coords=coordinates | {"student_layer_b": np.arange(n_student_layers)})


def labelled_gradients(
    products: Float[Tensor, "view teacher_layer teacher_layer"], student_tower: StudentTower
) -> xr.Dataset:
    """Angles between gradients; ``whole_angle_deg`` and ``whole_cosine`` are those of the whole student.

    One angle a pair and layer, from gradients summed over all tokens: there is no interval, and ``n_tokens`` is 1
    where an angle is defined.
    """
    cosines = gradient_cosines(products).numpy()
    n_teacher = cosines.shape[-1]
    cosines[:, range(n_teacher), range(n_teacher)] = np.nan  # a layer makes no angle with itself
    angles = np.rad2deg(np.arccos(cosines))
    spread = {
        name: _spread(values[:-1], 0, list(student_tower.layers), student_tower.n_layers, np.nan)
        for name, values in (("cosine", cosines), ("angle_deg", angles))
    }
    defined, square = np.isfinite(spread["cosine"]), ("student_layer", *_SQUARE)
    acute = np.where(defined, spread["cosine"] > 0, np.nan)
    nothing = np.full(spread["cosine"].shape, np.nan)
    by_layer = {
        "layer_angle_deg": _mean_over_pairs(spread["angle_deg"]),
        "layer_acute_fraction": _mean_over_pairs(acute),
    }
    by_layer |= {name: np.full(student_tower.n_layers, np.nan) for name in ("layer_ci_low", "layer_ci_high")}
    variables: dict[str, tuple[Dims, Array]] = {name: (square, values) for name, values in spread.items()}
    variables |= {"acute_fraction": (square, acute), "ci_low": (square, nothing), "ci_high": (square, nothing)}
    variables |= {
        "n_tokens": (square, defined.astype(np.int64)),
        "n_degenerate": (square, np.zeros(defined.shape, dtype=np.int64)),
    }
    variables |= {name: (("student_layer",), values) for name, values in by_layer.items()}
    variables |= {"whole_cosine": (_SQUARE, cosines[-1]), "whole_angle_deg": (_SQUARE, angles[-1])}
    return xr.Dataset(variables, coords=_coordinates(student_tower.n_layers, n_teacher))


def _mean_over_pairs(values: Array) -> Array:
    """The mean over the two last axes; NaN where there is nothing to average."""
    n = np.isfinite(values).sum(axis=(-2, -1))
    return np.where(n > 0, np.nansum(values, axis=(-2, -1)) / np.maximum(n, 1), np.nan)


def top_dimensions(statistics: Mapping[Tower, TeacherStatistics], k: int = 5) -> list[xr.Dataset]:
    """The dimensions with the largest share of the dot product, by tower and teacher layer."""
    parts = []
    for tower, of_tower in statistics.items():
        index, share = of_tower.top_dimensions(k)
        dims = ("tower", "layer_a", "rank")
        variables = {"top_dimension": (dims, index.numpy()[None]), "top_dimension_share": (dims, share.numpy()[None])}
        coordinates = {"tower": [tower], "layer_a": np.arange(len(index)), "rank": np.arange(1, index.shape[1] + 1)}
        parts.append(xr.Dataset(variables, coords=coordinates))
    return parts


def derived(sums: xr.Dataset, confidence: float) -> xr.Dataset:
    """The dataset with all that follows from its sums; what followed before is replaced.

    Args:
        sums: a dataset that holds sums (and whatever is no sum, which stays).
        confidence: of the intervals.
    """
    data = sums = sums.assign_coords(moment=list(MOMENTS))
    for source, mean, low, high in _MEANS:
        if source in sums:
            dims, values = _interval(sums[source], confidence)
            data = data.assign({name: (dims, value) for name, value in zip((mean, low, high), values, strict=True)})
    tokens = sums["sum_angle"].sel(moment="count", drop=True)
    layer_tokens = sums["sum_layer_angle"].sel(moment="count", drop=True)
    data = data.assign(
        cosine=_ratio(sums["sum_cosine"], tokens),
        acute_fraction=_ratio(sums["sum_acute"], tokens),
        layer_acute_fraction=_ratio(sums["sum_acute"].sum(["layer_a", "layer_b"]) / 2, layer_tokens),
        n_tokens=tokens.astype(np.int64),
    )
    if "sum_null" in sums:
        data["null_angle_deg"] = _ratio(sums["sum_null"], sums["sum_null_tokens"])
        over_pairs = sums[["sum_null", "sum_null_tokens"]].sum(["layer_a", "layer_b"])
        data["layer_null_angle_deg"] = _ratio(over_pairs["sum_null"], over_pairs["sum_null_tokens"])
    if "sum_tokens" in sums:
        for pair in ("teacher_teacher", "teacher_student", "student_student"):
            data[f"distance_{pair}"] = _ratio(sums[f"sum_distance_{pair}"], sums["sum_tokens"])
        data["structured_cosine"] = _ratio(sums["sum_structured"], sums["sum_structured_tokens"])
        _drop_absent_layers(data, layer_tokens > 0)
    data = data.assign_coords(bin=np.round(np.linspace(-1, 1, data.sizes["bin"] + 1)[:-1], 12))
    for name in data.data_vars:
        if str(name).endswith(("angle_deg", "excess_deg", "ci_low", "ci_high", "excess_low", "excess_high")):
            data[name].attrs["units"] = "degree"
    return data


_MEANS = [
    ("sum_angle", "angle_deg", "ci_low", "ci_high"),
    ("sum_layer_angle", "layer_angle_deg", "layer_ci_low", "layer_ci_high"),
    ("sum_student_angle", "student_angle_deg", "student_ci_low", "student_ci_high"),
    ("sum_excess", "excess_deg", "excess_low", "excess_high"),
    ("sum_layer_excess", "layer_excess_deg", "layer_excess_low", "layer_excess_high"),
    ("sum_student_excess", "student_excess_deg", "student_excess_low", "student_excess_high"),
    ("sum_common_mode", "common_mode_ratio", "common_mode_low", "common_mode_high"),
    ("sum_student_common_mode", "student_common_mode_ratio", "student_common_mode_low", "student_common_mode_high"),
]


def _interval(moments: xr.DataArray, confidence: float) -> tuple[Dims, tuple[Array, Array, Array]]:
    clustered = ClusteredMean(*torch.from_numpy(np.ascontiguousarray(moments.values)).unbind(dim=-1))
    low, high = clustered.interval(confidence)
    values: tuple[Tensor, ...] = (clustered.mean(), low, high)
    return tuple(map(str, moments.dims[:-1])), (values[0].numpy(), values[1].numpy(), values[2].numpy())


def _ratio(total: xr.DataArray, count: xr.DataArray) -> xr.DataArray:
    """NaN where nothing was counted."""
    return total / count.where(count > 0)


def _drop_absent_layers(data: xr.Dataset, present: xr.DataArray) -> None:
    """NaN for distances to layers that are not measured."""
    here = present
    there = here.rename(student_layer="student_layer_b")
    data["distance_teacher_student"] = data["distance_teacher_student"].where(here)
    data["distance_student_student"] = data["distance_student_student"].where(here & there)


DERIVED = frozenset(
    [name for _, *names in _MEANS for name in names]
    + ["cosine", "acute_fraction", "layer_acute_fraction", "n_tokens", "null_angle_deg", "layer_null_angle_deg"]
    + ["distance_teacher_teacher", "distance_teacher_student", "distance_student_student", "structured_cosine"]
)


def additive(name: str) -> bool:
    """Whether the values of parts of the data add up to that of the whole."""
    return name.startswith("sum_") or name in ("histogram", "n_degenerate")


def combine(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put measurements that differ in student, step or tower into one dataset; nothing stands where there is none."""
    combined = xr.combine_by_coords(list(parts), join="outer", fill_value=_nothing(parts), **_COMBINING)
    if not isinstance(combined, xr.Dataset):
        raise TypeError("datasets combine to a dataset")
    # By order of appearance: combining sorts.
    order = {
        dim: list(dict.fromkeys(str(v) for part in parts for v in part[dim].values)) for dim in ("student", "tower")
    }
    return combined.sel(order).transpose(*_BEFORE, ..., missing_dims="ignore")


def join(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Put datasets of different students, at whatever steps, into one; nothing stands where there is none."""
    return xr.concat(list(parts), dim="student", join="outer", fill_value=_nothing(parts), **_COMBINING)


_COMBINING: Any = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "combine_attrs": "override"}


def _nothing(parts: Sequence[xr.Dataset]) -> dict[Any, Any]:
    """What stands for no measurement: a sum of 0, else NaN, or a hash of no letters."""
    by_kind = {"f": np.nan, "i": 0, "O": "", "U": ""}
    return {
        name: 0 if additive(str(name)) else by_kind[variable.dtype.kind]
        for part in parts
        for name, variable in part.data_vars.items()
    }


def placed(part: xr.Dataset, student_tower: StudentTower, steps: bool) -> xr.Dataset:
    """The measurement of one student tower, under its student, step and tower."""
    part = with_matched(part, student_tower.matched).expand_dims({"tower": [student_tower.tower]})
    if student_tower.r2:
        part["map_r2"] = (("tower", "student_layer"), np.array([student_tower.r2]))
    keys = {"student": [student_tower.student], **({"step": [student_tower.step]} if steps else {})}
    part = part.expand_dims(keys)
    part["weights_sha256"] = (tuple(keys), np.full([1] * len(keys), student_tower.weights_sha256, dtype=object))
    return part if steps else part.assign_coords(trained_steps=("student", [student_tower.step]))


def with_matched(part: xr.Dataset, matched: Sequence[LayerPair]) -> xr.Dataset:
    """With ``matched``: 1 where training matched a student layer to a teacher layer."""
    values = np.zeros((part.sizes["student_layer"], part.sizes["layer_a"]), dtype=np.int8)
    for student_layer, teacher_layer in matched:
        values[student_layer, teacher_layer] = 1
    return part.assign(matched=(("student_layer", "layer_a"), values))
