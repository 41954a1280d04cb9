"""Figures of a verdict show the points, intervals and margin of its tables, as data and as text."""

import math
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go
import pytest
from toys.verdicts import NAMES, make_verdict

from layerangles import InputError, figures
from layerangles.equivalence.verdict import Estimate, Margin
from layerangles.figures.forest import OUTCOMES


def points_of(figure: go.Figure) -> dict[str, tuple[float, float, str]]:
    """By label: where the point is, in which row, and of which kind."""
    return {
        label: (x, y, trace.legendgroup)
        for trace in figure.data
        if trace.mode == "markers"
        for label, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }


def bars_of(figure: go.Figure, width: float) -> dict[int, tuple[float, float, str]]:
    """By row: the interval drawn with lines of this width, and of which kind."""
    return {
        math.floor(trace.y[i]): (trace.x[i], trace.x[i + 1], trace.legendgroup)
        for trace in figure.data
        if trace.mode == "lines" and trace.line.width == width
        for i in range(0, len(trace.x), 3)
    }


def texts_of(figure: go.Figure) -> list[str]:
    return [note.text.replace("<br>", " ").replace("\N{NO-BREAK SPACE}", " ") for note in figure.layout.annotations]


def band_of(figure: go.Figure) -> list[tuple[float, float]]:
    return [(shape.x0, shape.x1) for shape in figure.layout.shapes if shape.type == "rect"]


def test_points_and_intervals_are_those_of_the_table() -> None:
    verdict = make_verdict(has_examples=True)
    figure = figures.forest(verdict)
    points, thick, thin, faint = points_of(figure), bars_of(figure, 5), bars_of(figure, 1.5), bars_of(figure, 2)
    assert len(points) == len(verdict.pairs) == 6
    for (first, second), row in verdict.pairs.iterrows():
        x, y, kind = points[f"{first} − {second}"]
        assert x == row["difference"]
        assert kind == row["outcome"]
        assert thick[y] == (row["low"], row["high"], row["outcome"])
        assert thin[y] == (row["wide_low"], row["wide_high"], row["outcome"])
        assert faint[y] == (row["examples_low"], row["examples_high"], "extra")
        assert figure.layout.yaxis.ticktext[y] == f"{first} − {second}"


def test_the_largest_difference_stands_on_top() -> None:
    figure = figures.forest(make_verdict())
    by_row = sorted(points_of(figure).values(), key=lambda point: point[1])
    sizes = [abs(x) for x, _, _ in by_row]
    assert sizes == sorted(sizes, reverse=True)
    assert figure.layout.yaxis.range == (5.5, -0.5)  # row 0 above


def test_numbers_and_outcomes_are_written_beside_the_rows() -> None:
    verdict = make_verdict()
    figure = figures.forest(verdict)
    rows = {y: label for label, (_, y, _) in points_of(figure).items()}
    written: dict[int, list[str]] = {}
    for note in figure.layout.annotations:
        if note.yref == "y":
            written.setdefault(note.y, []).append(note.text)
    for y, label in rows.items():
        row = verdict.pairs.loc[tuple(label.split(" − "))]
        numbers = f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]".replace("-", "−")
        assert written[y] == [numbers, row["outcome"]]
    headers = {note.text.replace("\N{NO-BREAK SPACE}", " "): note.xshift for note in figure.layout.annotations}
    assert headers["first − second"] < -100  # above the labels, left of the plot
    assert headers["difference [90 % interval]"] == 14
    assert headers["outcome"] > 14 + 6 * len(numbers)
    hover = next(trace for trace in figure.data if trace.legendgroup == "different" and trace.mode == "markers")
    row = verdict.pairs.loc[tuple(hover.customdata[0].split(" − "))]
    assert f"p, within the margin {row['p_different']:.3g}" in hover.hovertext[0]
    assert f"95\N{NO-BREAK SPACE}% interval [{row['wide_low']:+.2f}".replace("-", "−") in hover.hovertext[0]


def test_outcomes_differ_in_colour_and_mark_and_have_a_legend() -> None:
    figure = figures.forest(make_verdict())
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [trace.name for trace in points if trace.showlegend] == ["equivalent", "different", "undecided"]
    assert len({trace.marker.symbol for trace in points}) == 3
    colours = {trace.legendgroup: trace.line.color for trace in figure.data if trace.mode == "lines"}
    assert colours == {outcome: look.colour for outcome, look in OUTCOMES.items()}
    assert len(set(colours.values())) == 3
    assert figure.layout.showlegend
    assert not figures.forest(make_verdict(NAMES[:2])).layout.showlegend  # a single outcome needs none


def test_the_interval_with_new_examples_has_a_legend_of_its_own() -> None:
    figure = figures.forest(make_verdict(has_examples=True))
    (faint,) = [trace for trace in figure.data if trace.legendgroup == "extra"]
    assert faint.showlegend
    assert "Multi-Bootstrap" in faint.name
    places = {name: figure.layout[name].y * figure.layout.height for name in ("legend", "legend2")}
    assert faint.legend == "legend"
    assert places["legend2"] - places["legend"] >= 20
    assert not [trace for trace in figures.forest(make_verdict()).data if trace.legendgroup == "extra"]


def test_the_band_is_the_margin() -> None:
    figure = figures.forest(make_verdict(margin=Margin(0.5)))
    assert band_of(figure) == [(-0.5, 0.5)]
    assert any("band: margin ±0.5" in text for text in texts_of(figure))
    assert figure.layout.xaxis.zeroline
    low, high = figures.forest(make_verdict(margin=Margin(50))).layout.xaxis.range
    assert low < -50 < 50 < high  # however far beyond the differences


def test_the_band_of_a_share_of_the_gain() -> None:
    figure = figures.forest(make_verdict(margin=Margin(0.25, of_gain=True), gain=2.0))
    assert band_of(figure) == [(-0.5, 0.5)]
    assert any("band: margin ±0.50, 0.25 of the gain over none (2.00)" in text for text in texts_of(figure))
    assert any("its own uncertainty takes part in the decision" in text for text in texts_of(figure))
    for gain in (0.0, -1.0, math.nan):
        nothing = replace(make_verdict(margin=Margin(0.25, of_gain=True)), gain=Estimate(gain, -2, 1))
        assert band_of(figures.forest(nothing)) == []
        assert any("so that there is no margin" in text for text in texts_of(figures.forest(nothing)))
        assert not any("band" in text for text in texts_of(figures.forest(nothing)))


def test_without_a_margin_nothing_is_decided() -> None:
    figure = figures.forest(make_verdict(margin=None))
    assert band_of(figure) == []
    assert any("no margin was given, so nothing is decided" in text for text in texts_of(figure))
    assert {kind for _, _, kind in points_of(figure).values()} == {"undecided"}


def test_one_seed_has_points_alone() -> None:
    verdict = make_verdict(n_seeds=1)
    for figure, n_rows in ((figures.forest(verdict), 6), (figures.gains(verdict), 5)):
        assert len(points_of(figure)) == n_rows
        assert not [trace for trace in figure.data if trace.mode == "lines"]
        assert any("no interval exists" in text for text in texts_of(figure))
        assert not any("[" in text or "90 %" in text for text in texts_of(figure))
        assert "nan" not in figure.to_json().lower()


def test_levels_follow_alpha() -> None:
    texts = " ".join(texts_of(figures.forest(make_verdict(alpha=0.01))))
    assert "thick: 98 % interval, which decides equivalence · thin: 99 % interval" in texts
    assert "difference [98 % interval]" in texts
    assert "gain [99 % interval]" in texts_of(figures.gains(make_verdict(alpha=0.01)))


def test_the_title_says_cell_and_outcome_and_the_axis_the_direction() -> None:
    figure = figures.forest(make_verdict(outcome="different"))
    assert figure.layout.title.text == "Differences between strategies in sst2, copied: different"
    assert figure.layout.xaxis.title.text == "difference in accuracy: positive where the first is better"
    turned = figures.forest(make_verdict(higher_is_better=False)).layout.xaxis.title.text
    assert "accuracy (less of it is better)" in turned


def test_scores_between_0_and_1_are_written_to_enough_decimals() -> None:
    verdict = make_verdict(unit=0.01, margin=Margin(0.005))
    (first, second), row = next(verdict.pairs.iterrows())
    y = points_of(figures.forest(verdict))[f"{first} − {second}"][1]
    written = [note.text for note in figures.forest(verdict).layout.annotations if note.yref == "y" and note.y == y]
    assert written[0].startswith(f"{row['difference']:+.4f}".replace("-", "−"))


@pytest.mark.parametrize("n", [2, 4, 6, 10])
@pytest.mark.parametrize("name", ["s{}", "an-in-order-random-map-that-is-drawn-anew-every-500-steps-{}", "<b>${}$</b>"])
def test_any_number_of_pairs_and_any_names_fit(n: int, name: str) -> None:
    verdict = make_verdict([name.format(i) for i in range(n)])
    layout = figures.forest(verdict).layout
    n_pairs = n * (n - 1) // 2
    lines = [text.split("<br>") for text in layout.yaxis.ticktext]
    assert len(lines) == n_pairs
    row_height = (layout.height - layout.margin.t - layout.margin.b) / n_pairs
    assert row_height >= 15 * max(map(len, lines)) + 5
    assert layout.margin.l >= 6 * max(len(line) for of_one in lines for line in of_one) - 60 * ("<" in name)
    assert layout.width < 1250
    if "<" in name:
        assert "<b>" not in layout.yaxis.ticktext[0]
        assert "$" not in layout.yaxis.ticktext[0]


def test_gains_of_all_strategies_are_those_of_the_table() -> None:
    verdict = make_verdict(controls=("shuffled", "another-text"))
    figure = figures.gains(verdict)
    points, bars = points_of(figure), bars_of(figure, 1.5)
    table = verdict.strategies.drop("none")
    assert set(points) == set(table.index)
    for strategy, row in table.iterrows():
        x, y, kind = points[strategy]
        assert (x, kind) == (row["gain"], row["role"])
        assert bars[y] == (row["gain_low"], row["gain_high"], row["role"])
        numbers = f"{row['gain']:+.2f} [{row['gain_low']:+.2f}, {row['gain_high']:+.2f}]".replace("-", "−")
        assert numbers in [note.text for note in figure.layout.annotations if note.yref == "y" and note.y == y]
    rows = sorted((y, kind, x) for x, y, kind in points.values())
    assert [kind for _, kind, _ in rows] == ["matched"] * 4 + ["control"] * 2
    assert [x for _, _, x in rows[:4]] == sorted((x for _, _, x in rows[:4]), reverse=True)
    assert band_of(figure) == []


def test_a_verdict_without_pairs_or_gains_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"the cell sst2, copied has no gain over none.*strategies are forward, reverse"
    ):
        figures.gains(make_verdict(has_none=False))
    with pytest.raises(InputError, match=r"no gain over none"):
        figures.gains(make_verdict([], controls=()))
    with pytest.raises(InputError, match=r"sst2, copied has no pair of matched strategies.*two matched strategies"):
        figures.forest(make_verdict(["forward"]))


def test_drawing_leaves_the_verdict_as_it_was() -> None:
    verdict = make_verdict(has_examples=True)
    before = verdict.pairs.copy(), verdict.strategies.copy()
    figures.forest(verdict)
    figures.gains(verdict)
    pd.testing.assert_frame_equal(verdict.pairs, before[0])
    pd.testing.assert_frame_equal(verdict.strategies, before[1])
