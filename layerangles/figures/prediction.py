"""Gaps between strategies against measures of geometry, across cells and within them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from layerangles.figures.drawing import style
from layerangles.figures.drawing.frame import Margins, frame
from layerangles.figures.drawing.panel import Grid, axis_number, domain_of
from layerangles.figures.drawing.theme import FAINT, INK, SCREEN, Theme
from layerangles.lazy import lazy_module
from layerangles.notation import counted, number, p_value

if TYPE_CHECKING:
    from layerangles.equivalence import gap_prediction
else:  # the other figures do not need scipy
    gap_prediction = lazy_module("layerangles.equivalence.gap_prediction")

_PANEL_WIDTH, _PANEL_HEIGHT = 290, 250
_GAP_X, _GAP_Y = 44, 96  # between panels; vertically for the axis of one and the numbers above the next
_NUMBERS_HEIGHT = 40
_LEGEND_WIDTH = 240

_PAPER_LEFT, _PAPER_RIGHT, _PAPER_GAP = 46, 8, 16  # on paper: the left and right margins, and the gap between columns

# A line through the other cells may predict any value. Predictions further off than this many times the range of the
# gaps lie outside of the panel; otherwise the gaps themselves would be too flat to be read.
_FURTHEST = 1.0


@dataclass(frozen=True)
class _CellStyle:
    """The name, colour and mark of a cell in all panels."""

    name: str  # literal, with line breaks
    colour: str
    mark: str


def prediction(prediction: gap_prediction.Prediction, *, theme: Theme = SCREEN) -> go.Figure:
    """Draw each cell's gap between strategies against each measure of geometry, with fits and left-out errors.

    The upper row has one point per cell, the least-squares line with the 95 % band of the mean gap, and small hollow
    points for the gap predicted by the line through the other cells, joined to the observed gap. Above each panel
    stand the number of cells, Spearman's correlation, and the left-out error of the line beside that of the mean of the
    other cells. Where strategies have scores, the lower row shows their ranks within each cell (1 is the best) against
    the same measures, centred within the cell, since cells differ more than strategies do. A cell has the same colour
    and mark in all panels.

    Args:
        prediction: a result of :func:`layerangles.equivalence.gap_prediction.predict_gaps`.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size.
    """
    looks = _looks(prediction, theme)
    within = list(prediction.ranks.index.unique("predictor"))
    columns = [name for name in gap_prediction.PREDICTORS if name in prediction.predictors or name in within]
    numbers = [_numbers_across(prediction, name) for name in columns]
    numbers += [_numbers_within(prediction, name) for name in columns] if within else []
    titles = [_axis_title(name) for name in columns]
    titles += [f"{title}, from the cell's mean" for title in titles] if within else []
    grid, margins = (
        _paper_grid(len(columns), titles, numbers, theme) if theme.on_paper else _screen_grid(columns, numbers, looks)
    )
    figure = go.Figure([_in_legend(look, theme) for look in looks.values()])
    low, high, is_beyond = _gap_range(prediction)
    of_ranks = grid.n_columns * (grid.n_rows // 2)  # the place of the first panel of ranks
    for index in sorted(range(len(numbers)), key=lambda index: index % len(columns)):  # column by column
        of_column, is_within = index % len(columns), index >= len(columns)
        place = of_column + (of_ranks if is_within else 0)
        if is_within:
            traces = _within(prediction, columns[of_column], looks, theme)
            y = {"title": {"text": "rank by score (1 = best)"}} | _ranks_downwards(prediction)
        else:
            traces = _across(prediction, columns[of_column], looks, theme)
            y = {"title": {"text": "gap between strategies"}, "range": [low, high]}
        axis = axis_number(place)
        figure.add_traces([trace.update(xaxis=f"x{axis}", yaxis=f"y{axis}") for trace in traces])
        y |= {"matches": f"y{axis_number(place - of_column)}"} if of_column else {}
        y |= {"title": None, "showticklabels": False} if grid.place(place)[1] else {}
        title = "<br>".join(_title_lines(titles[index], grid.size, theme))
        figure.update_layout(grid.axes(place, {"title": {"text": title}, "nticks": theme.pick(6, 4)}, y))
        lines = "<br>".join(_number_lines(numbers[index], grid.size, theme))
        above = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "align": "left", "yshift": 2}
        figure.add_annotation(text=lines, **domain_of(place), **above, font={"size": theme.tick})
    title, notes = "Does the geometry predict the gap between strategies?", _notes(prediction, is_beyond=is_beyond)
    return frame(figure, title, notes, (grid.width, grid.height), margins, theme)


def _screen_grid(columns: list[str], numbers: list[str], looks: Mapping[Hashable, _CellStyle]) -> tuple[Grid, Margins]:
    n_rows = len(numbers) // max(1, len(columns))
    tall = style.panel_height(_PANEL_HEIGHT, n_rows, _GAP_Y, [look.name for look in looks.values()])
    grid = Grid(n_rows, len(columns), _PANEL_WIDTH, _GAP_X, _GAP_Y, tall=tall)
    return grid, (72, _LEGEND_WIDTH, _NUMBERS_HEIGHT, 60)


def _paper_grid(n_columns: int, titles: list[str], numbers: list[str], theme: Theme) -> tuple[Grid, Margins]:
    """Rows of as many panels as leave room for the numbers above each."""
    room = theme.fixed_width - _PAPER_LEFT - _PAPER_RIGHT
    per_row = max(1, min(n_columns, int((room + _PAPER_GAP) // (105 + _PAPER_GAP))))
    size = (room - (per_row - 1) * _PAPER_GAP) / per_row
    n_rows = ceil(n_columns / per_row) * (len(numbers) // n_columns)
    above, below = _around(titles, numbers, size, theme)
    grid = Grid(n_rows, per_row, size, _PAPER_GAP, above + below, tall=min(size, 115))
    return grid, (_PAPER_LEFT, _PAPER_RIGHT, above, below)


def _around(titles: list[str], numbers: list[str], width_px: float, theme: Theme) -> tuple[float, float]:
    """The space above a panel on paper, for its numbers, and below it, for its axis."""
    above = max(len(_number_lines(text, width_px, theme)) for text in numbers)
    below = max(len(_title_lines(title, width_px, theme)) for title in titles)
    return 12.0 * above + 2, 18.0 + 13 * below


def _number_lines(text: str, width_px: float, theme: Theme) -> list[str]:
    lines = text.split("<br>")
    if not theme.on_paper:
        return lines
    return [part for line in lines for part in style.wrapped(line, width_px, theme.tick)]


def _title_lines(text: str, width_px: float, theme: Theme) -> list[str]:
    if not theme.on_paper:
        return [text]
    return style.wrapped(text.replace(" °", "\N{NO-BREAK SPACE}°"), width_px + 4, theme.text)


def _axis_title(predictor: str) -> str:
    return gap_prediction.LABELS[predictor] + (" °" if predictor.endswith("_deg") else "")


def _looks(prediction: gap_prediction.Prediction, theme: Theme) -> dict[Hashable, _CellStyle]:
    looks = {}
    for index, cell in enumerate(prediction.cells.index):
        name = style.legend_name(str(cell), _LEGEND_WIDTH - 60, theme)
        looks[cell] = _CellStyle(name, style.COLOURS[index % len(style.COLOURS)], style.MARKS[index % len(style.MARKS)])
    return looks


def _in_legend(look: _CellStyle, theme: Theme) -> go.Scatter:
    """An empty trace for the cell's name in the legend, whichever panels it has points in."""
    marker = {"symbol": look.mark, "size": 10 * theme.scale, "color": look.colour}
    common = {"name": look.name, "legendgroup": look.name, "showlegend": True, "xaxis": "x", "yaxis": "y"}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, **common)


def _gap_range(prediction: gap_prediction.Prediction) -> tuple[float, float, bool]:
    """The ends of the axis of gaps, and whether a prediction lies beyond them."""
    gaps, foretold = (values[np.isfinite(values)] for values in (prediction.cells["gap"], prediction.left_out.values))
    if not len(gaps):
        return 0.0, 1.0, False
    low, high = float(min(gaps)), float(max(gaps))
    spread = high - low or abs(low) or 1.0
    both = [low, high, *foretold.tolist()]
    least, most = max(min(both), low - _FURTHEST * spread), min(max(both), high + _FURTHEST * spread)
    return least - 0.08 * spread, most + 0.08 * spread, least > min(both) or most < max(both)


def _ranks_downwards(prediction: gap_prediction.Prediction) -> dict[str, Any]:
    ranks = prediction.strategies["score_rank"]
    last = float(ranks.max()) if ranks.notna().any() else 1.0
    return {"range": [last + 0.5, 0.5], "dtick": 1, "tick0": 1}


def _across(
    prediction: gap_prediction.Prediction, predictor: str, looks: Mapping[Hashable, _CellStyle], theme: Theme
) -> list[go.Scatter]:
    """The band and the line, and each cell's observed gap joined to the one predicted by the other cells."""
    if predictor not in prediction.predictors:
        return []
    traces = []
    line = prediction.lines[prediction.lines.index.get_level_values("predictor") == predictor]
    if len(line):
        x, (low, high) = line["x"].tolist(), (line[end].tolist() for end in ("low", "high"))
        quiet: dict[str, Any] = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
        outline = {"x": [*x, *reversed(x)], "y": [*low, *reversed(high)], "line": {"width": 0}}
        traces.append(go.Scatter(**outline, **quiet, fill="toself", fillcolor=style.faded(FAINT), name="band"))
        traces.append(
            go.Scatter(
                x=x, y=line["fitted"].tolist(), **quiet, line={"color": INK, "width": theme.stroke(2)}, name="line"
            )
        )
    table = prediction.cells[["gap", predictor]].assign(foretold=prediction.left_out[predictor])
    known = table.dropna(subset=["gap", predictor])
    for cell, (gap, at, foretold) in zip(known.index, known.values.tolist(), strict=True):
        said = f"{looks[cell].name}<br>{gap_prediction.LABELS[predictor]} {number(at, digits=4)}<br>"
        points = [(gap, looks[cell].mark, theme.scale * 10, 0.0, f"{said}gap <b>{number(gap, digits=4)}</b>")]
        if np.isfinite(foretold):
            text = f"{said}gap as the other cells foretell it <b>{number(foretold, digits=4)}</b>, in truth "
            text += number(gap, digits=4)
            points.append((foretold, "circle-open", theme.scale * 7, theme.stroke(1.5), text))
        y, marks, sizes, edges, texts = zip(*points, strict=True)
        marker = {"symbol": marks, "size": sizes, "line": {"width": edges}}
        traces.append(_points(looks[cell], [at] * len(y), y, texts, marker, looks[cell].colour, theme))
    return traces


def _within(
    prediction: gap_prediction.Prediction, predictor: str, looks: Mapping[Hashable, _CellStyle], theme: Theme
) -> list[go.Scatter]:
    """The strategies of each cell, joined in the order of the predictor."""
    if predictor not in prediction.strategies:
        return []
    traces = []
    table = prediction.strategies.assign(deviation=prediction.deviations[predictor])
    known = table.dropna(subset=["score", predictor]).sort_values(predictor, kind="stable")
    for cell, rows in known.groupby("cell", sort=False):
        strategies = rows.index.get_level_values("strategy")
        columns = rows[["deviation", "score_rank", predictor, "score"]].values.tolist()
        texts = [
            f"{looks[cell].name}<br>{style.literal(str(strategy))}<br>"
            f"{gap_prediction.LABELS[predictor]} {number(at, digits=4)}<br>"
            f"score {number(score, digits=4)}, rank <b>{number(rank)}</b>"
            for strategy, (_, rank, at, score) in zip(strategies, columns, strict=True)
        ]
        x, y, *_ = zip(*columns, strict=True)
        # Zigzags of many cells would hide the points.
        marker = {"symbol": looks[cell].mark, "size": theme.scale * 8}
        traces.append(_points(looks[cell], x, y, texts, marker, style.faded(looks[cell].colour), theme))
    return traces


def _points(
    look: _CellStyle, x: Any, y: Any, texts: Any, marker: dict[str, Any], line_colour: str, theme: Theme
) -> go.Scatter:
    """One cell's points in one panel, joined by a line."""
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        line={"color": line_colour, "width": theme.stroke(1.5)},
        marker=marker | {"color": look.colour, "opacity": 1},  # plotly's default is lower for marks of several sizes
        legendgroup=look.name,
        name=look.name,
        showlegend=False,
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _numbers_across(prediction: gap_prediction.Prediction, predictor: str) -> str:
    if predictor not in prediction.predictors:
        return "not known for the cells"
    fit = prediction.fits.loc[predictor].to_dict()
    n = int(fit["n_cells"])
    cells = counted(n, "cell")
    if np.isnan(fit["slope"]):
        return f"{cells}<br>no line: " + (
            "the same in all" if n >= gap_prediction.FEWEST else f"fewer than {gap_prediction.FEWEST} cells"
        )
    error = f"left-out error {number(fit['error'])}, of the mean {number(fit['error_of_mean'])}"
    if np.isnan(fit["error"]):
        error = "left-out error not defined"
    return f"{cells} · Spearman {number(fit['spearman'], 2)}, {p_value(fit['p'])}<br>{error}"


def _numbers_within(prediction: gap_prediction.Prediction, predictor: str) -> str:
    ranks = prediction.ranks
    known = ranks[ranks.index.get_level_values("predictor") == predictor].dropna(subset=["spearman"])
    if not len(known):
        return f"no cell with {gap_prediction.FEWEST} strategies to rank"
    spearman = known["spearman"]
    if len(known) == 1:
        return f"1 cell · Spearman {number(spearman.iloc[0], 2)}, {p_value(known['p'].iloc[0])}"
    return f"{len(known)} cells · Spearman {number(spearman.min(), 2)} to {number(spearman.max(), 2)}"


def _notes(prediction: gap_prediction.Prediction, *, is_beyond: bool) -> list[str]:
    """The notes of the subtitle."""
    n = max(prediction.fits["n_cells"].tolist())
    notes = ["a mark: a cell"]
    if len(prediction.lines):
        notes += ["band: 95 % interval of the mean gap", "hollow: the gap as the line through the other cells has it"]
    if is_beyond:
        notes.append("a join that leaves its panel leads to one further off")
    if len(prediction.ranks):
        notes.append("below: strategies within each cell")
    if n < gap_prediction.FEWEST_TO_CONCLUDE:
        notes.append(f"{counted(n, 'cell')}: too few to conclude anything")
    return notes
