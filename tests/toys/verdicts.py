"""Verdicts with made-up numbers."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from layerangles.equivalence.cells import Cell, Role
from layerangles.equivalence.verdict import Estimate, Margin, Outcome, Verdict

NAMES = ("forward", "reverse", "all-to-one", "random")
OF_PAIRS: tuple[Outcome, ...] = ("equivalent", "undecided", "different")


def make_verdict(
    names: Sequence[str] = NAMES,
    *,
    margin: Margin | None = Margin(0.5),  # noqa: B008 - it is immutable
    n_seeds: int = 5,
    cell: str = "sst2, copied",
    unit: float = 1.0,
    higher_is_better: bool = True,
    outcome: Outcome = "undecided",
    gain: float = 2.0,
    has_examples: bool = False,
    controls: Sequence[str] = ("another-text",),
    has_none: bool = True,
    alpha: float = 0.05,
) -> Verdict:
    """A verdict with made-up, distinct numbers, which nothing tests. ``unit`` scales values in the metric's unit."""
    rng = np.random.default_rng(len(names))
    roles: dict[str, Role] = {"none": "none"} if has_none else {}
    roles |= dict.fromkeys(names, "matched") | dict.fromkeys(controls, "control")
    scores = unit * rng.normal(80, 1, (len(roles), 1, n_seeds))
    coords = {"strategy": list(roles), "draw": [0], "seed": np.arange(n_seeds)}
    scored = Cell(cell, "accuracy", higher_is_better, xr.DataArray(scores, coords, tuple(coords)), roles)

    strategies = pd.DataFrame(index=pd.Index(list(roles), name="strategy"))
    strategies["role"], strategies["n_draws"] = list(roles.values()), 1
    half = unit * rng.uniform(0.2, 0.5, len(roles)) if n_seeds > 1 else np.full(len(roles), np.nan)
    strategies["score"] = unit * rng.permutation(np.linspace(78, 82, len(roles)))
    strategies["low"], strategies["high"] = strategies["score"] - half, strategies["score"] + half
    strategies["sd"] = half / 2
    strategies["gain"] = np.where(strategies["role"] == "none", np.nan, unit * rng.normal(gain, 0.5, len(roles)))
    strategies["gain"] = strategies["gain"] if has_none else np.nan
    strategies["gain_low"], strategies["gain_high"] = strategies["gain"] - half, strategies["gain"] + 1.1 * half

    pairs = pd.DataFrame(itertools.combinations(names, 2), columns=["first", "second"])
    pairs["difference"] = unit * rng.normal(0, 0.5, len(pairs))
    half = unit * rng.uniform(0.2, 0.5, len(pairs)) if n_seeds > 1 else np.full(len(pairs), np.nan)
    for low, high, factor in (
        ("low", "high", 1.0),
        ("wide_low", "wide_high", 1.3),
        ("examples_low", "examples_high", 2),
    ):
        if factor < 2 or has_examples:
            pairs[low], pairs[high] = pairs["difference"] - factor * half, pairs["difference"] + 1.1 * factor * half
    pairs["sd"] = half / 2
    for name in ("p_equivalent", "p_different", "p_nonzero", "inside", "below", "above"):
        known = n_seeds > 1 and (margin is not None or name == "p_nonzero")
        pairs[name] = rng.uniform(0, 1, len(pairs)) if known else np.nan
    # Figures decide nothing, so that outcomes need not agree with the numbers.
    pairs["outcome"] = [OF_PAIRS[index % 3] if margin is not None else "undecided" for index in range(len(pairs))]

    sources = pd.Index(["strategy", "draw", "seed", "strategy × seed"], name="source")
    variances = np.array([0.04, np.nan, 0.09, 0.16]) if n_seeds > 1 else np.full(4, np.nan)
    components = pd.DataFrame({"variance": variances, "sd": np.sqrt(variances), "share": variances / 0.29}, sources)

    def estimate(value: float, low: float, high: float, scale: float = unit) -> Estimate:
        return (
            Estimate(scale * value, scale * low, scale * high)
            if n_seeds > 1
            else Estimate(scale * value, *2 * [np.nan])
        )

    unknown = Estimate(math.nan, math.nan, math.nan)
    return Verdict(
        cell=scored,
        margin=margin,
        alpha=alpha,
        power=0.8,
        outcome=outcome,
        strategies=strategies,
        pairs=pairs.set_index(["first", "second"]),
        spread=estimate(0.91, 0.45, 1.62),
        gain=estimate(gain, gain - 0.3, gain + 0.4) if has_none else unknown,
        spread_of_gain=estimate(0.455, 0.2, math.inf, 1) if has_none else unknown,
        extremes_of_gain=estimate(0.455, -math.inf, math.inf, 1) if has_none else unknown,
        components=components,
        inside=0.8765 if margin is not None and n_seeds > 1 else math.nan,
        outcome_for_new_examples="undecided" if has_examples else None,
        seeds_needed=None,
    )
