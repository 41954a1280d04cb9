"""The look that all figures share: colours, text, and a frame measured in pixels."""

import html
import textwrap
from collections.abc import Sequence

import plotly.graph_objects as go

# A colour means the same angle in every figure. Lightness rises evenly from 0° to 90°, where most angles lie; at
# 90° the hue jumps from blue to orange, which people with any common colour blindness tell apart.
ACUTE = ("#1c1b50", "#223a82", "#2260a7", "#3387c2", "#55aed8", "#8ed2e8", "#d1f2f7")  # 0° to 90°, 15° apart
_OBTUSE = ("#f3ae58", "#d17412", "#a43f00", "#642211")  # 90° to 180°, 30° apart
_OBTUSE_STOPS = [(90.0 + 30.0 * i, colour) for i, colour in enumerate(_OBTUSE)]

# Of lines and marks: Okabe and Ito's colours, without yellow, which is too light for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
INK = "#1f2328"
FAINT = "#6e7781"
FONT = "Helvetica, Arial, sans-serif"

# Mean width of a character over the font size, on the safe side; a figure cannot ask the browser before it is drawn.
_CHARACTER = 0.53

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


def layer_name(layer: int) -> str:
    """The name of a layer: 0 is the embedding output, 1..L the blocks."""
    return "0 (emb)" if layer == 0 else str(layer)


def frame(
    figure: go.Figure,
    title: str,
    subtitle: str,
    plot_size: tuple[float, float],
    margins: tuple[float, float, float, float],
) -> go.Figure:
    """Set title, size and margins; ``plot_size`` and ``margins`` (left, right, above, below) in pixels.

    Room for the title comes on top of the upper margin. Returns the same figure.
    """
    left, right, above, below = margins
    width = plot_size[0] + left + right
    title_lines = wrapped(title, width - 32 - _BUTTONS, 17)
    subtitle_lines = wrapped(subtitle, width - 32, 12)
    above += 38 + 21 * len(title_lines) + 16 * len(subtitle_lines)
    height = plot_size[1] + above + below
    figure.update_layout(
        width=round(width),
        height=round(height),
        margin={"l": left, "r": right, "t": above, "b": below, "pad": 0, "autoexpand": False},
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"family": FONT, "size": 12, "color": INK},
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 12}},
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
