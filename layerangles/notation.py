r"""Notation of numbers, intervals, shares and layers for people, wherever they read them.

Text has a true minus sign, separators of thousands, ∞, and :data:`MISSING` for NaN; siunitx has its own functions.
"""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real

MISSING = "–"
_NO_BREAK = "\N{NO-BREAK SPACE}"


def number(value: float, places: int | None = None, *, digits: int = 3, signed: bool = False) -> str:
    """A number to ``places`` decimals, or without them to so many significant digits.

    Args:
        value: NaN gives :data:`MISSING`.
        places: decimals.
        digits: significant digits, where no ``places`` are given.
        signed: write a plus before positive numbers.

    >>> number(-1234.567, 2), number(0.5, 3, signed=True), number(-0.001, 2), number(math.inf, 2), number(math.nan)
    ('−1,234.57', '+0.500', '0.00', '∞', '–')
    >>> number(0.78125), number(-0.0123), number(12.345), number(12.345, digits=4), number(1.0)
    ('0.781', '−0.0123', '12.3', '12.35', '1')
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return ("−" if value < 0 else "+" if signed else "") + "∞"
    rounded = value if places is None else round(value, places) + 0.0  # adding zero takes the minus from −0.0
    text = f"{rounded:.{digits}g}" if places is None else f"{rounded:,.{places}f}"
    return ("+" if signed and rounded > 0 else "") + text.replace("-", "−")


def interval(low: float, high: float, places: int | None = None, *, digits: int = 3, signed: bool = False) -> str:
    """An interval in brackets, its ends written as by :func:`number`; :data:`MISSING` where an end is NaN.

    >>> interval(-0.5, math.inf, 1), interval(0.01234, 0.5), interval(math.nan, math.nan)
    ('[−0.5, ∞]', '[0.0123, 0.5]', '–')
    """
    if math.isnan(low) or math.isnan(high):
        return MISSING
    ends = (number(end, places, digits=digits, signed=signed) for end in (low, high))
    return f"[{', '.join(ends)}]"


def with_interval(
    value: float, low: float, high: float, places: int | None = None, *, digits: int = 3, signed: bool = False
) -> str:
    """A number followed by its interval, where it has one.

    >>> with_interval(1.5, 1, 2, 1, signed=True), with_interval(1.5, math.nan, math.nan, 1), with_interval(0.781, 0, 1)
    ('+1.5 [+1.0, +2.0]', '1.5', '0.781 [0, 1]')
    """
    parts = (
        number(value, places, digits=digits, signed=signed),
        interval(low, high, places, digits=digits, signed=signed),
    )
    return " ".join(part for part in parts if part != MISSING) or MISSING


def decimals(values: Iterable[float]) -> int:
    """How many decimals show the largest of these values to three digits: from two up to six.

    >>> decimals([12.3, -0.4]), decimals([0.031, math.nan]), decimals([])
    (2, 4, 2)
    """
    finite = [abs(value) for value in values if math.isfinite(value)]
    largest = max(finite, default=1.0)
    return 2 if largest >= 1 or largest == 0 else min(6, 2 - math.floor(math.log10(largest)))


def percent(share: float, places: int | None = None, *, space: str = _NO_BREAK) -> str:
    r"""A share of 1 as a percentage, to ``places`` decimals or to as many as it needs, four digits at most.

    Args:
        share: NaN gives :data:`MISSING`.
        places: decimals.
        space: before the percent sign; by default one at which no line breaks; terminals get a plain one.

    >>> percent(1 - 2 * 0.05), percent(0.975, space=" "), percent(0.12345, 1, space=" "), percent(math.nan)
    ('90\xa0%', '97.5 %', '12.3 %', '–')
    """
    return MISSING if math.isnan(share) else f"{number(100 * share, places, digits=4)}{space}%"


def degrees(value: float, *, signed: bool = False) -> str:
    """An angle or a difference of angles in degrees, to a tenth.

    >>> degrees(61.04), degrees(-0.5, signed=True), degrees(math.nan)
    ('61.0°', '−0.5°', '–')
    """
    return MISSING if math.isnan(value) else f"{number(value, 1, signed=signed)}°"


def probability(value: float) -> str:
    """A probability or p value to three decimals, never as 0 or 1 unless it is.

    >>> probability(0.04567), probability(1e-9), probability(0.99999), probability(1.0)
    ('0.046', '< 0.001', '> 0.999', '1.000')
    """
    if value < 0.0005:
        return "< 0.001"
    return "> 0.999" if 0.9995 <= value < 1 else number(value, 3)


def p_value(p: float) -> str:
    """A p value in a sentence, to two significant digits.

    >>> p_value(0.01234)
    'p = 0.012'
    """
    return f"p = {number(p, digits=2)}"


def count(n: int) -> str:
    """A whole number, such as tokens or steps.

    >>> count(12345)
    '12,345'
    """
    return f"{n:,}"


def counted(n: int, noun: str) -> str:
    """A number of things, with the noun in the plural unless there is one.

    >>> counted(1, "cell"), counted(1200, "seed")
    ('1 cell', '1,200 seeds')
    """
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def layer_name(layer: int) -> str:
    """The number of a layer; 0 is marked as the embedding output.

    >>> layer_name(0), layer_name(3)
    ('0 (emb)', '3')
    """
    return "0 (emb)" if layer == 0 else str(layer)


def teacher_layers(a: int, b: int) -> str:
    """A pair of teacher layers.

    >>> teacher_layers(0, 3)
    'teacher layers 0 (emb) and 3'
    """
    return f"teacher layers {layer_name(a)} and {layer_name(b)}"


def table_cell(value: object, write: Callable[[float], str]) -> str:
    """A value in a table: numbers with a fraction as ``write`` has it, whole ones with separators of thousands.

    >>> [table_cell(value, number) for value in (12345, 0.98765, math.nan, None, "a", True)]
    ['12,345', '0.988', '–', '–', 'a', 'True']
    """
    match value:
        case None:
            return MISSING
        case bool():
            return str(value)
        case Integral():
            return count(int(value))
        case Real():
            return MISSING if math.isnan(value) else write(float(value))
    return str(value)


def siunitx_uncertainty(value: float, half: float, *, signed: bool = False) -> str:
    r"""A number and its uncertainty, as siunitx reads them, to two digits of the uncertainty; ``{--}`` for NaN.

    >>> siunitx_uncertainty(0.78125, 0.01234), siunitx_uncertainty(12.3456, math.nan)
    ('0.781 \\pm 0.012', '12.35')
    >>> siunitx_uncertainty(0.78125, 0.0, signed=True), siunitx_uncertainty(math.nan, math.nan)
    ('+0.7812 \\pm 0.0000', '{--}')
    """
    if math.isnan(value):
        return "{--}"
    plus = "+" if signed else ""
    if math.isnan(half):
        return f"{value:{plus}.4g}"
    places = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 4
    return f"{value:{plus}.{places}f} \\pm {half:.{places}f}"


def siunitx_interval(value: float, low: float, high: float) -> str:
    r"""A number and its interval in a text of LaTeX; ``unknown`` for NaN.

    >>> print(siunitx_interval(0.5, 0.25, math.inf))
    \num{0.5} [\num{0.25}, $\infty$]
    """
    if math.isnan(value):
        return "unknown"
    written = [
        "$\\infty$" if x == math.inf else "$-\\infty$" if x == -math.inf else f"\\num{{{x:.3g}}}"
        for x in (value, low, high)
    ]
    return written[0] if math.isnan(low) else f"{written[0]} [{written[1]}, {written[2]}]"
