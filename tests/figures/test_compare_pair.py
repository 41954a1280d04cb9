"""Figures of two students show the angles, differences and cosines of their results."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr
from toys.results import make_result, maps_of, scatters_of, texts_of
from toys.studies import ToyStudy

from layerangles import AngleResult, InputError, measure_angles
from layerangles.figures import LayerView, compare_pair, histogram_pair
from layerangles.results.pair_values import AGGREGATIONS, QUANTITIES, Aggregation, pair_values

HOSTILE = "</b><img src=x>%{x} $a$"
BAD_LITERAL = "&lt;/b&gt;&lt;img src=x&gt;&#37;{x} &#36;a&#36;"


def view(result: AngleResult, label: str = "", layer: int = 1, student: str | None = None) -> LayerView:
    name = student or result.students[0]
    return LayerView(label or name, result.dataset.sel(student=name, tower="encoder", student_layer=layer))


@pytest.fixture
def pair() -> tuple[LayerView, LayerView]:
    """Two students whose angles differ, the second's up to 110°."""
    result = make_result(("first", "second"))
    data = result.dataset.copy(deep=True)
    data["angle_deg"][1] += 30 * data["layer_a"] * data["layer_b"] / 9
    result = AngleResult(data)
    return view(result), view(result, student="second")


def bar_of(figure: go.Figure, axis: str) -> str:
    return str(figure.layout[axis].colorbar.title.text).split("<br>")[0]


# The maps


def test_two_maps_and_second_minus_first(pair: tuple[LayerView, LayerView]) -> None:
    first, second, difference = maps_of(compare_pair(*pair))
    for panel, of in zip((first, second), pair, strict=True):
        assert of.data is not None
        np.testing.assert_array_equal(panel.z, of.data["angle_deg"])
        assert list(panel.x) == list(panel.y) == [0, 1, 2, 3]
    np.testing.assert_array_equal(difference.z, np.array(second.z) - np.array(first.z))
    assert np.nanmax(np.abs(difference.z)) > 10
    turned = maps_of(compare_pair(*pair[::-1]))[2]
    np.testing.assert_array_equal(turned.z, -np.array(difference.z))


def test_both_maps_share_one_scale_and_the_difference_has_its_own(pair: tuple[LayerView, LayerView]) -> None:
    figure = compare_pair(*pair)
    assert [panel.coloraxis for panel in maps_of(figure)] == ["coloraxis", "coloraxis", "coloraxis2"]
    assert not any(panel.zmin or panel.zmax or panel.colorscale for panel in maps_of(figure))
    shared, apart = figure.layout.coloraxis, figure.layout.coloraxis2
    assert (shared.cmin, shared.cmax) == (0, 120)
    most = float(np.nanmax(np.abs(maps_of(figure)[2].z)))
    assert (apart.cmin, apart.cmax) == (-most, most)
    assert (bar_of(figure, "coloraxis"), bar_of(figure, "coloraxis2")) == ("mean angle", "difference")


def test_the_scale_ends_where_the_larger_of_the_two_does() -> None:
    small, large = make_result(largest=60.0), make_result(largest=175.0)
    for one, two, top in ((small, small, 120), (small, large, 180), (large, small, 180)):
        assert compare_pair(view(one), view(two)).layout.coloraxis.cmax == top
    same = compare_pair(view(small), view(small)).layout.coloraxis2
    assert (same.cmin, same.cmax) == (-1, 1)  # where nothing differs, a degree is the least that has a colour


def test_layer_a_goes_up_and_layer_b_to_the_right() -> None:
    result = make_result(n_teacher=3, matched=())
    data = result.dataset.copy(deep=True)
    data["angle_deg"].values[0, 0, 1, 0, 2] = 7.5  # layer_a 0, layer_b 2
    turned = AngleResult(data.transpose("layer_b", "layer_a", ...))
    first, _, difference = maps_of(compare_pair(view(turned), view(result)))
    assert first.z[list(first.y).index(0)][list(first.x).index(2)] == 7.5
    assert difference.z[0][2] == result.dataset["angle_deg"].values[0, 0, 1, 0, 2] - 7.5
    assert difference.z[2][0] == 0


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_every_aggregation_in_its_unit(pair: tuple[LayerView, LayerView], aggregation: Aggregation) -> None:
    figure = compare_pair(*pair, aggregation=aggregation)
    for panel, of in zip(maps_of(figure), pair, strict=False):
        assert of.data is not None
        np.testing.assert_array_equal(panel.z, pair_values(of.data, aggregation))
    assert bar_of(figure, "coloraxis") == QUANTITIES[aggregation].title
    assert figure.layout.coloraxis2.colorbar.ticksuffix == QUANTITIES[aggregation].unit
    if aggregation == "acute":
        assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 100)
        assert "98.7 %" in maps_of(figure)[0].hovertext[0][1]


def test_an_excess_has_signs_and_a_scale_around_none(study: ToyStudy) -> None:
    result = measure_angles([study.identity, study.deeper], study.texts[:6], nulls=("N1",), device="cpu")
    pair = view(result, student="identity"), view(result, student="deeper")
    figure = compare_pair(*pair, null="N1")
    for panel, of in zip(maps_of(figure), pair, strict=False):
        assert of.data is not None
        np.testing.assert_array_equal(panel.z, of.data["excess_deg"].sel(null="N1"))
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert bar_of(figure, "coloraxis") == "excess over N1"
    written = [text for trace in scatters_of(figure, "text") for text in trace.text]
    assert len(written) == 3 * 20
    assert {text[0] for text in written if text != "0.0"} == {"+", "−"}
    with pytest.raises(InputError, match="the null 'N5' was not measured"):
        compare_pair(*pair, null="N5")


def test_values_stand_in_their_cells(pair: tuple[LayerView, LayerView]) -> None:
    figure = compare_pair(*pair)
    for panel, written in zip(maps_of(figure), scatters_of(figure, "text"), strict=True):
        signed = panel.coloraxis == "coloraxis2"
        for x, y, text in zip(written.x, written.y, written.text, strict=True):
            assert text.replace("−", "-") == (f"{panel.z[y][x]:+.1f}" if signed else f"{panel.z[y][x]:.1f}")
        assert len(written.x) == 12


def test_hovering_says_whose_angle_it_is_and_what_it_differs_by(pair: tuple[LayerView, LayerView]) -> None:
    first, second, difference = maps_of(compare_pair(*pair))
    assert pair[0].data is not None
    value = float(pair[0].data["angle_deg"][1, 3])
    assert first.hovertext[1][3] == (
        f"first<br>teacher layers 1 and 3<br>mean angle <b>{value:.1f}°</b><br>mean angle {value:.1f}°, interval "
        f"{value - 0.5:.1f}° to {value + 0.5:.1f}°<br>1,234 tokens"
    )
    assert second.hovertext[2][2] == "second<br>teacher layer 2: no angle with itself"
    assert difference.hovertext[2][2] == "no difference here"
    a, b = np.array(first.z)[1, 3], np.array(second.z)[1, 3]
    assert difference.hovertext[1][3] == f"teacher layers 1 and 3<br>{b:.1f} − {a:.1f} = <b>{b - a:+.1f}°</b>"


def test_the_matched_layer_is_marked_where_it_was_matched(pair: tuple[LayerView, LayerView]) -> None:
    marks = scatters_of(compare_pair(*pair), "markers")
    assert [(list(mark.x), list(mark.y), mark.xaxis) for mark in marks] == [([2], [2], "x")]  # the first alone
    assert any("matched" in text for text in texts_of(compare_pair(*pair)))
    assert not any("matched" in text for text in texts_of(compare_pair(pair[1], pair[1])))


def test_titles_and_notes_are_there(pair: tuple[LayerView, LayerView]) -> None:
    figure = compare_pair(*pair, title="Of two", notes=("seen from afar", "and close"))
    texts = texts_of(figure)
    assert figure.layout.title.text == "Of two"
    assert texts[:3] == ["first", "second", "difference: second − first"]
    assert any("seen from afar" in text and "and close" in text for text in texts)


def test_the_maps_stand_beside_each_other(pair: tuple[LayerView, LayerView]) -> None:
    figure = compare_pair(*pair)
    x, y = ([tuple(figure.layout[f"{axis}axis{n}"].domain) for n in ("", 2, 3)] for axis in "xy")
    assert (len(set(x)), len(set(y))) == (3, 1)
    ends = [end for domain in x for end in domain]
    assert ends == sorted(ends)  # in this order, and none over another
    assert figure.layout.width > figure.layout.height
    # Numbers left of the difference would overlap the labels of the colour bar beside the second map.
    assert [figure.layout[f"yaxis{n}"].showticklabels for n in ("", 2, 3)] == [None, None, False]
    assert [figure.layout[f"yaxis{n}"].title.text for n in ("", 2, 3)] == ["teacher layer", "teacher layer", None]


# Missing angles


def test_a_side_without_an_angle_says_why_and_so_does_the_difference(pair: tuple[LayerView, LayerView]) -> None:
    absent = LayerView("late, step 10", None, "no checkpoint at step 10; 0, 20 are")
    figure = compare_pair(pair[0], absent)
    first, second, difference = maps_of(figure)
    assert np.isfinite(first.z).any()
    assert np.isnan(np.array(second.z, dtype=float)).all()
    assert np.isnan(np.array(difference.z, dtype=float)).all()
    texts = texts_of(figure)
    assert "no checkpoint at step 10; 0, 20 are" in texts
    assert "no difference: late, step 10 has no angle" in texts
    assert "no difference: first has no angle" in texts_of(compare_pair(LayerView("first", None, "why"), pair[1]))


def test_a_layer_without_a_map_and_two_that_are_absent() -> None:
    result = make_result(("a", "b"), blank=[(0, 0, 1)])
    without = view(result)._replace(absence="no map, not measured")
    texts = texts_of(compare_pair(without, view(result, student="b")))
    assert "no map, not measured" in texts
    assert "no difference: a has no angle" in texts
    nothing = LayerView("x", None, "there is no student 'x' here")
    figure = compare_pair(nothing, nothing)
    assert texts_of(figure).count("there is no student 'x' here") == 2
    assert len(maps_of(figure)) == 3


def test_teachers_of_different_depth_have_no_difference() -> None:
    deep, shallow = make_result(n_teacher=5), make_result(n_teacher=3, matched=())
    for first, second in ((deep, shallow), (shallow, deep)):
        figure = compare_pair(view(first), view(second))
        panels = maps_of(figure)
        assert [len(panel.z) for panel in panels[:2]] == [
            first.dataset.sizes["layer_a"],
            second.dataset.sizes["layer_a"],
        ]
        assert np.isnan(np.array(panels[2].z, dtype=float)).all()
        assert "the teachers have different numbers of layers: no difference" in texts_of(figure)
        for panel in panels[:2]:
            assert len(panel.x) == len(panel.y) == len(panel.z)


# Names


@pytest.mark.parametrize("draw", [compare_pair, lambda a, b: histogram_pair(a, b, 0, 2)])
def test_names_are_drawn_as_they_stand(draw: Any) -> None:
    result = make_result((HOSTILE, "b"))
    named = view(result, student=HOSTILE)
    text = draw(named, LayerView(HOSTILE, None, HOSTILE)).to_json()
    assert "<img" not in text
    assert "\\u003cimg" not in text
    shown = draw(named, view(result, student="b")).to_dict()
    texts = [str(v) for v in flat(shown) if "img" in str(v)]
    assert texts
    assert all(BAD_LITERAL.replace(" ", "") in v.replace("<br>", "").replace(" ", "") for v in texts)


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [one for inner in value.values() for one in flat(inner)]
    if isinstance(value, list | tuple):
        return [one for inner in value for one in flat(inner)]
    return [value]


# Two histograms


def test_a_curve_is_the_share_of_tokens_and_sums_to_a_hundred() -> None:
    result = make_result(("a", "b"))
    data = result.dataset.copy(deep=True)
    data["histogram"][1] = data["histogram"][1] * np.arange(200)
    result = AngleResult(data)
    figure = histogram_pair(view(result), view(result, student="b"), 0, 2)
    for curve, student, dash in zip(figure.data, ("a", "b"), ("solid", "dash"), strict=True):
        counts = result.dataset["histogram"].sel(
            student=student, tower="encoder", student_layer=1, layer_a=0, layer_b=2
        )
        np.testing.assert_allclose(curve.y[:-1], 100 * counts / counts.sum(), rtol=1e-12)
        assert sum(curve.y[:-1]) == pytest.approx(100)
        assert curve.y[-1] == curve.y[-2]  # a step ends at the upper end of the last bin
        assert list(curve.x) == [*result.dataset["bin"].values, 1.0]
        assert (curve.name, curve.line.dash, curve.line.shape) == (student, dash, "hv")
        assert f"of {int(counts.sum()):,} tokens" in curve.hovertemplate
    assert figure.data[0].line.color != figure.data[1].line.color
    assert figure.layout.title.text == "Cosines between teacher layers 0 (emb) and 2"
    np.testing.assert_array_equal(histogram_pair(*[view(result)] * 2, 2, 0).data[0].y, figure.data[0].y)


def test_a_student_without_the_pair_has_no_curve() -> None:
    result, shallow = make_result(("a",), degenerate=[(0, 0, 1, 0)]), make_result(("b",), n_teacher=3, matched=())
    absent = LayerView("c", None, "why")
    assert [curve.name for curve in histogram_pair(view(result), view(shallow), 1, 3).data] == ["a"]
    assert [curve.name for curve in histogram_pair(absent, view(shallow), 1, 2).data] == ["b"]
    assert histogram_pair(absent, view(shallow), 1, 2).data[0].line.dash == "dash"  # still the second
    for nothing in (
        histogram_pair(view(result), absent, 0, 2),
        histogram_pair(absent, absent, 1, 2),
        histogram_pair(absent, absent, -1, -1),
    ):
        assert len(nothing.data) == 0
        assert "neither has an angle between these layers" in texts_of(nothing)


def test_in_gradient_space_there_are_no_cosines_to_spread(study: ToyStudy) -> None:
    result = measure_angles(study.identity, study.texts[:4], space="gradient", device="cpu")
    figure = histogram_pair(view(result), LayerView("other", None, "why"), 1, 2)
    assert "neither has an angle between these layers" in texts_of(figure)


def test_drawing_leaves_the_data_as_they_were(pair: tuple[LayerView, LayerView]) -> None:
    before: list[xr.Dataset] = [of.data.copy(deep=True) for of in pair if of.data is not None]
    compare_pair(*pair)
    histogram_pair(*pair, 0, 1)
    assert all(b.identical(of.data) for b, of in zip(before, pair, strict=True) if of.data is not None)
