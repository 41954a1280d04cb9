"""Cells and strategies with made-up gaps and predictors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from layerangles.equivalence.gap_prediction import PREDICTORS, Prediction, predict_gaps
from layerangles.report.prediction_wording import sentences_on


def cells_of(gap: Sequence[float], **predictors: Sequence[float]) -> pd.DataFrame:
    """A table of cells named a, b, c and so on."""
    return pd.DataFrame({"gap": gap, **predictors}, index=list("abcdefghijklmnop"[: len(gap)]), dtype=float)


def strategies_of(scores: dict[str, Sequence[float]], **predictors: dict[str, Sequence[float]]) -> pd.DataFrame:
    """A table of strategies named s0, s1 and so on of each cell."""
    index = [(cell, f"s{number}") for cell, of_cell in scores.items() for number in range(len(of_cell))]
    columns = {
        name: [value for of_cell in values.values() for value in of_cell]
        for name, values in {"score": scores, **predictors}.items()
    }
    return pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(index), dtype=float)


def random_cells(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    excess = rng.normal(20, 3, n)
    return cells_of((1 + 0.1 * excess + rng.normal(0, 0.3, n)).tolist(), excess_deg=excess.tolist())


def demo(n: int, n_strategies: int = 4, *, names: Sequence[str] = "abcdefghijklmnop") -> Prediction:
    """A prediction of cells with all measures and with strategies."""
    rng = np.random.default_rng(0)
    cells = random_cells(n).assign(common_mode_ratio=rng.normal(1, 0.1, n), recoverability_gap=rng.uniform(0.2, 0.8, n))
    cells.index = pd.Index(names[:n] if isinstance(names, list) else list(names[:n]))
    index = pd.MultiIndex.from_product([cells.index, [f"s{i}" for i in range(n_strategies)]])
    strategies = pd.DataFrame({"score": rng.normal(size=len(index))}, index=index)
    for name in PREDICTORS:
        strategies[name] = np.repeat(cells[name].to_numpy(), n_strategies) + rng.normal(0, 0.1, len(index))
    return predict_gaps(cells, strategies)


def text_of(prediction: Prediction) -> str:
    """The paragraph that a report has on it."""
    return " ".join(sentences_on(prediction))
