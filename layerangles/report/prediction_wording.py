"""The wording of gap predictions."""

from math import factorial

import numpy as np
import pandas as pd

from layerangles.equivalence.gap_prediction import FEWEST, FEWEST_TO_CONCLUDE, LABELS, Prediction
from layerangles.notation import counted, number, p_value, percent


def sentences_on(prediction: Prediction) -> list[str]:
    """Sentences on the result of a prediction, with a warning where cells are few."""
    n = int(prediction.fits["n_cells"].max())
    said = [f"Gap and geometry are both known for {counted(n, 'cell')}."]
    if n < FEWEST:
        said.append(f"A line needs at least {FEWEST}, so that nothing is fitted and nothing can be concluded.")
    else:
        if n < FEWEST_TO_CONCLUDE:
            least = 2 / factorial(n)
            said.append(f"From so few nothing can be concluded: even a perfect rank correlation has {p_value(least)}.")
        said += [_of_fit(LABELS[str(name)], fit) for name, fit in prediction.fits.iterrows()]
        said.append(_against_the_mean(prediction))
        if n >= FEWEST_TO_CONCLUDE and len(prediction.fits) > 1:
            said.append(f"The p values are not adjusted for {len(prediction.fits)} measures being tried.")
    return said + _within_cells(prediction)


def _against_the_mean(prediction: Prediction) -> str:
    tested = prediction.fits.dropna(subset=["error"])
    better = [
        f"{LABELS[str(name)]} ({percent(1 - fit['error'] / fit['error_of_mean'], 0, space=' ')} less "
        f"error, {fit['n_cells']:.0f} cells)"
        for name, fit in tested.iterrows()
        if fit["error"] < fit["error_of_mean"]
    ]
    if not len(tested):
        return "No measure could be tried on a cell left out."
    if not better:
        return "No measure predicts the gap of a cell left out better than the mean of the other cells does."
    return (
        f"Better than the mean of the other cells, the gap of a cell left out is predicted by {', '.join(better)}, "
        f"of {counted(len(tested), 'measure')} tried; one that says nothing does so about one time in five."
    )


def _within_cells(prediction: Prediction) -> list[str]:
    known = prediction.ranks.dropna(subset=["spearman"])
    if not len(prediction.ranks):
        return []
    if not len(known):
        return [f"Within no cell are there {FEWEST} strategies with different scores and geometry to be ranked."]
    said = []
    for name, of_one in known.groupby("predictor", sort=False):
        rho, p = of_one["spearman"], of_one["p"]
        numbers = f"{number(rho.iloc[0], 2)}, {p_value(p.iloc[0])}"
        if len(of_one) > 1:
            mean, least, most = (number(value, 2) for value in (rho.mean(), rho.min(), rho.max()))
            numbers = f"{mean} on average ({least} to {most}), with p < 0.05 in {int((p < 0.05).sum())}"
        said.append(
            f"Within {counted(len(of_one), 'cell')}, {LABELS[str(name)]} and the strategies' scores have a "
            f"Spearman correlation of {numbers}."
        )
    n = int(known["n_strategies"].max())
    if n < FEWEST_TO_CONCLUDE:
        smallest = number(2 / factorial(n), digits=2)
        said.append(f"With {n} strategies or fewer in a cell, p cannot be below {smallest} there.")
    return said


def _of_fit(label: str, fit: pd.Series) -> str:
    n = int(fit["n_cells"])
    if n < FEWEST:
        return f"{label.capitalize()}: not fitted, being known with the gap of {counted(n, 'cell')} only."
    if np.isnan(fit["slope"]):
        return f"{label.capitalize()}: not fitted, since it or the gap is the same in all of {n} cells."
    error = f"{number(fit['error'])} against {number(fit['error_of_mean'])} of the mean of the others"
    if np.isnan(fit["error"]):
        error = "not defined, since all cells but one have the same value"
    spearman = number(fit["spearman"], 2)
    slope, low, high = (number(fit[name]) for name in ("slope", "slope_low", "slope_high"))
    return (
        f"{label.capitalize()} ({n} cells): Spearman {spearman}, {p_value(fit['p'])}; slope {slope}, 95 % interval "
        f"{low} to {high}; error for a cell left out {error}."
    )
