"""Themes: the measures and the plotly template by which a figure suits a screen or a paper."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import plotly.graph_objects as go

from layerangles.errors import InputError

ThemeName = Literal["screen", "paper"]
Value = TypeVar("Value")

INK = "#1f2328"
FAINT = "#6e7781"
FONT = "Helvetica, Arial, sans-serif"

# Of all whole numbers of pixels, at 0.75 pt each in a PDF, these come nearest to the widths in ACL's style file: one
# column is 219.08614 TeX points wide and both are 455.24408, that is 218.27 and 453.54 pt.
_COLUMN_WIDTHS = {1: 291, 2: 605}

_HAIRLINE = 0.75  # pixels; 0.56 pt

_MAX_HEIGHT = 817  # 615 pt: a page has 700 pt, of which the caption takes a few lines


@dataclass(frozen=True)
class Theme:
    """Measures of a figure, in pixels, from which figures compute their layout.

    Attributes:
        name: ``"screen"`` or ``"paper"``.
        width: of the whole figure, title and legend included; None for as wide as its contents ask for.
        max_height: that the layout of a figure of given width aims to stay below.
        panel: font size of panel titles.
        text: font size of axis titles, legends, names and notes.
        tick: font size of numbers at axes.
        value: font size of numbers in cells.
        tick_gap: smallest distance between the centres of two numbers at an axis.
        scale: of marks and lines, relative to their size on a screen.
    """

    name: ThemeName
    width: int | None
    max_height: int
    panel: int
    text: int
    tick: int
    value: int
    tick_gap: int
    scale: float

    @property
    def fixed_width(self) -> int:
        """The width, where it is given.

        Raises:
            ValueError: it is not.
        """
        if self.width is None:
            raise ValueError(f"the theme {self.name!r} has no width of its own")
        return self.width

    @property
    def on_paper(self) -> bool:
        """Whether the width is given, the title goes to the caption, and grey must do for colour."""
        return self.width is not None

    def pick(self, on_screen: Value, on_paper: Value) -> Value:
        """The one of two measures that this theme asks for."""
        return on_paper if self.on_paper else on_screen

    def stroke(self, width_px: float) -> float:
        """The width of a line that is ``width_px`` wide on a screen; on paper at least 0.5 pt."""
        return max(_HAIRLINE, width_px * self.scale) if self.on_paper else width_px

    @property
    def template(self) -> go.layout.Template:
        """Fonts, colours and lines of axes, texts and heat maps, as a plotly template."""
        return _template(self)


@cache
def _template(theme: Theme) -> go.layout.Template:
    axis: dict[str, Any] = {
        "gridcolor": "#e6e9ec",
        "zeroline": False,
        "showline": True,
        "linecolor": theme.pick("#c9ced4", "#8c959f"),
        "linewidth": theme.pick(1, _HAIRLINE),
        "ticks": "",
        "tickfont": {"size": theme.tick},
        "title": {
            "standoff": theme.pick(8, 4),
            "font": {"size": theme.text, "color": theme.pick(FAINT, INK)},
        },
    }
    bar = {
        "thickness": theme.pick(14, 7),
        "tickfont": {"size": theme.tick},
        "ticks": "outside",
        "ticklen": theme.pick(4, 2),
        "tickwidth": theme.pick(1, _HAIRLINE),
        "outlinewidth": 0,
        **{"lenmode": "pixels", "xanchor": "left", "xpad": 0, "ypad": 0},
    }
    cells = {"xgap": theme.stroke(1), "ygap": theme.stroke(1), "colorbar": bar}
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": theme.text, "color": INK},
            "hoverlabel": {"align": "left", "font": {"family": FONT, "size": theme.text}},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "xaxis": axis,
            "yaxis": axis,
            "coloraxis": {"colorbar": bar},
            "legend": {"font": {"size": theme.text}, "tracegroupgap": 2},
            "annotationdefaults": {"showarrow": False, "borderpad": theme.pick(1, 0)},
        },
        data={"heatmap": [{**cells, "hovertemplate": "%{hovertext}<extra></extra>"}]},
    )


SCREEN = Theme("screen", None, 0, panel=13, text=12, tick=11, value=12, tick_gap=20, scale=1.0)


def theme(name: ThemeName = "screen", *, columns: Literal[1, 2] = 1) -> Theme:
    """The theme of a figure: large, titled and coloured for a screen, or laid out for the columns of a paper.

    On paper a figure is exactly as wide as one column of an ACL paper (218.27 pt) or as both (453.54 pt), its texts are
    6.75 or 7.5 pt high, it has no title (:func:`layerangles.figures.caption` gives the text for the caption), and
    everything can be told apart in grey.

    Args:
        name: ``"screen"`` or ``"paper"``.
        columns: the number of columns of a paper that the figure spans, 1 or 2; of no effect on a screen.

    Raises:
        InputError: another name, or another number of columns.
    """
    if name not in ("screen", "paper"):
        raise InputError(f"the theme is {name!r}; allowed are 'screen' and 'paper'.")
    if columns not in _COLUMN_WIDTHS:
        raise InputError(f"columns is {columns!r}; allowed are 1 and 2, the columns of a paper that a figure spans.")
    if name == "screen":
        return SCREEN
    width = _COLUMN_WIDTHS[columns]
    return Theme(name, width, _MAX_HEIGHT, panel=10, text=10, tick=9, value=9, tick_gap=13, scale=0.6)
