"""Heat maps as SVG text: small, without scripts, readable on light and on dark ground.

The same maps are drawn by app/widget.js where one chooses what to see; a test holds the two to each other. Hence all
numbers are whole: angles in hundredths of a degree, lengths in pixels.
"""

import html
from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from layerangles.figures.drawing import style

Hundredths = npt.NDArray[np.int16]
NONE = -32768  # no angle
_LEFT, _BELOW, _ABOVE, _RIGHT = 34, 34, 2, 6  # around the cells: numbers of layers, and the axes' titles
_LEAST_CELL_WITH_VALUE = 30
_LEAST_BETWEEN_TICKS = 20


class Scale(NamedTuple):
    """A colour scale: what stands for which value, in between by interpolation.

    Attributes:
        stops: value in degrees, colour; in order. Two colours at one value are a break.
        signed: whether values are written with their sign.
    """

    stops: list[tuple[float, str]]
    signed: bool = False


class Text(NamedTuple):
    """What is written on a map besides its values.

    Attributes:
        label: what a screen reader says of it.
        titles: of every pair ``layer_a < layer_b``, in order; none at all where they would take too much room.
        absence: the lines that say why there is no angle.
        axes: whether the axes have numbers and titles.
    """

    label: str
    titles: Sequence[str] = ()
    absence: Sequence[str] = ()
    axes: bool = True


def hundredths(degrees: npt.NDArray[np.floating[Any]]) -> Hundredths:
    """Degrees in hundredths, ``NONE`` for NaN."""
    known = np.isfinite(degrees)
    return np.where(known, np.rint(100 * np.where(known, degrees, 0)), NONE).astype(np.int16)


def angle_scale(largest_deg: float) -> Scale:
    """The colours of all figures, with the break at 90°."""
    top = style.top_of_scale(largest_deg)
    return Scale([(position * top, colour) for position, colour in style.colour_scale(top)])


def excess_scale(largest_deg: float) -> Scale:
    """The colours of the figures' excess: as far below 0 as above."""
    axis: dict[str, Any] = style.excess_axis(largest_deg, "", 1, 1)
    colours = axis["colorscale"]
    width = axis["cmax"] - axis["cmin"]
    return Scale([(axis["cmin"] + width * i / (len(colours) - 1), colour) for i, colour in enumerate(colours)], True)


def colour_of(degrees: float, scale: Scale) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255 each; beyond the ends that of the end.

    >>> colour_of(5, Scale([(0, "#000000"), (10, "#ff8000")]))
    (128, 64, 0)
    """
    stops = scale.stops
    upper = next((i for i, (value, _) in enumerate(stops) if value > degrees), len(stops))
    (low, below), (high, above) = stops[max(upper - 1, 0)], stops[min(upper, len(stops) - 1)]
    share = 0.0 if high == low else (degrees - low) / (high - low)
    red, green, blue = (int(a + (b - a) * share + 0.5) for a, b in zip(_channels(below), _channels(above), strict=True))
    return red, green, blue


def written(value: int, scale: Scale) -> str:
    """A value of so many hundredths, to a tenth.

    >>> written(6825, Scale([])), written(-1996, Scale([], signed=True)), written(3, Scale([], signed=True))
    ('68.3', '−20.0', '0.0')
    """
    tenths = (value + 5) // 10
    sign = "−" if tenths < 0 else "+" if scale.signed and tenths > 0 else ""
    return f"{sign}{abs(tenths) // 10}.{abs(tenths) % 10}"


def heat_map(
    pairs: Hundredths, layers: Sequence[int], matched: Sequence[int], scale: Scale, side: int, text: Text
) -> str:
    """One map, ``layer_b`` to the right and ``layer_a`` upwards, as an ``<svg>`` element.

    Args:
        pairs: the values of all pairs ``a < b`` of layers, in order; those of ``(b, a)`` are the same.
        layers: the teacher layers.
        matched: the teacher layers that get the mark on the diagonal.
        scale: its colours.
        side: about the side of the square, in pixels.
        text: see there.
    """
    n = len(layers)
    cell = max(2, side // n)
    size, gap = cell * n, 1 if cell > 5 else 0
    left, below, above, right = (_LEFT, _BELOW, _ABOVE, _RIGHT) if text.axes else (0, 0, 0, 0)
    parts = [f'<rect width="{size}" height="{size}" fill="currentColor" fill-opacity=".07"/>']
    numbers = []
    index = 0
    for a in range(n):
        for b in range(a + 1, n):
            value = int(pairs[index])
            if value != NONE:
                title = f"<title>{html.escape(text.titles[index], quote=False)}</title>" if text.titles else ""
                red, green, blue = colour_of(value / 100, scale)
                squares = "".join(
                    f"M{x * cell} {(n - 1 - y) * cell}h{cell - gap}v{cell - gap}h-{cell - gap}z"
                    for x, y in ((b, a), (a, b))
                )
                colour = f"#{red:02x}{green:02x}{blue:02x}"
                parts.append(f'<path d="{squares}" fill="{colour}">{title}</path>')
                # Black or white, whichever is read better.
                ink = "#000" if 299 * red + 587 * green + 114 * blue > 105_000 else "#fff"
                numbers += [(x, y, value, ink) for x, y in ((b, a), (a, b))]
            index += 1
    if cell >= _LEAST_CELL_WITH_VALUE:
        parts += [
            f'<text x="{x * cell + cell // 2}" y="{(n - 1 - y) * cell + cell // 2 + 4}" fill="{ink}">'
            f"{written(value, scale)}</text>"
            for x, y, value, ink in numbers
        ]
    parts += [_mark(layers.index(layer), n, cell) for layer in matched]
    parts += [
        f'<text x="{size // 2}" y="{size // 2 + 14 * i}" font-size="12">{html.escape(line)}</text>'
        for i, line in enumerate(text.absence)
    ]
    if text.axes:
        parts.append(_axes(layers, cell))
    width, height = left + size + right, above + size + below
    return (
        f'<svg viewBox="{-left} {-above} {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{html.escape(text.label)}" fill="currentColor" font-size="11" text-anchor="middle" '
        f'font-family="sans-serif" style="max-width:100%;height:auto">{"".join(parts)}</svg>'
    )


def _mark(at: int, n: int, cell: int) -> str:
    """A diamond on the diagonal, which is blank."""
    x, y, half = at * cell + cell // 2, (n - 1 - at) * cell + cell // 2, min(5, max(2, cell // 3))
    return f'<path d="M{x} {y - half}l{half} {half}l-{half} {half}l-{half} -{half}z"/>'


def _axes(layers: Sequence[int], cell: int) -> str:
    n = len(layers)
    size, every = cell * n, ceil(_LEAST_BETWEEN_TICKS / cell)
    ticks = [
        f'<text x="{i * cell + cell // 2}" y="{size + 13}">{layers[i]}</text>'
        f'<text x="-5" y="{(n - 1 - i) * cell + cell // 2 + 4}" text-anchor="end">{layers[i]}</text>'
        for i in range(0, n, every)
    ]
    middle = size // 2
    return "".join(ticks) + (
        f'<text x="{middle}" y="{size + 29}">teacher layer</text>'
        f'<text transform="translate(-24 {middle}) rotate(-90)">teacher layer</text>'
    )


def bar(scale: Scale, ticks: Sequence[tuple[float, str]], width: int) -> str:
    """The colour scale as a bar with marked values, as an ``<svg>`` element."""
    low, high = scale.stops[0][0], scale.stops[-1][0]

    def at(value: float) -> int:
        return int((value - low) / (high - low) * width + 0.5)

    n = width // 2
    parts = []
    for i in range(n):
        red, green, blue = colour_of(low + (high - low) * (i + 0.5) / n, scale)
        parts.append(f'<path d="M{2 * i} 0h2v10h-2z" fill="#{red:02x}{green:02x}{blue:02x}"/>')
    parts += [
        f'<path d="M{at(value)} 10v4" stroke="currentColor"/><text x="{at(value)}" y="26">{html.escape(name)}</text>'
        for value, name in ticks
    ]
    return (
        f'<svg viewBox="-24 0 {width + 60} 32" width="{width + 60}" height="32" role="img" aria-label="colour scale" '
        f'fill="currentColor" font-size="11" text-anchor="middle" font-family="sans-serif" '
        f'style="max-width:100%;height:auto">{"".join(parts)}</svg>'
    )


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
