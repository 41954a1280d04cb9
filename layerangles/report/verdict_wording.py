"""The wording of verdicts: the reason for an outcome in sentences, and a table of verdicts."""

import math
from collections.abc import Sequence

import pandas as pd

from layerangles.equivalence.power import MOST_SEEDS
from layerangles.equivalence.verdict import Verdict
from layerangles.notation import count, number, p_value, percent, with_interval

_FOR_EXAMPLE = 5  # seeds, as an example where there is only one


def reason_for(verdict: Verdict) -> str:
    """The outcome in a sentence or two, with its numbers."""
    if verdict.margin is None:
        return (
            "No margin was given, so nothing is decided: say which difference would matter. "
            f"Observed: spread {number(verdict.spread.value)}, gain over none {number(verdict.gain.value)}."
        )
    if verdict.n_seeds == 1:
        return _of_one_seed(verdict)
    pairs, n_pairs = verdict.pairs, len(verdict.pairs)
    confidence = percent(1 - 2 * verdict.alpha, space=" ")
    if verdict.outcome == "equivalent":
        row = int(pairs[["low", "high"]].abs().max(axis=1).argmax())
        widest, (first, second) = pairs.iloc[row], pairs.index[row]
        if n_pairs == 1:
            return (
                f"{first} and {second} differ by less than {verdict.margin}: the {confidence} interval of {first} − "
                f"{second} is {_interval(widest)}."
            )
        return (
            f"All {n_pairs} pairs of {len(verdict.cell.matched)} strategies differ by less than {verdict.margin}: the "
            f"{confidence} interval that reaches farthest is that of {first} − {second}, {_interval(widest)}."
        )
    if verdict.outcome == "different":
        row = int(pairs["p_different"].argmin())
        most, (first, second) = pairs.iloc[row], pairs.index[row]
        better, worse = (first, second) if most["difference"] > 0 else (second, first)
        ends = sorted(abs(most[end]) for end in ("wide_low", "wide_high"))
        return (
            f"{better} is better than {worse} by {with_interval(abs(most['difference']), *ends)}, "
            f"more than {verdict.margin} (adjusted {p_value(most['p_different'])}); "
            f"{_beyond(pairs)} of {n_pairs} pairs are beyond the margin."
        )
    within = int((pairs["outcome"] == "equivalent").sum())
    undecided = f"{within} of {n_pairs} pairs are within {verdict.margin}, and no pair is shown to be beyond it."
    return f"{undecided} {_way_on(verdict)}"


def _beyond(pairs: pd.DataFrame) -> int:
    return int((pairs["outcome"] == "different").sum())


def _interval(row: "pd.Series[float]") -> str:
    return with_interval(row["difference"], row["low"], row["high"])


def _way_on(verdict: Verdict) -> str:
    if verdict.seeds_needed is None:
        reasons = ["some pair lies at the margin", "scores scatter too much for it"]
        if verdict.margin is not None and verdict.margin.of_gain:
            reasons.append("there is hardly a gain to take a share of")
        return f"Not even {count(MOST_SEEDS)} seeds would decide if everything is as it seems: {', or '.join(reasons)}."
    return (
        f"If everything is as it seems, {verdict.seeds_needed} seeds (there are {verdict.n_seeds}) would decide with a "
        f"probability of {verdict.power:g}."
    )


def _of_one_seed(verdict: Verdict) -> str:
    observed = "One seed has no interval, so nothing follows from its spread and its gain."
    sd = verdict.largest_sd(_FOR_EXAMPLE)
    if sd is None:
        return observed
    return (
        f"{observed} {_FOR_EXAMPLE} seeds would show equal strategies to be within {verdict.margin} with a probability "
        f"of {verdict.power:g} only if their paired differences scatter over seeds by less than {number(sd)} (sd)."
    )


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """A table with one row per cell (index ``cell``).

    Columns: ``metric``, ``seeds``, ``strategies`` (matched ones), ``none``, ``worst`` and ``best`` (mean scores),
    ``spread`` with ``spread_low`` and ``spread_high``, ``gain`` (in the metric's unit, positive is better) with
    ``gain_low`` and ``gain_high``, ``spread_of_gain`` with its ends, ``margin``, ``verdict``, ``seeds_needed`` (of an
    undecided cell), ``inside`` (posterior probability that all pairs are within the margin) and
    ``verdict_for_new_examples``. NaN and None where something is not known.
    """
    rows = []
    for verdict in verdicts:
        cell, scores = verdict.cell, verdict.strategies["score"]
        matched = scores[list(cell.matched)]
        ends = (matched.min(), matched.max())
        row: dict[str, object] = {
            "cell": cell.name,
            "metric": cell.metric,
            "seeds": verdict.n_seeds,
            "strategies": len(cell.matched),
            "none": scores[cell.none] if cell.none is not None else math.nan,
            "worst": ends[0] if cell.higher_is_better else ends[1],
            "best": ends[1] if cell.higher_is_better else ends[0],
        }
        for name in ("spread", "gain", "spread_of_gain"):
            estimate = getattr(verdict, name)
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        row |= {
            "margin": None if verdict.margin is None else str(verdict.margin),
            "verdict": verdict.outcome,
            "seeds_needed": verdict.seeds_needed,
            "inside": verdict.inside,
            "verdict_for_new_examples": verdict.outcome_for_new_examples,
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("cell")
