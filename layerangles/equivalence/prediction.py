"""Does the geometry predict where layer selection matters? Gaps between strategies against angles, cell by cell."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, eq=False)
class Prediction:
    """How well measures of geometry predict how far strategies lie apart, and which of them is best.

    Attributes:
        cells: one row a cell (index ``cell``): ``gap`` and the predictors.
        fits: one row a predictor (index ``predictor``) over all cells.
        strategies: one row a cell and matched strategy (index ``cell``, ``strategy``): ``score`` and the predictors.
        ranks: one row a cell and predictor (index ``cell``, ``predictor``): within the cell, rank by geometry against
            rank by score.
    """

    cells: pd.DataFrame
    fits: pd.DataFrame
    strategies: pd.DataFrame
    ranks: pd.DataFrame
