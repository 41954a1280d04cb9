"""A view and what is there make a page: what is chosen, what is shown, what is missing and why."""

from collections.abc import Sequence
from dataclasses import astuple
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from toys.app_sources import Stub, named, renamed
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles
from layerangles.app.catalogue import WAYS, Catalogue, Snapshot
from layerangles.app.sources import InMemory, Student
from layerangles.app.views import ResolvedView, ViewRequest, resolve
from layerangles.results.pair_values import AGGREGATIONS


def snapshot_of(*students: Student) -> Snapshot:
    return Catalogue([Stub(found=students)]).read()


def of(name: str, *results: AngleResult, directory: Path | None = None) -> Student:
    return Student(name, directory, lambda: results)


@pytest.fixture(scope="module")
def stepped(study_with_steps: Sequence[Path], study: ToyStudy) -> AngleResult:
    return measure_angles(study_with_steps, study.texts[:6], steps=True, device="cpu")


@pytest.fixture(scope="module")
def nulls(study: ToyStudy) -> AngleResult:
    """ "identity" and "deeper" with two nulls."""
    return measure_angles([study.identity, study.deeper], study.texts[:6], nulls=("N0", "N1"), device="cpu")


@pytest.fixture(scope="module")
def gradients(study: ToyStudy) -> AngleResult:
    return measure_angles([study.identity, study.deeper], study.texts[:6], space="gradient", device="cpu")


@pytest.fixture(scope="module")
def deeper_alone(study: ToyStudy) -> AngleResult:
    return measure_angles(study.deeper, study.texts[:6], device="cpu")


def two_towers(result: AngleResult) -> AngleResult:
    """The result, and a decoder whose angles are all a degree larger."""
    encoder = result.dataset
    decoder = encoder.assign_coords(tower=["decoder"])
    decoder = decoder.assign(angle_deg=decoder["angle_deg"] + 1)
    both = xr.concat(
        [encoder, decoder], "tower", data_vars="minimal", coords="minimal", compat="override", join="outer"
    )
    return AngleResult(both.assign_attrs(encoder.attrs))


# What a view leaves open


def test_everything_that_is_left_open_is_chosen(result: AngleResult) -> None:
    page = resolve(ViewRequest(), Catalogue([InMemory(result)]).read())
    assert page.view == ViewRequest(
        first="identity",
        second="deeper",
        layer=1,
        tower="encoder",
        way="teacher",
        aggregation="mean",
        low=1,
        high=4,
    )
    assert (page.steps, page.layers, page.towers, page.nulls) == ([], [0, 1, 2, 3], ["encoder"], ["N1"])
    assert page.teacher_layers == [0, 1, 2, 3, 4]
    assert [side.step for side in page.sides] == [None, None]
    assert [side.result for side in page.sides] == [result, result]
    assert [side.sight.label for side in page.sides] == ["identity, final state", "deeper, final state"]


def test_to_begin_with_another_strategy_of_the_same_seed() -> None:
    names = ["a-seed0", "a-seed1", "b-seed0", "b-seed1", "c"]
    snapshot = Catalogue([Stub(found=named(*names))]).read()

    def chosen(first: str | None, second: str | None = None) -> tuple[str | None, str | None]:
        view = resolve(ViewRequest(first=first, second=second), snapshot).view
        return view.first, view.second

    assert chosen(None) == ("a-seed0", "b-seed0")
    assert chosen("a-seed1") == ("a-seed1", "b-seed1")
    assert chosen("b-seed1") == ("b-seed1", "a-seed1")
    assert chosen("c") == ("c", "a-seed0")  # none without a seed: any other
    assert chosen("b-seed0", "b-seed0") == ("b-seed0", "b-seed0")  # as was asked for
    assert chosen(None, "c") == ("a-seed0", "c")
    assert chosen("stranger") == ("stranger", "a-seed0")


def test_a_single_student_is_compared_with_itself_and_none_with_none() -> None:
    view = resolve(ViewRequest(), Catalogue([Stub(found=named("a"))]).read()).view
    assert (view.first, view.second) == ("a", "a")
    page = resolve(ViewRequest(), Snapshot({}, Stub().table))
    assert [side.entry for side in page.sides] == [None, None]
    assert page.table().empty


def test_a_layer_that_is_not_there_gives_way_to_the_first_block(result: AngleResult) -> None:
    snapshot = Catalogue([InMemory(result)]).read()
    assert [resolve(ViewRequest(layer=layer), snapshot).view.layer for layer in (0, 3, 4, None)] == [0, 3, 1, 1]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ((0, 3), (0, 3)),
        ((3, 0), (3, 0)),
        ((2, 2), (1, 4)),
        ((2, 9), (1, 4)),
        ((None, 2), (1, 4)),
    ],
)
def test_the_pair_of_teacher_layers(result: AngleResult, asked: tuple[int, int], shown: tuple[int, int]) -> None:
    view = resolve(ViewRequest(low=asked[0], high=asked[1]), Catalogue([InMemory(result)]).read()).view
    assert (view.low, view.high) == shown


def test_a_teacher_of_one_block_and_nothing_measured(result: AngleResult) -> None:
    shallow = AngleResult(result.dataset.isel(layer_a=slice(2), layer_b=slice(2)))
    view = resolve(ViewRequest(), Catalogue([InMemory(shallow)]).read()).view
    assert (view.low, view.high) == (0, 1)
    view = resolve(ViewRequest(), Catalogue([Stub(found=named("a"))]).read()).view
    assert (view.low, view.high, view.layer, view.tower) == (None, None, None, None)


integers = st.none() | st.integers(0, 999_999_999) | st.integers(0, 40)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.builds(
        ViewRequest,
        first=st.sampled_from([None, "late", "early", "other", "../late"]),
        second=st.sampled_from([None, "late", "early", "other", "%2e%2e"]),
        **dict.fromkeys(["step", "first_step", "second_step", "layer", "low", "high"], integers),
        tower=st.sampled_from([None, "encoder", "decoder", "x"]),
        way=st.sampled_from([None, *WAYS, "teacher · paper"]),
        null=st.sampled_from([None, "N1", "N7"]),
        aggregation=st.sampled_from([None, *AGGREGATIONS, "mode"]),
    )
)
def test_any_view_makes_a_page_whose_view_is_complete_and_stays(stepped: AngleResult, view: ViewRequest) -> None:
    snapshot = Catalogue([InMemory(stepped), Stub(found=named("other"))]).read()
    page = resolve(view, snapshot)
    for name, value in zip(view.__dataclass_fields__, astuple(view), strict=True):
        if value is not None and name in ("first", "second", "step", "first_step", "second_step"):
            assert getattr(page.view, name) == value  # what is not there is said, not replaced
    again = resolve(page.view, snapshot)
    assert again.view == page.view
    for side in page.sides:
        assert (side.sight.data is not None) >= (not side.sight.absence)
        assert side.sight.label
    assert isinstance(page.notes, tuple)
    table = page.table()
    assert len(table) in (0, 10)


# Steps


def labels(page: ResolvedView) -> list[str]:
    return [side.sight.absence or side.sight.label for side in page.sides]


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (ViewRequest(), ["late, step 30", "no checkpoint at step 30; 0, 10, 20 are"]),
        (ViewRequest(step=10), ["late, step 10", "early, step 10"]),
        (ViewRequest(step=0), ["no checkpoint at step 0; 10, 30 are", "early, step 0"]),
        (ViewRequest(step=15), ["no checkpoint at step 15; 10, 30 are", "no checkpoint at step 15; 0, 10, 20 are"]),
        (ViewRequest(step=10, first_step=30, second_step=20), ["late, step 30", "early, step 20"]),
        (ViewRequest(step=10, second_step=0), ["late, step 10", "early, step 0"]),
        (ViewRequest(step=0, first_step=10), ["late, step 10", "early, step 0"]),
    ],
)
def test_the_step_of_the_slider_and_those_that_are_fixed(
    stepped: AngleResult, view: ViewRequest, shown: list[str]
) -> None:
    page = resolve(view, Catalogue([InMemory(stepped)]).read())
    assert page.steps == [0, 10, 20, 30]
    assert labels(page) == shown


def test_the_numbers_are_those_of_the_step(stepped: AngleResult) -> None:
    snapshot = Catalogue([InMemory(stepped)]).read()
    for step in (10, 30):
        page = resolve(ViewRequest(first="late", first_step=step, layer=2), snapshot)
        assert page.first.step == step
        expected = stepped.dataset["angle_deg"].sel(student="late", step=step, tower="encoder", student_layer=2)
        assert page.first.sight.data is not None
        np.testing.assert_array_equal(page.first.sight.data["angle_deg"], expected)
        assert np.isfinite(expected).any()


def test_a_student_of_one_state_stands_at_the_end_of_the_others_course(
    stepped: AngleResult, result: AngleResult
) -> None:
    snapshot = snapshot_of(of("early", stepped), of("identity", result))
    assert labels(resolve(ViewRequest(), snapshot)) == ["early, step 20", "identity, final state"]
    assert labels(resolve(ViewRequest(step=10), snapshot)) == [
        "early, step 10",
        "no checkpoint at step 10: the final state alone is here",
    ]
    assert (
        labels(resolve(ViewRequest(first="identity", second="identity", step=10), snapshot))[0]
        == "identity, final state"
    )


def test_a_measurement_of_the_final_state_is_that_of_the_last_step(
    study_with_steps: Sequence[Path], study: ToyStudy
) -> None:
    final = measure_angles(study_with_steps[0], study.texts[:6], device="cpu")
    snapshot = snapshot_of(of("late", final, directory=study_with_steps[0]))
    last, first = (resolve(ViewRequest(step=step), snapshot).first for step in (30, 10))
    assert (last.sight.label, last.sight.absence, last.result) == ("late, step 30", "", final)
    assert (first.sight.label, first.sight.absence) == ("late, step 10", "not measured in teacher space")
    assert first.can_be_measured
    assert not last.can_be_measured


def test_a_step_of_another_student_in_the_same_result_is_no_measurement(
    study_with_steps: Sequence[Path], stepped: AngleResult, tmp_path: Path
) -> None:
    late, _ = study_with_steps
    (tmp_path / "late" / "checkpoints").mkdir(parents=True)
    (tmp_path / "late" / "matching.json").write_bytes((late / "matching.json").read_bytes())
    for step in (10, 20):  # 20 was measured of "early" alone
        (tmp_path / "late" / "checkpoints" / f"step-{step}").mkdir()
        (tmp_path / "late" / "checkpoints" / f"step-{step}" / "matching.json").touch()
    snapshot = snapshot_of(of("late", stepped, directory=tmp_path / "late"))
    side = resolve(ViewRequest(step=20), snapshot).first
    assert (side.sight.absence, side.can_be_measured) == ("not measured in teacher space", True)


# What is not there


@pytest.mark.parametrize("key", ["stranger", "../../etc/passwd", "/etc/passwd", "<b>", "Identity"])
def test_a_student_that_is_not_here_is_said(result: AngleResult, key: str) -> None:
    page = resolve(ViewRequest(first=key, second="deeper"), Catalogue([InMemory(result)]).read())
    assert page.view.first == key
    assert (page.first.entry, page.first.result, page.first.sight.data) == (None, None, None)
    assert page.first.sight == (key, None, f"there is no student {key!r} here")
    assert not page.first.can_be_measured
    assert page.second.sight.absence == ""
    assert list(page.table()) == ["layer_a", "layer_b", "second", "second_low", "second_high"]


def test_what_was_not_measured_can_be_where_the_weights_are(study: ToyStudy, result: AngleResult) -> None:
    snapshot = snapshot_of(of("identity", result, directory=study.identity), of("deeper", result))
    for way in ("pull", "gradient"):
        page = resolve(ViewRequest(way=way), snapshot)
        assert [side.sight.absence for side in page.sides] == [f"not measured in {way} space"] * 2
        assert [side.can_be_measured for side in page.sides] == [True, False]
        assert page.table().empty
    page = resolve(ViewRequest(), snapshot)
    assert [side.can_be_measured for side in page.sides] == [False, False]


def test_a_way_of_its_own_cannot_be_measured_on_demand(study: ToyStudy, result: AngleResult) -> None:
    unit = measure_angles(study.deeper, study.texts[:6], preprocessing="unit", device="cpu")
    snapshot = snapshot_of(of("identity", result, directory=study.identity), of("deeper", unit))
    page = resolve(ViewRequest(way="teacher · unit"), snapshot)
    assert page.first.sight.absence == "not measured in this way (teacher · unit)"
    assert not page.first.can_be_measured
    assert page.second.result == unit
    assert "teacher · unit" in page.notes
    assert resolve(ViewRequest(way="teacher · raw"), snapshot).view.way == "teacher"


def test_layers_and_maps_that_are_not_there(
    study: ToyStudy, result: AngleResult, nulls: AngleResult, deeper_alone: AngleResult
) -> None:
    identity = AngleResult(nulls.dataset.sel(student=["identity"]).isel(student_layer=slice(3)))
    page = resolve(ViewRequest(layer=3), snapshot_of(of("identity", identity), of("deeper", deeper_alone)))
    assert page.first.sight.absence == "no student layer 3 here"
    assert page.second.sight.absence == ""
    page = resolve(ViewRequest(first="learned", second="wide-learned", layer=2), Catalogue([InMemory(result)]).read())
    assert [side.sight.absence for side in page.sides] == ["no map or no such layer, not measured", ""]
    assert "first" not in page.table()
    assert np.isfinite(page.table()["second"]).all()


def test_towers(study: ToyStudy, result: AngleResult, deeper_alone: AngleResult) -> None:
    both = two_towers(result)
    snapshot = snapshot_of(of("identity", both), of("deeper", deeper_alone))
    page = resolve(ViewRequest(), snapshot)
    assert page.towers == ["encoder", "decoder"]
    assert page.view.tower == "encoder"
    assert page.notes[0] == "from student layer 1 · encoder"
    page = resolve(ViewRequest(tower="decoder"), snapshot)
    assert [side.sight.absence for side in page.sides] == ["", "no decoder here"]
    expected = both.dataset["angle_deg"].sel(student="identity", tower="decoder", student_layer=1)
    assert page.first.sight.data is not None
    np.testing.assert_array_equal(page.first.sight.data["angle_deg"], expected)
    assert resolve(ViewRequest(tower="decoder"), snapshot_of(of("deeper", deeper_alone))).view.tower == "encoder"


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
def test_an_excess_is_shown_of_the_mean_alone_and_over_what_was_measured(
    nulls: AngleResult, asked: tuple[str | None, str | None], shown: tuple[str, str | None]
) -> None:
    page = resolve(ViewRequest(aggregation=asked[0], null=asked[1]), Catalogue([InMemory(nulls)]).read())
    assert page.nulls == ["N0", "N1"]
    assert (page.view.aggregation, page.view.null) == shown


def test_a_null_that_one_of_the_two_lacks(nulls: AngleResult, deeper_alone: AngleResult) -> None:
    page = resolve(ViewRequest(null="N0"), snapshot_of(of("identity", nulls), of("deeper", deeper_alone)))
    assert [side.sight.absence for side in page.sides] == ["", "N0 was not measured here"]
    assert list(page.table()) == ["layer_a", "layer_b", "first", "first_low", "first_high"]


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradient_space_has_no_tokens_and_so_no_median(gradients: AngleResult, aggregation: str) -> None:
    page = resolve(ViewRequest(way="gradient", aggregation=aggregation), Catalogue([InMemory(gradients)]).read())
    assert page.view.aggregation == ("mean" if aggregation == "median" else aggregation)
    assert np.isfinite(page.table()["first"]).all()
    assert page.nulls == []


# The table


@pytest.mark.parametrize("layer", [1, 2])
def test_the_table_has_the_numbers_of_the_result(nulls: AngleResult, layer: int) -> None:
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
    for side, student in (("first", "identity"), ("second", "deeper")):
        assert table[side].tolist() == expected("angle_deg", student)
        assert table[f"{side}_low"].tolist() == expected("ci_low", student)
        assert table[f"{side}_high"].tolist() == expected("ci_high", student)
    np.testing.assert_array_equal(table["second_minus_first"], table["second"] - table["first"])
    assert table["second_minus_first"].abs().max() > 1

    table = resolve(ViewRequest(layer=layer, null="N1"), snapshot).table()
    for side, student in (("first", "identity"), ("second", "deeper")):
        assert table[side].tolist() == expected("excess_deg", student, null="N1")
        assert table[f"{side}_low"].tolist() == expected("excess_low", student, null="N1")
        assert table[f"{side}_high"].tolist() == expected("excess_high", student, null="N1")

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
    page = resolve(ViewRequest(), snapshot_of(of("identity", result), of("deeper", shallow)))
    table = page.table()
    assert len(table) == 10
    there = table["layer_b"] < 3
    assert table["second"].notna().tolist() == there.tolist()
    assert table["second_minus_first"].notna().tolist() == there.tolist()
    assert page.teacher_layers == [0, 1, 2, 3, 4]


# Notes


def test_the_notes_say_what_is_looked_at(nulls: AngleResult) -> None:
    notes = resolve(ViewRequest(layer=2), Catalogue([InMemory(nulls)]).read()).notes
    assert notes == ("from student layer 2", "teacher space", "mean over tokens of 6 texts")


def test_different_texts_or_teachers_are_noted(result: AngleResult, nulls: AngleResult) -> None:
    def notes_of(other: AngleResult) -> tuple[str, ...]:
        return resolve(ViewRequest(), snapshot_of(of("identity", result), of("deeper", other))).notes[3:]

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


def test_a_result_that_could_not_be_kept_is_shown(study: ToyStudy, result: AngleResult) -> None:
    snapshot = snapshot_of(of("identity", directory=study.identity), of("deeper"))
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


def test_of_several_results_the_first_that_knows_the_step(stepped: AngleResult, tmp_path: Path) -> None:
    def at(*steps: int) -> AngleResult:
        return AngleResult(stepped.dataset.sel(step=list(steps)).assign_attrs(note=str(steps)))

    results = [at(0), at(0, 10), at(10, 20)]
    snapshot = snapshot_of(of("early", *results))
    shown = [resolve(ViewRequest(step=step), snapshot).first.result for step in (0, 10, 20)]
    assert shown == results


def test_a_student_under_another_key_is_found_in_its_result(result: AngleResult, nulls: AngleResult) -> None:
    one, two = (InMemory(renamed(r, "identity", "deeper"), name) for r, name in ((result, "one"), (nulls, "two")))
    page = resolve(ViewRequest(first="one: identity", second="two: identity"), Catalogue([one, two]).read())
    for side, of_result in zip(page.sides, (result, nulls), strict=True):
        expected = of_result.dataset["angle_deg"].sel(student="identity", tower="encoder", student_layer=1)
        assert side.sight.data is not None
        np.testing.assert_array_equal(side.sight.data["angle_deg"], expected)
    assert [side.sight.label for side in page.sides] == ["one: identity, final state", "two: identity, final state"]
