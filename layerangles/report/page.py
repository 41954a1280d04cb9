"""One self-contained HTML page out of sections of text, tables and figures."""

import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures.export import document, fragment, plain_title
from layerangles.files import refuse_existing, replacing

_CSS = """
:root { color-scheme: light dark; }
:root { --ink: #1f2328; --faint: #59636e; --ground: #ffffff; --line: #d1d9e0; --stripe: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #9198a1; --ground: #0d1117; --line: #3d444d; --stripe: #161b22; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1440px; margin: 0 auto; padding: 24px clamp(14px, 3vw, 48px) 64px; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 .6em; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 2.2em 0 .5em; padding-bottom: .25em;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
p { max-width: 46em; margin: .7em 0; overflow-wrap: anywhere; }
nav ul { margin: 0; padding-left: 1.2em; }
nav a { color: inherit; }
.wide { overflow-x: auto; margin: 1.1em 0; max-width: 100%; }
/* Figures keep their white ground in the dark: a blank cell has no angle, and blank is white. */
figure.wide { background: #ffffff; border: 1px solid var(--line); border-radius: 6px; padding: 4px;
  width: fit-content; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34em .8em; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; border-bottom: 2px solid var(--line);
  color: var(--faint); font-weight: 600; }
tbody tr:nth-child(even) { background: var(--stripe); }
.n { text-align: right; }
@media print { .wide { overflow: visible; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, paragraphs, a table and figures, in this order.

    All text is plain text; it is escaped. A table shows its index where that has a name.
    """

    heading: str
    paragraphs: Sequence[str] = ()
    table: pd.DataFrame | None = None
    figures: Sequence[go.Figure] = ()


def write_page(
    path: str | os.PathLike[str], title: str, sections: Sequence[Section], *, overwrite: bool = False
) -> Path:
    """Write one self-contained HTML file, with plotly.js in it once (about 5 MB), and return its path.

    It opens from disk without a network, in light and dark, on wide and narrow windows; figures and tables wider than
    the window scroll on their own.

    Raises:
        InputError: ``path`` does not end in ``.html``, or exists and ``overwrite`` is false.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} ends in {Path(path).suffix!r}; a page is written to .html.")
    refuse_existing(path, overwrite=overwrite)
    parts = [f"<main>\n<h1>{html.escape(title)}</h1>"]
    if len(sections) > 2:
        parts.append(_contents(sections))
    parts += [_section(section, number) for number, section in enumerate(sections, start=1)]
    text = document(title, "\n".join([*parts, "</main>"]), _CSS)
    with replacing(path, overwrite=overwrite) as beside:
        beside.write_text(text, encoding="utf-8")
    return Path(path)


def _contents(sections: Sequence[Section]) -> str:
    links = (f'<li><a href="#section-{n}">{html.escape(s.heading)}</a></li>' for n, s in enumerate(sections, start=1))
    return f'<nav aria-label="contents"><ul>{"".join(links)}</ul></nav>'


def _section(section: Section, number: int) -> str:
    parts = [f'<section id="section-{number}">', f"<h2>{html.escape(section.heading)}</h2>"]
    parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs]
    if section.table is not None:
        parts.append(_table(section.table))
    for index, figure in enumerate(section.figures, start=1):
        label = html.escape(plain_title(figure))
        inner = fragment(figure, f"figure-{number}-{index}")
        # Focusable, so that the keyboard can scroll it too.
        parts.append(f'<figure class="wide" role="group" tabindex="0" aria-label="{label}">{inner}</figure>')
    return "\n".join([*parts, "</section>"])


def _table(table: pd.DataFrame) -> str:
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    types = pd.api.types
    numeric = [types.is_numeric_dtype(dtype) and not types.is_bool_dtype(dtype) for dtype in table.dtypes]
    classes = [' class="n"' if is_numeric else "" for is_numeric in numeric]
    # Long names such as min_angle_deg may break, so that they do not widen the column.
    names = (html.escape(str(name)).replace("_", "_<wbr>") for name in table.columns)
    head = "".join(f'<th scope="col"{of}>{name}</th>' for name, of in zip(names, classes, strict=True))
    rows = (
        "<tr>" + "".join(f"<td{of}>{_cell(value)}</td>" for value, of in zip(row, classes, strict=True)) + "</tr>"
        for row in table.itertuples(index=False, name=None)
    )
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    """A value as text: whole numbers with separators, others to two decimals, below 1 to three digits.

    >>> [_cell(value) for value in (12345, 52.345, -0.98765, 0.00012, float("nan"), "a < b", True)]
    ['12,345', '52.34', '-0.988', '0.00012', '–', 'a &lt; b', 'True']
    """
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, Real) and math.isnan(value)):
        return "–"
    if isinstance(value, bool) or not isinstance(value, Real):
        return html.escape(str(value))
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    return f"{number:,.2f}" if abs(number) >= 1 else f"{number:.3g}"
