"""Everything that a measurement stores is in the table of variables, and follows from its sums as the table says."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles
from layerangles.results.derivation import derived
from layerangles.results.variables import DERIVED, DIMS, MEASURED, SUMS, VARIABLES

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "results" / "movie-reviews"
FORMATS = ROOT / "docs" / "formats.md"
BEFORE = {"student", "step", "tower"}


@pytest.fixture(scope="module")
def measured(study: ToyStudy) -> dict[str, xr.Dataset]:
    """Results that together hold every variable."""
    settings = {
        "all alternatives": {"alternatives": "all", "nulls": ("N0", "N1")},
        "fitted": {"fit": "ridge"},
        "gradients": {"space": "gradient", "gradient_batches": 2},
        "paper": {"convention": "paper", "max_length": 12},
    }
    students = [study.identity, study.deeper]
    return {
        name: measure_angles(students, study.texts, device="cpu", **some).dataset for name, some in settings.items()
    }


def test_every_stored_variable_has_the_dimensions_of_the_table(measured: dict[str, xr.Dataset]) -> None:
    for name, dataset in measured.items():
        for variable, values in dataset.data_vars.items():
            dims = [dim for dim in values.dims if dim not in BEFORE | {"moment"}]
            assert dims == list(DIMS[str(variable)]), f"{variable}, {name}"


def test_every_variable_of_the_table_is_measured_somewhere(measured: dict[str, xr.Dataset]) -> None:
    stored = {name for dataset in measured.values() for name in dataset.data_vars}
    assert set(DIMS) - stored == set()


def test_sums_have_a_moment_axis_exactly_where_they_have_an_interval(measured: dict[str, xr.Dataset]) -> None:
    dataset = measured["all alternatives"]
    clustered = {one.name for variable in VARIABLES.values() if variable.is_clustered for one in variable.sums}
    assert {name for name in SUMS if "moment" in dataset[name].dims} == clustered


def test_everything_derived_follows_from_the_sums_of_a_stored_result() -> None:
    """The stored numbers were derived by an earlier version, on another machine."""
    for file in sorted((STUDY / "angles").glob("*.nc")):
        stored = AngleResult.load(file).dataset
        again = derived(stored.drop_vars(DERIVED, errors="ignore"), stored.attrs["confidence"])
        assert set(again.data_vars) == set(stored.data_vars)
        for name in DERIVED & set(stored.data_vars):
            assert again[name].attrs == stored[name].attrs
            np.testing.assert_allclose(again[name], stored[name], rtol=0, atol=1e-12, err_msg=name)


def test_shares_over_pairs_are_those_of_all_tokens(measured: dict[str, xr.Dataset]) -> None:
    dataset = measured["all alternatives"]
    tokens = dataset["sum_layer_angle"].sel(moment="count", drop=True)
    acute = dataset["sum_acute"].sum(["layer_a", "layer_b"]) / 2
    expected = acute / tokens.where(tokens > 0)
    np.testing.assert_array_equal(dataset["layer_acute_fraction"], expected.transpose(*acute.dims))


def test_distances_to_layers_that_were_not_measured_are_missing(measured: dict[str, xr.Dataset]) -> None:
    """The shallower student lacks the last layer, where sums are 0 and the number of tokens is not."""
    dataset = measured["all alternatives"].sel(student="identity", tower="encoder")
    for name in ("distance_teacher_student", "distance_student_student"):
        assert dataset[name].isel(student_layer=-1).isnull().all()
        assert dataset[name].sel(student_layer=0)[0].notnull()
    assert dataset["distance_student_student"].isel(student_layer_b=-1).isnull().all()


def test_every_attribute_of_a_result_is_documented(result: AngleResult) -> None:
    page = FORMATS.read_text(encoding="utf-8")
    assert [name for name in result.dataset.attrs if f"`{name}`" not in page] == []


def test_names_are_unique() -> None:
    names = [name for variable in VARIABLES.values() for name in (variable.name, *variable.ends)]
    assert len(names) == len(set(names))
    assert len({variable.name for variable in MEASURED}) == len(MEASURED)
    assert all(variable.label and variable.meaning for variable in MEASURED)
