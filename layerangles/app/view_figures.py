"""The figures of a resolved view, and the files it is exported to."""

import tempfile
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go

from layerangles.app.views import ResolvedView
from layerangles.figures import compare_pair, histogram_pair, theme, write_html, write_image
from layerangles.figures.drawing.theme import SCREEN, Theme
from layerangles.results.pair_values import Aggregation

_NARROWEST, _WIDEST = 300, 1160  # pixels


def fitting_theme(width: int) -> Theme:
    """A theme of this width with the layout for paper: no title, colour bars below."""
    width = min(max(width, _NARROWEST), _WIDEST)
    larger = 1 if width > 600 else 0
    sizes = theme("paper")
    return replace(
        sizes, width=width, panel=11 + larger, text=11 + larger, tick=10 + larger, value=10 + larger, scale=0.8
    )


def maps_of(page: ResolvedView, of: Theme = SCREEN) -> go.Figure:
    """The heat maps of both checkpoints and of their difference."""
    view = page.view
    aggregation: Aggregation = view.aggregation or "mean"  # type: ignore[assignment]  # always set in a resolved view
    first, second = (side.layer_view for side in page.sides)
    return compare_pair(first, second, aggregation=aggregation, null=view.null, notes=page.notes, theme=of)


def spread_of(page: ResolvedView, of: Theme = SCREEN) -> go.Figure:
    """Both checkpoints' histograms of cosines for the chosen pair of teacher layers."""
    low, high = page.view.low, page.view.high
    return histogram_pair(
        page.first.layer_view,
        page.second.layer_view,
        -1 if low is None else low,
        -1 if high is None else high,
        theme=of,
    )


def exported(page: ResolvedView, name: str) -> bytes:
    """The heat maps in a file format (``pdf`` is laid out for both columns of a paper), or their values as ``csv``.

    Raises:
        InputError: an image needs Chrome, which is missing.
    """
    if name == "csv":
        return page.table().to_csv(index=False).encode()
    figure = maps_of(page, theme("paper", columns=2) if name == "pdf" else SCREEN)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"compare.{name}"
        write = write_html if name == "html" else write_image
        return write(figure, path).read_bytes()
