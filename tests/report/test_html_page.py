"""Pages escape text, contain plotly.js once, and keep the order of their parts."""

from pathlib import Path

import numpy as np
import pandas as pd
from toys.reports import loads_something
from toys.results import NAME, make_result
from toys.verdicts import make_verdict

from layerangles.figures import heatmap, histogram
from layerangles.report.html_page import Preformatted, Section, Subheading, Tag, write_page


def test_page_escapes_text_and_holds_plotly_once(tmp_path):
    table = pd.DataFrame({"name": ["<b>x</b>", None], "angle_deg": [52.345, np.nan], "n": [12345, 2]})
    table.index = pd.Index(["p", "q"], name="student")
    figures = [heatmap(make_result()), histogram(make_result())]
    sections = [
        Section("One <i>", ["a < b & c", NAME]),
        Section("Two", [table]),
        Section("Three", figures),
    ]
    page = write_page(tmp_path / "page.html", "Title <&>", sections).read_text(encoding="utf-8")
    assert page.count("plotly.js v") == 1
    assert page.count('class="plotly-graph-div"') == 2
    assert loads_something(page) == []
    assert "<h1>Title &lt;&amp;&gt;</h1>" in page
    assert "<h2>One &lt;i&gt;</h2>" in page
    assert "<p>a &lt; b &amp; c</p>" in page
    assert "alert(1)</script>" not in page
    assert '<tr><td>p</td><td>&lt;b&gt;x&lt;/b&gt;</td><td class="n">52.34</td><td class="n">12,345</td></tr>' in page
    assert '<tr><td>q</td><td>–</td><td class="n">–</td><td class="n">2</td></tr>' in page
    assert '<th scope="col" class="n">angle_<wbr>deg</th>' in page
    assert '<a href="#section-3">Three</a>' in page
    assert 'aria-label="Angles between teacher layers, seen from forward"' in page
    assert "prefers-color-scheme: dark" in page


def test_the_same_page_twice_is_the_same_file(tmp_path):
    sections = [Section("A", [heatmap(make_result())])]
    first = write_page(tmp_path / "1.html", "t", sections).read_bytes()
    assert first == write_page(tmp_path / "2.html", "t", sections).read_bytes()


def test_parts_of_a_section_in_any_order(tmp_path: Path) -> None:
    table = make_verdict().components.assign(tag=Tag("<different>", "◆", "#d55e00"), text="one\ntwo")
    more = [Preformatted("@a{\n  b}"), "some <words>", Subheading("<h>"), table, {"<term>": "<meaning>"}]
    page = write_page(tmp_path / "p.html", "t", [Section("A", ["first", *more])], lead=Section("Lead <l>"))
    html = page.read_text(encoding="utf-8")
    parts = [
        '<section id="section-0">\n<h2>Lead &lt;l&gt;</h2>',
        "<p>first</p>",
        '<pre class="wide" tabindex="0">@a{\n  b}</pre>',
        "<p>some &lt;words&gt;</p>",
        "<h3>&lt;h&gt;</h3>",
        '<span class="tag" style="--tag: #d55e00"><i aria-hidden="true">◆</i>&lt;different&gt;</span>',
        "<td>one\ntwo</td>",
        "<dl><dt>&lt;term&gt;</dt><dd>&lt;meaning&gt;</dd></dl>",
    ]
    places = [html.index(part) for part in parts]
    assert places == sorted(places)
