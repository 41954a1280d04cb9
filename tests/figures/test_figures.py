"""Figures tested as data: what they show is what the result holds, and what they say is what a reader needs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from toys.results import NAME, make_result, maps_of, scatters_of, texts_of, with_steps

from layerangles.errors import InputError
from layerangles.figures import comparison, heatmap, histogram, write_html, write_image
from layerangles.figures.drawing.style import colour_scale, ink_on
from layerangles.report.html_page import Section, write_page
from layerangles.results.angle_result import AngleResult

# Heat map


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


def test_drawing_leaves_the_result_as_it_was():
    result = make_result(("a", "b"))
    before = result.dataset.copy(deep=True)
    heatmap(result, "a")
    comparison(result)
    histogram(result, "a")
    assert result.dataset.identical(before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (heatmap, "this result has 2 students; name one with student=…: 'a', 'b'."),
        (lambda r: heatmap(r, "c"), "the student 'c' is not in this result; allowed are 'a', 'b'."),
        (lambda r: heatmap(r, "a", tower="x"), "the tower 'x' is not in this result; allowed are 'encoder'."),
        (lambda r: heatmap(r, "a", step=3), "step 3 was not measured; the steps are [0, 300]."),
        (lambda r: heatmap(r.at_step(0), "a", step=3), "step is 3, but this result has no step axis."),
        (lambda r: comparison(r, []), "there is nothing to compare: got no students; allowed are 'a', 'b'."),
        (lambda r: comparison(r, ["a", "a"]), "the student 'a' is given twice. Give every student once."),
        (lambda r: comparison(r, "a"), "students is the text 'a'; give a list of names, such as ['a']."),
        (lambda r: comparison(r, ["a", "c"]), "the student 'c' is not in this result; allowed are 'a', 'b'."),
        (lambda r: histogram(r, "a", student_layer=9), "student_layer is 9; allowed are 0, 1, 2 (0 is the embedding"),
        (lambda r: histogram(r, "a", layer_a=4), "layer_a is 4; allowed are 0, 1, 2, 3 (0 is the embedding output)."),
        (lambda r: histogram(r, "a", layer_b=-1), "layer_b is -1; allowed are 0, 1, 2, 3"),
        (lambda r: histogram(r, "a", layer_b=1), "layer_a and layer_b are both 1, and a layer makes no angle with"),
    ],
)
def test_what_the_user_gets_wrong_is_named_with_what_is_allowed(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(with_steps(make_result(("a", "b")), [0, 300]))


def test_two_towers_need_a_choice_and_are_named():
    result = make_result(towers=("encoder", "decoder"))
    with pytest.raises(InputError, match=re.escape("this result has 2 towers; name one with tower=…: 'encoder', 'dec")):
        heatmap(result)
    assert any("· decoder" in text for text in texts_of(heatmap(result, tower="decoder")))


# Comparison


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


# Histogram


def test_histogram_shows_the_share_of_tokens_a_bin():
    result = make_result()
    figure = histogram(result)
    assert [trace.name for trace in figure.data] == ["0 (emb)", "2", "3"]
    counts = result.dataset["histogram"].values[0, 0, 1, 1, 2]
    x, y = figure.data[1].x, figure.data[1].y
    np.testing.assert_allclose(y[:-1], 100 * counts / counts.sum())
    assert y[:-1].sum() == pytest.approx(100)
    np.testing.assert_array_equal(x[:-1], result.dataset["bin"])
    assert x[-1] == 1.0
    assert sorted(shape.x0 for shape in figure.layout.shapes) == [0.0, 0.5]
    assert "90° orthogonal" in texts_of(figure)
    assert figure.layout.yaxis.title.text == "share of tokens per bin of 0.01"


def test_histogram_of_one_pair():
    figure = histogram(make_result(), layer_a=3, layer_b=2, student_layer=2)
    assert [trace.name for trace in figure.data] == ["2"]
    assert "between teacher layer 3 and teacher layer 2, seen from layer 2" in figure.layout.title.text.replace(
        "<br>", " "
    )


def test_histogram_without_tokens_says_why():
    assert "no map, not measured" in texts_of(histogram(make_result(blank=[np.s_[:, :, 1]])))
    degenerate = make_result(degenerate=[np.s_[0, 0, 1, 1, :], np.s_[0, 0, 1, :, 1]])
    assert "the student's state is the teacher's here: no direction" in texts_of(histogram(degenerate))


# Files


def test_names_are_drawn_as_they_stand():
    result = make_result((NAME, "b"))
    for figure in (heatmap(result, NAME), comparison(result), histogram(result, NAME)):
        text = figure.to_json()
        assert "\\u003cscript" not in text
        assert "<script" not in text
        assert "&lt;script" in text or "\\u0026lt;script" in text
    assert "%{z}" not in maps_of(heatmap(result, NAME))[0].hovertemplate


def loads_something(page: str) -> list[str]:
    """Every element of a page that would load a resource; plotly's own code is not markup."""
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    return re.findall(r"""(?:src|href|action|data)\s*=\s*["']?(?!#)[^"'> ]+|url\(|@import""", markup)


def test_html_is_one_file_that_loads_nothing_and_sends_nothing(tmp_path):
    path = write_html(heatmap(make_result((NAME,))), tmp_path / "map.html")
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "map.html"
    assert "plotly.js v" in page
    assert loads_something(page) == []
    assert not re.search(r"<script[^>]*\ssrc", page)
    assert "default-src 'none'" in page
    assert '"showSendToCloud": false' in page
    assert "alert(1)</script>" not in page
    assert "<title>Angles between teacher layers" in page


@pytest.mark.parametrize("write", [lambda path: write_html(go.Figure(), path), lambda path: write_page(path, "t", [])])
def test_nothing_is_overwritten_unasked(tmp_path, write):
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write(path)
    assert path.read_text() == "mine"


def test_an_image_is_refused_before_a_browser_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    (tmp_path / "map.png").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_image(go.Figure(), tmp_path / "map.png")


@pytest.mark.parametrize("write", [write_html, lambda *a, **k: write_page(a[1], "t", [Section("h")], **k)])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, write):
    path = tmp_path / "page.html"
    path.write_text("mine")

    def full(self, *args, **kwargs):
        self.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write(go.Figure(), path, overwrite=True)
    assert path.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_overwriting_when_asked(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    write_html(go.Figure(), path, overwrite=True)
    assert "plotly" in path.read_text(encoding="utf-8")


def test_other_suffixes_are_refused_with_the_allowed_ones(tmp_path):
    with pytest.raises(InputError, match=r"'\.gif'; static images are written to \.png, \.svg, \.pdf"):
        write_image(go.Figure(), tmp_path / "map.gif")
    with pytest.raises(InputError, match=r"ends in '\.png'; an interactive figure is written to \.html"):
        write_html(go.Figure(), tmp_path / "map.png")
    with pytest.raises(InputError, match=r"ends in ''; a page is written to \.html"):
        write_page(tmp_path / "page", "t", [])


def test_a_missing_kaleido_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kaleido", None)
    with pytest.raises(InputError, match=re.escape("pip install 'layerangles[export]'")):
        write_image(go.Figure(), tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("browser", "what"), [("/nonexistent", "is not found"), ("/bin/true", "does not start")])
def test_a_missing_browser_says_what_to_do(tmp_path, monkeypatch, browser, what):
    monkeypatch.setenv("BROWSER_PATH", browser)
    with pytest.raises(InputError, match=what) as caught:
        write_image(go.Figure(), tmp_path / "map.png")
    assert f"BROWSER_PATH is {browser!r}" in str(caught.value)
    assert "plotly_get_chrome" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Page


def test_page_escapes_text_and_holds_plotly_once(tmp_path):
    table = pd.DataFrame({"name": ["<b>x</b>", None], "angle_deg": [52.345, np.nan], "n": [12345, 2]})
    table.index = pd.Index(["p", "q"], name="student")
    figures = [heatmap(make_result()), histogram(make_result())]
    sections = [
        Section("One <i>", ["a < b & c", NAME]),
        Section("Two", (), table),
        Section("Three", figures=figures),
    ]
    page = write_page(tmp_path / "page.html", "Title <&>", sections).read_text(encoding="utf-8")
    assert page.count("plotly.js v") == 1
    assert page.count('class="plotly-graph-div"') == 2
    assert loads_something(page) == []
    assert "<h1>Title &lt;&amp;&gt;</h1>" in page
    assert "<h2>One &lt;i&gt;</h2>" in page
    assert "<p>a &lt; b &amp; c</p>" in page
    assert "alert(1)</script>" not in page
    assert '<tr><td>p</td><td>&lt;b&gt;x&lt;/b&gt;</td><td class="n">52.34</td><td class="n">12,345</td></tr>' in page
    assert '<tr><td>q</td><td>–</td><td class="n">–</td><td class="n">2</td></tr>' in page
    assert '<th scope="col" class="n">angle_<wbr>deg</th>' in page
    assert '<a href="#section-3">Three</a>' in page
    assert 'aria-label="Angles between teacher layers, seen from forward"' in page
    assert "prefers-color-scheme: dark" in page


def test_the_same_page_twice_is_the_same_file(tmp_path):
    sections = [Section("A", figures=[heatmap(make_result())])]
    first = write_page(tmp_path / "1.html", "t", sections).read_bytes()
    assert first == write_page(tmp_path / "2.html", "t", sections).read_bytes()
