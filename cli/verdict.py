"""``layerangles verdict``: whether the strategies of each cell are equivalent, different, or undecided."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .output import print_json, print_table, print_written

if TYPE_CHECKING:
    import pandas as pd

    from kd_train.outcome.judging import Judged
    from layerangles.equivalence import Verdict


def verdict(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Study directories, or CSV files with the columns cell, strategy, seed, score."),
    ],
    margin: options.Margin = None,
    margin_of_gain: options.MarginOfGain = None,
    metric: options.Metric = None,
    split: options.Split = None,
    alpha: Annotated[float, typer.Option(help="Largest rate of a false equivalent, and of a false different.")] = 0.05,
    power: Annotated[float, typer.Option(help="Probability of a decision that the seeds needed aim at.")] = 0.8,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also print every pair of strategies.")] = False,
    latex: Annotated[Path | None, typer.Option(help="Write a LaTeX table (booktabs, siunitx) to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table of cells to this file.")] = None,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Judge whether the matched strategies of each cell give equally good students.

    A study file states its margin before it is run (verdict: {margin: 0.01}). Differences are paired by seed;
    equivalent is what passes two one-sided tests for every pair, different is a pair beyond the margin, adjusted for
    their number. Everything else is undecided, with the number of seeds that would decide.

    Example: layerangles verdict runs/movie-reviews --latex table.tex
    """
    from kd_train.outcome.judging import chosen_margin, judge_all
    from kd_train.outcome.opened_study import open_scores
    from layerangles.files import check_absent
    from layerangles.notation import percent
    from layerangles.report.verdict_wording import reason_for

    for path in (latex, csv):
        if path is not None:
            check_absent(path, overwrite=overwrite)
    given = chosen_margin(margin, margin_of_gain)
    opened = [open_scores(path) for path in paths]
    judged = judge_all(opened, margin=given, metric=metric, split=split, alpha=alpha, power=power)
    written = _write(judged, latex, csv)
    if as_json:
        print_json({"cells": [_content(one) for one in judged], "wrote": written})
        return
    level = percent(1 - alpha, space=" ")
    print_table([_row(one) for one in judged], title=f"Intervals in brackets: {level}, over seeds")
    _print_grouped([(f"{one.verdict.outcome}. {reason_for(one.verdict)}", one.verdict.cell.name) for one in judged])
    _print_grouped([(f"note: {note}", one.verdict.cell.name) for one in judged for note in one.notes])
    if pairs:
        for one in judged:
            typer.echo("")
            print_table(_records(one.verdict.pairs), title=one.verdict.cell.name)
    print_written(*written)


def _write(judged: "list[Judged]", latex: Path | None, csv: Path | None) -> list[Path]:
    from layerangles.files import atomic_write
    from layerangles.report.latex import latex_table
    from layerangles.report.verdict_wording import verdict_table

    verdicts = [one.verdict for one in judged]
    if latex is not None:
        with atomic_write(latex, overwrite=True) as beside:
            beside.write_text(latex_table(verdicts, teachers=[one.teacher for one in judged]), encoding="utf-8")
    if csv is not None:
        with atomic_write(csv, overwrite=True) as beside:
            verdict_table(verdicts).to_csv(beside)
    return [path for path in (latex, csv) if path is not None]


def _print_grouped(said: list[tuple[str, str]]) -> None:
    """Print each text once, after the names of all cells that it is about."""
    cells: dict[str, list[str]] = {}
    for text, cell in said:
        cells.setdefault(text, []).append(cell)
    for text, names in cells.items():
        typer.echo(f"{'; '.join(names)}: {text}\n")


def _row(one: "Judged") -> dict[str, Any]:
    from layerangles.notation import number, with_interval
    from layerangles.report.verdict_wording import verdict_table

    verdict = one.verdict
    (row,) = verdict_table([verdict]).to_dict("records")
    shown: dict[str, Any] = {"cell": verdict.cell.name, "metric": row["metric"], "seeds": row["seeds"]}
    scores = {"teacher": one.teacher} | {name: row[name] for name in ("none", "worst", "best")}
    shown |= {name: number(value, digits=4) for name, value in scores.items()}
    shown |= {
        "spread": with_interval(*verdict.spread),
        "gain": with_interval(*verdict.gain),
        "spread ÷ gain": with_interval(*verdict.spread_of_gain),
        "margin": row["margin"],
        "verdict": row["verdict"],
        "seeds to decide": _seeds_needed(verdict),
    }
    if verdict.outcome_for_new_examples is not None:
        shown["for new texts too"] = verdict.outcome_for_new_examples
    return shown


def _seeds_needed(verdict: "Verdict") -> str:
    if verdict.outcome != "undecided" or verdict.margin is None or verdict.n_seeds < 2:
        return "–"
    return "> 1,000" if verdict.seeds_needed is None else str(verdict.seeds_needed)


def _records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.reset_index().to_dict("records")]


def _content(one: "Judged") -> dict[str, Any]:
    from layerangles.report.verdict_wording import reason_for, verdict_table

    verdict = one.verdict
    (row,) = _records(verdict_table([verdict]))
    return row | {
        "reason": reason_for(verdict),
        "notes": one.notes,
        "teacher": one.teacher,
        "seeds_used": list(verdict.cell.seeds),
        "strategies_table": _records(verdict.strategies),
        "pairs": _records(verdict.pairs),
        "components": _records(verdict.components),
        "extremes_of_gain": verdict.extremes_of_gain._asdict(),
    }
