"""A resolved view explains missing parts and has the values of its results."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from toys.app_sources import renamed, snapshot_of, student, two_towers
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles
from layerangles.app.catalogue import Catalogue
from layerangles.app.sources import InMemory
from layerangles.app.views import ViewRequest, resolve
from layerangles.results.pair_values import AGGREGATIONS


@pytest.fixture(scope="module")
def gradients(study: ToyStudy) -> AngleResult:
    return measure_angles([study.identity, study.deeper], study.texts[:6], space="gradient", device="cpu")


@pytest.fixture(scope="module")
def deeper_alone(study: ToyStudy) -> AngleResult:
    return measure_angles(study.deeper, study.texts[:6], device="cpu")


# What is not there


@pytest.mark.parametrize("key", ["stranger", "../../etc/passwd", "/etc/passwd", "<b>", "Identity"])
def test_a_missing_student_is_reported(result: AngleResult, key: str) -> None:
    page = resolve(ViewRequest(first=key, second="deeper"), Catalogue([InMemory(result)]).read())
    assert page.view.first == key
    assert (page.first.entry, page.first.result, page.first.layer_view.data) == (None, None, None)
    assert page.first.layer_view == (key, None, f"there is no student {key!r} here")
    assert not page.first.can_be_measured
    assert page.second.layer_view.absence == ""
    assert list(page.table()) == ["layer_a", "layer_b", "second", "second_low", "second_high"]


def test_unmeasured_students_can_be_measured_if_they_have_weights(study: ToyStudy, result: AngleResult) -> None:
    snapshot = snapshot_of(student("identity", result, directory=study.identity), student("deeper", result))
    for way in ("pull", "gradient"):
        page = resolve(ViewRequest(way=way), snapshot)
        assert [side.layer_view.absence for side in page.sides] == [f"not measured in {way} space"] * 2
        assert [side.can_be_measured for side in page.sides] == [True, False]
        assert page.table().empty
    page = resolve(ViewRequest(), snapshot)
    assert [side.can_be_measured for side in page.sides] == [False, False]


def test_unusual_ways_cannot_be_measured_on_demand(study: ToyStudy, result: AngleResult) -> None:
    unit = measure_angles(study.deeper, study.texts[:6], preprocessing="unit", device="cpu")
    snapshot = snapshot_of(student("identity", result, directory=study.identity), student("deeper", unit))
    page = resolve(ViewRequest(way="teacher · unit"), snapshot)
    assert page.first.layer_view.absence == "not measured in this way (teacher · unit)"
    assert not page.first.can_be_measured
    assert page.second.result == unit
    assert "teacher · unit" in page.notes
    assert resolve(ViewRequest(way="teacher · raw"), snapshot).view.way == "teacher"


def test_missing_layers_and_maps_are_explained(
    study: ToyStudy, result: AngleResult, nulls: AngleResult, deeper_alone: AngleResult
) -> None:
    identity = AngleResult(nulls.dataset.sel(student=["identity"]).isel(student_layer=slice(3)))
    page = resolve(ViewRequest(layer=3), snapshot_of(student("identity", identity), student("deeper", deeper_alone)))
    assert page.first.layer_view.absence == "no student layer 3 here"
    assert page.second.layer_view.absence == ""
    page = resolve(ViewRequest(first="learned", second="wide-learned", layer=2), Catalogue([InMemory(result)]).read())
    assert [side.layer_view.absence for side in page.sides] == ["no map or no such layer, not measured", ""]
    assert "first" not in page.table()
    assert np.isfinite(page.table()["second"]).all()


def test_a_tower_can_be_chosen_and_may_be_missing(
    study: ToyStudy, result: AngleResult, deeper_alone: AngleResult
) -> None:
    both = two_towers(result)
    snapshot = snapshot_of(student("identity", both), student("deeper", deeper_alone))
    page = resolve(ViewRequest(), snapshot)
    assert page.towers == ["encoder", "decoder"]
    assert page.view.tower == "encoder"
    assert page.notes[0] == "from student layer 1 · encoder"
    page = resolve(ViewRequest(tower="decoder"), snapshot)
    assert [side.layer_view.absence for side in page.sides] == ["", "no decoder here"]
    expected = both.dataset["angle_deg"].sel(student="identity", tower="decoder", student_layer=1)
    assert page.first.layer_view.data is not None
    np.testing.assert_array_equal(page.first.layer_view.data["angle_deg"], expected)
    assert resolve(ViewRequest(tower="decoder"), snapshot_of(student("deeper", deeper_alone))).view.tower == "encoder"


# Nulls and aggregations


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ((None, None), ("mean", None)),
        (("mean", "N0"), ("mean", "N0")),
        ((None, "N1"), ("mean", "N1")),
        (("median", "N1"), ("median", None)),
        (("cosine", "N0"), ("cosine", None)),
        (("acute", None), ("acute", None)),
        (("mode", "N1"), ("mean", "N1")),
        (("mean", "N5"), ("mean", None)),
    ],
)
def test_an_excess_needs_the_mean_and_a_measured_null(
    nulls: AngleResult, asked: tuple[str | None, str | None], shown: tuple[str, str | None]
) -> None:
    page = resolve(ViewRequest(aggregation=asked[0], null=asked[1]), Catalogue([InMemory(nulls)]).read())
    assert page.nulls == ["N0", "N1"]
    assert (page.view.aggregation, page.view.null) == shown


def test_a_null_missing_on_one_side_is_reported_there(nulls: AngleResult, deeper_alone: AngleResult) -> None:
    page = resolve(ViewRequest(null="N0"), snapshot_of(student("identity", nulls), student("deeper", deeper_alone)))
    assert [side.layer_view.absence for side in page.sides] == ["", "N0 was not measured here"]
    assert list(page.table()) == ["layer_a", "layer_b", "first", "first_low", "first_high"]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradient_space_has_no_tokens_and_so_no_median(gradients: AngleResult, aggregation: str) -> None:
    page = resolve(ViewRequest(way="gradient", aggregation=aggregation), Catalogue([InMemory(gradients)]).read())
    assert page.view.aggregation == ("mean" if aggregation == "median" else aggregation)
    assert np.isfinite(page.table()["first"]).all()
    assert page.nulls == []


# The table


@pytest.mark.parametrize("layer", [1, 2])
def test_the_table_has_the_values_of_the_result(nulls: AngleResult, layer: int) -> None:
    snapshot = Catalogue([InMemory(nulls)]).read()
    pairs = list(combinations(range(5), 2))
    data = nulls.dataset.sel(tower="encoder", student_layer=layer)

    def expected(name: str, student: str, **of_null: str) -> list[float]:
        values = data[name].sel(student=student, **of_null)
        return [float(values.sel(layer_a=a, layer_b=b)) for a, b in pairs]

    page = resolve(ViewRequest(layer=layer), snapshot)
    table = page.table()
    ends = [f"{name}{end}" for name in ("first", "second") for end in ("", "_low", "_high")]
    assert list(table) == ["layer_a", "layer_b", *ends, "second_minus_first"]
    assert list(zip(table["layer_a"], table["layer_b"], strict=True)) == pairs
    for side, name in (("first", "identity"), ("second", "deeper")):
        assert table[side].tolist() == expected("angle_deg", name)
        assert table[f"{side}_low"].tolist() == expected("ci_low", name)
        assert table[f"{side}_high"].tolist() == expected("ci_high", name)
    np.testing.assert_array_equal(table["second_minus_first"], table["second"] - table["first"])
    assert table["second_minus_first"].abs().max() > 1

    table = resolve(ViewRequest(layer=layer, null="N1"), snapshot).table()
    for side, name in (("first", "identity"), ("second", "deeper")):
        assert table[side].tolist() == expected("excess_deg", name, null="N1")
        assert table[f"{side}_low"].tolist() == expected("excess_low", name, null="N1")
        assert table[f"{side}_high"].tolist() == expected("excess_high", name, null="N1")

    table = resolve(ViewRequest(layer=layer, aggregation="acute"), snapshot).table()
    assert list(table) == ["layer_a", "layer_b", "first", "second", "second_minus_first"]
    assert table["second"].tolist() == [100 * share for share in expected("acute_fraction", "deeper")]
    table = resolve(ViewRequest(layer=layer, aggregation="cosine"), snapshot).table()
    assert table["first"].tolist() == pytest.approx(np.degrees(np.arccos(expected("cosine", "identity"))))
    medians = resolve(ViewRequest(layer=layer, aggregation="median"), snapshot).table()["first"]
    assert np.abs(medians - expected("angle_deg", "identity")).max() < 20
    assert medians.tolist() != expected("angle_deg", "identity")


def test_teachers_of_different_depth_share_the_rows_that_both_have(result: AngleResult, nulls: AngleResult) -> None:
    shallow = AngleResult(nulls.dataset.isel(layer_a=slice(3), layer_b=slice(3)))
    page = resolve(ViewRequest(), snapshot_of(student("identity", result), student("deeper", shallow)))
    table = page.table()
    assert len(table) == 10
    there = table["layer_b"] < 3
    assert table["second"].notna().tolist() == there.tolist()
    assert table["second_minus_first"].notna().tolist() == there.tolist()
    assert page.teacher_layers == [0, 1, 2, 3, 4]


# Notes


def test_notes_describe_the_view(nulls: AngleResult) -> None:
    notes = resolve(ViewRequest(layer=2), Catalogue([InMemory(nulls)]).read()).notes
    assert notes == ("from student layer 2", "teacher space", "mean over tokens of 8 texts")


def test_notes_warn_of_different_texts_or_teachers(result: AngleResult, nulls: AngleResult) -> None:
    def notes_of(other: AngleResult) -> tuple[str, ...]:
        return resolve(ViewRequest(), snapshot_of(student("identity", result), student("deeper", other))).notes[3:]

    assert notes_of(result) == ()
    assert notes_of(nulls) == ("the two have different texts: their difference is not theirs alone",)
    stranger = AngleResult(nulls.dataset.assign_attrs(teacher_weights_sha256="0" * 64))
    assert notes_of(stranger) == (
        "the two have different texts: their difference is not theirs alone",
        "the two have different teachers: their difference is not theirs alone",
    )
    same_texts = AngleResult(result.dataset.assign_attrs(teacher_weights_sha256="0" * 64))
    assert notes_of(same_texts) == ("the two have different teachers: their difference is not theirs alone",)


# Results in memory


def test_a_result_in_memory_is_shown(study: ToyStudy, result: AngleResult) -> None:
    snapshot = snapshot_of(student("identity", directory=study.identity), student("deeper"))
    asked = []

    def unkept(key: str, way: str) -> AngleResult | None:
        asked.append((key, way))
        return result if (key, way) == ("identity", "pull") else None

    page = resolve(ViewRequest(way="pull"), snapshot, unkept)
    assert page.first.result == result
    assert not page.first.can_be_measured
    assert ("identity", "pull") in asked
    page = resolve(ViewRequest(way="teacher"), snapshot, unkept)
    assert page.first.result is None
    assert page.first.can_be_measured


def test_the_first_result_with_the_step_is_shown(stepped: AngleResult, tmp_path: Path) -> None:
    def at(*steps: int) -> AngleResult:
        return AngleResult(stepped.dataset.sel(step=list(steps)).assign_attrs(note=str(steps)))

    results = [at(0), at(0, 10), at(10, 20)]
    snapshot = snapshot_of(student("early", *results))
    shown = [resolve(ViewRequest(step=step), snapshot).first.result for step in (0, 10, 20)]
    assert shown == results


def test_a_student_under_another_key_is_found_in_its_result(result: AngleResult, nulls: AngleResult) -> None:
    one, two = (InMemory(renamed(r, "identity", "deeper"), name) for r, name in ((result, "one"), (nulls, "two")))
    page = resolve(ViewRequest(first="one: identity", second="two: identity"), Catalogue([one, two]).read())
    for side, of_result in zip(page.sides, (result, nulls), strict=True):
        expected = of_result.dataset["angle_deg"].sel(student="identity", tower="encoder", student_layer=1)
        assert side.layer_view.data is not None
        np.testing.assert_array_equal(side.layer_view.data["angle_deg"], expected)
    assert [side.layer_view.label for side in page.sides] == [
        "one: identity, final state",
        "two: identity, final state",
    ]
