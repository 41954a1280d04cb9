"""Output of commands: tables for people, JSON for machines, paths of written files, figures."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Rows = Sequence[Mapping[str, Any]]


def print_table(rows: Rows, *, title: str | None = None) -> None:
    """Print rows with the same keys as a table, numbers to the right, without cutting or wrapping lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) or row[name] is None for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # Without a terminal there is no width to fit, and a file should get whole lines.
    width = None if sys.stdout.isatty() else 1000
    Console(highlight=False, width=width).print(table)


def print_json(content: Any) -> None:
    """Print one JSON document: NaN as null, infinite numbers as the text "Infinity" or "-Infinity"."""
    typer.echo(json.dumps(_finite(content), indent=2, default=str))


def write_figure(figure: "Figure", path: Path, *, overwrite: bool) -> Path:
    """Write a figure as an HTML page or a static image, by the suffix."""
    from layerangles import figures

    write = figures.write_html if path.suffix == ".html" else figures.write_image
    return write(figure, path, overwrite=overwrite)


def print_written(*paths: Path) -> None:
    """Print the paths of written files."""
    for path in paths:
        typer.echo(f"wrote {path}")


def _cell(value: Any) -> str:
    from layerangles.notation import number, table_cell

    # ASCII, so that other programs can read the numbers.
    return table_cell(value, lambda x: number(x, 3 if abs(x) <= 1 else 1)).replace("−", "-")


def _finite(content: Any) -> Any:
    match content:
        case Mapping():
            return {str(key): _finite(value) for key, value in content.items()}
        case list() | tuple():
            return [_finite(value) for value in content]
        case float() if math.isnan(content):
            return None
        case float() if math.isinf(content):  # JSON has no such number
            return "Infinity" if content > 0 else "-Infinity"
        case _:
            return content


def is_main_process() -> bool:
    """Whether this process writes and prints; under accelerate launch or torchrun only one does."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)
