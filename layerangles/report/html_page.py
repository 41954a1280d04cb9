"""Self-contained HTML pages of sections with text, tables and figures."""

import html
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import plotly.graph_objects as go

from layerangles.errors import InputError
from layerangles.figures.drawing.export import document, fragment, plain_title
from layerangles.files import atomic_write, check_absent
from layerangles.notation import MISSING, number, table_cell

_CSS = """
:root { color-scheme: light dark; }
:root { --ink: #1f2328; --faint: #59636e; --ground: #ffffff; --line: #d1d9e0;
  --stripe: #818b981a; --shade: #1f232840; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #9198a1; --ground: #0d1117; --line: #3d444d;
    --stripe: #818b981f; --shade: #ffffff40; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1440px; margin: 0 auto; padding: 24px clamp(14px, 3vw, 48px) 64px; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 .6em; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 2.2em 0 .5em; padding-bottom: .25em;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1.08rem; line-height: 1.35; margin: 1.9em 0 .4em; overflow-wrap: anywhere; }
p { max-width: 46em; margin: .7em 0; overflow-wrap: anywhere; }
nav { margin: 2.2em 0; }
nav ul { margin: 0; padding-left: 1.2em; }
nav a { color: inherit; }
.wide { overflow-x: auto; margin: 1.1em 0; max-width: 100%; }
/* A shade at an edge beyond which there is more; the ground, which scrolls along, covers it at the end. */
div.wide { background: linear-gradient(to right, var(--ground) 50%, transparent) 0 0 / 36px 100% no-repeat local,
  linear-gradient(to left, var(--ground) 50%, transparent) 100% 0 / 36px 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) 0 0 / 12px 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) 100% 0 / 12px 100% no-repeat scroll; }
/* Figures keep their white ground in the dark: a blank cell has no angle, and blank is white. */
figure.wide { background: #ffffff; border: 1px solid var(--line); border-radius: 6px; padding: 4px;
  width: fit-content; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34em .65em; text-align: left; border-bottom: 1px solid var(--line); white-space: pre; }
thead th { white-space: normal; vertical-align: bottom; border-bottom: 2px solid var(--line);
  color: var(--faint); font-weight: 600; }
tbody tr:nth-child(even) { background: var(--stripe); }
.n { text-align: right; }
.tag { display: inline-block; padding: 0 .55em; border: 1.5px solid var(--tag); border-radius: 1em; font-weight: 600; }
.tag i { color: var(--tag); font-style: normal; margin-right: .35em; }
dl { display: grid; grid-template-columns: fit-content(15em) minmax(0, 1fr); gap: .4em 1.4em; max-width: 58em;
  margin: 1.1em 0; }
dt { font-weight: 600; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 640px) { dl { display: block; } dd { margin-bottom: .7em; } }
pre.wide { padding: .8em 1em; border-radius: 6px; background: var(--stripe); font-size: .85rem; line-height: 1.5; }
@media print { .wide { overflow: visible; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Tag:
    """A highlighted word in a table's cell, with a coloured sign and border; the text suffices without colour."""

    text: str
    sign: str
    colour: str


@dataclass(frozen=True)
class Subheading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Preformatted:
    """Text that keeps its lines, such as code."""

    text: str


# A text is a paragraph, and a mapping a list of terms with their meanings.
Part: TypeAlias = str | pd.DataFrame | go.Figure | Mapping[str, str] | Subheading | Preformatted


@dataclass(frozen=True)
class Section:
    """A section of a page.

    All text is plain text; it is escaped. A table shows its index where that has a name; its cells keep their line
    breaks, and may be tags.
    """

    heading: str
    parts: Sequence[Part] = ()


def write_page(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    *,
    lead: Section | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML file with one copy of plotly.js (about 5 MB), and return its path.

    It opens from disk without a network, in light and dark, on wide and narrow windows; figures and tables wider than
    the window scroll on their own. ``lead`` is a section that stands before the table of contents.

    Raises:
        InputError: ``path`` does not end in ``.html``, or exists and ``overwrite`` is false.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{path} ends in {Path(path).suffix!r}; a page is written to .html.")
    check_absent(path, overwrite=overwrite)
    parts = [f"<main>\n<h1>{html.escape(title)}</h1>"]
    if lead is not None:
        parts.append(_section(lead, 0))
    if len(sections) > 2:
        parts.append(_contents(sections))
    parts += [_section(section, number) for number, section in enumerate(sections, start=1)]
    text = document(title, "\n".join([*parts, "</main>"]), _CSS)
    with atomic_write(path, overwrite=overwrite) as beside:
        beside.write_text(text, encoding="utf-8")
    return Path(path)


def _contents(sections: Sequence[Section]) -> str:
    links = (f'<li><a href="#section-{n}">{html.escape(s.heading)}</a></li>' for n, s in enumerate(sections, start=1))
    return f'<nav aria-label="contents"><ul>{"".join(links)}</ul></nav>'


def _section(section: Section, number: int) -> str:
    parts = [f'<section id="section-{number}">', f"<h2>{html.escape(section.heading)}</h2>"]
    figures = 0
    for part in section.parts:
        figures += isinstance(part, go.Figure)
        parts.append(_part(part, f"figure-{number}-{figures}"))
    return "\n".join([*parts, "</section>"])


def _part(part: Part, div_id: str) -> str:
    """The HTML of a part; ``div_id`` is the id of a figure."""
    match part:
        case str():
            return f"<p>{html.escape(part)}</p>"
        case Subheading(text):
            return f"<h3>{html.escape(text)}</h3>"
        case Preformatted(text):
            return f'<pre class="wide" tabindex="0">{html.escape(text)}</pre>'
        case pd.DataFrame():
            return _table(part)
        case go.Figure():
            # Focusable, so that it can be scrolled by keyboard.
            label = html.escape(plain_title(part))
            inner = fragment(part, div_id)
            return f'<figure class="wide" role="group" tabindex="0" aria-label="{label}">{inner}</figure>'
    terms = (f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in part.items())
    return f"<dl>{''.join(terms)}</dl>"


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
    ['12,345', '52.34', '−0.988', '0.00012', '–', 'a &lt; b', 'True']
    """
    if value is pd.NA or value is pd.NaT:
        return MISSING
    if isinstance(value, Tag):
        sign = f'<i aria-hidden="true">{html.escape(value.sign)}</i>'
        return f'<span class="tag" style="--tag: {html.escape(value.colour)}">{sign}{html.escape(value.text)}</span>'
    return html.escape(table_cell(value, lambda x: number(x, 2 if abs(x) >= 1 else None)))
