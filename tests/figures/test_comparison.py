"""A comparison has a row per student and a column per layer, and its panels stay apart."""

import numpy as np
import pytest
from toys.results import make_result, maps_of, texts_of

from layerangles.figures import comparison, heatmap


def test_comparison_has_a_row_a_student_and_a_column_a_layer():
    result = make_result(("a", "b"))
    figure = comparison(result, ["b", "a"])
    panels = maps_of(figure)
    assert [panel.hovertemplate.split("<br>")[0] for panel in panels] == [
        f"{name}, layer {layer}" for name in "ba" for layer in ("0 (emb)", "1", "2")
    ]
    np.testing.assert_array_equal(panels[1].z, result.dataset["angle_deg"].sel(student="b").values[0, 1])
    assert panels[4].hovertext == maps_of(heatmap(result, "a"))[1].hovertext
    assert {panel.coloraxis for panel in panels} == {"coloraxis"}
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis4.domain[1]
    assert {"a", "b", "student layer 1"} <= set(texts_of(figure))


@pytest.mark.parametrize("n_students", [1, 2, 12])
@pytest.mark.parametrize("n_layers", [1, 5, 13])
def test_panels_stay_large_enough_and_apart_however_many_there_are(n_students, n_layers):
    figure = comparison(make_result([f"s{i}" for i in range(n_students)], 13, n_layers, matched=()))
    layout = figure.layout
    width = layout.width - layout.margin.l - layout.margin.r
    height = layout.height - layout.margin.t - layout.margin.b
    axes = [
        (layout[trace.xaxis.replace("x", "xaxis")], layout[trace.yaxis.replace("y", "yaxis")]) for trace in figure.data
    ]
    boxes = [(*x.domain, *y.domain) for x, y in axes]
    for x0, x1, y0, y1 in boxes:
        assert (x1 - x0) * width == pytest.approx((y1 - y0) * height, rel=0.01)  # square, but for rounding
        assert (x1 - x0) * width >= 100
    for i, (a0, a1, a2, a3) in enumerate(boxes):
        for b0, b1, b2, b3 in boxes[:i]:
            assert a1 <= b0 or b1 <= a0 or a3 <= b2 or b3 <= a2
    assert layout.coloraxis.colorbar.len <= height
    assert layout.coloraxis.colorbar.len >= 200
