"""The comparisons of a study as ``layerangles plan`` shows them: cells, what their seeds can show, and seeds needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .output import print_table

if TYPE_CHECKING:
    from kd_train.study.study_file import Study


def comparisons_as_json(study: "Study") -> dict[str, Any]:
    """Cells and margin of a study, for JSON."""
    from kd_train.study.comparisons import comparisons, margin_of

    margin = margin_of(study)
    return {
        "cells": [comparison._asdict() for comparison in comparisons(study)],
        "margin": None if margin is None else {"size": margin.size, "of_gain": margin.of_gain},
    }


def seeds_needed(study: "Study", pilot: Path, power: float) -> list[dict[str, Any]]:
    """Table of the seeds that a study needs, one row for each cell of a pilot.

    Raises:
        InputError: the study states no margin, or the pilot cannot be read.
    """
    from kd_train.outcome.opened_study import open_scores
    from kd_train.study.comparisons import comparisons, margin_of
    from layerangles.equivalence.pilot import plan_from_pilot
    from layerangles.errors import InputError

    margin = margin_of(study)
    if margin is None:
        raise InputError(
            "the study states no margin, so there is nothing to count seeds for. Say which difference would matter: "
            "verdict: {margin: 0.01}, or --set verdict.margin=0.01."
        )
    n_matched = max(len(comparison.strategies) for comparison in comparisons(study))
    metric, split = (study.verdict.metric, study.verdict.split) if pilot.is_dir() else (None, None)
    rows = []
    for cell in open_scores(pilot).cells(metric, split):
        planned = plan_from_pilot(cell, margin, n_matched, power=power)
        rows.append(
            {
                "pilot": cell.name,
                "its seeds": len(cell.seeds),
                "sd of differences": planned.sd,
                "at most (80 %)": planned.sd_at_most,
                "margin": str(margin),
                "strategies": n_matched,
                "seeds needed": planned.seeds,
                "at most": planned.seeds_at_most,
            }
        )
    return rows


def print_comparisons(study: "Study", needed: list[dict[str, Any]], power: float) -> None:
    """Print the cells of a study, the scatter that its seeds can bear, and the table of :func:`seeds_needed`."""
    from kd_train.study.comparisons import comparisons, margin_of

    compared = [comparison for comparison in comparisons(study) if comparison.strategies]
    if compared:
        typer.echo("")
        print_table(
            [
                {
                    "cell": comparison.cell,
                    "compared": comparison.compared,
                    "gain over": "none" if comparison.none else "–",
                    "controls": ", ".join(comparison.controls) or "–",
                    "seeds": comparison.n_seeds,
                }
                for comparison in compared
            ],
            title="Design: every strategy and draw with every seed; differences are paired by seed",
        )
    margin = margin_of(study)
    most = max((len(comparison.strategies) for comparison in compared), default=0)
    if margin is None:
        typer.echo("No margin is stated, so `layerangles verdict` will need one: verdict: {margin: 0.01}.")
    elif not margin.of_gain and len(study.seeds) > 1 and most > 1:
        from layerangles.equivalence import largest_sd
        from layerangles.notation import number

        sd = number(largest_sd(len(study.seeds), margin.size, most, power=power), digits=2)
        typer.echo(
            f"With {len(study.seeds)} seeds, {most} strategies that do not differ are found equivalent within "
            f"{margin} with a probability of {power:g} if their paired differences scatter by {sd} at most."
        )
    if needed:
        print_table(needed, title=f"Seeds needed for a probability of {power:g}, by the pilot's scatter")
