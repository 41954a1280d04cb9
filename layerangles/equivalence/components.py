"""Where the variance of scores comes from: strategy, draw of a random map, seed, and their interaction."""

import math

import numpy as np
import pandas as pd

from layerangles.equivalence.cells import Cell

SOURCES = ("strategy", "draw", "seed", "strategy × seed")


def variance_components(cell: Cell) -> pd.DataFrame:
    """Variance components of a cell's matched strategies, by the method of moments on the analysis of variance.

    Every map that was trained (a strategy, or one draw of it) is crossed with every seed:
    score = mean + strategy + draw within strategy + seed + interaction. A strategy with a single map has no draws that
    could differ, and none of their variance is taken out of what strategies differ by. The interaction of map and seed
    holds what is left, the noise of a finite test set among it; it is what paired differences scatter by. An estimate
    below zero is given as zero.

    Returns:
        Index ``source``; ``variance`` in squared units of the metric, ``sd`` in its unit, ``share`` of the sum. NaN
        where there is nothing to estimate it from: one seed, or no random map that was drawn twice.
    """
    arms = [(strategy, draw) for strategy in cell.matched for draw in cell.draws(strategy)]
    paired = cell.scores.sel(seed=list(cell.seeds))
    scores = np.array([paired.sel(strategy=strategy, draw=draw).values for strategy, draw in arms])
    trained = np.isfinite(scores).any(axis=1)  # a draw may have students at left-out seeds alone
    arms, scores = [arm for arm, there in zip(arms, trained, strict=True) if there], scores[trained]
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    variances = dict.fromkeys(SOURCES, math.nan)
    n_arms, n_seeds = scores.shape
    if n_arms > 1 and n_seeds > 1:
        of_arm, of_seed = scores.mean(axis=1), scores.mean(axis=0)
        residual = scores - of_arm[:, None] - of_seed[None, :] + scores.mean()
        noise = float((residual**2).sum() / ((n_arms - 1) * (n_seeds - 1)))
        between, within_means, within = _nested(of_arm, [strategy for strategy, _ in arms], noise / n_seeds)
        variances = {
            "strategy": between - within_means,
            "draw": within - noise / n_seeds,
            "seed": float(np.var(of_seed, ddof=1)) - noise / n_arms,
            "strategy × seed": noise,
        }
    table = pd.DataFrame({"variance": variances}).rename_axis("source").clip(lower=0)
    table["sd"] = np.sqrt(table["variance"])
    total = table["variance"].sum()
    table["share"] = table["variance"] / total if total > 0 else math.nan
    return table


def _nested(of_arm: np.ndarray, strategies: list[str], of_one: float) -> tuple[float, float, float]:
    """The variance of strategies' means, what of it is their draws', and the variance of draws within strategies.

    Args:
        of_arm: every arm's mean over seeds.
        strategies: the arms' strategies.
        of_one: the variance that the interaction gives to an arm's mean: all there is where a strategy has one arm.
    """
    groups = pd.Series(of_arm).groupby(strategies)
    sizes, squares = groups.size(), groups.var(ddof=1)
    freedom = int((sizes - 1).sum())
    within = float((squares * (sizes - 1)).sum() / freedom) if freedom else math.nan
    between = float(groups.mean().var(ddof=1))
    return between, float((squares.fillna(of_one) / sizes).mean()), within
