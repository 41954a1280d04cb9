"""The look that all figures share: colours, text, and a frame measured in pixels."""

import html
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures.drawing.theme import SCREEN, Theme
from layerangles.notation import number

# A colour means the same angle in every figure. Lightness rises evenly from 0° to 90°, where most angles lie; at
# 90° the hue jumps from blue to orange, which people with any common colour blindness tell apart.
ACUTE = ("#1c1b50", "#223a82", "#2260a7", "#3387c2", "#55aed8", "#8ed2e8", "#d1f2f7")  # 0° to 90°, 15° apart
_OBTUSE = ("#f3ae58", "#d17412", "#a43f00", "#642211")  # 90° to 180°, 30° apart
_OBTUSE_STOPS = [(90.0 + 30.0 * i, colour) for i, colour in enumerate(_OBTUSE)]

# Of lines and marks: Okabe and Ito's colours, without yellow, which is too light for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
# Of marks; they are told apart in grey, too.
MARKS = (
    *("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon", "hexagram"),
    *("bowtie", "hourglass", "triangle-left", "triangle-right", "star-diamond"),
)
INK = "#1f2328"
FAINT = "#6e7781"
FONT = "Helvetica, Arial, sans-serif"

# Mean width of a character over the font size, on the safe side; a figure cannot ask the browser before it is drawn.
_CHARACTER = 0.53
_DIGIT = 0.556  # of figures, exactly

BAR_ROW = 30  # of a colour bar with its numbers at the foot of a figure on paper

_BUTTONS = 120  # of plotly's buttons in the upper right corner, pixels


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
    # Of two colours at 90°, where the scale has its break, that of the obtuse side.
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
    """Black or white, whichever is read better on the colour of this angle."""
    return "white" if angle_deg < 42 or angle_deg > 132 else "black"


def colour_axis(top_deg: float, plot_width: float, plot_height: float) -> dict[str, object]:
    """The colour axis for mean angles, its bar to the right of a plot area of this size in pixels."""
    marked = {60: "<b>60° independent</b><br>(equal norms)", 90: "<b>90° orthogonal</b>"}
    ticks = [degree for degree in range(0, 181, 30) if degree <= top_deg]
    return {
        "cmin": 0,
        "cmax": top_deg,
        "colorscale": colour_scale(top_deg),
        "colorbar": {
            # The small second line keeps the title off the uppermost label.
            "title": {"text": 'mean angle<br><span style="font-size:5px"> </span>', "font": {"size": 12}},
            "tickvals": ticks,
            "ticktext": [marked.get(degree, f"{degree}°") for degree in ticks],
            "tickfont": {"size": 11},
            "ticks": "outside",
            "ticklen": 4,
            "thickness": 14,
            "lenmode": "pixels",
            "len": min(plot_height, 340),
            "x": 1 + 14 / plot_width,
            "xanchor": "left",
            "xpad": 0,
            "y": 1,
            "yanchor": "top",
            "ypad": 0,
            "outlinewidth": 0,
        },
    }


# Orange below a null, blue above it, grey at none (white is a cell without an angle); as light as black text needs.
_EXCESS = ("#e08214", "#fdc98b", "#e9ebed", "#a6cbe3", "#4a90c4")


def excess_axis(largest_deg: float, null: str, plot_width: float, plot_height: float) -> dict[str, object]:
    """The colour axis for the excess over a null: grey at 0, as far below as above."""
    axis = colour_axis(180, plot_width, plot_height)
    bar = dict(axis["colorbar"])  # type: ignore[call-overload]
    title = {"text": f'excess over {null} °<br><span style="font-size:5px"> </span>', "font": {"size": 12}}
    bar |= {"title": title, "tickvals": None, "ticktext": None, "tickformat": "+"}
    limit = max(largest_deg, 1.0)
    return axis | {"cmin": -limit, "cmax": limit, "colorscale": list(_EXCESS), "colorbar": bar}


def top_of_scale(largest_deg: float) -> int:
    """Where the colour bar ends, in degrees: always past the break at 90°, further only where the angles are."""
    return 180 if largest_deg > 120 else 120


def literal(text: str) -> str:
    """``text`` so that plotly draws it as it stands: no tags, no ``%{…}`` template, no ``$…$`` formula.

    >>> literal("<script>%{x} $a$")
    '&lt;script&gt;&#37;{x} &#36;a&#36;'
    """
    return html.escape(text, quote=False).replace("%{", "&#37;{").replace("$", "&#36;")


def width_of(n_characters: int, size_px: float) -> float:
    """About how wide so many characters are in a font of ``size_px`` pixels, in pixels."""
    return n_characters * _CHARACTER * size_px


def wrapped(text: str, width_px: float, size_px: float, *, at_hyphens: bool = False) -> list[str]:
    """The lines of ``text`` in a font of ``size_px`` pixels that fit into ``width_px``, each made literal."""
    characters = max(6, int(width_px / width_of(1, size_px)))
    return [literal(line) for line in textwrap.wrap(text, characters, break_on_hyphens=at_hyphens)] or [""]


def values_that_fit(values: Iterable[float], cell_px: float, theme: Theme) -> list[str] | None:
    """The values as texts of one form, with one decimal or none, that fit into cells of this width; None if none do."""
    found = list(values)
    for places in (1, 0):
        # No plus, for which there is no room; the colours say it, too.
        texts = [number(value, places) for value in found]
        if max(map(len, texts), default=0) * _DIGIT * theme.value <= cell_px - 1:
            return texts
    return None


def frame(
    figure: go.Figure,
    title: str,
    notes: Sequence[str],
    plot_size: tuple[float, float],
    margins: tuple[float, float, float, float],
    theme: Theme = SCREEN,
) -> go.Figure:
    """Set title, size and margins; ``plot_size`` and ``margins`` (left, right, above, below) in pixels.

    Room for the title comes on top of the upper margin. On paper title and notes go to :func:`caption` alone, and what
    is narrower than the paper's column is set in its middle. Returns the same figure.
    """
    left, right, above, below = margins
    width = plot_size[0] + left + right
    if theme.width is not None:
        spare = max(0.0, (theme.width - width) / 2)
        left, right, width = left + spare, right + spare, theme.width
    title_lines = wrapped(title, width - 32 - _BUTTONS, 17)
    subtitle_lines = wrapped(" · ".join(notes), width - 32, 12)
    above += 3 if theme.on_paper else 38 + 21 * len(title_lines) + 16 * len(subtitle_lines)
    height = plot_size[1] + above + below
    figure.update_layout(
        width=round(width),
        height=round(height),
        margin={"l": left, "r": right, "t": above, "b": below, "pad": 0, "autoexpand": False},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": FONT, "size": theme.text, "color": INK},
        hoverlabel={"align": "left", "font": {"family": FONT, "size": theme.text}},
        meta={"caption": literal(caption_text(title, notes))},
    )
    if theme.on_paper:
        return _without_margins(figure, plot_size)
    figure.update_layout(
        title={
            "text": "<br>".join(title_lines),
            "font": {"size": 17},
            "x": 16 / width,
            "xanchor": "left",
            # Plotly centres further lines around the first.
            "y": 1 - (14 + 11 * (len(title_lines) - 1)) / height,
            "yanchor": "top",
            "yref": "container",
        },
    )
    # Plotly's own subtitle runs into a title of several lines.
    figure.add_annotation(
        text="<br>".join(subtitle_lines),
        **{"x": 0, "xref": "paper", "xanchor": "left", "xshift": 16 - left, "align": "left"},
        **{"y": 1, "yref": "paper", "yanchor": "top", "yshift": above - 18 - 21 * len(title_lines)},
        showarrow=False,
        borderpad=0,
        font={"size": 12, "color": FAINT},
    )
    return figure


def _without_margins(figure: go.Figure, plot_size: tuple[float, float]) -> go.Figure:
    """The same picture with the plot area as large as the figure, so that keys and bars can stand anywhere in it.

    Axes have their place in shares of the plot area, and plotly lets none of them leave it.
    """
    layout = figure.layout
    margin, full = layout.margin, (layout.width, layout.height)
    before = (margin.l, margin.b)

    def moved(share: float, way: int) -> float:
        return float(min(1.0, max(0.0, (before[way] + share * plot_size[way]) / full[way])))

    for axis in figure.select_xaxes():
        axis.domain = [moved(end, 0) for end in axis.domain or (0, 1)]
    for axis in figure.select_yaxes():
        axis.domain = [moved(end, 1) for end in axis.domain or (0, 1)]
    for annotation in layout.annotations:
        if annotation.xref == "paper":
            annotation.x = moved(annotation.x, 0)
        if annotation.yref == "paper":
            annotation.y = moved(annotation.y, 1)
    for shape in layout.shapes:
        if shape.xref == "paper":
            shape.x0, shape.x1 = moved(shape.x0, 0), moved(shape.x1, 0)
        if shape.yref == "paper":
            shape.y0, shape.y1 = moved(shape.y0, 1), moved(shape.y1, 1)
    layout.margin = {"l": 0, "r": 0, "t": 0, "b": 0, "pad": 0, "autoexpand": False}
    return figure


def caption_text(title: str, notes: Sequence[str]) -> str:
    """Title and notes as sentences, for a caption."""
    sentences = [
        text[:1].upper() + text[1:] for note in notes if (text := note.replace(" · ", ", ").strip().rstrip("."))
    ]
    return " ".join(f"{sentence}." for sentence in [title, *sentences])


def caption(figure: go.Figure) -> str:
    """What a figure's title and notes say, as plain text: for the caption below a figure in a paper.

    Raises:
        InputError: the figure is not one of ours, or its ``layout.meta`` was replaced.
    """
    meta = figure.layout.meta
    if not isinstance(meta, dict) or not isinstance(meta.get("caption"), str):
        raise InputError("this figure has no caption. Give a figure that a function of layerangles.figures has drawn.")
    return html.unescape(meta["caption"])


def bar_below(
    figure: go.Figure,
    bar: dict[str, Any],
    what: str,
    theme: Theme,
    row: int = 0,
    *,
    left: float = 6,
    sign: str = "",
) -> dict[str, Any]:
    """A colour bar laid at the lower edge of a framed figure on paper: its name, the bar, and what a mark means.

    Args:
        figure: framed, and so of known size; the texts are added to it.
        bar: a colour bar of :func:`colour_axis` or :func:`excess_axis`.
        what: the name of what the colours stand for.
        theme: a paper's.
        row: the row of the bar, from below.
        left: where it begins.
        sign: the mark and its meaning, where cells of two meanings have one lightness.

    Returns:
        The colour bar, for the same colour axis.
    """
    width, height = figure.layout.width, figure.layout.height
    bottom = BAR_ROW * row
    common = {"xref": "paper", "yref": "paper", "showarrow": False, "borderpad": 0, "font": {"size": theme.text}}
    middle = {"y": (bottom + BAR_ROW - 9) / height, "yanchor": "middle", "xanchor": "left"}
    start = left + width_of(len(what), theme.text) + 6
    figure.add_annotation(text=literal(what), x=left / width, **middle, **common)
    after = width_of(len(sign), theme.text) + 12 if sign else 14
    length = min(220.0, width - start - after)
    if sign:
        figure.add_annotation(text=literal(sign), x=(start + length + 12) / width, **middle, **common)
    return bar | {
        "orientation": "h",
        "title": None,
        "thickness": 8,
        "lenmode": "pixels",
        "len": length,
        "x": start / width,
        "xanchor": "left",
        "y": (bottom + BAR_ROW - 5) / height,
        "yanchor": "top",
        "tickfont": {"size": theme.tick},
        "ticklen": 3,
        "tickwidth": 0.75,
        **_ticks(bar),
    }


def _ticks(bar: dict[str, Any]) -> dict[str, Any]:
    """The numbers along a bar, without the words that a bar on a screen has beside them."""
    values = bar.get("tickvals")
    if values is None:
        return {"tickformat": "", "ticksuffix": "", "nticks": 6}
    return {"ticktext": [str(value) for value in values]}


def short_names(names: Sequence[str]) -> tuple[list[str], str]:
    """Names without the parts that end all of them, joined by hyphens; and these parts.

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
    """A colour as a ground for others: see-through.

    >>> faded("#0072b2")
    'rgba(0, 114, 178, 0.15)'
    """
    red, green, blue = _rgb(colour)
    return f"rgba({red}, {green}, {blue}, 0.15)"


def legend_height(names: Sequence[Sequence[str]]) -> float:
    """About how high a legend of these lines is, on the safe side, in pixels."""
    return 20 + sum(6 + 16.5 * len(lines) for lines in names)
