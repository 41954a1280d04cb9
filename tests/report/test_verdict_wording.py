"""The sentences and the table of verdicts, with the numbers that they name."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from toys.planted import EQUAL, MARGIN, NAMES, numbers_in, planted_cell, planted_scores, rounded, with_examples

from layerangles.equivalence import largest_sd
from layerangles.equivalence.decision import Margin
from layerangles.equivalence.verdict import judge
from layerangles.notation import number
from layerangles.report.verdict_wording import reason_for, verdict_table


def test_an_equivalent_cell_names_its_widest_interval() -> None:
    found = judge(planted_cell(planted_scores()), MARGIN)
    reach = found.pairs[["low", "high"]].abs().max(axis=1)
    (first, second), row = reach.idxmax(), found.pairs.loc[reach.idxmax()]
    assert f"the 90 % interval that reaches farthest is that of {first} − {second}, " in reason_for(found)
    assert reason_for(found).startswith("All 6 pairs of 4 strategies differ by less than 0.02: ")
    assert numbers_in(reason_for(found))[-3:] == rounded(row["difference"], row["low"], row["high"])


def test_two_equivalent_strategies_are_both_named() -> None:
    found = judge(planted_cell(planted_scores(EQUAL[:2])), MARGIN, alpha=0.025)
    row = found.pairs.iloc[0]
    start = "forward and reverse differ by less than 0.02: the 95 % interval of forward − reverse is "
    assert reason_for(found).startswith(start)
    assert numbers_in(reason_for(found))[-3:] == rounded(row["difference"], row["low"], row["high"])


@pytest.mark.parametrize("worst", [0, 3])
def test_a_different_cell_names_its_clearest_pair(worst: int) -> None:
    means = [0.8] * 4
    means[worst] = 0.74
    found = judge(planted_cell(planted_scores(tuple(means))), MARGIN)
    pair = found.pairs["p_different"].idxmin()
    row = found.pairs.loc[pair]
    better = pair[1] if worst == 0 else pair[0]
    assert reason_for(found).startswith(f"{better} is better than {NAMES[worst]} by ")
    low, high = sorted([abs(row["wide_low"]), abs(row["wide_high"])])
    numbers = numbers_in(reason_for(found))
    assert len(numbers) == 7
    assert numbers[:4] == [*rounded(abs(row["difference"]), low, high), 0.02]
    assert numbers[4] == pytest.approx(row["p_different"], rel=0.06)
    assert numbers[5:] == [3, 6]
    assert reason_for(found).endswith("; 3 of 6 pairs are beyond the margin.")


def test_a_sentence_counts_the_pairs_that_are_beyond() -> None:
    found = judge(planted_cell(planted_scores((0.8, 0.8, 0.74))), MARGIN)
    assert reason_for(found).endswith("; 2 of 3 pairs are beyond the margin.")


def test_an_undecided_cell_says_how_many_seeds_would_decide() -> None:
    found = judge(planted_cell(planted_scores((0.8, 0.81, 0.82, 0.81), sd=0.006)), MARGIN)
    within = (found.pairs["outcome"] == "equivalent").sum()
    assert within not in (0, 3, 6)  # those that are and those that are not can be told apart
    assert reason_for(found).startswith(f"{within} of 6 pairs are within 0.02, and no pair is shown to be beyond it. ")
    assert numbers_in(reason_for(found))[3:] == [found.seeds_needed, 6, 0.8]
    assert reason_for(found).endswith("would decide with a probability of 0.8.")


@pytest.mark.parametrize("of_gain", [False, True])
def test_reasons_are_given_if_no_number_of_seeds_would_decide(of_gain: bool) -> None:
    scatter = np.array([0.03, -0.03, 0.02, -0.02, 0.05, -0.05])
    found = judge(
        planted_cell({"a": 0.8 + scatter, "b": 0.8 - scatter, "none": np.full(6, 0.7)}), Margin(1e-3, of_gain)
    )
    assert (found.outcome, found.seeds_needed) == ("undecided", None)
    assert reason_for(found).startswith("0 of 1 pairs are within ")
    why = "some pair lies at the margin, or scores scatter too much for it"
    why += ", or there is hardly a gain to take a share of." if of_gain else "."
    assert reason_for(found).endswith(f"Not even 1,000 seeds would decide if everything is as it seems: {why}")


def test_without_a_margin_nothing_is_decided() -> None:
    found = judge(planted_cell(planted_scores()), None)
    assert found.outcome == "undecided"
    assert set(found.pairs["outcome"]) == {"undecided"}
    assert found.pairs[["p_equivalent", "p_different", "inside", "below", "above"]].isna().all(axis=None)
    assert found.pairs[["difference", "low", "high", "p_nonzero"]].notna().all(axis=None)
    assert math.isnan(found.inside)
    assert found.seeds_needed is None
    assert reason_for(found).startswith("No margin was given, so nothing is decided")
    assert numbers_in(reason_for(found)) == rounded(found.spread.value, found.gain.value)


@pytest.mark.parametrize("margin", [MARGIN, Margin(0.1, of_gain=True)], ids=str)
def test_one_seed_decides_nothing(margin: Margin) -> None:
    found = judge(planted_cell(planted_scores(n_seeds=1)), margin, alpha=0.1, power=0.9)
    assert found.outcome == "undecided"
    assert found.seeds_needed is None
    assert found.outcome_for_new_examples is None
    assert math.isnan(found.inside)
    assert found.pairs.drop(columns=["difference", "outcome"]).isna().all(axis=None)
    assert found.pairs["difference"].notna().all()
    for estimate in (found.spread, found.gain, found.spread_of_gain, found.extremes_of_gain):
        assert np.isfinite(estimate.value)
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)
    size = 0.1 * found.gain.value if margin.of_gain else 0.02
    sd = largest_sd(5, size, 4, alpha=0.1, power=0.9)
    sentence = (
        f" 5 seeds would show equal strategies to be within {margin} with a probability of 0.9 only if their paired "
        f"differences scatter over seeds by less than {number(sd)} (sd)."
    )
    assert reason_for(found).startswith("One seed has no interval, so nothing follows from its spread and its gain.")
    assert reason_for(found).endswith(sentence)


def test_one_seed_without_a_gain_has_no_sd_to_ask_for() -> None:
    found = judge(planted_cell(planted_scores(n_seeds=1, none=0.9)), Margin(0.1, of_gain=True))
    assert reason_for(found) == "One seed has no interval, so nothing follows from its spread and its gain."


def test_numbers_have_true_minus_signs() -> None:
    assert number(-0.0123456) == "−0.0123"
    assert number(12.345, digits=2) == "12"
    assert number(-math.inf) == "−∞"


def test_the_table_of_verdicts_has_the_numbers_of_each() -> None:
    scores = planted_scores((0.8, 0.81, 0.83, 0.79), sd=0.01)
    lower = {name: 1 - values for name, values in scores.items()}
    first = judge(with_examples(scores), MARGIN)
    second = judge(replace(planted_cell(lower, higher_is_better=False), name="error", metric="error rate"), None)
    unpaired = {"a": np.append(scores["last"], 0.5), "b": np.append(scores["random"], np.nan)}
    third = judge(replace(planted_cell(unpaired), name="pair"), MARGIN)
    found = verdict_table([first, second, third])
    assert found.index.name == "cell"
    assert list(found.index) == ["toy", "error", "pair"]
    assert list(found.columns) == [
        *("metric", "seeds", "strategies", "none", "worst", "best"),
        *(f"{name}{end}" for name in ("spread", "gain", "spread_of_gain") for end in ("", "_low", "_high")),
        *("margin", "verdict", "seeds_needed", "inside", "verdict_for_new_examples"),
    ]
    for verdict, (_, row) in zip((first, second, third), found.iterrows(), strict=True):
        for name in ("spread", "gain", "spread_of_gain"):
            ends = tuple(row[[name, f"{name}_low", f"{name}_high"]])
            assert ends == pytest.approx(getattr(verdict, name), nan_ok=True)
        assert row["verdict"] == verdict.outcome
        assert row["seeds"] == 6
    means = {name: values.mean() for name, values in scores.items()}
    toy, error, pair = found.loc["toy"], found.loc["error"], found.loc["pair"]
    assert toy[["none", "worst", "best"]].tolist() == pytest.approx([means["none"], means["last"], means["random"]])
    assert error[["none", "worst", "best"]].tolist() == pytest.approx(
        [1 - means["none"], 1 - means["last"], 1 - means["random"]]
    )
    assert math.isnan(pair["none"])
    assert found["metric"].tolist() == ["accuracy", "error rate", "accuracy"]
    assert found["strategies"].tolist() == [4, 4, 2]
    assert found["margin"].fillna("").tolist() == ["0.02", "", "0.02"]
    assert toy["verdict_for_new_examples"] == first.outcome_for_new_examples is not None
    assert pd.isna(error["verdict_for_new_examples"])
    assert toy["inside"] == first.inside
    needed = found["seeds_needed"]
    assert [None if pd.isna(value) else int(value) for value in needed] == [
        verdict.seeds_needed for verdict in (first, second, third)
    ]
