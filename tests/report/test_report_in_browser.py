"""In a real browser the report needs no network, draws the tables' numbers, and fits every width."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from toys.chromium import complaints, needs_browser, opened, requests
from toys.reports import full_report, some_verdicts
from toys.verdicts import make_verdict

from layerangles.equivalence.verdict import Margin
from layerangles.report.study_report import StudyReport, write_report


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", full_report())


@pytest.fixture
def offline(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    browser.execute_cdp_cmd("Network.enable", {})
    blocked = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", blocked)
    yield browser
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", blocked | {"offline": False})
    browser.execute_cdp_cmd("Network.disable", {})


N_FIGURES = 2 + 2 + 1 + 3 + 2 + 1  # forests and gains (none without "none"), two measurements, prediction


@needs_browser
def test_the_report_is_drawn_without_a_network(offline: webdriver.Chrome, page: Path) -> None:
    opened(offline, page, N_FIGURES)
    count = "return document.querySelectorAll('.js-plotly-plot').length"
    assert offline.execute_script(count) == N_FIGURES
    drawn = offline.execute_script(
        "return [...document.querySelectorAll('.js-plotly-plot')].map(gd => "
        "gd.querySelectorAll('.main-svg .point, .main-svg .js-line, .main-svg .hm, .heatmaplayer image').length)"
    )
    assert all(drawn), drawn
    assert complaints(offline) == []
    assert requests(offline) == []
    assert page.stat().st_size < 12_000_000


@needs_browser
def test_the_tables_numbers_are_the_drawn_ones(offline: webdriver.Chrome, page: Path) -> None:
    opened(offline, page, N_FIGURES)
    read = """
      const section = document.getElementById(arguments[0]);
      const tables = [...section.querySelectorAll('table')].map(table =>
        [...table.querySelectorAll('tr')].map(row => [...row.cells].map(cell => cell.textContent)));
      const plots = [...section.querySelectorAll('.js-plotly-plot')].map(gd => gd.data.map(trace =>
        ({mode: trace.mode, width: (trace.line || {}).width, kind: trace.legendgroup,
          x: [...(trace.x || [])], y: [...(trace.y || [])], labels: trace.customdata || []})));
      return [tables, plots];"""
    verdicts = [v for v in some_verdicts() if v.cell.none is not None]
    for number, verdict in enumerate(verdicts, start=1):
        (scores, pairs, *_), (gains, forest) = offline.execute_script(read, f"section-{number}")
        intervals = {label: (row, x, low, high) for label, row, x, low, high in drawn_rows(gains, 1.5)}
        column = scores[0].index("gain over none [95\N{NO-BREAK SPACE}%]")
        in_table = {row[0]: numbers_in(row[column]) for row in scores[1:] if row[column] != "–"}
        assert in_table.keys() == intervals.keys()
        for strategy, shown in in_table.items():
            assert shown == pytest.approx(intervals[strategy][1:], abs=0.00501)
        thick = {label: (row, x, low, high) for label, row, x, low, high in drawn_rows(forest, 5)}
        assert len(pairs) - 1 == len(thick) == len(verdict.pairs)
        for place, row in enumerate(pairs[1:]):
            drawn = thick[f"{row[0]} − {row[1]}"]
            assert drawn[0] == place  # in the same order
            assert numbers_in(row[2]) == pytest.approx(drawn[1:], abs=0.00501)


def drawn_rows(traces: list[dict[str, Any]], width: float) -> list[tuple[str, int, float, float, float]]:
    """Label, row, point and interval of all rows that a browser holds."""
    bars = {
        trace["y"][i]: (trace["x"][i], trace["x"][i + 1])
        for trace in traces
        if trace["mode"] == "lines" and trace["width"] == width
        for i in range(0, len(trace["x"]), 3)
    }
    return [
        (label, y, x, *bars[y])
        for trace in traces
        if trace["mode"] == "markers"
        for label, y, x in zip(trace["labels"], trace["y"], trace["x"], strict=True)
    ]


def numbers_in(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.findall(r"[+-]?[\d.]+", text.replace("−", "-")))


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1300, "light"), (1300, "dark"), (400, "light"), (400, "dark")])
def test_nothing_is_cut_off(offline: webdriver.Chrome, page: Path, width: int, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    offline.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    opened(offline, page, N_FIGURES, width)
    assert offline.execute_script("return document.documentElement.scrollWidth") <= width
    overflowing = """
      return [...document.querySelectorAll('main h1, main h2, main h3, main p, main dt, main dd, nav a, .tag')]
        .filter(e => !e.closest('.wide') && e.getBoundingClientRect().right > arguments[0] - 8)
        .map(e => e.textContent)"""
    assert offline.execute_script(overflowing, width) == []
    scrolls = """
      return [...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth + 1)
        .every(e => getComputedStyle(e).overflowX === 'auto' && e.tabIndex === 0)"""
    assert offline.execute_script(scrolls)
    first = "const e = document.querySelector('table').parentElement; return e.scrollWidth - e.clientWidth"
    if width == 1300:  # the verdict is all there at once
        assert offline.execute_script(first) <= 0
    contrast = """
      const s = getComputedStyle(document.querySelector('.tag')), b = getComputedStyle(document.body);
      return [s.color, b.backgroundColor]"""
    ink, ground = (
        sum(int(n) for n in text.strip("rgba()").split(",")[:3]) for text in offline.execute_script(contrast)
    )
    offline.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert abs(ink - ground) > 500


@needs_browser
def test_texts_of_the_figures_do_not_overlap(offline: webdriver.Chrome, tmp_path: Path) -> None:
    names = ["forward", "an-in-order-random-map-drawn-anew-every-500-steps", "reverse", "all-to-one-of-the-middle"]
    verdicts = [
        make_verdict(names, has_examples=True),
        make_verdict(cell="b", margin=Margin(0.25, of_gain=True)),
        make_verdict(cell="c", n_seeds=1),
    ]
    report = StudyReport("t", verdicts, {})
    opened(offline, write_report(tmp_path / "r.html", report), 6)
    overlaps = """
      return [...document.querySelectorAll('.js-plotly-plot')].flatMap(gd => {
        const outer = gd.getBoundingClientRect();
        const texts = '.gtitle, .annotation-text, .xtitle, .ytick text, .xtick text, .legendtext';
        const shown = [...gd.querySelectorAll(texts)]
          .map(e => [e.textContent, e.getBoundingClientRect()]).filter(([text, box]) => text && box.width);
        const out = shown.filter(([, box]) => box.left < outer.left || box.right > outer.right + 1
          || box.top < outer.top || box.bottom > outer.bottom).map(([text]) => 'outside: ' + text);
        const over = shown.flatMap(([a, p], i) => shown.slice(i + 1).filter(([, q]) =>
          p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 2 && q.top < p.bottom - 2)
          .map(([b]) => a + ' over ' + b));
        return [...out, ...over];
      })"""
    assert offline.execute_script(overlaps) == []
