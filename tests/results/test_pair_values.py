"""One number per pair of teacher layers, against the angles of every token."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerangles import InputError
from layerangles.results.pair_values import AGGREGATIONS, QUANTITIES, Aggregation, pair_values
from layerangles.sums.angle_sums import N_BINS

Array = NDArray[np.float64]
SQUARE = ("student_layer", "layer_a", "layer_b")
BIN = 2 / N_BINS


def a_layer(cosines: Array) -> xr.Dataset:
    """Teacher layers 0 and 1, seen from two student layers, the second of which has no tokens."""
    n = len(cosines)
    angles = np.degrees(np.arccos(cosines))
    counts, _ = np.histogram(cosines, N_BINS, (-1, 1))

    def pair(value: Any, nothing: Any = np.nan) -> Array:
        square = np.full((2, 2, 2), nothing, dtype=type(value) if isinstance(value, int) else np.float64)
        square[0, 0, 1] = square[0, 1, 0] = value
        return square

    histogram = np.zeros((2, 2, 2, N_BINS), dtype=np.int64)
    histogram[0, 0, 1] = histogram[0, 1, 0] = counts
    return xr.Dataset(
        {
            "angle_deg": (SQUARE, pair(angles.mean())),
            "cosine": (SQUARE, pair(cosines.mean())),
            "acute_fraction": (SQUARE, pair((cosines > 0).mean())),
            "n_tokens": (SQUARE, pair(n, 0)),
            "histogram": ((*SQUARE, "bin"), histogram),
            "excess_deg": (("null", *SQUARE), np.stack([pair(angles.mean() - 60), pair(angles.mean() - 80)])),
        },
        coords={"null": ["N0", "N1"], "student_layer": [0, 1], "layer_a": [0, 1], "layer_b": [0, 1]},
    )


def of(data: xr.Dataset, aggregation: Aggregation, null: str | None = None) -> float:
    values = pair_values(data, aggregation, null)
    assert values.dims == SQUARE
    assert np.isnan(values.values[:, [0, 1], [0, 1]]).all()  # a layer makes no angle with itself
    assert np.isnan(values.values[1]).all()
    assert values.values[0, 0, 1] == values.values[0, 1, 0]
    return float(values.values[0, 0, 1])


cosines_of_tokens = st.lists(st.floats(-0.999, 0.999), min_size=1, max_size=60).map(np.array)


@settings(deadline=None, derandomize=True)
@given(cosines_of_tokens)
def test_aggregates_follow_from_the_angles_of_all_tokens(cosines: Array) -> None:
    data = a_layer(cosines)
    assert of(data, "mean") == np.degrees(np.arccos(cosines)).mean()
    assert of(data, "cosine") == pytest.approx(np.degrees(np.arccos(cosines.mean())), abs=1e-9)
    assert of(data, "acute") == pytest.approx(100 * (cosines > 0).mean(), abs=1e-9)


@settings(deadline=None, derandomize=True)
@given(cosines_of_tokens)
def test_the_median_is_exact_to_a_bin(cosines: Array) -> None:
    median = np.cos(np.radians(of(a_layer(cosines), "median")))
    ordered = np.sort(cosines)
    # For an even number of tokens, any cosine between the two middle ones is a median.
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    assert low - BIN - 1e-9 <= median <= high + BIN + 1e-9


def test_the_median_is_linear_within_a_bin() -> None:
    counts = np.zeros(N_BINS, dtype=np.int64)
    counts[[10, 100, 150]] = 2, 8, 2  # half of the 12 tokens lie 4/8 into bin 100, whose lower end is 0
    data = a_layer(np.array([0.0]))
    data["histogram"][0, 0, 1] = data["histogram"][0, 1, 0] = counts
    assert of(data, "median") == pytest.approx(np.degrees(np.arccos(BIN * 4 / 8)), abs=1e-9)
    counts[[10, 100, 150]] = 5, 8, 1  # the seventh of 14 is the second of 8
    data["histogram"][0, 0, 1] = data["histogram"][0, 1, 0] = counts
    assert of(data, "median") == pytest.approx(np.degrees(np.arccos(BIN * 2 / 8)), abs=1e-9)


def test_the_aggregates_of_skewed_angles_differ() -> None:
    data = a_layer(np.array([0.99, 0.99, -0.99]))
    values = [of(data, aggregation) for aggregation in AGGREGATIONS]
    expected = [np.degrees(np.arccos([0.99, 0.99, -0.99])).mean(), 8.1, np.degrees(np.arccos(0.33)), 200 / 3]
    assert values == pytest.approx(expected, abs=2)
    assert np.diff(sorted(values)).min() > 1


def test_large_counts_do_not_overflow() -> None:
    data = a_layer(np.array([0.5]))
    data["histogram"] = data["histogram"].astype(np.int32) * (2**31 - 1)
    data["histogram"][..., -1] = data["histogram"].max("bin")
    assert of(data.isel(student_layer=[0, 1]), "median") < 60


def test_the_excess_is_over_the_given_null() -> None:
    cosines = np.array([0.2, 0.4])
    data = a_layer(cosines)
    mean = np.degrees(np.arccos(cosines)).mean()
    assert of(data, "mean", "N0") == mean - 60
    assert of(data, "mean", "N1") == mean - 80


@pytest.mark.parametrize("aggregation", ["median", "cosine", "acute"])
def test_only_the_mean_has_an_excess(aggregation: Aggregation) -> None:
    with pytest.raises(InputError, match=f"the excess over N1 is known of mean angles alone, not of '{aggregation}'"):
        pair_values(a_layer(np.array([0.5])), aggregation, "N1")


def test_unknown_and_unmeasured_values_are_refused() -> None:
    unchecked = getattr(pair_values, "__wrapped__", pair_values)  # the import hook would refuse it first
    with pytest.raises(InputError, match=r"the aggregation is 'mode'; allowed are 'mean', 'median', 'cosine', 'acute'"):
        unchecked(a_layer(np.array([0.5])), "mode")
    with pytest.raises(InputError, match=r"the null 'N5' was not measured; measured were N0, N1\."):
        pair_values(a_layer(np.array([0.5])), "mean", "N5")
    without = a_layer(np.array([0.5])).drop_vars(["excess_deg", "histogram"]).drop_dims("null", errors="ignore")
    with pytest.raises(InputError, match=r"the null 'N1' was not measured; measured were none\."):
        pair_values(without, "mean", "N1")
    with pytest.raises(InputError, match="in gradient space there are no tokens, and so no median"):
        pair_values(without, "median")


def test_every_aggregate_has_a_title_and_a_unit() -> None:
    assert list(QUANTITIES) == list(AGGREGATIONS)
    assert [quantity.unit for quantity in QUANTITIES.values()] == ["°", "°", "°", " %"]
    assert len({quantity.title for quantity in QUANTITIES.values()}) == len(AGGREGATIONS)
