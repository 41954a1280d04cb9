"""The verdict on a cell: do its strategies give equally good students? Equivalent, different, or undecided."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import pandas as pd

from layerangles.equivalence.cells import Cell

Outcome = Literal["equivalent", "different", "undecided"]


class Estimate(NamedTuple):
    """A number with the ends of its interval; NaN where it cannot be estimated, infinite where it is unbounded."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Margin:
    """The smallest difference that matters.

    Attributes:
        size: in the metric's own unit; or, with ``of_gain``, as a share of what matching gains over none.
        of_gain: whether it is such a share.
    """

    size: float
    of_gain: bool = False


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the scores of a cell say.

    Attributes:
        cell: the scores.
        margin: the smallest difference that matters; None where none was given: then nothing is decided.
        alpha: the largest rate of a false "equivalent", and of a false "different".
        power: the probability of a decision for which seeds are counted.
        outcome: whether the matched strategies are equally good.
        reason: the outcome in a sentence or two, with its numbers.
        strategies: one row a strategy, also none and controls (index ``strategy``): ``role``, ``n_draws``, ``score``
            (mean over seeds), ``low``, ``high`` (1 − α interval), ``sd`` over seeds, ``gain`` over none (paired;
            positive is better), ``gain_low``, ``gain_high``.
        pairs: one row a pair of matched strategies (index ``first``, ``second``): ``difference`` (first − second,
            positive is better for the first, whichever way the metric goes), ``low``, ``high`` (the 1 − 2α interval
            that decides equivalence), ``wide_low``, ``wide_high`` (1 − α), ``sd`` of the difference over seeds,
            ``p_equivalent`` (TOST), ``p_different`` (beyond the margin; Holm-adjusted over the pairs), ``p_nonzero``
            (paired t test; Holm-adjusted), ``inside``, ``below``, ``above`` (posterior probabilities that the
            difference is within the margin, or beyond it on either side), ``outcome``; with example scores
            ``examples_low``, ``examples_high`` (1 − 2α Multi-Bootstrap over seeds and examples).
        spread: best minus worst strategy, with its bootstrap interval (1 − α) over seeds.
        gain: mean of the matched strategies over none, paired, with its t interval (1 − α).
        spread_of_gain: spread ÷ gain, with its bootstrap interval.
        extremes_of_gain: (best − worst strategy) ÷ gain with Fieller's interval, which takes the two as chosen
            beforehand; infinite ends where the gain may be zero.
        components: variance components (index ``source``): ``strategy``, ``draw``, ``seed``, ``strategy × seed``:
            ``variance``, ``sd``, ``share``.
        inside: posterior probability that all pairs are within the margin.
        outcome_for_new_examples: the same question, with the test examples resampled, too; None without them.
        seeds_needed: of an undecided cell, the seeds with which it would be decided with probability ``power`` if
            the differences and variances are what they seem to be; None if more than a thousand, or not known.
        n_seeds: the paired seeds.
    """

    cell: Cell
    margin: Margin | None
    alpha: float
    power: float
    outcome: Outcome
    reason: str
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
