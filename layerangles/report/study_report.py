"""The report on a study: its verdicts first, then the evidence, on one page."""

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pandas as pd

from layerangles import figures
from layerangles.equivalence.gap_prediction import Prediction
from layerangles.equivalence.verdict import Estimate, Outcome, Verdict
from layerangles.errors import InputError
from layerangles.figures.forest import OUTCOMES, half_band, largest_first, margin_text, places_of
from layerangles.figures.prediction import prediction as prediction_figure
from layerangles.notation import interval, number, percent, probability, with_interval
from layerangles.report.angle_sections import angle_sections
from layerangles.report.citation import PAPER, SOFTWARE
from layerangles.report.html_page import Part, Preformatted, Section, Subheading, Tag, write_page
from layerangles.report.prediction_wording import sentences_on
from layerangles.report.verdict_wording import reason_for
from layerangles.results.angle_result import AngleResult


@dataclass(frozen=True)
class StudyReport:
    """The content of a report.

    Attributes:
        title: the title of the page.
        verdicts: one per cell, at least one.
        teacher: the teacher's score by cell, where it is known.
        angles: measured angles, at one state of the students or along training, with or without nulls.
        prediction: the prediction of gaps between strategies from geometry.
        design: the settings of the study, by name.
        provenance: versions, hashes and commands, by name.
    """

    title: str
    verdicts: Sequence[Verdict]
    teacher: Mapping[str, float]
    angles: Sequence[AngleResult] = ()
    prediction: Prediction | None = None
    design: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


def write_report(path: str | os.PathLike[str], report: StudyReport, *, overwrite: bool = False) -> Path:
    """Write the report as one self-contained HTML file, and return its path.

    The question and the verdict on every cell come first; then scores, differences and tests, cell by cell; then
    angles, gaps against geometry, the design, provenance, and citations.

    Raises:
        InputError: there is no verdict, or two on cells of one name; ``path`` does not end in ``.html``, or exists and
            ``overwrite`` is false.
    """
    if not report.verdicts:
        raise InputError("there is nothing to report: got no verdicts. Judge one cell at least.")
    names = [verdict.cell.name for verdict in report.verdicts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"there is more than one verdict on the cell {repeated[0]}. Give one a cell, or rename one.")
    sections = [_cell_section(verdict, report.teacher) for verdict in report.verdicts]
    sections += angle_sections(report.angles)
    if report.prediction is not None:
        sections.append(_prediction_section(report.prediction))
    if report.design:
        sections.append(Section("What was run", [report.design]))
    if report.provenance:
        sections.append(Section("Where it comes from", [report.provenance]))
    sections.append(
        Section(
            "How to cite",
            [
                "The paper whose claim is examined, and the software that examined it:",
                Preformatted(PAPER),
                Preformatted(SOFTWARE),
            ],
        )
    )
    return write_page(path, report.title, sections, lead=_lead(report), overwrite=overwrite)


def _lead(report: StudyReport) -> Section:
    """The question, the verdict on every cell, and the meaning of the terms."""
    verdicts = report.verdicts
    table = pd.DataFrame([_verdict_row(verdict, report.teacher) for verdict in verdicts])
    metrics = list(dict.fromkeys(verdict.cell.metric for verdict in verdicts))
    return Section(
        "Does the choice of layers matter?",
        [
            "Within a cell, students differ in the strategy of layer selection (which teacher layer each of their "
            "layers is matched to) and in the seed alone. Do the strategies give equally good students: are all "
            "differences between them smaller than the smallest one that matters, the margin?",
            f"{_headline(verdicts)} Scores are {', '.join(metrics)}.",
            table.drop(columns="metric") if len(metrics) == 1 else table,
            {verdict.cell.name: f"{verdict.outcome.capitalize()}. {reason_for(verdict)}" for verdict in verdicts},
            Subheading("How to read this"),
            _reading(verdicts),
        ],
    )


def _headline(verdicts: Sequence[Verdict]) -> str:
    counts = Counter(verdict.outcome for verdict in verdicts)
    said = [f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome]]
    if len(verdicts) == 1:
        return f"The verdict on the one cell: {verdicts[0].outcome}."
    return f"The verdicts on {len(verdicts)} cells: {', '.join(said)}."


def _verdict_row(verdict: Verdict, teacher: Mapping[str, float]) -> dict[str, object]:
    places, wide = places_of(verdict), percent(1 - verdict.alpha)
    cell, scores = verdict.cell, verdict.strategies["score"]
    matched = scores[list(cell.matched)].sort_values(ascending=not cell.higher_is_better, kind="stable")
    score_of_teacher = teacher.get(cell.name, math.nan)

    def below_each_other(estimate: Estimate, places: int, *, signed: bool = False) -> str:
        text = with_interval(*estimate, places, signed=signed)
        return text.replace(" ", "\n", 1)

    row: dict[str, object] = {
        "cell": cell.name,
        "verdict": _tag(verdict.outcome),
        "metric": cell.metric,
        "seeds": verdict.n_seeds,
        "teacher": number(score_of_teacher, places),
        "none": number(float(scores[cell.none]) if cell.none is not None else math.nan, places),
        "best": f"{matched.index[0]}\n{number(float(matched.iloc[0]), places)}",
        "worst": f"{matched.index[-1]}\n{number(float(matched.iloc[-1]), places)}",
        f"spread [{wide}]": below_each_other(verdict.spread, places),
        f"gain [{wide}]": below_each_other(verdict.gain, places, signed=True),
        "margin": _margin(verdict, places),
    }
    if verdict.outcome_for_new_examples is not None:
        row["with new examples"] = _tag(verdict.outcome_for_new_examples)
    return row


def _margin(verdict: Verdict, places: int) -> str:
    if verdict.margin is None:
        return "none given"
    if not verdict.margin.of_gain:
        return f"±{verdict.margin.size:g}"
    half = half_band(verdict)
    return f"{verdict.margin.size:g} of the gain\n" + ("no gain" if math.isnan(half) else f"±{number(half, places)}")


def _tag(outcome: str) -> Tag:
    look = OUTCOMES[outcome]
    return Tag(look.name, look.sign, look.colour)


def _levels(verdicts: Sequence[Verdict], level: Callable[[float], float]) -> str:
    """The levels of all verdicts as text."""
    return " or ".join(dict.fromkeys(percent(level(verdict.alpha)) for verdict in verdicts))


def _reading(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """The meaning of the words and numbers of the first table."""
    decisive, wide = _levels(verdicts, lambda alpha: 1 - 2 * alpha), _levels(verdicts, lambda alpha: 1 - alpha)
    errors = _levels(verdicts, lambda alpha: alpha)
    terms = {
        "equivalent": f"Of every pair of strategies, the {decisive} interval of the difference lies within the margin "
        f"on either side of zero (two one-sided t tests, paired by seed). Wrong at a rate of at most {errors}.",
        "different": "Some pair of strategies differs by more than the margin (t test, Holm-adjusted for the number of "
        f"pairs). Wrong at a rate of at most {errors}.",
        "undecided": "Neither is shown: with these seeds the strategies may be equally good or not. That is no sign "
        "of equality.",
        "seeds": "Those at which every compared strategy, and none, has a student. Differences are taken within each.",
        "spread": f"The best matched strategy minus the worst, with a {wide} interval over seeds that follows from "
        "those of all pairs. Chance makes the spread larger than it truly is; an interval that starts at zero has room "
        "for strategies that are all equal.",
        "gain": f"The mean of the matched strategies over none (no matching) at the same seeds; positive is better. "
        f"With Student's {wide} interval.",
        "margin": "The smallest difference that matters. A share of the gain is also given at the gain that was "
        "measured; its uncertainty takes part in the tests.",
    }
    if any(verdict.margin is None for verdict in verdicts):
        terms["none given"] = "No margin was given, so nothing is decided: it takes a difference that would matter."
    if any(verdict.outcome_for_new_examples is not None for verdict in verdicts):
        terms["with new examples"] = (
            "The same question for new test examples as well as new seeds: would another test set say the same? (The "
            "same tests, with the Multi-Bootstrap's standard error.)"
        )
    return terms


def _cell_section(verdict: Verdict, teacher: Mapping[str, float]) -> Section:
    """Scores, differences, tests and variance components of one cell."""
    cell = verdict.cell
    direction = "more" if cell.higher_is_better else "less"
    about = f"The score is {cell.metric}, of which {direction} is better. Seeds: {_listed(cell.seeds)}."
    if cell.incomplete_seeds:
        about += f" Left out, since a student is missing: {_listed(cell.incomplete_seeds)}."
    return Section(
        f"{cell.name}: {verdict.outcome}",
        [
            about,
            *_score_parts(verdict, teacher),
            *_pair_parts(verdict),
            *_test_parts(verdict),
            *_component_parts(verdict),
        ],
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _score_parts(verdict: Verdict, teacher: Mapping[str, float]) -> list[Part]:
    cell, places, wide = verdict.cell, places_of(verdict), percent(1 - verdict.alpha)
    table = verdict.strategies.sort_values("score", ascending=not cell.higher_is_better, kind="stable")
    order = {"none": 0, "matched": 1, "control": 2}
    table = table.sort_values("role", key=lambda role: role.map(order), kind="stable")
    rows: list[dict[str, object]] = []
    if cell.name in teacher:
        rows.append({"strategy": "teacher", "role": "teacher", f"score [{wide}]": number(teacher[cell.name], places)})
    for strategy, row in table.iterrows():
        gain = with_interval(row["gain"], row["gain_low"], row["gain_high"], places, signed=True)
        rows.append(
            {
                "strategy": strategy,
                "role": row["role"],
                "draws": str(row["n_draws"]),
                f"score [{wide}]": with_interval(row["score"], row["low"], row["high"], places),
                "sd over seeds": number(row["sd"], places),
                f"gain over none [{wide}]": gain,
            }
        )
    said = (
        f"Scores are means over seeds, with Student's {wide} interval. The gain over none is taken within each seed, "
        "so that what a seed does to all students alike cancels out; positive is better. Draws are the maps drawn of a "
        "random strategy."
    )
    if cell.controls:
        said += (
            " Controls are matched to something else than the teacher's states of the text. They show how much of a "
            "gain any such loss brings, and take no part in the verdict."
        )
    parts: list[Part] = [Subheading("Scores, and gain over no matching"), said, pd.DataFrame(rows)]
    return [*parts, figures.gains(verdict)] if cell.none is not None else parts


def _pair_parts(verdict: Verdict) -> list[Part]:
    if verdict.pairs.empty:
        return []
    places = places_of(verdict)
    decisive, wide = percent(1 - 2 * verdict.alpha), percent(1 - verdict.alpha)
    rows = []
    for _, row in largest_first(verdict).iterrows():
        decides = with_interval(row["difference"], row["low"], row["high"], places, signed=True)
        of_one: dict[str, object] = {
            "first": row["first"],
            "second": row["second"],
            f"difference [{decisive}]": decides,
            f"{wide} interval": interval(row["wide_low"], row["wide_high"], places, signed=True),
            "sd over seeds": number(row["sd"], places),
            "outcome": _tag(row["outcome"]),
        }
        if "examples_low" in row:
            of_one[f"{decisive} interval, new examples"] = interval(
                row["examples_low"], row["examples_high"], places, signed=True
            )
        rows.append(of_one)
    said = "First minus second strategy within each seed; positive where the first is better. "
    if verdict.margin is None:
        said += f"{margin_text(verdict).capitalize()}."
    else:
        said += (
            f"A pair is equivalent where its {decisive} interval lies within the margin, the band in the figure: "
            f"{margin_text(verdict)}."
        )
        if verdict.margin.of_gain:
            said += (
                " The gain is not known exactly either, which the test takes into account: an interval just within the "
                "band may be undecided yet."
            )
    if verdict.n_seeds < 2:
        said += " One seed has no interval."
    texts = [said]
    if not math.isnan(verdict.spread_of_gain.value):
        texts.append(_ratios(verdict))
    return [Subheading("Differences between strategies"), *texts, figures.forest(verdict), pd.DataFrame(rows)]


def _ratios(verdict: Verdict) -> str:
    wide = percent(1 - verdict.alpha)
    of_spread, of_extremes = (with_interval(*ratio, 2) for ratio in (verdict.spread_of_gain, verdict.extremes_of_gain))
    meaning = "how much of what matching brings hangs on the choice of layers"
    if verdict.n_seeds < 2:
        return f"Spread over gain: {of_spread}. It says {meaning}."
    return (
        f"Spread over gain: {of_spread} ({wide} interval over seeds, ∞ if there may be no gain). It says "
        f"{meaning}. Best minus worst strategy over gain: {of_extremes} (Fieller's {wide} interval, as if the two had "
        "been chosen beforehand)."
    )


_TESTS = {
    "p_equivalent": (
        "p equivalent",
        "How likely so small a difference would be if the true one were as large as the margin (TOST): small speaks "
        "for equivalence.",
    ),
    "p_different": (
        "p different",
        "How likely so large a difference would be if the true one were within the margin, adjusted for the number of "
        "pairs: small speaks for a difference that matters.",
    ),
    "p_nonzero": (
        "p not zero",
        "How likely so large a difference would be if there were none at all, adjusted likewise. A large p is no sign "
        "of equality, and a small one no sign that the difference matters.",
    ),
    "inside": ("within", "Posterior probability that the difference is within the margin."),
    "below": ("second better", "Posterior probability that the second is better by more than the margin."),
    "above": ("first better", "Posterior probability that the first is better by more than the margin."),
}


def _test_parts(verdict: Verdict) -> list[Part]:
    known = [name for name in _TESTS if verdict.pairs[name].notna().any()]
    if not known:
        return []
    pairs = largest_first(verdict)
    table = pairs[["first", "second"]].assign(**{_TESTS[name][0]: pairs[name].map(probability) for name in known})
    parts: list[Part] = [Subheading("Tests and probabilities"), dict(_TESTS[name] for name in known), table]
    if not math.isnan(verdict.inside):
        parts.append(
            f"All pairs together are within the margin with a posterior probability of {probability(verdict.inside)}."
        )
    return parts


def _component_parts(verdict: Verdict) -> list[Part]:
    known = verdict.components.dropna(subset=["variance"])
    if known.empty:
        return []
    shares = [percent(round(share, 3)) for share in known["share"]]
    return [
        Subheading("Where the variance of scores comes from"),
        "Of the matched strategies. Strategy is what the choice of layers does on average; draw, what the draw of a "
        "random map does; seed, what a seed does to all alike, which cancels out of paired differences; strategy × "
        "seed, all the rest, which is what the verdict has to contend with. The sd is in the metric's unit.",
        known[["sd", "variance"]].assign(share=shares),
    ]


def _prediction_section(prediction: Prediction) -> Section:
    fits = prediction.fits
    slopes = [with_interval(row["slope"], row["slope_low"], row["slope_high"]) for _, row in fits.iterrows()]
    columns = {"n_cells": "cells", "error": "error", "error_of_mean": "error of the mean", "spearman": "Spearman"}
    table = fits[[*columns, "p"]].rename(columns=columns)
    table.insert(1, "slope [95 %]", slopes)
    return Section(
        "Does geometry predict where the choice matters?",
        [
            " ".join(sentences_on(prediction)),
            prediction_figure(prediction),
            {
                "slope": "Of the line of gap between strategies against the measure, over cells.",
                "error": "Of predicting a cell's gap by the line through the other cells; to be compared with the "
                "error of the mean, which knows nothing of geometry.",
                "Spearman, p": "Rank correlation of gap and measure over cells, and its permutation p.",
            },
            table,
        ],
    )
