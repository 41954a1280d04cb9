"""What differs between a figure on a screen and one in a paper: its width, the sizes of its texts, its title."""

from dataclasses import dataclass
from typing import Literal

from layerangles.errors import InputError

ThemeName = Literal["screen", "paper"]

# Of whole pixels, of which a PDF makes 0.75 pt, these come nearest to the widths in ACL's style file: one column is
# 219.08614 TeX points, both are 455.24408; that is 218.27 and 453.54 pt.
_COLUMN_WIDTHS = {1: 291, 2: 605}

_HAIRLINE = 0.75  # pixels; 0.56 pt

_MAX_HEIGHT = 817  # 615 pt: of a page of 700 pt some lines are the caption's


@dataclass(frozen=True)
class Theme:
    """Measures of a figure, in pixels; figures compute their layout from them.

    Attributes:
        name: ``"screen"`` or ``"paper"``.
        width: of the whole figure, title and legend included; None for as wide as its contents ask for.
        max_height: that the layout of a figure of given width aims to stay below.
        panel: the size of what stands above a panel.
        text: of titles of axes, legends, names and notes.
        tick: of numbers at axes.
        value: of numbers in cells.
        tick_gap: between the numbers at an axis, from middle to middle, at least.
        scale: of marks and lines, times their size on a screen.
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
        """Whether the width is given, the caption stands outside, and grey must do for colour."""
        return self.width is not None

    def stroke(self, width_px: float) -> float:
        """The width of a line that is so wide on a screen; on paper 0.5 pt at least."""
        return max(_HAIRLINE, width_px * self.scale) if self.on_paper else width_px


SCREEN = Theme("screen", None, 0, panel=13, text=12, tick=11, value=12, tick_gap=20, scale=1.0)


def theme(name: ThemeName = "screen", *, columns: Literal[1, 2] = 1) -> Theme:
    """The theme of a figure: large, titled and coloured for a screen, or laid out for the columns of a paper.

    On paper a figure is exactly as wide as one column of an ACL paper (218.27 pt) or as both (453.54 pt), its texts are
    6.75 or 7.5 pt high, it has no title (:func:`layerangles.figures.caption` gives the text for the caption), and
    everything is told apart in grey, too.

    Args:
        name: ``"screen"`` or ``"paper"``.
        columns: how many columns of a paper, 1 or 2; of no effect on a screen.

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
