"""Histograms show shares of tokens per bin of the cosine, or the reason why there are none."""

import numpy as np
import pytest
from toys.results import make_result, texts_of

from layerangles.figures import histogram


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
