"""Labelled datasets from sums over tokens, a sample of tokens, and gradients.

A result keeps its sums, and everything else is derived from them, so that results on parts of the data add up to the
result on the whole.
"""

from collections.abc import Mapping
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
from layerangles.layers import Tower
from layerangles.results.variables import DIMS, SUMS
from layerangles.sums.angle_sums import AngleSums
from layerangles.sums.clustered_interval import MOMENTS
from layerangles.sums.clustered_mean import ClusteredMean
from layerangles.sums.relation_sums import RelationSums
from layerangles.sums.token_sample import TokenSample

Array = npt.NDArray[Any]


def label_values(values: Mapping[str, Array], **coordinates: Any) -> xr.Dataset:
    """Variables of one student tower as a dataset, with the dimensions in the table of variables.

    Args:
        values: arrays by variable; clustered sums have their moments on the last axis.
        coordinates: coordinates of dimensions other than layers, which are numbered from 0.
    """
    variables = {}
    for name, value in values.items():
        moment = ("moment",) if value.ndim > len(DIMS[name]) else ()
        variables[name] = (DIMS[name] + moment, value)
    dataset = xr.Dataset(variables, coords=coordinates)
    layers = [dim for dim in dataset.dims if "layer" in str(dim)]
    return dataset.assign_coords({dim: np.arange(dataset.sizes[dim]) for dim in layers})


def label_sums(sums: AngleSums | RelationSums, tower: StudentTower, n_teacher_layers: int) -> xr.Dataset:
    """All sums of one student tower; 0 in layers that are not measured.

    Args:
        sums: sums over the measured layers of the tower.
        tower: the student tower.
        n_teacher_layers: number of teacher layers, including the embedding output.
    """
    nulls = sums.nulls if isinstance(sums, AngleSums) else ()
    found = {}
    for one in SUMS.values():
        value, dims = getattr(sums, one.attribute, None), DIMS[one.name]
        if value is None or ("null" in dims and not nulls):
            continue
        if isinstance(value, ClusteredMean):
            value = torch.stack([getattr(value, moment) for moment in MOMENTS], dim=-1)
            dims = (*dims, "moment")
        array = value.cpu().numpy()
        for dim in ("student_layer", "student_layer_b"):
            if dim in dims:
                array = _scatter(array, dims.index(dim), tower)
        if array.ndim < len(dims):  # pairs of teacher layers share an axis
            array = _pairs_to_matrix(array, dims.index("layer_a"), n_teacher_layers)
        found[one.name] = array
    return label_values(found, **({"null": np.array(nulls, dtype=object)} if nulls else {}))


def label_sample(sample: TokenSample, tower: StudentTower, n_teacher_layers: int) -> xr.Dataset:
    """Debiased CKA and recoverability gap of one student tower; NaN in layers that are not measured."""
    cka, t = debiased_cka([*sample.teacher, *sample.student]).numpy(), n_teacher_layers
    gap = recoverability_gap(sample.teacher, sample.student, sample.example).numpy()
    return label_values(
        {
            "cka_teacher_teacher": cka[:t, :t],
            "cka_teacher_student": _scatter(cka[t:, :t], 0, tower, np.nan),
            "cka_student_student": _scatter(_scatter(cka[t:, t:], 0, tower, np.nan), 1, tower, np.nan),
            "recoverability_gap": _scatter(gap, 0, tower, np.nan),
        }
    )


def label_gradients(products: Float[Tensor, "view teacher_layer teacher_layer"], tower: StudentTower) -> xr.Dataset:
    """Angles between gradients, by student layer and for the whole student (``whole_angle_deg``, ``whole_cosine``).

    Gradients are summed over all tokens, so that there is one angle per pair and layer: it has no interval, and
    ``n_tokens`` is 1 where it is defined.
    """
    cosines = gradient_cosines(products).numpy()
    n_teacher = cosines.shape[-1]
    cosines[:, range(n_teacher), range(n_teacher)] = np.nan  # a layer makes no angle with itself
    angles = np.rad2deg(np.arccos(cosines))
    cosine, angle = (_scatter(values[:-1], 0, tower, np.nan) for values in (cosines, angles))
    defined = np.isfinite(cosine)
    acute = np.where(defined, cosine > 0, np.nan)
    no_interval, no_interval_of_layer = np.full(cosine.shape, np.nan), np.full(tower.n_layers, np.nan)
    return label_values(
        {
            "cosine": cosine,
            "angle_deg": angle,
            "acute_fraction": acute,
            "ci_low": no_interval,
            "ci_high": no_interval,
            "n_tokens": defined.astype(np.int64),
            "n_degenerate": np.zeros(defined.shape, dtype=np.int64),
            "layer_angle_deg": _mean_over_pairs(angle),
            "layer_acute_fraction": _mean_over_pairs(acute),
            "layer_ci_low": no_interval_of_layer,
            "layer_ci_high": no_interval_of_layer,
            "whole_cosine": cosines[-1],
            "whole_angle_deg": angles[-1],
        }
    )


def _mean_over_pairs(values: Array) -> Array:
    """Mean over the two last axes, without NaN; NaN if there is nothing else."""
    n = np.isfinite(values).sum(axis=(-2, -1))
    return np.where(n > 0, np.nansum(values, axis=(-2, -1)) / np.maximum(n, 1), np.nan)


def label_top_dimensions(statistics: Mapping[Tower, TeacherStatistics], k: int = 5) -> xr.Dataset:
    """The ``k`` dimensions with the largest shares of the dot product, by tower and teacher layer."""
    parts = []
    for tower, of_tower in statistics.items():
        index, share = (values.numpy() for values in of_tower.top_dimensions(k))
        rank = np.arange(1, index.shape[1] + 1)
        part = label_values({"top_dimension": index, "top_dimension_share": share}, rank=rank)
        parts.append(part.expand_dims({"tower": [tower]}))
    return xr.concat(parts, dim="tower", join="outer", data_vars="all", coords="minimal", compat="override")


def label_student(part: xr.Dataset, tower: StudentTower, *, steps: bool) -> xr.Dataset:
    """Add the dimensions ``student``, ``step`` and ``tower``, matched layers, and the hash of the weights.

    Args:
        part: the measurement of one student tower.
        tower: the student tower.
        steps: whether the result has a ``step`` dimension.
    """
    matched = np.zeros((part.sizes["student_layer"], part.sizes["layer_a"]), dtype=np.int8)
    for student_layer, teacher_layer in tower.matched:
        matched[student_layer, teacher_layer] = 1
    part = part.assign(matched=(DIMS["matched"], matched))
    if tower.r2:
        part = part.assign(map_r2=(DIMS["map_r2"], np.array(tower.r2)))
    keys = {"student": [tower.student], **({"step": [tower.step]} if steps else {})}
    part = part.expand_dims(keys | {"tower": [tower.tower]})
    part["weights_sha256"] = (tuple(keys), np.full([1] * len(keys), tower.weights_sha256, dtype=object))
    return part if steps else part.assign_coords(trained_steps=("student", [tower.step]))


def _scatter(array: Array, axis: int, tower: StudentTower, fill: float = 0) -> Array:
    """Spread an axis of measured layers over all layers of the tower, with ``fill`` in the others."""
    out = np.full((*array.shape[:axis], tower.n_layers, *array.shape[axis + 1 :]), fill, dtype=array.dtype)
    out[(slice(None),) * axis + (list(tower.layers),)] = array
    return out


def _pairs_to_matrix(array: Array, axis: int, n_layers: int) -> Array:
    """Turn an axis of pairs into two axes of layers, symmetric, with 0 on the diagonal."""
    a, b = (index.numpy() for index in layer_pairs(n_layers))
    out = np.zeros((*array.shape[:axis], n_layers, n_layers, *array.shape[axis + 1 :]), dtype=array.dtype)
    before: tuple[Any, ...] = (slice(None),) * axis
    out[(*before, a, b)] = out[(*before, b, a)] = array
    return out
