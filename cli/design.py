"""The design of a study, as ``layerangles plan`` shows it: what is compared, and what so many seeds can show."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .output import print_table

if TYPE_CHECKING:
    from kd_train.study.study_file import Study


def content(study: "Study") -> dict[str, Any]:
    """The design for machines."""
    from kd_train.study.comparisons import comparisons, margin_of

    margin = margin_of(study)
    return {
        "cells": [comparison._asdict() for comparison in comparisons(study)],
        "margin": None if margin is None else {"size": margin.size, "of_gain": margin.of_gain},
    }


def needs(study: "Study", pilot: Path, power: float) -> list[dict[str, Any]]:
    """The seeds that each cell of the pilot says are needed, for as many strategies as the study compares."""
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


def show(study: "Study", needed: list[dict[str, Any]], power: float) -> None:
    """Print the design, and what follows from a pilot."""
    from kd_train.study.comparisons import comparisons, margin_of
    from layerangles.equivalence import largest_sd
    from layerangles.notation import number

    margin = margin_of(study)
    rows = [
        {
            "cell": comparison.cell,
            "compared": comparison.compared,
            "gain over": "none" if comparison.none else "–",
            "controls": ", ".join(comparison.controls) or "–",
            "seeds": comparison.n_seeds,
        }
        for comparison in comparisons(study)
        if comparison.strategies
    ]
    if rows:
        typer.echo("")
        print_table(rows, title="Design: every strategy and draw with every seed; differences are paired by seed")
    if margin is None:
        typer.echo("No margin is stated, so `layerangles verdict` will need one: verdict: {margin: 0.01}.")
    elif not margin.of_gain and len(study.seeds) > 1 and rows:
        most = max(len(comparison.strategies) for comparison in comparisons(study))
        if most > 1:
            sd = number(largest_sd(len(study.seeds), margin.size, most, power=power), digits=2)
            typer.echo(
                f"With {len(study.seeds)} seeds, {most} strategies that do not differ are found equivalent within "
                f"{margin} with a probability of {power:g} if their paired differences scatter by {sd} at most."
            )
    if needed:
        print_table(needed, title=f"Seeds needed for a probability of {power:g}, by the pilot's scatter")
