"""The figure of gaps against geometry shows the points, lines and numbers of the prediction."""

import itertools
import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from toys.predictions import cells_of, demo, random_cells, strategies_of

from layerangles import figures
from layerangles.equivalence.gap_prediction import PREDICTORS, predict_gaps


def panel(figure: go.Figure, index: int) -> list[go.Scatter]:
    axis = "y" if index == 0 else f"y{index + 1}"
    return [trace for trace in figure.data if trace.yaxis == axis and trace.x != (None,)]


def points(figure: go.Figure, index: int) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in panel(figure, index) if trace.mode == "lines+markers"}


def legend(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.showlegend}


def notes(figure: go.Figure) -> list[str]:
    return [note.text for note in figure.layout.annotations]


def subtitle(figure: go.Figure) -> str:
    return notes(figure)[-1].replace("<br>", " ")


def test_a_panel_a_measure_with_a_point_a_cell() -> None:
    prediction = demo(5)
    figure = figures.prediction(prediction)
    for index, name in enumerate(PREDICTORS):
        drawn = points(figure, index)
        assert list(drawn) == list("abcde")
        for cell, trace in drawn.items():
            at, gap = prediction.cells.loc[cell, name], prediction.cells.loc[cell, "gap"]
            assert trace.x == (at, at)
            assert trace.y == (gap, prediction.left_out.loc[cell, name])
            assert trace.marker.symbol == (legend(figure)[cell].marker.symbol, "circle-open")
            assert trace.marker.size[0] > trace.marker.size[1]
            assert trace.marker.opacity == 1  # plotly's own is less where sizes differ
            assert f"gap <b>{gap:.4g}</b>" in trace.hovertext[0]
            assert f"<b>{trace.y[1]:.4g}</b>, in truth {gap:.4g}" in trace.hovertext[1]
    titles = [figure.layout[axis].title.text for axis in ("xaxis", "xaxis2", "xaxis3")]
    assert titles == ["excess over the null °", "common-mode ratio", "recoverability gap"]
    assert figure.layout.yaxis.title.text == "gap between strategies"
    assert figure.layout.yaxis2.title.text is None
    assert (figure.layout.yaxis2.matches, figure.layout.yaxis3.matches) == ("y", "y")


def test_line_and_band_are_those_of_the_prediction() -> None:
    prediction = demo(5)
    figure = figures.prediction(prediction)
    for index, name in enumerate(PREDICTORS):
        band, line = (next(trace for trace in panel(figure, index) if trace.name == of) for of in ("band", "line"))
        expected = prediction.lines.loc[name]
        assert list(line.x) == expected["x"].tolist()
        assert list(line.y) == expected["fitted"].tolist()
        assert list(band.x) == [*expected["x"], *expected["x"][::-1]]
        assert list(band.y) == [*expected["low"], *expected["high"][::-1]]
        assert band.fill == "toself"


def test_numbers_above_the_panels() -> None:
    prediction = demo(5)
    found = notes(figures.prediction(prediction))
    for name, text in zip(PREDICTORS, found[::2], strict=False):
        fit = prediction.fits.loc[name]
        assert text == (
            f"5 cells · Spearman {fit['spearman']:.2f}, p = {fit['p']:.2g}<br>"
            f"left-out error {fit['error']:.3g}, of the mean {fit['error_of_mean']:.3g}".replace("-0", "−0")
        )
        rho = prediction.ranks.xs(name, level="predictor")["spearman"]
        assert f"5 cells · Spearman {rho.min():.2f} to {rho.max():.2f}".replace("-", "−") in found
    assert "too few" not in subtitle(figures.prediction(prediction))
    assert "4 cells: too few to conclude anything" in subtitle(figures.prediction(demo(4)))


def test_ranks_within_cells() -> None:
    strategies = strategies_of(
        {"a": [1, 2, 3, 4], "b": [5, 5, 7], "c": [1, 2]},
        excess_deg={"a": [40, 10, 20, 30], "b": [1, 2, 0], "c": [1, np.nan]},
    )
    figure = figures.prediction(predict_gaps(random_cells(3), strategies.rename(index={"s1": "<s1>"}, level=1)))
    drawn = points(figure, 1)
    assert {cell: (trace.x, trace.y) for cell, trace in drawn.items()} == {
        "a": ((-15, -5, 5, 15), (3, 2, 1, 4)),  # in the order of the measure: scores of 2, 3, 4 and 1
        "b": ((-1, 0, 1), (1, 2.5, 2.5)),
        "c": ((0,), (2,)),
    }
    assert drawn["a"].hovertext[0] == "a<br>&lt;s1&gt;<br>excess over the null 10<br>score 2, rank <b>3</b>"
    assert figure.layout.yaxis2.range == (4.5, 0.5)  # the best above
    assert figure.layout.xaxis2.title.text == "excess over the null °, from the cell's mean"
    assert "below: strategies within each cell" in subtitle(figure)
    for cell, trace in drawn.items():
        assert (trace.marker.symbol, trace.marker.color) == tuple(
            legend(figure)[cell].marker[of] for of in ("symbol", "color")
        )


def test_without_strategies_there_is_one_row() -> None:
    figure = figures.prediction(predict_gaps(random_cells(4)))
    assert "yaxis2" not in figure.to_dict()["layout"]
    assert figure.layout.yaxis.domain == (0, 1)
    assert "below" not in subtitle(figure)


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 cells<br>no line: fewer than 3 cells"), (1, "1 cell<br>no line: fewer than 3 cells")]
)
def test_too_few_cells_have_points_but_no_line(n: int, said: str) -> None:
    figure = figures.prediction(predict_gaps(cells_of([2.0][:n], excess_deg=[10.0][:n])))
    assert [trace.y for trace in panel(figure, 0)] == [(2.0,)][:n]
    assert notes(figure)[0] == said
    assert "hollow" not in subtitle(figure)
    assert f"{n} cell{'' if n == 1 else 's'}: too few to conclude anything" in subtitle(figure)
    assert figure.layout.yaxis.range[0] < figure.layout.yaxis.range[1]


def test_what_was_not_fitted_says_why() -> None:
    cells = random_cells(5).assign(common_mode_ratio=1.0, recoverability_gap=[0.1, 0.1, 0.1, 0.1, 0.4])
    found = notes(figures.prediction(predict_gaps(cells)))
    assert found[1] == "5 cells<br>no line: the same in all"
    assert found[2].endswith("<br>left-out error not defined")
    figure = figures.prediction(predict_gaps(cells))
    assert [len(trace.y) for trace in points(figure, 1).values()] == [1] * 5
    assert [len(trace.y) for trace in points(figure, 2).values()] == [2, 2, 2, 2, 1]
    assert "NaN" not in json.dumps(figure.to_plotly_json(), default=list)


def test_a_measure_of_cells_or_of_strategies_alone() -> None:
    strategies = strategies_of({"a": [1, 2]}, recoverability_gap={"a": [0.1, 0.2]})
    figure = figures.prediction(predict_gaps(random_cells(4), strategies))
    assert "not known for the cells" in notes(figure)
    assert notes(figure).count("no cell with 3 strategies to rank") == 2
    assert [len(points(figure, index)) for index in range(4)] == [4, 0, 0, 1]


def test_one_cell_of_ranks_has_a_p() -> None:
    strategies = strategies_of({"a": [1, 2, 3]}, excess_deg={"a": [3, 2, 1]})
    figure = figures.prediction(predict_gaps(random_cells(4), strategies))
    assert "1 cell · Spearman −1.00, p = 0.33" in notes(figure)


def test_a_prediction_far_off_does_not_flatten_the_gaps() -> None:
    near = figures.prediction(predict_gaps(cells_of([1, 2, 3, 4.2], excess_deg=[1, 2, 3, 4])))
    assert "leaves its panel" not in subtitle(near)
    prediction = predict_gaps(cells_of([1, 2, 1.5], excess_deg=[1, 1.01, 5]))
    assert prediction.left_out["excess_deg"].abs().max() > 100
    far = figures.prediction(prediction)
    low, high = far.layout.yaxis.range
    assert (low, high) == pytest.approx((1 - 0.08, 2 + 1 + 0.08))
    assert max(points(far, 0)["c"].y) > high  # drawn to where it is: the join leaves the panel
    below = figures.prediction(predict_gaps(cells_of([2, 1, 1.5], excess_deg=[1, 1.01, 5])))
    assert below.layout.yaxis.range == pytest.approx((1 - 1 - 0.08, 2 + 0.08))
    for figure in (far, below):
        assert "a join that leaves its panel leads to one further off" in subtitle(figure)
    for figure in (near, far, below):
        gaps = [trace.y[0] for trace in points(figure, 0).values()]
        assert figure.layout.yaxis.range[0] < min(gaps)
        assert max(gaps) < figure.layout.yaxis.range[1]


def test_many_cells_of_long_names_are_told_apart_and_fit_into_the_legend(tmp_path: Path) -> None:
    names = [f"<b>{number}-{'a-very-long-name-of-a-cell-' * 3}" for number in range(16)]
    figure = figures.prediction(demo(16, names=names))
    listed = legend(figure)
    assert len(listed) == 16
    assert all("&lt;b&gt;" in name and "<b>" not in name for name in listed)
    assert len({(trace.marker.symbol, trace.marker.color) for trace in listed.values()}) == 16
    assert len({trace.marker.symbol for trace in listed.values()}) == 15  # in grey, but for the last
    assert all(set(points(figure, index)) == set(listed) for index in range(6))
    n_lines = sum(name.count("<br>") + 1 for name in listed)
    layout = figure.layout
    assert layout.height - layout.margin.t - layout.margin.b > 16 * n_lines
    page = figures.write_html(figure, tmp_path / "prediction.html").read_text(encoding="utf-8")
    assert "<title>Does the geometry predict the gap between strategies?</title>" in page


def test_panels_do_not_overlap() -> None:
    layout = figures.prediction(demo(4)).layout
    x = [layout[axis].domain for axis in ("xaxis", "xaxis2", "xaxis3")]
    assert all(left[1] < right[0] for left, right in itertools.pairwise(x))
    assert [layout[axis].domain for axis in ("xaxis4", "xaxis5", "xaxis6")] == x
    assert layout.yaxis.domain[0] > layout.yaxis4.domain[1]
    assert x[-1][1] == pytest.approx(1)
    assert layout.yaxis.domain[1] == 1
    assert layout.yaxis4.domain[0] == pytest.approx(0)


def test_every_legend_entry_switches_a_cell_in_all_panels() -> None:
    figure = figures.prediction(demo(4))
    groups = {name: trace.legendgroup for name, trace in legend(figure).items()}
    assert len(set(groups.values())) == 4
    for index in range(6):
        assert {name: trace.legendgroup for name, trace in points(figure, index).items()} == groups
        assert all(trace.showlegend is False for trace in panel(figure, index))
