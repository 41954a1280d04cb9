"""Error rates, power and coverage of the verdict, in simulated studies with known truth.

Scores are drawn seed by seed and processed as in ``judge``: moments over seeds, tests of all pairs, decision. The
margin is 1, or a quarter of a gain of 4. Of several truths and amounts of scatter the worst rate of wrong verdicts is
shown, measured anew with five times as many studies. Accuracies are those on 1,000 examples of varying difficulty that
all students share; a seed makes a student better or worse, and every answer is right or wrong.

Run: python benchmarks/verdict.py [--studies 2000] [--json]
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import special

from layerangles.equivalence.cells import Cell
from layerangles.equivalence.decision import (
    Decisions,
    Margin,
    Moments,
    compare_pairs,
    decide,
    differences,
    moments,
    standard_errors,
)
from layerangles.equivalence.intervals import fieller, multi_bootstrap, spread_interval, spread_of_gain_interval
from layerangles.equivalence.power import largest_sd, seeds_to_decide, seeds_to_plan
from layerangles.equivalence.verdict import _moments_for_new_examples

ALPHA, POWER = 0.05, 0.8
N_SEEDS, N_STRATEGIES = (3, 5, 6, 10, 20), (2, 4, 7)
SCATTER = (0.1, 0.3, 0.6, 1.0, 2.0)  # sd of a paired difference ÷ margin
SHARE = 0.25
STUDIES_AT_ONCE = 50  # share the resamples of a bootstrap
N_GROUPS, PER_GROUP = 40, 25  # examples of one difficulty each


class Figure(NamedTuple):
    """One rate, with the value it should have."""

    what: str
    strategies: int
    seeds: int
    rate: float
    promise: str


# --- studies --------------------------------------------------------------------------------------------------


def decided(scores: np.ndarray, n_matched: int, margin: Margin) -> Decisions:
    """The decisions of studies ``[study, seed, strategy]``."""
    each = [moments(of_one) for of_one in scores]
    sample = Moments(np.array([m.mean for m in each]), np.array([m.covariance for m in each]), scores.shape[1])
    return decide(compare_pairs(sample, n_matched, margin), ALPHA)


def normal(rng: np.random.Generator, means: np.ndarray, sd: float, n_seeds: int, n: int) -> np.ndarray:
    """Scores whose paired differences scatter by ``sd``, with the level of a seed in common."""
    own = sd / math.sqrt(2) * rng.standard_normal((n, n_seeds, len(means)))
    return means + rng.standard_normal((n, n_seeds, 1)) + own


def one_worse(n_strategies: int, by: float) -> np.ndarray:
    """Means that are 0 except for the last one."""
    means = np.zeros(n_strategies)
    means[-1] = -by
    return means


def at_the_margin(n_strategies: int) -> list[np.ndarray]:
    """Means with a largest difference of exactly 1: one strategy worse than all others, or all in even steps."""
    return [one_worse(n_strategies, 1)] + ([np.linspace(0, -1, n_strategies)] if n_strategies > 2 else [])


def with_none(means: np.ndarray) -> np.ndarray:
    """Append a mean of none that makes the gain 4."""
    return np.append(means, means.mean() - 1 / SHARE)


class TestSet:
    """Accuracies of strategies on 1,000 examples: right with the probability sigmoid(ability − difficulty)."""

    def __init__(self, abilities: np.ndarray, seed_sd: float) -> None:
        self.difficulty = 2 * special.ndtri((np.arange(N_GROUPS) + 0.5) / N_GROUPS) - 2.5
        self.abilities, self.seed_sd = abilities, seed_sd

    def expected(self) -> np.ndarray:
        """Expected accuracy by strategy; the seeds' effect is integrated by Gauss–Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        right = special.expit(self.abilities[:, None, None] + self.seed_sd * nodes - self.difficulty[:, None])
        return (right @ weights / weights.sum()).mean(axis=-1)

    def scores(self, rng: np.random.Generator, n_seeds: int, n: int) -> np.ndarray:
        """Accuracies ``[study, seed, strategy]``; strategies share half of the variance of a seed's effect."""
        shape = (n, n_seeds, len(self.abilities))
        effect = (rng.standard_normal((n, n_seeds, 1)) + rng.standard_normal(shape)) / math.sqrt(2)
        ability = (self.abilities + self.seed_sd * effect)[..., None]
        right = rng.binomial(PER_GROUP, special.expit(ability - self.difficulty))
        return right.sum(axis=-1) / (N_GROUPS * PER_GROUP)


# --- rates ----------------------------------------------------------------------------------------------------


def worst(studies: Sequence[Callable[[int], Decisions]], n: int, names: Iterable[str]) -> dict[str, float]:
    """The largest rate of each outcome over kinds of studies.

    The largest of several measured rates exceeds the largest true one by chance, so the rate of the worst kind is
    measured anew, with five times as many studies.
    """
    first = [draw(n) for draw in studies]
    found = {}
    for name in names:
        rates = [float(getattr(decisions, name).mean()) for decisions in first]
        found[name] = float(getattr(studies[int(np.argmax(rates))](5 * n), name).mean())
    return found


def wrong_rates(n_studies: int, seeds: Iterable[int], strategies: Iterable[int], rng_seed: int = 0) -> list[Figure]:
    """The worst rates of wrong verdicts: on normal scores, with a margin of the gain, and on accuracies."""
    found = []
    for n_strategies in strategies:
        for n_seeds in seeds:
            rng = np.random.default_rng([rng_seed, n_strategies, n_seeds])

            def of_normal(means: np.ndarray, sd: float, margin: Margin, n: int) -> Decisions:
                return decided(normal(rng, means, sd, n_seeds, n), n_strategies, margin)  # noqa: B023

            def of_accuracies(by: float, seed_sd: float, n: int) -> Decisions:
                tested = TestSet(one_worse(n_strategies, by), seed_sd)  # noqa: B023 - all are called at once
                margin = Margin(float(np.ptp(tested.expected())))
                return decided(tested.scores(rng, n_seeds, n), n_strategies, margin)  # noqa: B023

            truths, share = at_the_margin(n_strategies), Margin(SHARE, of_gain=True)
            equal = [partial(of_normal, np.zeros(n_strategies), sd, Margin(1)) for sd in SCATTER]
            edge = [partial(of_normal, means, sd, Margin(1)) for means in truths for sd in SCATTER]
            of_gain = [partial(of_normal, with_none(means), sd, share) for means in truths for sd in SCATTER]
            accuracies = [partial(of_accuracies, by, sd) for by in (0.15, 0.5) for sd in (0.05, 0.3)]
            both = ("equivalent", "different")
            for what, studies, outcomes in (
                ("a pair at the margin", edge, both),
                ("at a share of the gain", of_gain, both),
                ("accuracies at the margin", accuracies, both),
                ("all equal", equal, both[1:]),
            ):
                for outcome, rate in worst(studies, n_studies, outcomes).items():
                    found.append(Figure(f"false {outcome}, {what}", n_strategies, n_seeds, rate, f"≤ {ALPHA:g}"))
    return sorted(found, key=lambda figure: figure.what.split(",")[0] != "false equivalent")


def right_rates(n_studies: int, seeds: Iterable[int], strategies: Iterable[int], rng_seed: int = 1) -> list[Figure]:
    """The rates of right verdicts on three planted truths.

    All strategies equal, and one worse by two margins, both with the scatter ``largest_sd``: the rate for the first
    should be the power. Third, a scatter of five margins, which is too much for these numbers of seeds.
    """
    found = []
    for n_strategies in strategies:
        for n_seeds in seeds:
            rng = np.random.default_rng([rng_seed, n_strategies, n_seeds])
            sd = largest_sd(n_seeds, 1, n_strategies, power=POWER, alpha=ALPHA)

            def rates(means: np.ndarray, scatter: float) -> Decisions:
                scores = normal(rng, means, scatter, n_seeds, n_studies)  # noqa: B023 - called at once
                return decided(scores, n_strategies, Margin(1))  # noqa: B023

            equal, worse = rates(np.zeros(n_strategies), sd), rates(one_worse(n_strategies, 2), sd)
            wild = rates(np.zeros(n_strategies), 5)
            undecided = ~(wild.equivalent | wild.different)
            found += [
                Figure("right: all equal", n_strategies, n_seeds, float(equal.equivalent.mean()), f"≥ {POWER:g}"),
                Figure("right: one worse by 2 margins", n_strategies, n_seeds, float(worse.different.mean()), "–"),
                Figure("right: scatter of 5 margins", n_strategies, n_seeds, float(undecided.mean()), f"≥ {1 - ALPHA}"),
            ]
    return found


def planned_power(n_studies: int, strategies: Iterable[int], rng_seed: int = 2) -> list[Figure]:
    """The rates of decisions with the numbers of seeds computed for a scatter of 0.5, 1 and 1.5 margins.

    Equal strategies with the seeds of ``seeds_to_plan``, one worse by two margins with those of ``seeds_to_decide``.
    """
    found = []
    for n_strategies in strategies:
        for sd in (0.5, 1.0, 1.5):
            planned = seeds_to_plan(sd, 1, n_strategies, power=POWER, alpha=ALPHA)
            worse = one_worse(n_strategies, 2)
            needed = seeds_to_decide(worse, np.eye(n_strategies) * sd**2 / 2, Margin(1), power=POWER, alpha=ALPHA)
            assert planned is not None
            assert needed is not None
            for what, means, n_seeds in (("all equal", 0 * worse, planned), ("one worse by 2", worse, needed.seeds)):
                rng = np.random.default_rng([rng_seed, n_strategies, n_seeds])
                rates = decided(normal(rng, means, sd, n_seeds, n_studies), n_strategies, Margin(1))
                right = rates.equivalent if what == "all equal" else rates.different
                label = f"{what}, scatter of {sd:g} margins"
                found.append(Figure(label, n_strategies, n_seeds, float(right.mean()), f"≥ {POWER:g}"))
    return found


# --- coverage -------------------------------------------------------------------------------------------------


def coverage(n_studies: int, seeds: Iterable[int], strategies: Iterable[int], rng_seed: int = 3) -> list[Figure]:
    """The worst coverage of the 95 % intervals of spread and spread ÷ gain, over four amounts of scatter.

    All strategies equal, one worse by 1, or spread evenly over 1; they scatter alike, or one ten times as much as the
    others; with a gain of 4 over none. The worst is found first, and measured anew with five times as many studies.
    """
    found = []
    for n_strategies in strategies:
        worse, evenly = one_worse(n_strategies, 1), np.linspace(0, -1, n_strategies)
        truths = {"all equal": 0 * worse, "one worse": worse} | ({"spread evenly": evenly} if n_strategies > 2 else {})
        for n_seeds in seeds:
            rng = np.random.default_rng([rng_seed, n_strategies, n_seeds])
            for name, means in truths.items():
                kinds = list(itertools.product((0.1, 0.3, 1.0, 3.0), (False, True)))
                first = np.array([held(rng, means, *kind, n_seeds, n_studies) for kind in kinds])
                for column, what in enumerate(("spread", "spread ÷ gain")):
                    worst_kind = kinds[int(first[:, column].argmin())]
                    rate = held(rng, means, *worst_kind, n_seeds, 5 * n_studies)[column]
                    label = f"coverage: {what}; {name}"
                    found.append(Figure(label, n_strategies, n_seeds, float(rate), f"≥ {1 - ALPHA}"))
    return sorted(found, key=lambda figure: figure.what)


def held(rng: np.random.Generator, means: np.ndarray, sd: float, uneven: bool, n_seeds: int, n: int) -> np.ndarray:
    """The shares of studies whose intervals of spread and of spread ÷ gain hold the truth."""
    truth, hits = float(np.ptp(means)), np.zeros(2)
    for scores in normal(rng, with_none(means), sd, n_seeds, n):
        if uneven:
            scores[:, 0] += 10 * sd * rng.standard_normal(n_seeds)
        matched, gain = scores[:, :-1], scores[:, :-1].mean(axis=1) - scores[:, -1]
        spread = spread_interval(matched, 1 - ALPHA)
        of_gain = spread_of_gain_interval(matched, gain, 1 - ALPHA)
        hits += [spread.low <= truth <= spread.high, of_gain.low <= truth * SHARE <= of_gain.high]
    return hits / n


def coverage_of_fieller(n_studies: int, seeds: Iterable[int], rng_seed: int = 3) -> list[Figure]:
    """Coverage of Fieller's 95 % interval of a difference ÷ gain, for a pair named beforehand and for the extremes.

    Four strategies; the true difference is 1 and the gain 4. Spread evenly, strategies easily swap ranks.
    """
    found = []
    for n_seeds in seeds:
        for name, means in (("one worse", one_worse(4, 1)), ("spread evenly", np.linspace(0, -1, 4))):
            for sd in (0.3, 1.0):
                rng = np.random.default_rng([rng_seed, n_seeds, int(10 * sd)])
                hits = {"pair known": 0, "extremes found": 0}
                for scores in normal(rng, with_none(means), sd, n_seeds, n_studies):
                    matched, gain = scores[:, :-1], scores[:, :-1].mean(axis=1) - scores[:, -1]
                    order = matched.mean(axis=0).argsort()
                    for what, (best, worst) in {"pair known": (0, -1), "extremes found": order[[-1, 0]]}.items():
                        _, low, high = fieller(matched[:, best] - matched[:, worst], gain, 1 - ALPHA)
                        hits[what] += low <= SHARE <= high
                for what, count in hits.items():
                    label = f"coverage: Fieller, {what}; {name}, scatter {sd:g}"
                    found.append(Figure(label, 4, n_seeds, count / n_studies, f"≈ {1 - ALPHA}"))
    return found


def new_examples(n_studies: int, seeds: Iterable[int], n_examples: int = 100, rng_seed: int = 4) -> list[Figure]:
    """Coverage of the 90 % interval of a difference over new seeds and examples, and wrong verdicts at the margin.

    The effect of a seed has the sd 1 or 0.3, that of an example on a strategy 1 or 10, and the residual 3.
    """
    found = []
    for n_seeds in seeds:
        for name, of_seed, of_example in (("seeds scatter most", 1.0, 1.0), ("examples scatter most", 0.3, 10.0)):
            rng = np.random.default_rng([rng_seed, n_seeds, int(of_example)])
            covered = percentiles = wrong = total = 0
            scatter = math.sqrt(of_seed**2 / n_seeds + of_example**2 / n_examples + 9 / n_seeds / n_examples)
            # A difference at the margin, which is so large that only one of the two one-sided tests matters.
            margin = Margin(6 * scatter)
            while total < n_studies:
                # Studies that share their resamples: one cell in which each study is a strategy; the last scores 0.
                shape = (STUDIES_AT_ONCE, n_seeds, n_examples)
                examples = (
                    margin.size
                    + of_seed * rng.standard_normal((*shape[:2], 1))
                    + of_example * rng.standard_normal((shape[0], 1, n_examples))
                    + 3 * rng.standard_normal(shape)
                )
                examples = np.concatenate([examples, np.zeros((1, *shape[1:]))])
                given = _moments_for_new_examples(_cell(examples), 1)
                assert given is not None
                pairs = [np.ix_([study, -1], [study, -1]) for study in range(STUDIES_AT_ONCE)]
                sample = Moments(
                    np.array([given.mean[[study, -1]] for study in range(STUDIES_AT_ONCE)]),
                    np.array([given.covariance[pair] for pair in pairs]),
                    n_seeds,
                )
                half = special.stdtrit(n_seeds - 1, 1 - ALPHA) * standard_errors(sample, differences(2, 2))[:, 0]
                covered += int((np.abs(sample.mean[:, 0] - sample.mean[:, 1] - margin.size) <= half).sum())
                low, high = np.quantile(multi_bootstrap(examples[:-1]), [ALPHA, 1 - ALPHA], axis=0)
                percentiles += int(((low <= margin.size) & (margin.size <= high)).sum())
                wrong += int(decide(compare_pairs(sample, 2, margin), ALPHA).equivalent.sum())
                total += STUDIES_AT_ONCE
            for what, count, promise in (
                ("coverage: new examples", covered, f"≥ {1 - 2 * ALPHA:g}"),
                ("(coverage of mere percentiles)", percentiles, f"({1 - 2 * ALPHA:g})"),
                ("false equivalent for new examples", wrong, f"≤ {ALPHA:g}"),
            ):
                found.append(Figure(f"{what}; {name}", 2, n_seeds, count / total, promise))
    return found


def _cell(examples: np.ndarray) -> Cell:
    names = [str(number) for number in range(len(examples))]
    coords = {"strategy": names, "draw": [0], "seed": range(examples.shape[1])}
    array = xr.DataArray(examples[:, None], dims=(*coords, "example"), coords=coords)
    return Cell("c", "score", True, array.mean("example"), dict.fromkeys(names, "matched"), array)


# --- the table ------------------------------------------------------------------------------------------------


def table(figures: list[Figure]) -> str:
    """One line per figure and number of strategies; one column per number of seeds, if these are few."""
    seeds = sorted({figure.seeds for figure in figures})
    if len(seeds) > len(N_SEEDS):
        return "\n".join(
            f"{figure.what:62}{figure.strategies:>11}{figure.promise:>9}  {figure.seeds:>4} seeds{figure.rate:10.3f}"
            for figure in figures
        )
    lines = [f"{'':62}{'strategies':>11}{'promise':>9}  " + "".join(f"{n:>4} seeds" for n in seeds)]
    rows: dict[tuple[str, int, str], dict[int, float]] = {}
    for figure in figures:
        rows.setdefault((figure.what, figure.strategies, figure.promise), {})[figure.seeds] = figure.rate
    for (what, strategies, promise), rates in sorted(rows.items(), key=lambda row: _first(figures, row[0][0])):
        cells = "".join(f"{rates[n]:10.3f}" if n in rates else " " * 10 for n in seeds)
        lines.append(f"{what:62}{strategies:>11}{promise:>9}  {cells}")
    return "\n".join(lines)


def _first(figures: list[Figure], what: str) -> int:
    return [figure.what for figure in figures].index(what)


def main() -> None:
    """Print the figures as tables or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="simulated for every figure; default 2000")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    chosen = parser.parse_args()
    n = chosen.studies
    parts: dict[str, Callable[[], list[Figure]]] = {
        "Wrong verdicts": lambda: wrong_rates(n, N_SEEDS, N_STRATEGIES),
        "Right verdicts": lambda: right_rates(n, N_SEEDS, N_STRATEGIES),
        "Power as planned": lambda: planned_power(n, N_STRATEGIES),
        "Coverage": lambda: coverage(n, (2, 3, 5, 10, 20), (2, 4, 7, 10)),
        "Coverage of Fieller's interval": lambda: coverage_of_fieller(n, (5, 10, 20)),
        "New examples": lambda: new_examples(n, (3, 5, 10, 20)),
    }
    everything: list[Figure] = []
    if not chosen.json:
        error = math.sqrt(ALPHA * (1 - ALPHA) / n)
        print(f"{n:,} studies for each figure: the standard error of a rate of {ALPHA:g} is {error:.4f}")
    for title, part in parts.items():
        figures = part()
        everything += figures
        if not chosen.json:
            print(f"\n{title}\n{table(figures)}", flush=True)
    if chosen.json:
        print(json.dumps([figure._asdict() for figure in everything], ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
