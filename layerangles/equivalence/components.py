"""Variance components of scores: strategy, draw of a random map, seed, and their interaction."""

import math

import numpy as np
import pandas as pd

from layerangles.equivalence.cells import Cell

SOURCES = ("strategy", "draw", "seed", "strategy × seed")


def variance_components(cell: Cell) -> pd.DataFrame:
    """Variance components of a cell's matched strategies, by the method of moments on the analysis of variance.

    Every trained map (a strategy, or one draw of it) is crossed with every seed:
    score = mean + strategy + draw within strategy + seed + interaction. A strategy with a single map contributes
    nothing to the variance of draws. The interaction of map and seed is the residual, noise of a finite test set
    included; it makes paired differences scatter. Negative estimates are set to zero.

    Returns:
        Index ``source``; ``variance`` in squared units of the metric, ``sd`` in its unit, ``share`` of the sum. NaN
        for a single seed, and for draws if no random map was drawn twice.
    """
    arms = [(strategy, draw) for strategy in cell.matched for draw in cell.draws(strategy)]
    paired = cell.scores.sel(seed=list(cell.seeds))
    scores = np.array([paired.sel(strategy=strategy, draw=draw).values for strategy, draw in arms])
    trained = np.isfinite(scores).any(axis=1)  # a draw may have students only at seeds that are left out
    arms, scores = [arm for arm, has_students in zip(arms, trained, strict=True) if has_students], scores[trained]
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
    """The variance of strategies' means, the part of it due to draws, and the variance of draws within strategies.

    Args:
        of_arm: every arm's mean over seeds.
        strategies: the arms' strategies.
        of_one: the variance of an arm's mean that is due to the interaction; used for strategies with a single arm.
    """
    groups = pd.Series(of_arm).groupby(strategies)
    sizes, squares = groups.size(), groups.var(ddof=1)
    freedom = int((sizes - 1).sum())
    within = float((squares * (sizes - 1)).sum() / freedom) if freedom else math.nan
    between = float(groups.mean().var(ddof=1))
    return between, float((squares.fillna(of_one) / sizes).mean()), within
