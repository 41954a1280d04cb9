"""The report on a study begins with the verdicts and shows their numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toys.predictions import cells_of
from toys.reports import full_report, some_verdicts, text_of, written
from toys.verdicts import make_verdict

from layerangles.equivalence.gap_prediction import predict_gaps
from layerangles.equivalence.verdict import Margin
from layerangles.errors import InputError
from layerangles.report.prediction_wording import sentences_on
from layerangles.report.study_report import StudyReport, write_report
from layerangles.report.verdict_wording import reason_for


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", full_report())


def test_question_and_verdict_come_before_everything_else(page: Path) -> None:
    text = text_of(page.read_text(encoding="utf-8"))
    order = [
        "Layer selection <on> reviews Layer selection <on> reviews Does the choice of layers matter?",
        "The verdicts on 3 cells: 1 equivalent, 1 different, 1 undecided. Scores are accuracy.",
        "cell verdict seeds teacher none best worst spread [95 %] gain [95 %] margin with new examples",
        *(f"{one.outcome.capitalize()}. {reason_for(one)}" for one in some_verdicts()),
        "How to read this",
        "sst2, copied: equivalent",  # in the table of contents
        "Scores, and gain over no matching",
        "Angles between teacher layers (1 of 2)",
        "Angles between teacher layers (2 of 2)",
        "Does geometry predict where the choice matters?",
        "What was run",
        "Where it comes from",
        "How to cite",
    ]
    places = []
    for part in order:
        assert part in text, part
        places.append(text.index(part, places[-1] if places else 0))
    assert places == sorted(places)


def test_every_number_of_the_first_table_is_the_verdicts(tmp_path: Path) -> None:
    verdict = make_verdict(margin=Margin(0.25, of_gain=True), has_examples=True)
    scores = verdict.strategies["score"]
    best, worst = (getattr(scores[list(verdict.cell.matched)], name)() for name in ("idxmax", "idxmin"))
    row = (
        f"sst2, copied □ undecided 5 93.12 {scores['none']:.2f} {best} {scores[best]:.2f} {worst} {scores[worst]:.2f} "
        "0.91 [0.45, 1.62] +2.00 [+1.70, +2.40] 0.25 of the gain ±0.50 □ undecided"
    )
    assert row in written(tmp_path, verdict, teacher={"another cell": 50.0, "sst2, copied": 93.123})
    lower = replace(verdict, cell=replace(verdict.cell, higher_is_better=False))
    assert f"{worst} {scores[worst]:.2f} {best} {scores[best]:.2f} 0.91" in written(tmp_path, lower)


def test_every_strategy_has_its_scores_best_first_between_none_and_controls(tmp_path: Path) -> None:
    verdict = make_verdict(controls=("shuffled", "another-text"))
    table = verdict.strategies
    text = written(tmp_path, verdict, teacher={"sst2, copied": 93.123})
    assert (
        "strategy role score [95 %] draws sd over seeds gain over none [95 %] teacher teacher 93.12 – – – none" in text
    )
    order = [
        "none",
        *(table[table["role"] == role].sort_values("score").index[::-1] for role in ("matched", "control")),
    ]
    places = []
    for strategy in [order[0], *order[1], *order[2]]:
        row = table.loc[strategy]
        gain = f"{row['gain']:+.2f} [{row['gain_low']:+.2f}, {row['gain_high']:+.2f}]".replace("-", "−")
        shown = (
            f" {strategy} {row['role']} {row['score']:.2f} [{row['low']:.2f}, {row['high']:.2f}] 1 {row['sd']:.2f} "
            f"{'–' if strategy == 'none' else gain}"
        )
        assert shown in text
        places.append(text.index(shown))
    assert places == sorted(places)


def test_every_pair_has_its_intervals(tmp_path: Path) -> None:
    verdict = make_verdict(has_examples=True)
    text = written(tmp_path, verdict)
    signs = {"equivalent": "●", "different": "◆", "undecided": "□"}
    assert "first second difference [90 %] 95 % interval sd over seeds outcome 90 % interval, new examples" in text
    for (first, second), row in verdict.pairs.iterrows():
        decides, wide, examples = (
            f"[{row[low]:+.2f}, {row[high]:+.2f}]".replace("-", "−")
            for low, high in (("low", "high"), ("wide_low", "wide_high"), ("examples_low", "examples_high"))
        )
        difference = f"{row['difference']:+.2f}".replace("-", "−")
        outcome = f"{signs[row['outcome']]} {row['outcome']}"
        assert f"{first} {second} {difference} {decides} {wide} {row['sd']:.2f} {outcome} {examples}" in text


def test_cells_of_different_metrics_say_which(tmp_path: Path) -> None:
    one, other = make_verdict(), make_verdict(cell="other")
    other = replace(other, cell=replace(other.cell, metric="BLEU"))
    text = written(tmp_path, one, other)
    assert "Scores are accuracy, BLEU." in text
    assert "cell verdict metric seeds" in text


def test_what_the_verdict_rests_on_is_explained(tmp_path: Path) -> None:
    text = written(tmp_path, make_verdict(has_examples=True, alpha=0.01))
    assert "the 98 % interval of the difference lies within the margin" in text
    assert "Wrong at a rate of at most 1 %." in text
    assert "with a 99 % interval over seeds" in text
    assert "would another test set say the same?" in text
    assert "Spread over gain: 0.46 [0.20, ∞] (99 % interval over seeds" in text
    assert "Best minus worst strategy over gain: 0.46 [−∞, ∞] (Fieller's 99 % interval" in text
    assert "with a posterior probability of 0.876." in text
    assert "Controls are matched to something else" in text
    assert "Controls" not in written(tmp_path, make_verdict(controls=()))
    two_levels = written(tmp_path, make_verdict(alpha=0.01), make_verdict(cell="other"))
    assert "at most 1 % or 5 %." in two_levels


def test_without_a_margin_the_page_says_that_nothing_is_decided(tmp_path: Path) -> None:
    text = written(tmp_path, make_verdict(margin=None))
    assert "The verdict on the one cell: undecided." in text
    assert "none given No margin was given, so nothing is decided" in text
    assert "better. No margin was given, so nothing is decided." in text
    assert "p equivalent" not in text
    assert "posterior probability of" not in text
    assert "No margin was given" not in written(tmp_path, make_verdict())


def test_a_share_of_the_gain_is_not_known_exactly(tmp_path: Path) -> None:
    said = "The gain is not known exactly either"
    assert said in written(tmp_path, make_verdict(margin=Margin(0.25, of_gain=True)))
    assert said not in written(tmp_path, make_verdict())
    nothing = make_verdict(margin=Margin(0.25, of_gain=True), gain=-1.0)
    assert "−1.00 [−1.30, −0.60] 0.25 of the gain no gain" in written(tmp_path, nothing)
    assert "so that there is no margin" in written(tmp_path, nothing)


def test_one_seed_has_no_interval_and_no_tests(tmp_path: Path) -> None:
    text = written(tmp_path, make_verdict(n_seeds=1))
    assert "One seed has no interval." in text
    assert "Spread over gain: 0.46. It says how much" in text
    assert "Fieller" not in text
    assert "Tests and probabilities" not in text
    assert "Where the variance of scores comes from" not in text
    assert "nan" not in text.lower().replace("nano", "")


def test_seeds_that_are_left_out_are_named(tmp_path: Path) -> None:
    verdict = make_verdict()
    scores = verdict.cell.scores.copy()
    scores.loc[{"strategy": "reverse", "seed": 3}] = np.nan
    text = written(tmp_path, replace(verdict, cell=replace(verdict.cell, scores=scores)))
    assert "Seeds: 0, 1, 2, 4. Left out, since a student is missing: 3." in text


def test_components_and_probabilities_are_those_of_the_verdict(tmp_path: Path) -> None:
    verdict = make_verdict()
    verdict.pairs["p_different"] = [1e-9, 1.0, 0.5, 0.99999, 0.0317, 0.2]
    text = written(tmp_path, verdict)
    assert (
        "source sd variance share strategy 0.2 0.04 13.8 % seed 0.3 0.09 31 % strategy × seed 0.4 0.16 55.2 %" in text
    )
    for (first, second), row in verdict.pairs.iterrows():
        shown = {1e-9: "< 0.001", 0.99999: "> 0.999"}.get(row["p_different"], f"{row['p_different']:.3f}")
        rest = " ".join(f"{row[name]:.3f}" for name in ("p_nonzero", "inside", "below", "above"))
        assert f"{first} {second} {row['p_equivalent']:.3f} {shown} {rest}" in text


def test_prediction_is_told_and_drawn(tmp_path: Path) -> None:
    cells = cells_of([1, 2, 4, 7, 6], excess_deg=[3, 2, 1, 5, 4], common_mode_ratio=[np.nan, np.nan, 1, 2, 2])
    prediction = predict_gaps(cells)
    text = written(tmp_path, make_verdict(), prediction=prediction)
    assert " ".join(sentences_on(prediction)) in text
    fit = prediction.fits.loc["excess_deg"]
    slope = f"{fit['slope']:.3g} [{fit['slope_low']:.3g}, {fit['slope_high']:.3g}]".replace("-", "−")
    assert f"excess_deg 5 {slope} {fit['error']:.3g}" in text


def test_reports_without_verdicts_or_with_repeated_cells_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got no verdicts. Judge one cell at least"):
        write_report(tmp_path / "r.html", StudyReport("t", [], {}))
    with pytest.raises(InputError, match=r"more than one verdict on the cell sst2, copied"):
        write_report(tmp_path / "r.html", StudyReport("t", [make_verdict(), make_verdict()], {}))
    report = StudyReport("t", [make_verdict()], {})
    with pytest.raises(InputError, match=r"a page is written to \.html"):
        write_report(tmp_path / "r.pdf", report)
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_report(tmp_path / "r.html", report)
    assert (tmp_path / "r.html").read_text() == "mine"
