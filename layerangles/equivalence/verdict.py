"""The verdict on a cell: are its strategies equivalent, different, or undecided?"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import stdtrit

from layerangles.equivalence.cells import Cell
from layerangles.equivalence.components import variance_components
from layerangles.equivalence.decision import (
    Margin,
    Moments,
    Outcome,
    PairTests,
    compare_pairs,
    decide,
    differences,
    holm,
    moments,
    outcome_of,
    p_nonzero,
    standard_errors,
)
from layerangles.equivalence.intervals import (
    UNKNOWN,
    Estimate,
    fieller,
    multi_bootstrap,
    pair_differences,
    spread_interval,
    spread_of_gain_interval,
    t_interval,
)
from layerangles.equivalence.posterior import Rope, rope
from layerangles.equivalence.power import largest_sd, seeds_to_decide
from layerangles.errors import InputError

__all__ = ["Estimate", "Margin", "Outcome", "Verdict", "judge"]


@dataclass(frozen=True, eq=False)
class Verdict:
    """The statistics and the outcome of a cell; see :func:`judge`.

    Attributes:
        cell: the scores.
        margin: the smallest difference that matters; None if none was given: then nothing is decided.
        alpha: the largest rate of a false "equivalent", and of a false "different".
        power: the probability of a decision that ``seeds_needed`` aims at.
        outcome: whether the matched strategies are equally good.
        strategies: one row per strategy, with none and controls (index ``strategy``): ``role``, ``n_draws``, ``score``
            (mean over seeds), ``low``, ``high`` (1 − α interval), ``sd`` over seeds, ``gain`` over none (paired;
            positive is better), ``gain_low``, ``gain_high``.
        pairs: one row per pair of matched strategies (index ``first``, ``second``): ``difference`` (first − second,
            positive is better for the first, whichever way the metric goes), ``low``, ``high`` (the 1 − 2α interval
            that decides equivalence), ``wide_low``, ``wide_high`` (1 − α), ``sd`` of the difference over seeds,
            ``p_equivalent`` (TOST), ``p_different`` (beyond the margin; Holm-adjusted over the pairs), ``p_nonzero``
            (paired t test; Holm-adjusted), ``inside``, ``below``, ``above`` (posterior probabilities that the
            difference is within the margin, or beyond it on either side), ``outcome``; with example scores
            ``examples_low``, ``examples_high`` (1 − 2α, over seeds and examples: Student's interval with the
            Multi-Bootstrap's standard error).
        spread: best minus worst strategy, with the interval (1 − α) that follows from those of all pairs; see
            :func:`layerangles.equivalence.intervals.spread_interval`.
        gain: mean of the matched strategies over none, paired, with its t interval (1 − α).
        spread_of_gain: spread ÷ gain, with the interval (1 − α) that follows from Fieller's of all pairs.
        extremes_of_gain: (best − worst strategy) ÷ gain with Fieller's interval, as if the two had been named
            beforehand; infinite ends if the gain may be zero.
        components: variance components (index ``source``): ``strategy``, ``draw``, ``seed``, ``strategy × seed``:
            ``variance``, ``sd``, ``share``.
        inside: posterior probability that all pairs are within the margin.
        outcome_for_new_examples: the outcome over new test examples as well as new seeds; None without example scores.
        seeds_needed: for an undecided cell, the number of seeds that would decide it with probability ``power`` if the
            true differences and variances equal the observed ones; None if more than a thousand, or not known.
        n_seeds: the number of paired seeds.
    """

    cell: Cell
    margin: Margin | None
    alpha: float
    power: float
    outcome: Outcome
    strategies: pd.DataFrame
    pairs: pd.DataFrame
    spread: Estimate
    gain: Estimate
    spread_of_gain: Estimate
    extremes_of_gain: Estimate
    components: pd.DataFrame
    inside: float
    outcome_for_new_examples: Outcome | None
    seeds_needed: int | None

    @property
    def n_seeds(self) -> int:
        """The number of paired seeds."""
        return len(self.cell.seeds)

    def largest_sd(self, n_seeds: int) -> float | None:
        """The sd of paired differences up to which ``n_seeds`` seeds would find equally good strategies equivalent.

        See :func:`layerangles.equivalence.largest_sd`; None without a margin, or without a gain that it is a share of.
        """
        if self.margin is None or (self.margin.of_gain and not self.gain.value > 0):
            return None
        size = self.margin.size * (self.gain.value if self.margin.of_gain else 1)
        return largest_sd(n_seeds, size, len(self.cell.matched), power=self.power, alpha=self.alpha)


class _Paired(NamedTuple):
    """A cell's scores at its paired seeds, turned so that more is better: the matched strategies, then none."""

    names: tuple[str, ...]
    values: Float[np.ndarray, "seed strategy"]

    @property
    def matched(self) -> Float[np.ndarray, "seed matched"]:
        return self.values[:, : len(self.names)]

    @property
    def gain(self) -> Float[np.ndarray, " seed"]:
        """Mean of the matched strategies minus none, seed by seed; NaN without none."""
        has_none = self.values.shape[1] > len(self.names)
        none = self.values[:, -1] if has_none else np.full(len(self.values), math.nan)
        return np.asarray(self.matched.mean(axis=1) - none)

    @property
    def extremes(self) -> Float[np.ndarray, " seed"]:
        """The strategy with the best mean minus the one with the worst, seed by seed."""
        means = self.matched.mean(axis=0)
        return np.asarray(self.matched[:, means.argmax()] - self.matched[:, means.argmin()])


def judge(cell: Cell, margin: Margin | None, *, alpha: float = 0.05, power: float = 0.8) -> Verdict:
    """Judge whether the matched strategies of a cell give equally good students.

    Equivalent: every pair of strategies is, by two one-sided t tests on differences that are paired by seed (TOST;
    Schuirmann 1987), each at ``alpha`` (intersection-union; Berger 1982). Different: the difference of some pair is
    larger than the margin, by the t test and Holm's adjustment over the pairs. Undecided: neither. The intervals are
    over seeds, for this test set and for the draws of random maps that were trained.

    Args:
        cell: the scores.
        margin: the smallest difference that matters, fixed before the scores were seen; without one nothing is decided.
        alpha: the largest rate of a false "equivalent", and of a false "different".
        power: the probability of a decision that ``seeds_needed`` aims at.

    Raises:
        InputError: fewer than two matched strategies, no seed at which all have a student, or a margin that is a share
            of the gain in a cell without ``none``.
    """
    _check(cell, margin, alpha, power)
    sign = 1 if cell.higher_is_better else -1
    names = cell.matched + ((cell.none,) if cell.none is not None else ())
    paired = _Paired(cell.matched, sign * cell.by_seed(names))
    given = moments(paired.values)
    tests = compare_pairs(given, len(paired.names), margin) if margin is not None else None
    for_new_examples = _moments_for_new_examples(cell, sign)
    posterior = rope(given, len(paired.names), margin) if margin is not None and given.n_seeds > 1 else None
    pairs = _pair_table(paired, given, tests, posterior, for_new_examples, alpha)
    outcome: Outcome = "undecided"
    needed = None
    if tests is not None and margin is not None:
        outcome = outcome_of(*map(bool, decide(tests, alpha)))
        if outcome == "undecided" and given.n_seeds > 1:
            needed = seeds_to_decide(
                given.mean, given.covariance, margin, power=power, alpha=alpha, n_matched=len(paired.names)
            )
    return Verdict(
        cell=cell,
        margin=margin,
        alpha=alpha,
        power=power,
        outcome=outcome,
        strategies=_strategy_table(cell, sign, alpha),
        pairs=pairs,
        spread=spread_interval(paired.matched, 1 - alpha),
        gain=t_interval(paired.gain, 1 - alpha),
        spread_of_gain=spread_of_gain_interval(paired.matched, paired.gain, 1 - alpha),
        extremes_of_gain=fieller(paired.extremes, paired.gain, 1 - alpha),
        components=variance_components(cell),
        inside=math.nan if posterior is None else posterior.all_inside,
        outcome_for_new_examples=_outcome_for_new_examples(for_new_examples, len(paired.names), margin, alpha),
        seeds_needed=None if needed is None else needed.seeds,
    )


def _check(cell: Cell, margin: Margin | None, alpha: float, power: float) -> None:
    for name, value, top in (("alpha", alpha, 0.5), ("power", power, 1)):
        if not 0 < value < top:
            raise InputError(f"{name} is {value}; allowed are numbers between 0 and {top}.")
    if len(cell.matched) < 2:
        raise InputError(
            f"the cell {cell.name} has {len(cell.matched)} matched strategies ({', '.join(cell.matched) or 'none'}), "
            "and strategies can be compared from two on. Train another, or leave the cell out."
        )
    if not cell.seeds:
        raise InputError(
            f"the cell {cell.name} has no seed at which all of {', '.join(cell.matched)} have a score, so nothing is "
            "paired. Train the missing students."
        )
    if margin is not None and margin.of_gain and cell.none is None:
        raise InputError(
            f"the margin is {margin}, and the cell {cell.name} has no strategy none to gain over. Give a margin in the "
            "metric's own unit, or train none."
        )


def _strategy_table(cell: Cell, sign: int, alpha: float) -> pd.DataFrame:
    none = cell.by_seed([cell.none])[:, 0] if cell.none is not None else None
    rows = []
    for strategy in map(str, cell.scores["strategy"].values):
        scores = cell.by_seed([strategy])[:, 0]
        present = np.isfinite(scores)  # a control may be missing at a seed
        own = t_interval(scores[present], 1 - alpha)
        over = t_interval(sign * (scores - none)[present], 1 - alpha) if none is not None else UNKNOWN
        rows.append(
            {
                "strategy": strategy,
                "role": cell.roles[strategy],
                "n_draws": len(cell.draws(strategy)),
                "score": own.value,
                "low": own.low,
                "high": own.high,
                "sd": float(np.std(scores[present], ddof=1)) if present.sum() > 1 else math.nan,
                "gain": over.value if strategy != cell.none else math.nan,
                "gain_low": over.low if strategy != cell.none else math.nan,
                "gain_high": over.high if strategy != cell.none else math.nan,
            }
        )
    return pd.DataFrame(rows).set_index("strategy")


def _pair_table(
    paired: _Paired,
    given: Moments,
    tests: PairTests | None,
    posterior: Rope | None,
    for_new_examples: Moments | None,
    alpha: float,
) -> pd.DataFrame:
    n = len(paired.names)
    table = pd.DataFrame(combinations(paired.names, 2), columns=["first", "second"])
    values = list(pair_differences(paired.matched).T)
    for low, high, confidence in (("low", "high", 1 - 2 * alpha), ("wide_low", "wide_high", 1 - alpha)):
        intervals = [t_interval(of_one, confidence) for of_one in values]
        table["difference"] = [interval.value for interval in intervals]
        table[low] = [interval.low for interval in intervals]
        table[high] = [interval.high for interval in intervals]
    table["sd"] = [float(np.std(v, ddof=1)) if len(v) > 1 else math.nan for v in values]
    table["p_nonzero"] = holm(p_nonzero(given, n))
    unknown = np.full(len(table), math.nan)
    table["p_equivalent"] = unknown if tests is None else tests.p_equivalent
    table["p_different"] = unknown if tests is None else holm(tests.p_different)
    within, beyond = table["p_equivalent"] <= alpha, table["p_different"] <= alpha
    table["outcome"] = [outcome_of(*of_one) for of_one in zip(within, beyond, strict=True)]
    for name in ("inside", "below", "above"):
        table[name] = unknown if posterior is None else getattr(posterior, name)
    if for_new_examples is not None:
        contrasts = differences(n, len(for_new_examples.mean))
        centre = contrasts @ for_new_examples.mean
        half = stdtrit(for_new_examples.n_seeds - 1, 1 - alpha) * standard_errors(for_new_examples, contrasts)
        table["examples_low"], table["examples_high"] = centre - half, centre + half
    return table.set_index(["first", "second"])


def _moments_for_new_examples(cell: Cell, sign: int) -> Moments | None:
    """Moments of the matched strategies, then none, for new seeds and new test examples; None without example scores.

    Percentiles of the Multi-Bootstrap are too narrow for a test: they ignore the heavy tails of Student's t, and a
    variance over n resampled seeds is only (n − 1) / n of the variance over new ones (90 % intervals covered 84 % with
    5 seeds). Its variance is therefore inflated and used in the same t test as for seeds alone. The share of the
    examples is inflated, too, and residual noise is resampled twice: with few seeds the test is conservative (95 to
    98 %).
    """
    n_seeds = len(cell.seeds)
    if cell.examples is None or n_seeds < 2:
        return None
    names = [*cell.matched, *([cell.none] if cell.none is not None else [])]
    chosen = cell.examples.sel(strategy=names, seed=list(cell.seeds)).mean("draw")
    values = sign * np.asarray(chosen.transpose("strategy", "seed", "example").values, dtype=float)
    if np.isnan(values).any():
        return None
    of_means = np.cov(multi_bootstrap(values), rowvar=False) * n_seeds / (n_seeds - 1)
    return Moments(values.mean(axis=(1, 2)), of_means * n_seeds, n_seeds)


def _outcome_for_new_examples(
    for_new_examples: Moments | None, n_matched: int, margin: Margin | None, alpha: float
) -> Outcome | None:
    if for_new_examples is None or margin is None:
        return None
    return outcome_of(*map(bool, decide(compare_pairs(for_new_examples, n_matched, margin), alpha)))
