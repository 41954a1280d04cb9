"""Heat maps of one student show the values of the result; titles, hover texts and notes explain them."""

import numpy as np
from toys.results import make_result, maps_of, scatters_of, texts_of, with_steps

from layerangles.figures import heatmap
from layerangles.figures.drawing.style import colour_scale, ink_on
from layerangles.results.angle_result import AngleResult


def test_heatmap_shows_the_numbers_of_the_result_one_panel_a_student_layer():
    result = make_result()
    panels = maps_of(heatmap(result))
    assert len(panels) == 3
    for layer, panel in enumerate(panels):
        np.testing.assert_array_equal(panel.z, result.dataset["angle_deg"].values[0, 0, layer])
        assert list(panel.x) == list(panel.y) == [0, 1, 2, 3]
        assert np.isnan(np.diag(panel.z)).all()


def test_heatmap_puts_layer_a_upwards_and_layer_b_to_the_right():
    result = make_result(n_teacher=3, matched=())
    dataset = result.dataset.copy(deep=True)
    dataset["angle_deg"].values[0, 0, 1, 0, 2] = 7.5  # layer_a 0, layer_b 2
    panel = maps_of(heatmap(AngleResult(dataset.transpose("layer_b", "layer_a", ...))))[1]
    assert panel.z[list(panel.y).index(0)][list(panel.x).index(2)] == 7.5


def test_panel_titles_and_ticks_name_the_layers():
    figure = heatmap(make_result())
    titles = texts_of(figure)
    assert "student layer 0 (emb)" in titles
    assert "student layer 1 (matched to teacher 2)" in titles
    assert figure.layout.yaxis.ticktext == ("0 (emb)", "1", "2", "3")
    assert figure.layout.xaxis3.ticktext == ("0<br>(emb)", "1", "2", "3")


def test_the_matched_layer_is_marked_on_the_blank_diagonal():
    marks = scatters_of(heatmap(make_result()), "markers")
    assert [(mark.xaxis, list(mark.x), list(mark.y)) for mark in marks] == [("x2", [2], [2]), ("x3", [3], [3])]
    assert all(mark.hoverinfo == "skip" for mark in marks)


def test_hover_says_everything_about_a_cell():
    result = make_result()
    result.dataset["angle_deg"].values[0, 0, 1, 0, 3] = 52.34
    result.dataset["ci_low"].values[0, 0, 1, 0, 3] = 51.9
    result.dataset["ci_high"].values[0, 0, 1, 0, 3] = 52.8
    result.dataset["n_degenerate"].values[0, 0, 1, 0, 3] = 7
    panel = maps_of(heatmap(result))[1]
    assert panel.hovertext[0][3] == (
        "teacher layers 0 (emb) and 3<br>mean angle <b>52.3°</b>, 90\N{NO-BREAK SPACE}% interval 51.9° to 52.8°"
        "<br>acute in 98.7\N{NO-BREAK SPACE}% of the tokens<br>1,234 tokens, 7 degenerate left out"
    )
    assert panel.hovertext[2][2] == "teacher layer 2<br>no angle with itself"
    assert panel.hovertemplate == (
        "forward, layer 1<br>matched to teacher layer 2 in training<br>%{hovertext}<extra></extra>"
    )


def test_hover_without_an_interval():
    result = make_result()
    result.dataset["ci_low"].values[:] = np.nan
    assert "no interval from a single example" in maps_of(heatmap(result))[0].hovertext[0][1]


def test_values_are_written_into_the_cells_of_small_maps_only():
    figure = heatmap(make_result(n_teacher=8))
    written = scatters_of(figure, "text")
    assert len(written) == 3
    z = maps_of(figure)[0].z
    cells = list(zip(written[0].y, written[0].x, written[0].text, strict=True))
    assert len(cells) == 8 * 7
    assert all(text == f"{z[layer_a][layer_b]:.1f}" for layer_a, layer_b, text in cells)
    assert not scatters_of(heatmap(make_result(n_teacher=9)), "text")


def test_values_contrast_with_their_cells():
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    stops = [(180 * share, luminance(colour)) for share, colour in colour_scale(180)]
    for angle in np.arange(0, 180, 0.5):
        cell = np.interp(angle, *zip(*stops, strict=True))
        ink = {"white": 1.0, "black": 0.0}[ink_on(angle)]
        assert (max(ink, cell) + 0.05) / (min(ink, cell) + 0.05) > 4


def test_an_unmeasured_layer_says_that_it_has_no_map():
    figure = heatmap(make_result(blank=[np.s_[:, :, 1]]))
    assert "no map, not measured" in texts_of(figure)
    assert maps_of(figure)[1].hovertext[0][1].endswith("<br>no map, not measured")


def test_a_layer_that_is_the_teachers_says_so():
    figure = heatmap(make_result(degenerate=[np.s_[:, :, 0]]))
    assert "the student's state is the teacher's here: no direction" in texts_of(figure)


def test_cells_of_one_degenerate_teacher_layer_are_blank_and_explained():
    figure = heatmap(make_result(degenerate=[np.s_[0, 0, 0, 0, :], np.s_[0, 0, 0, :, 0]]))
    panel = maps_of(figure)[0]
    assert np.isnan(panel.z[0]).all()
    assert not np.isnan(panel.z[1][2])
    assert panel.hovertext[0][2].endswith("no direction<br>0 tokens, 50 degenerate")
    assert not any(text.startswith("the student's state") for text in texts_of(figure))
    assert any("blank off the diagonal: the student's state" in text for text in texts_of(figure))


def test_layers_beyond_a_shallower_student_get_no_panel_but_a_note():
    result = make_result(("deep", "shallow"), blank=[np.s_[1, :, 2]])
    assert len(maps_of(heatmap(result, "deep"))) == 3
    figure = heatmap(result, "shallow")
    assert len(maps_of(figure)) == 2
    assert any("student layer 2: no map or no such layer, not measured" in text for text in texts_of(figure))


def test_a_student_that_lacks_the_step_says_so():
    result = with_steps(make_result(blank=[np.s_[:]]), [5])
    assert texts_of(heatmap(result)).count("not measured at this step") == 3


def test_a_colour_means_the_same_angle_whatever_the_scale_ends_at():
    def colours(top):
        return {(round(share * top), colour) for share, colour in colour_scale(top)}

    assert colours(120) < colours(180)
    assert len([1 for share, _ in colour_scale(180) if share == 0.5]) == 2  # the break at 90°
    for largest, top in ((80.0, 120), (178.0, 180)):
        axis = heatmap(make_result(largest=largest)).layout.coloraxis
        assert (axis.cmin, axis.cmax) == (0, top)
        assert axis.colorscale[0][0] == 0
        assert axis.colorscale[-1][0] == 1
        labels = dict(zip(axis.colorbar.tickvals, axis.colorbar.ticktext, strict=True))
        assert "60° independent" in labels[60]
        assert "90° orthogonal" in labels[90]


def test_the_step_shown_is_the_last_or_the_one_asked_for():
    result = with_steps(make_result(), [0, 300])
    result.dataset["angle_deg"].values[:, 1] += 1
    assert any("step 300" in text for text in texts_of(heatmap(result)))
    early, late = maps_of(heatmap(result, step=0))[0].z, maps_of(heatmap(result))[0].z
    np.testing.assert_allclose(late - early, np.where(np.eye(4, dtype=bool), np.nan, 1.0))
