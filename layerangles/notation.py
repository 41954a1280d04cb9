"""Text for numbers, intervals, shares and layers, the same in terminal, report, app, figures and LaTeX.

Numbers have a true minus sign, thousands separators, ∞, and :data:`MISSING` for NaN; LaTeX has its own functions.
"""

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real

MISSING = "–"
_NO_BREAK = "\N{NO-BREAK SPACE}"


def number(value: float, places: int | None = None, *, digits: int = 3, signed: bool = False) -> str:
    """A number with a fixed number of decimals, or else of significant digits.

    Args:
        value: the number; NaN gives :data:`MISSING`.
        places: decimals; None to count significant digits instead.
        digits: significant digits, used if ``places`` is None.
        signed: whether positive numbers get a plus sign.

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
    """An interval in brackets, its ends formatted by :func:`number`; :data:`MISSING` if an end is NaN.

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
    """A number followed by its interval, which is left out if an end is NaN.

    >>> with_interval(1.5, 1, 2, 1, signed=True), with_interval(1.5, math.nan, math.nan, 1), with_interval(0.781, 0, 1)
    ('+1.5 [+1.0, +2.0]', '1.5', '0.781 [0, 1]')
    """
    parts = (
        number(value, places, digits=digits, signed=signed),
        interval(low, high, places, digits=digits, signed=signed),
    )
    return " ".join(part for part in parts if part != MISSING) or MISSING


def decimals(values: Iterable[float]) -> int:
    """The number of decimals that shows the largest of some values to three digits, between two and six.

    >>> decimals([12.3, -0.4]), decimals([0.031, math.nan]), decimals([])
    (2, 4, 2)
    """
    finite = [abs(value) for value in values if math.isfinite(value)]
    largest = max(finite, default=1.0)
    return 2 if largest >= 1 or largest == 0 else min(6, 2 - math.floor(math.log10(largest)))


def percent(share: float, places: int | None = None, *, space: str = _NO_BREAK) -> str:
    r"""A share between 0 and 1 as a percentage.

    Args:
        share: the share; NaN gives :data:`MISSING`.
        places: decimals; None for up to four significant digits.
        space: between number and percent sign; a no-break space by default, an ordinary one in terminals.

    >>> percent(1 - 2 * 0.05), percent(0.975, space=" "), percent(0.12345, 1, space=" "), percent(math.nan)
    ('90\xa0%', '97.5 %', '12.3 %', '–')
    """
    return MISSING if math.isnan(share) else f"{number(100 * share, places, digits=4)}{space}%"


def degrees(value: float, *, signed: bool = False) -> str:
    """An angle, or a difference of angles, with one decimal and the degree sign.

    >>> degrees(61.04), degrees(-0.5, signed=True), degrees(math.nan)
    ('61.0°', '−0.5°', '–')
    """
    return MISSING if math.isnan(value) else f"{number(value, 1, signed=signed)}°"


def probability(value: float) -> str:
    """A probability or p value with three decimals; written as 0 or 1 only if it is exactly that.

    >>> probability(0.04567), probability(1e-9), probability(0.99999), probability(1.0)
    ('0.046', '< 0.001', '> 0.999', '1.000')
    """
    if value < 0.0005:
        return "< 0.001"
    return "> 0.999" if 0.9995 <= value < 1 else number(value, 3)


def p_value(p: float) -> str:
    """A p value within a sentence, with two significant digits.

    >>> p_value(0.01234)
    'p = 0.012'
    """
    return f"p = {number(p, digits=2)}"


def count(n: int) -> str:
    """A whole number with thousands separators.

    >>> count(12345)
    '12,345'
    """
    return f"{n:,}"


def counted(n: int, noun: str) -> str:
    """A count with its noun, in the plural unless the count is 1.

    >>> counted(1, "cell"), counted(1200, "seed")
    ('1 cell', '1,200 seeds')
    """
    return f"{count(n)} {noun}{'' if n == 1 else 's'}"


def layer_name(layer: int) -> str:
    """The name of a layer: its number, with 0 marked as the embedding output.

    >>> layer_name(0), layer_name(3)
    ('0 (emb)', '3')
    """
    return "0 (emb)" if layer == 0 else str(layer)


def teacher_layers(a: int, b: int) -> str:
    """The name of a pair of teacher layers.

    >>> teacher_layers(0, 3)
    'teacher layers 0 (emb) and 3'
    """
    return f"teacher layers {layer_name(a)} and {layer_name(b)}"


def table_cell(value: object, write: Callable[[float], str]) -> str:
    """The text of a table cell.

    Args:
        value: the value; None and NaN give :data:`MISSING`, integers get thousands separators.
        write: formats other numbers.

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
    r"""A number and its uncertainty for a column of siunitx, to two digits of the uncertainty; ``{--}`` for NaN.

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
    r"""A number and its interval within LaTeX text, by siunitx; ``unknown`` for NaN.

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
