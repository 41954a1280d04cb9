"""The look shared by all figures: colours, marks, and the widths of texts in pixels."""

import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from layerangles.figures.drawing.theme import Theme
from layerangles.notation import layer_name, number

# A colour means the same angle in every figure. Lightness rises evenly from 0° to 90°, where most angles lie; at
# 90° the hue jumps from blue to orange, which all common kinds of colour blindness leave distinguishable.
ACUTE = ("#1c1b50", "#223a82", "#2260a7", "#3387c2", "#55aed8", "#8ed2e8", "#d1f2f7")  # 0° to 90°, 15° apart
_OBTUSE = ("#f3ae58", "#d17412", "#a43f00", "#642211")  # 90° to 180°, 30° apart
_OBTUSE_STOPS = [(90.0 + 30.0 * i, colour) for i, colour in enumerate(_OBTUSE)]

# Lines and marks have Okabe and Ito's colours, without yellow, which is too light for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# Symbols of marks, which tell them apart without colour.
MARKS = (
    *("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon", "hexagram"),
    *("bowtie", "hourglass", "triangle-left", "triangle-right", "star-diamond"),
)
# Mean width of a character over the font size, rounded up; the browser's own is not known before a figure is drawn.
_CHARACTER = 0.53
_DIGIT = 0.556  # the exact width of a digit over the font size


def colour_scale(top_deg: float) -> list[tuple[float, str]]:
    """The plotly colour scale from 0° to ``top_deg`` (120 or 180), with the break at 90°."""
    stops = [(15.0 * i, colour) for i, colour in enumerate(ACUTE)]
    stops += _OBTUSE_STOPS
    return [(degree / top_deg, colour) for degree, colour in stops if degree <= top_deg]


def colour_at(angle_deg: float) -> str:
    """The colour of an angle from 0° to 180°, as CSS and plotly write it.

    >>> colour_at(0), colour_at(90)
    ('rgb(28, 27, 80)', 'rgb(243, 174, 88)')
    """
    # At 90°, where the scale has its break, the colour of the obtuse side.
    stops = [(15.0 * i, colour) for i, colour in enumerate(ACUTE)] if angle_deg < 90 else _OBTUSE_STOPS
    high = next(i for i, (degree, _) in enumerate(stops) if degree >= angle_deg) or 1
    (from_deg, one), (to_deg, other) = stops[high - 1], stops[high]
    share = (angle_deg - from_deg) / (to_deg - from_deg)
    mixed = (round(a + share * (b - a)) for a, b in zip(_rgb(one), _rgb(other), strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def ink_on(angle_deg: float) -> str:
    """Black or white, whichever has more contrast with the colour of this angle."""
    return "white" if angle_deg < 42 or angle_deg > 132 else "black"


def angle_axis(largest_deg: float, what: str, plot_width: float, plot_height: float) -> dict[str, Any]:
    """The colour axis for angles, its bar to the right of a plot area of this size in pixels.

    It ends at 120°, past the break at 90°, or at 180° if some angle is larger.
    """
    top_deg = 180 if largest_deg > 120 else 120
    marked = {60: "<b>60° independent</b><br>(equal norms)", 90: "<b>90° orthogonal</b>"}
    ticks = [degree for degree in range(0, 181, 30) if degree <= top_deg]
    numbers = {"tickvals": ticks, "ticktext": [marked.get(degree, f"{degree}°") for degree in ticks]}
    bar = _bar_beside(what, plot_width, plot_height) | numbers
    return {"cmin": 0, "cmax": top_deg, "colorscale": colour_scale(top_deg), "colorbar": bar}


def share_axis(what: str, plot_width: float, plot_height: float) -> dict[str, Any]:
    """The colour axis for shares of tokens in percent."""
    bar = _bar_beside(what, plot_width, plot_height) | {"ticksuffix": " %"}
    return {"cmin": 0, "cmax": 100, "colorscale": list(ACUTE), "colorbar": bar}


# Orange below 0, blue above it, grey at 0 (white means no angle); light enough for black text.
_EXCESS = ("#e08214", "#fdc98b", "#e9ebed", "#a6cbe3", "#4a90c4")


def excess_axis(largest: float, what: str, plot_width: float, plot_height: float) -> dict[str, Any]:
    """The colour axis for differences, symmetric about 0 (grey), with ends of at least 1."""
    limit = max(largest, 1.0)
    bar = _bar_beside(what, plot_width, plot_height) | {"tickformat": "+"}
    return {"cmin": -limit, "cmax": limit, "colorscale": list(_EXCESS), "colorbar": bar}


def _bar_beside(what: str, plot_width: float, plot_height: float) -> dict[str, Any]:
    # The small second line keeps the title off the uppermost label.
    title = {"text": f'{what}<br><span style="font-size:5px"> </span>', "font": {"size": 12}}
    place = {"len": min(plot_height, 340), "x": 1 + 14 / plot_width, "y": 1, "yanchor": "top"}
    return {"title": title, **place}


def literal(text: str) -> str:
    """``text`` escaped so that plotly draws it verbatim: no tags, no ``%{…}`` template, no ``$…$`` formula.

    >>> literal("<script>%{x} $a$")
    '&lt;script&gt;&#37;{x} &#36;a&#36;'
    """
    return html.escape(text, quote=False).replace("%{", "&#37;{").replace("$", "&#36;")


def width_of(n_characters: int, size_px: float) -> float:
    """The approximate width of a text in a font of ``size_px`` pixels, in pixels."""
    return n_characters * _CHARACTER * size_px


def wrapped(text: str, width_px: float, size_px: float, *, at_hyphens: bool = False) -> list[str]:
    """``text`` broken into lines that fit into ``width_px`` in a font of ``size_px`` pixels, each made literal."""
    characters = max(6, int(width_px / width_of(1, size_px)))
    return [literal(line) for line in textwrap.wrap(text, characters, break_on_hyphens=at_hyphens)] or [""]


def layer_ticks(layers: Iterable[int], theme: Theme, space: str = " ") -> list[str]:
    """The numbers of layers at an axis; on a screen layer 0 is marked as the embedding output, behind ``space``."""
    return [str(layer) if theme.on_paper else layer_name(layer).replace(" ", space) for layer in layers]


def values_that_fit(values: Iterable[float], cell_px: float, theme: Theme) -> list[str] | None:
    """The values with one decimal, or none, such that all fit into cells of this width; None if they do not."""
    found = list(values)
    for places in (1, 0):
        # Without a plus, for which there is no room; the colours show the sign.
        texts = [number(value, places) for value in found]
        if max(map(len, texts), default=0) * _DIGIT * theme.value <= cell_px - 1:
            return texts
    return None


def legend_name(text: str, width_px: float, theme: Theme) -> str:
    """A literal name for a legend of this width; a key on paper breaks its lines itself."""
    return literal(text) if theme.on_paper else "<br>".join(wrapped(text, width_px, theme.text, at_hyphens=True))


def short_names(names: Sequence[str]) -> tuple[list[str], str]:
    """Names without the hyphenated ending that all of them share; and this ending.

    >>> short_names(["none-seed0", "forward-scratch-seed0"]), short_names(["a-b"]), short_names(["a-b", "a-b-c"])
    ((['none', 'forward-scratch'], 'seed0'), (['a-b'], ''), (['a-b', 'a-b-c'], ''))
    """
    parts = [name.split("-") for name in names]
    n_shared = 0
    while len(parts) > 1 and all(len(p) > n_shared + 1 for p in parts) and len({p[-n_shared - 1] for p in parts}) == 1:
        n_shared += 1
    if n_shared == 0:
        return list(names), ""
    return ["-".join(p[:-n_shared]) for p in parts], "-".join(parts[0][-n_shared:])


def faded(colour: str) -> str:
    """A translucent version of a colour, for bands.

    >>> faded("#0072b2")
    'rgba(0, 114, 178, 0.15)'
    """
    red, green, blue = _rgb(colour)
    return f"rgba({red}, {green}, {blue}, 0.15)"


def panel_height(least: float, n_rows: int, gap: float, legend: Sequence[str]) -> float:
    """The height of panels below each other beside a legend; plotly hides those names of a legend that do not fit."""
    legend_height = 20 + sum(6 + 16.5 * (name.count("<br>") + 1) for name in legend)
    return max(least, (legend_height - (n_rows - 1) * gap) / n_rows)
