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
    """Figures of this width, laid out as on paper: what their titles would say stands beside them."""
    width = min(max(width, _NARROWEST), _WIDEST)
    larger = 1 if width > 600 else 0
    sizes = theme("paper")
    return replace(
        sizes, width=width, panel=11 + larger, text=11 + larger, tick=10 + larger, value=10 + larger, scale=0.8
    )


def maps_of(page: ResolvedView, of: Theme = SCREEN) -> go.Figure:
    """The heat maps of a page."""
    view = page.view
    aggregation: Aggregation = view.aggregation or "mean"  # type: ignore[assignment]  # the page has chosen one
    first, second = (side.sight for side in page.sides)
    return compare_pair(first, second, aggregation=aggregation, null=view.null, notes=page.notes, theme=of)


def spread_of(page: ResolvedView, of: Theme = SCREEN) -> go.Figure:
    """The histograms of a page's pair of teacher layers."""
    low, high = page.view.low, page.view.high
    return histogram_pair(
        page.first.sight, page.second.sight, -1 if low is None else low, -1 if high is None else high, theme=of
    )


def exported(page: ResolvedView, name: str) -> bytes:
    """A page as a file: its heat maps, for a screen or as ``pdf`` for both columns of a paper; as ``csv`` its numbers.

    Raises:
        InputError: an image, and there is no Chrome to make it.
    """
    if name == "csv":
        return page.table().to_csv(index=False).encode()
    figure = maps_of(page, theme("paper", columns=2) if name == "pdf" else SCREEN)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"compare.{name}"
        write = write_html if name == "html" else write_image
        return write(figure, path).read_bytes()
