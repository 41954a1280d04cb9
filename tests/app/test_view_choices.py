"""Resolving completes a view; checkpoints follow the slider's step or have their own."""

from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys.app_sources import Stub, named, snapshot_of, student
from toys.studies import ToyStudy

from layerangles import AngleResult, measure_angles
from layerangles.app.catalogue import WAYS, Catalogue, Snapshot
from layerangles.app.sources import InMemory
from layerangles.app.views import ResolvedView, ViewRequest, resolve
from layerangles.results.pair_values import AGGREGATIONS

# What a view leaves open


def test_an_empty_view_is_completed(result: AngleResult) -> None:
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
    assert [side.layer_view.label for side in page.sides] == ["identity, final state", "deeper, final state"]


def test_the_default_partner_is_another_strategy_with_the_same_seed() -> None:
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


def test_a_missing_layer_is_replaced_by_the_first_block(result: AngleResult) -> None:
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
def test_the_pair_has_two_different_teacher_layers(
    result: AngleResult, asked: tuple[int, int], shown: tuple[int, int]
) -> None:
    view = resolve(ViewRequest(low=asked[0], high=asked[1]), Catalogue([InMemory(result)]).read()).view
    assert (view.low, view.high) == shown


def test_there_is_no_pair_without_two_teacher_layers(result: AngleResult) -> None:
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
def test_resolving_completes_any_view_and_keeps_complete_ones(stepped: AngleResult, view: ViewRequest) -> None:
    snapshot = Catalogue([InMemory(stepped), Stub(found=named("other"))]).read()
    page = resolve(view, snapshot)
    for name, value in zip(view.__dataclass_fields__, astuple(view), strict=True):
        if value is not None and name in ("first", "second", "step", "first_step", "second_step"):
            assert getattr(page.view, name) == value  # what is not there is said, not replaced
    again = resolve(page.view, snapshot)
    assert again.view == page.view
    for side in page.sides:
        assert (side.layer_view.data is not None) >= (not side.layer_view.absence)
        assert side.layer_view.label
    assert isinstance(page.notes, tuple)
    table = page.table()
    assert len(table) in (0, 10)


# Steps


def labels(page: ResolvedView) -> list[str]:
    return [side.layer_view.absence or side.layer_view.label for side in page.sides]


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
def test_checkpoints_follow_the_slider_unless_they_have_their_own_step(
    stepped: AngleResult, view: ViewRequest, shown: list[str]
) -> None:
    page = resolve(view, Catalogue([InMemory(stepped)]).read())
    assert page.steps == [0, 10, 20, 30]
    assert labels(page) == shown


def test_the_values_belong_to_the_step(stepped: AngleResult) -> None:
    snapshot = Catalogue([InMemory(stepped)]).read()
    for step in (10, 30):
        page = resolve(ViewRequest(first="late", first_step=step, layer=2), snapshot)
        assert page.first.step == step
        expected = stepped.dataset["angle_deg"].sel(student="late", step=step, tower="encoder", student_layer=2)
        assert page.first.layer_view.data is not None
        np.testing.assert_array_equal(page.first.layer_view.data["angle_deg"], expected)
        assert np.isfinite(expected).any()


def test_a_student_with_one_state_is_compared_with_the_last_step(stepped: AngleResult, result: AngleResult) -> None:
    snapshot = snapshot_of(student("early", stepped), student("identity", result))
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
    snapshot = snapshot_of(student("late", final, directory=study_with_steps[0]))
    last, first = (resolve(ViewRequest(step=step), snapshot).first for step in (30, 10))
    assert (last.layer_view.label, last.layer_view.absence, last.result) == ("late, step 30", "", final)
    assert (first.layer_view.label, first.layer_view.absence) == ("late, step 10", "not measured in teacher space")
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
    snapshot = snapshot_of(student("late", stepped, directory=tmp_path / "late"))
    side = resolve(ViewRequest(step=20), snapshot).first
    assert (side.layer_view.absence, side.can_be_measured) == ("not measured in teacher space", True)
