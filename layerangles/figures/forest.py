"""Forest plots of a verdict: differences between all pairs of strategies, and gains of strategies over none."""

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures.drawing import style
from layerangles.figures.drawing.rows import NO_INTERVAL, Ends, Look, Row, Words, draw_rows
from layerangles.figures.drawing.theme import FAINT, INK, SCREEN, Theme
from layerangles.notation import decimals, interval, number, percent, with_interval

if TYPE_CHECKING:
    from layerangles.equivalence.verdict import Verdict

# Okabe and Ito's blue and vermilion, and grey; marks and words tell the outcomes apart without colour.
OUTCOMES = {
    "equivalent": Look("equivalent", "#0072b2", "circle", "●"),
    "different": Look("different", "#d55e00", "diamond", "◆"),
    "undecided": Look("undecided", FAINT, "square", "□", filled=False),
}
_ROLES = {
    "matched": Look("matched", INK, "circle", "●"),
    "control": Look("control", "#cc79a7", "diamond", "◇", filled=False),
}
_PROBABILITIES = {
    "p_equivalent": "p, not equivalent",
    "p_different": "p, within the margin",
    "p_nonzero": "p, no difference",
    "inside": "posterior probability of a difference within the margin",
}


def half_band(verdict: "Verdict") -> float:
    """The margin in the metric's unit; NaN where none was given, or where it is a share of a gain not above zero."""
    if verdict.margin is None:
        return math.nan
    if not verdict.margin.of_gain:
        return float(verdict.margin.size)
    return verdict.margin.size * verdict.gain.value if verdict.gain.value > 0 else math.nan


def margin_text(verdict: "Verdict") -> str:
    """The margin in words."""
    if verdict.margin is None:
        return "no margin was given, so nothing is decided"
    if not verdict.margin.of_gain:
        return f"margin ±{verdict.margin.size:g}"
    share = f"{verdict.margin.size:g} of the gain over none"
    half = half_band(verdict)
    if math.isnan(half):
        return f"margin {share}, which is not above zero, so that there is no margin"
    places = places_of(verdict)
    return f"margin ±{number(half, places)}, {share} ({number(verdict.gain.value, places)})"


def places_of(verdict: "Verdict") -> int:
    """The number of decimals for all values in the metric's unit, chosen by the differences."""
    columns = verdict.pairs[["difference", "low", "high"]]
    return decimals([*columns.to_numpy(dtype=float).ravel().tolist(), verdict.gain.value, verdict.spread.value])


def largest_first(verdict: "Verdict") -> pd.DataFrame:
    """The pairs in descending order of their absolute difference."""
    return verdict.pairs.sort_values("difference", key=abs, ascending=False, kind="stable").reset_index()


def forest(verdict: "Verdict", *, theme: Theme = SCREEN) -> go.Figure:
    """Draw the paired differences of all pairs of matched strategies, one row per pair, the largest first.

    The thick interval, of 1 − 2α, decides equivalence; the thin one is the 1 − α interval. The margin is a band around
    zero; a margin that is a share of the gain is drawn at the measured gain. Colour, mark and a word show each pair's
    outcome. The interval for new test examples, if there is one, is drawn faintly below the row.

    Args:
        verdict: the verdict on a cell.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size, whose height grows with the number of pairs.

    Raises:
        InputError: the verdict has no pairs.
    """
    if verdict.pairs.empty:
        raise InputError(
            f"the cell {verdict.cell.name} has no pair of matched strategies, so there is no difference to draw. "
            "Judge a cell with two matched strategies at least."
        )
    places = places_of(verdict)
    rows = [_pair(row, places, verdict.alpha) for row in largest_first(verdict).to_dict("records")]
    decisive, wide = percent(1 - 2 * verdict.alpha), percent(1 - verdict.alpha)
    has_intervals = any(not math.isnan(row.thick.low) for row in rows)
    notes = [f"thick: {decisive} interval, which decides equivalence", f"thin: {wide} interval"]
    if not has_intervals:
        seeds = "one seed" if verdict.n_seeds == 1 else f"{verdict.n_seeds} seeds"
        notes = [f"points alone: with {seeds} no interval exists"]
    else:
        notes.append(f"{verdict.n_seeds} paired seeds")
    notes.append(f"{'band: ' if math.isfinite(half_band(verdict)) else ''}{margin_text(verdict)}")
    if has_intervals and verdict.margin is not None and verdict.margin.of_gain:
        notes.append("its own uncertainty takes part in the decision")
    words = Words(
        title=f"Differences between strategies in {verdict.cell.name}: {verdict.outcome}",
        notes=notes,
        rows="first − second",
        numbers=f"difference [{decisive} interval]" if has_intervals else "difference",
        brief="difference",
        kinds="outcome",
        axis=_axis("difference in", verdict, "where the first is better"),
        extra=f"{decisive} interval for new seeds and new test examples (Multi-Bootstrap)",
    )
    return draw_rows(rows, OUTCOMES, words, half_band(verdict), theme)


def gains(verdict: "Verdict", *, theme: Theme = SCREEN) -> go.Figure:
    """Draw the gain over none of every strategy, controls included: one row each, the best first, controls last.

    The interval is the 1 − α interval of the paired difference from none.

    Args:
        verdict: the verdict on a cell.
        theme: for a screen, or for a paper, see :func:`layerangles.figures.drawing.theme`.

    Returns:
        A figure of fixed size.

    Raises:
        InputError: the cell has no strategy without matching, or no other.
    """
    others = verdict.strategies[verdict.strategies["role"] != "none"]
    if verdict.cell.none is None or others.empty:
        raise InputError(
            f"the cell {verdict.cell.name} has no gain over none: it needs a strategy of the role none, and another "
            f"one; its strategies are {', '.join(map(str, verdict.strategies.index))}."
        )
    best_first = others.sort_values("gain", ascending=False, kind="stable")
    table = best_first.sort_values("role", key=lambda role: role == "control", kind="stable")
    places = places_of(verdict)
    rows = [_gain(row, places) for row in table.reset_index().to_dict("records")]
    has_intervals = any(not math.isnan(row.thin.low) for row in rows)
    wide = percent(1 - verdict.alpha)
    seeds = "one seed" if verdict.n_seeds == 1 else f"{verdict.n_seeds} paired seeds"
    words = Words(
        title=f"Gain over no matching in {verdict.cell.name}",
        notes=[f"bars: {wide} interval" if has_intervals else "points alone: no interval exists", seeds],
        rows="strategy",
        numbers=f"gain [{wide} interval]" if has_intervals else "gain",
        brief="gain",
        kinds="role",
        axis=_axis("gain in", verdict, f"where it is better than {verdict.cell.none}"),
    )
    return draw_rows(rows, _ROLES, words, theme=theme)


def _pair(row: Mapping[Hashable, Any], places: int, alpha: float) -> Row:
    label = str(row["first"]), f"− {row['second']}"
    value, thick, thin = _float(row, "difference"), _ends(row, "low", "high"), _ends(row, "wide_low", "wide_high")
    extra = _ends(row, "examples_low", "examples_high")
    lines = [
        f"{style.literal(' '.join(label))}: <b>{number(value, places, signed=True)}</b>, {row['outcome']}",
        f"{percent(1 - 2 * alpha)} interval {interval(*thick, places, signed=True)}",
        f"{percent(1 - alpha)} interval {interval(*thin, places, signed=True)}",
    ]
    lines += [f"{what} {number(_float(row, name))}" for name, what in _PROBABILITIES.items() if not pd.isna(row[name])]
    return Row(
        label=label,
        kind=str(row["outcome"]),
        value=value,
        thick=thick,
        thin=thin,
        extra=extra,
        text=with_interval(value, *thick, places, signed=True),
        brief=number(value, places, signed=True),
        hover="<br>".join(lines),
    )


def _gain(row: Mapping[Hashable, Any], places: int) -> Row:
    value, thin = _float(row, "gain"), _ends(row, "gain_low", "gain_high")
    text = with_interval(value, *thin, places, signed=True)
    return Row(
        label=[str(row["strategy"])],
        kind=str(row["role"]),
        value=value,
        thick=NO_INTERVAL,
        thin=thin,
        extra=NO_INTERVAL,
        text=text,
        brief=number(value, places, signed=True),
        hover=f"{style.literal(str(row['strategy']))}: <b>{text}</b><br>score {number(_float(row, 'score'), digits=5)}",
    )


def _float(row: Mapping[Hashable, Any], name: str) -> float:
    return float(row.get(name, math.nan))


def _ends(row: Mapping[Hashable, Any], low: str, high: str) -> Ends:
    return Ends(_float(row, low), _float(row, high))


def _axis(what: str, verdict: "Verdict", positive: str) -> str:
    """The title of the axis; the sign of differences is such that more is better."""
    turned = "" if verdict.cell.higher_is_better else " (less of it is better)"
    return f"{what} {verdict.cell.metric}{turned}: positive {positive}"
