"""Cells of scores with planted differences between strategies."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from layerangles.equivalence.cells import Cell, Role
from layerangles.equivalence.decision import Margin
from layerangles.equivalence.verdict import Verdict

NAMES = ("forward", "reverse", "random", "last")
EQUAL = (0.8, 0.8, 0.8, 0.8)
MARGIN = Margin(0.02)


def _roles(names: tuple[str, ...]) -> dict[str, Role]:
    return {name: "none" if name == "none" else "control" if name == "shuffled" else "matched" for name in names}


def planted_cell(
    scores: dict[str, np.ndarray], *, higher_is_better: bool = True, examples: dict[str, np.ndarray] | None = None
) -> Cell:
    """A cell from scores by seed, or by draw and seed; examples have one more dimension."""
    shaped = {name: np.atleast_2d(values) for name, values in scores.items()}
    shape = (max(len(v) for v in shaped.values()), max(v.shape[1] for v in shaped.values()))
    array = np.full((len(scores), *shape), np.nan)
    for row, values in enumerate(shaped.values()):
        array[row, : len(values), : values.shape[1]] = values
    coords = {"strategy": list(scores), "draw": range(shape[0]), "seed": range(10, 10 + shape[1])}
    labelled = xr.DataArray(array, dims=tuple(coords), coords=coords)
    by_example = None
    if examples is not None:
        stacked = np.stack([examples[name] for name in scores])[:, None]
        by_example = xr.DataArray(stacked, dims=(*coords, "example"), coords=coords)
    return Cell("toy", "accuracy", higher_is_better, labelled, _roles(tuple(scores)), by_example)


def planted_scores(
    means: tuple[float, ...] = EQUAL,
    *,
    n_seeds: int = 6,
    sd: float = 0.003,
    none: float | None = 0.6,
    rng_seed: int = 0,
) -> dict[str, np.ndarray]:
    """Scores by seed of the strategies NAMES and none; seeds differ far more than strategies."""
    rng = np.random.default_rng(rng_seed)
    seeds = 0.05 * rng.standard_normal(n_seeds)
    scores = {name: mean + seeds + sd * rng.standard_normal(n_seeds) for name, mean in zip(NAMES, means, strict=False)}
    if none is not None:
        scores["none"] = none + seeds + sd * rng.standard_normal(n_seeds)
    return scores


def with_examples(scores: dict[str, np.ndarray], n: int = 60, sd: float = 0.05, rng_seed: int = 1) -> Cell:
    """A cell whose example scores average to the scores; strategies share the difficulty of examples."""
    rng = np.random.default_rng(rng_seed)
    hard = 0.2 * rng.standard_normal(n)
    examples = {}
    for name, values in scores.items():
        noise = hard + sd * rng.standard_normal(n) + sd * rng.standard_normal((len(values), n))
        examples[name] = values[:, None] + noise - noise.mean(axis=1, keepdims=True)
    return planted_cell(scores, examples=examples)


def numbers_in(text: str) -> list[float]:
    """The numbers in a sentence, in order."""
    return [float(found.replace("−", "-")) for found in re.findall(r"(?<![\w.])−?\d+(?:\.\d+)?(?:e[-−]?\d+)?", text)]


def rounded(*values: float) -> list[float]:
    """To three significant digits, as sentences have them."""
    return [float(f"{value:.3g}") for value in values]


def assert_same_verdict(ours: Verdict, others: Verdict) -> None:
    """Same outcome, pairs, spread and gain, up to rounding."""
    assert ours.outcome == others.outcome
    assert ours.seeds_needed == others.seeds_needed
    assert ours.spread == pytest.approx(others.spread)
    assert ours.gain == pytest.approx(others.gain)
    pd.testing.assert_frame_equal(ours.pairs, others.pairs, atol=1e-9)
