"""Where the variance of scores comes from: strategy, draw of a random map, seed, and their interaction."""

import math

import numpy as np
import pandas as pd

from layerangles.equivalence.cells import Cell

SOURCES = ("strategy", "draw", "seed", "strategy × seed")


def variance_components(cell: Cell) -> pd.DataFrame:
    """Variance components of a cell's matched strategies, by the method of moments on the analysis of variance.

    Every map that was trained (a strategy, or one draw of it) is crossed with every seed:
    score = mean + strategy + draw within strategy + seed + interaction. The interaction of map and seed holds what is
    left, the noise of a finite test set among it; it is what paired differences scatter by. An estimate below zero is
    given as zero.

    Returns:
        Index ``source``; ``variance`` in squared units of the metric, ``sd`` in its unit, ``share`` of the sum. NaN
        where there is nothing to estimate it from: one seed, or no random map that was drawn twice.
    """
    arms = [(strategy, draw) for strategy in cell.matched for draw in cell.draws(strategy)]
    scores = np.array([cell.scores.sel(strategy=s, draw=d, seed=list(cell.seeds)).values for s, d in arms])
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    variances = dict.fromkeys(SOURCES, math.nan)
    n_arms, n_seeds = scores.shape
    if n_arms > 1 and n_seeds > 1:
        of_arm, of_seed = scores.mean(axis=1), scores.mean(axis=0)
        residual = scores - of_arm[:, None] - of_seed[None, :] + scores.mean()
        noise = float((residual**2).sum() / ((n_arms - 1) * (n_seeds - 1)))
        between, within = _nested(of_arm, [strategy for strategy, _ in arms])
        # The arms' means hold their share of the interaction; without two draws it is all that is within strategies.
        within_expected = noise / n_seeds if math.isnan(within) else within
        variances = {
            "strategy": _per_strategy(between - within_expected, [strategy for strategy, _ in arms]),
            "draw": within - noise / n_seeds,
            "seed": float(np.var(of_seed, ddof=1)) - noise / n_arms,
            "strategy × seed": noise,
        }
    table = pd.DataFrame({"variance": variances}).rename_axis("source").clip(lower=0)
    table["sd"] = np.sqrt(table["variance"])
    total = table["variance"].sum()
    table["share"] = table["variance"] / total if total > 0 else math.nan
    return table


def _nested(of_arm: np.ndarray, strategies: list[str]) -> tuple[float, float]:
    """Mean squares of arms' means between strategies and within them; NaN where there is no freedom."""
    frame = pd.DataFrame({"strategy": strategies, "mean": of_arm})
    groups = frame.groupby("strategy")["mean"]
    centred = frame["mean"] - groups.transform("mean")
    n_strategies, n_arms = groups.ngroups, len(frame)
    between = float(((groups.transform("mean") - frame["mean"].mean()) ** 2).sum())
    within = float((centred**2).sum() / (n_arms - n_strategies)) if n_arms > n_strategies else math.nan
    return (between / (n_strategies - 1) if n_strategies > 1 else math.nan), within


def _per_strategy(excess: float, strategies: list[str]) -> float:
    """The variance between strategies from the excess of its mean square: they may have several arms."""
    sizes = pd.Series(strategies).value_counts()
    n_arms = int(sizes.sum())
    if len(sizes) < 2:
        return math.nan
    return excess * (len(sizes) - 1) / (n_arms - float((sizes**2).sum()) / n_arms)
