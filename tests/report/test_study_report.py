"""The report on a study: what is on its page; in a real browser it is drawn, whole, and of the same numbers."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from selenium import webdriver
from toys.chromium import (
    browser,  # noqa: F401 - a fixture
    complaints,
    needs_browser,
    opened,
    requests,
)
from toys.predictions import cells_of
from toys.results import make_result, with_steps
from toys.verdicts import make_verdict

from layerangles import AngleResult, InputError, __version__
from layerangles.equivalence.gap_prediction import predict_gaps
from layerangles.equivalence.verdict import Margin, Verdict
from layerangles.report.citation import PAPER, SOFTWARE
from layerangles.report.html_page import Preformatted, Section, Subheading, Tag, write_page
from layerangles.report.prediction_wording import sentences_on
from layerangles.report.study_report import StudyReport, write_report
from layerangles.report.verdict_wording import reason_for

ROOT = Path(__file__).parents[2]
STRATEGIES = ("forward", "reverse", "random")


def measured(
    students: Sequence[str],
    *,
    nulls: Sequence[str] = ("N1",),
    steps: Sequence[int] = (),
    n_teacher: int = 4,
    towers: Sequence[str] = ("encoder",),
) -> AngleResult:
    """A result with means over students, an excess over nulls, and steps."""
    dataset = make_result(students, n_teacher, towers=towers).dataset
    whole = dataset["layer_angle_deg"].mean("student_layer")
    for name, shift in (("angle_deg", 0), ("ci_low", -1), ("ci_high", 1)):
        dataset[f"student_{name}"] = whole + shift
    dataset["student_common_mode_ratio"] = whole / 10
    dataset["student_common_mode_low"], dataset["student_common_mode_high"] = whole / 11, whole / 9
    dataset["weights_sha256"] = ("student", [f"hash of {name}" for name in students])
    if nulls:
        shifts = xr.DataArray(np.arange(1.0, len(nulls) + 1), {"null": list(nulls)}, ("null",))
        for before, angle in (("", dataset["angle_deg"]), ("student_", whole)):
            dataset[f"{before}excess_deg"] = (0 * angle - 2 * shifts).transpose(*angle.dims, "null")
            dataset[f"{before}null_angle_deg"] = (angle + 2 * shifts).transpose(*angle.dims, "null")
            for end, shift in (("low", -0.5), ("high", 0.5)):
                dataset[f"{before}excess_{end}"] = dataset[f"{before}excess_deg"] + shift
    if not steps:
        return AngleResult(dataset)
    result = with_steps(AngleResult(dataset), list(steps))
    hashes = [[f"{name} {step}" for step in steps] for name in students]
    return AngleResult(result.dataset.assign(weights_sha256=(("student", "step"), hashes)))


def students_of(n_seeds: int) -> list[str]:
    return [f"{strategy}-seed{seed}" for seed in range(n_seeds) for strategy in STRATEGIES]


def some_verdicts() -> list[Verdict]:
    return [
        make_verdict(outcome="equivalent", cell="sst2, copied", has_examples=True),
        make_verdict(outcome="different", cell="sst2, random", margin=Margin(0.25, of_gain=True)),
        make_verdict(n_seeds=1, cell="qnli <i>", margin=None, has_none=False, unit=0.01),
    ]


def full_report() -> StudyReport:
    return StudyReport(
        title="Layer selection <on> reviews",
        verdicts=some_verdicts(),
        teacher={"sst2, copied": 93.125, "sst2, random": 93.125},
        angles=[measured(students_of(2), steps=(0, 100)), measured(["forward"])],
        prediction=predict_gaps(cells_of([1, 2, 4], excess_deg=[3, 2, 1])),
        design={"teacher": "BERT & co", "seeds": "0 to 4"},
        provenance={"weights": "0123456789abcdef" * 4, "command": "layerangles verdict runs"},
    )


def text_of(page: str) -> str:
    """What a reader reads, without scripts, styles and tags."""
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    plain = re.sub(r"<[^>]*>", " ", without).replace("\N{NO-BREAK SPACE}", " ")
    for entity, sign in (("&lt;", "<"), ("&gt;", ">"), ("&#x27;", "'"), ("&amp;", "&")):
        plain = plain.replace(entity, sign)
    return re.sub(r"\s+", " ", plain)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report") / "report.html", full_report())


def written(tmp_path: Path, *verdicts: Verdict, **kwargs: Any) -> str:
    given = {"title": "t", "verdicts": verdicts, "teacher": {}} | kwargs
    return text_of(write_report(tmp_path / "r.html", StudyReport(**given), overwrite=True).read_text(encoding="utf-8"))


# What is on the page


def test_question_and_verdict_come_before_everything_else(page: Path) -> None:
    text = text_of(page.read_text(encoding="utf-8"))
    order = [
        "Layer selection <on> reviews Layer selection <on> reviews Does the choice of layers matter?",
        "The verdicts on 3 cells: 1 equivalent, 1 different, 1 undecided. Scores are accuracy.",
        "cell verdict seeds teacher none best worst spread [95 %] gain [95 %] margin with new examples",
        *(f"{one.outcome.capitalize()}. {reason_for(one)}" for one in some_verdicts()),
        "How to read this",
        "sst2, copied: equivalent",  # in the table of contents
        "Scores, and gain over no matching",
        "Angles between teacher layers (1 of 2)",
        "Angles between teacher layers (2 of 2)",
        "Does geometry predict where the choice matters?",
        "What was run",
        "Where it comes from",
        "How to cite",
    ]
    places = []
    for part in order:
        assert part in text, part
        places.append(text.index(part, places[-1] if places else 0))
    assert places == sorted(places)


def test_every_number_of_the_first_table_is_the_verdicts(tmp_path: Path) -> None:
    verdict = make_verdict(margin=Margin(0.25, of_gain=True), has_examples=True)
    scores = verdict.strategies["score"]
    best, worst = (getattr(scores[list(verdict.cell.matched)], name)() for name in ("idxmax", "idxmin"))
    row = (
        f"sst2, copied □ undecided 5 93.12 {scores['none']:.2f} {best} {scores[best]:.2f} {worst} {scores[worst]:.2f} "
        "0.91 [0.45, 1.62] +2.00 [+1.70, +2.40] 0.25 of the gain ±0.50 □ undecided"
    )
    assert row in written(tmp_path, verdict, teacher={"another cell": 50.0, "sst2, copied": 93.123})
    lower = replace(verdict, cell=replace(verdict.cell, higher_is_better=False))
    assert f"{worst} {scores[worst]:.2f} {best} {scores[best]:.2f} 0.91" in written(tmp_path, lower)


def test_every_strategy_has_its_scores_best_first_between_none_and_controls(tmp_path: Path) -> None:
    verdict = make_verdict(controls=("shuffled", "another-text"))
    table = verdict.strategies
    text = written(tmp_path, verdict, teacher={"sst2, copied": 93.123})
    assert (
        "strategy role score [95 %] draws sd over seeds gain over none [95 %] teacher teacher 93.12 – – – none" in text
    )
    order = [
        "none",
        *(table[table["role"] == role].sort_values("score").index[::-1] for role in ("matched", "control")),
    ]
    places = []
    for strategy in [order[0], *order[1], *order[2]]:
        row = table.loc[strategy]
        gain = f"{row['gain']:+.2f} [{row['gain_low']:+.2f}, {row['gain_high']:+.2f}]".replace("-", "−")
        shown = (
            f" {strategy} {row['role']} {row['score']:.2f} [{row['low']:.2f}, {row['high']:.2f}] 1 {row['sd']:.2f} "
            f"{'–' if strategy == 'none' else gain}"
        )
        assert shown in text
        places.append(text.index(shown))
    assert places == sorted(places)


def test_every_pair_has_its_intervals(tmp_path: Path) -> None:
    verdict = make_verdict(has_examples=True)
    text = written(tmp_path, verdict)
    signs = {"equivalent": "●", "different": "◆", "undecided": "□"}
    assert "first second difference [90 %] 95 % interval sd over seeds outcome 90 % interval, new examples" in text
    for (first, second), row in verdict.pairs.iterrows():
        decides, wide, examples = (
            f"[{row[low]:+.2f}, {row[high]:+.2f}]".replace("-", "−")
            for low, high in (("low", "high"), ("wide_low", "wide_high"), ("examples_low", "examples_high"))
        )
        difference = f"{row['difference']:+.2f}".replace("-", "−")
        outcome = f"{signs[row['outcome']]} {row['outcome']}"
        assert f"{first} {second} {difference} {decides} {wide} {row['sd']:.2f} {outcome} {examples}" in text


def test_cells_of_different_metrics_say_which(tmp_path: Path) -> None:
    one, other = make_verdict(), make_verdict(cell="other")
    other = replace(other, cell=replace(other.cell, metric="BLEU"))
    text = written(tmp_path, one, other)
    assert "Scores are accuracy, BLEU." in text
    assert "cell verdict metric seeds" in text


def test_what_the_verdict_rests_on_is_explained(tmp_path: Path) -> None:
    text = written(tmp_path, make_verdict(has_examples=True, alpha=0.01))
    assert "the 98 % interval of the difference lies within the margin" in text
    assert "Wrong at a rate of at most 1 %." in text
    assert "with a 99 % bootstrap interval over seeds" in text
    assert "would another test set say the same?" in text
    assert "Spread over gain: 0.46 [0.20, ∞] (99 % bootstrap interval" in text
    assert "Best minus worst strategy over gain: 0.46 [−∞, ∞] (Fieller's 99 % interval" in text
    assert "with a posterior probability of 0.876." in text
    assert "Controls are matched to something else" in text
    assert "Controls" not in written(tmp_path, make_verdict(controls=()))
    two_levels = written(tmp_path, make_verdict(alpha=0.01), make_verdict(cell="other"))
    assert "at most 1 % or 5 %." in two_levels


def test_without_a_margin_the_page_says_that_nothing_is_decided(tmp_path: Path) -> None:
    text = written(tmp_path, make_verdict(margin=None))
    assert "The verdict on the one cell: undecided." in text
    assert "none given No margin was given, so nothing is decided" in text
    assert "better. No margin was given, so nothing is decided." in text
    assert "p equivalent" not in text
    assert "posterior probability of" not in text
    assert "No margin was given" not in written(tmp_path, make_verdict())


def test_a_share_of_the_gain_is_not_known_exactly(tmp_path: Path) -> None:
    said = "The gain is not known exactly either"
    assert said in written(tmp_path, make_verdict(margin=Margin(0.25, of_gain=True)))
    assert said not in written(tmp_path, make_verdict())
    nothing = make_verdict(margin=Margin(0.25, of_gain=True), gain=-1.0)
    assert "−1.00 [−1.30, −0.60] 0.25 of the gain no gain" in written(tmp_path, nothing)
    assert "so that there is no margin" in written(tmp_path, nothing)


def test_one_seed_has_no_interval_and_no_tests(tmp_path: Path) -> None:
    text = written(tmp_path, make_verdict(n_seeds=1))
    assert "One seed has no interval." in text
    assert "Spread over gain: 0.46. It says how much" in text
    assert "Fieller" not in text
    assert "Tests and probabilities" not in text
    assert "Where the variance of scores comes from" not in text
    assert "nan" not in text.lower().replace("nano", "")


def test_seeds_that_are_left_out_are_named(tmp_path: Path) -> None:
    verdict = make_verdict()
    scores = verdict.cell.scores.copy()
    scores.loc[{"strategy": "reverse", "seed": 3}] = np.nan
    text = written(tmp_path, replace(verdict, cell=replace(verdict.cell, scores=scores)))
    assert "Seeds: 0, 1, 2, 4. Left out, since a student is missing: 3." in text


def test_components_and_probabilities_are_those_of_the_verdict(tmp_path: Path) -> None:
    verdict = make_verdict()
    verdict.pairs["p_different"] = [1e-9, 1.0, 0.5, 0.99999, 0.0317, 0.2]
    text = written(tmp_path, verdict)
    assert (
        "source sd variance share strategy 0.2 0.04 13.8 % seed 0.3 0.09 31 % strategy × seed 0.4 0.16 55.2 %" in text
    )
    for (first, second), row in verdict.pairs.iterrows():
        shown = {1e-9: "< 0.001", 0.99999: "> 0.999"}.get(row["p_different"], f"{row['p_different']:.3f}")
        rest = " ".join(f"{row[name]:.3f}" for name in ("p_nonzero", "inside", "below", "above"))
        assert f"{first} {second} {row['p_equivalent']:.3f} {shown} {rest}" in text


def test_angles_are_listed_for_every_student(tmp_path: Path) -> None:
    result = measured(["a", "b"], nulls=("N5", "N1"))
    text = written(tmp_path, make_verdict(), angles=[result])
    for student in "ab":
        of = result.dataset.sel(student=student, tower="encoder")
        angle, ratio = float(of["student_angle_deg"]), float(of["student_common_mode_ratio"])
        row = f"{student} {angle:.2f} [{angle - 1:.2f}, {angle + 1:.2f}] −4.00 [−4.50, −3.50] {ratio:.2f} ["
        assert row in text
    assert "student mean angle ° excess over N1 ° common-mode ratio ρ" in text
    assert "N1 is the same angle seen from the student's state at another token" in text
    assert "Over training" not in text


def test_the_table_of_angles_is_of_the_last_step_and_signed(tmp_path: Path) -> None:
    dataset = measured(["a", "b"], steps=(0, 1500)).dataset
    for end in ("deg", "low", "high"):
        dataset[f"student_excess_{end}"] = dataset[f"student_excess_{end}"] + xr.where(dataset["step"] > 0, 9, 0)
    text = written(tmp_path, make_verdict(), angles=[AngleResult(dataset)])
    assert "Every student at step 1,500" in text
    assert text.count("+7.00 [+6.50, +7.50]") == 2


def test_another_null_no_null_and_no_means(tmp_path: Path) -> None:
    assert "Excess over N5" in written(tmp_path, make_verdict(), angles=[measured(["a", "b"], nulls=("N5",))])
    assert "xcess over" not in written(tmp_path, make_verdict(), angles=[measured(["a"], nulls=())])
    bare = with_steps(make_result(("a", "b")), [0, 10])  # as in gradient space
    text = written(tmp_path, make_verdict(), angles=[bare])
    assert "Every student" not in text
    assert "Over training" not in text
    towers = written(tmp_path, make_verdict(), angles=[measured(["a"], towers=("encoder", "decoder"))])
    assert "Angles between teacher layers, encoder" in towers
    assert "Angles between teacher layers, decoder" in towers


@pytest.mark.parametrize(
    ("names", "drawn", "said"),
    [
        (students_of(4), 12, ""),
        (students_of(6)[3:], 3, "Of 15 students, 3 are drawn: those of seed 1."),
        ([f"run-{i}" for i in range(14)], 12, "Of 14 students, 12 are drawn: the first."),
        ([f"run-{i}-seed7" for i in range(14)], 12, "Of 14 students, 12 are drawn: those of seed 7."),
    ],
)
def test_of_many_students_those_of_one_seed_are_drawn(
    tmp_path: Path, names: list[str], drawn: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    of_null: list[str | None] = []
    from layerangles import figures

    draw = figures.comparison

    def watched(result: AngleResult, **kwargs: Any) -> Any:
        seen.append(result.students)
        of_null.append(kwargs["null"])
        return draw(result, **kwargs)

    monkeypatch.setattr(figures, "comparison", watched)
    text = written(tmp_path, make_verdict(), angles=[measured(names)])
    assert [len(students) for students in seen] == [drawn, drawn]
    assert of_null == [None, "N1"]  # angles, and excess
    assert set(seen[0]) <= set(names)
    assert "are drawn" in text if said else "are drawn" not in text
    assert said in text
    assert all(f" {name} " in text for name in names)  # in the table, which has them all


@pytest.mark.parametrize(("n_results", "shortened"), [(1, False), (4, True)])
def test_large_measurements_stay_below_12_megabytes(tmp_path: Path, n_results: int, shortened: bool) -> None:
    result = measured(students_of(6), nulls=("N0", "N1", "N2", "N5"), steps=(0, 500, 1000), n_teacher=13)
    several = measured([f"s{i}" for i in range(12)], nulls=("N0", "N1"), n_teacher=13)
    angles = [result, *[several] * (n_results - 1)]
    path = write_report(tmp_path / "r.html", StudyReport("t", [make_verdict()], {}, angles))
    assert path.stat().st_size < 12_000_000
    html = path.read_text(encoding="utf-8")
    assert ("teacher layers %{y} and %{x}" in html) is shortened
    assert ("1,234 tokens" in html) is not shortened


def test_prediction_is_told_and_drawn(tmp_path: Path) -> None:
    cells = cells_of([1, 2, 4, 7, 6], excess_deg=[3, 2, 1, 5, 4], common_mode_ratio=[np.nan, np.nan, 1, 2, 2])
    prediction = predict_gaps(cells)
    text = written(tmp_path, make_verdict(), prediction=prediction)
    assert " ".join(sentences_on(prediction)) in text
    fit = prediction.fits.loc["excess_deg"]
    slope = f"{fit['slope']:.3g} [{fit['slope_low']:.3g}, {fit['slope_high']:.3g}]".replace("-", "−")
    assert f"excess_deg 5 {slope} {fit['error']:.3g}" in text


def test_citations_are_those_of_the_citation_file() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = cited["references"]
    flat, software = (re.sub(r"\s+", " ", text) for text in (PAPER, SOFTWARE))
    assert f"title = {{{paper['title']}}}" in flat
    assert f"pages = {{{paper['start']}--{paper['end']}}}" in flat
    assert f"booktitle = {{{paper['collection-title']}}}" in flat
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"author = {{{authors}}}" in flat
    assert f"url = {{{paper['url']}}}" in flat
    assert f"eprint = {{{paper['identifiers'][0]['value'].removeprefix('arXiv:')}}}" in flat
    assert f"year = {{{paper['year']}}}" in flat
    assert f"title = {{{cited['title']}}}" in software
    assert f"author = {{{{{cited['authors'][0]['name']}}}}}" in software
    assert f"version = {{{__version__}}}" in software
    assert f"license = {{{cited['license']}}}" in software
    assert PAPER.count("{") == PAPER.count("}")
    assert SOFTWARE.count("{") == SOFTWARE.count("}")


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got no verdicts. Judge one cell at least"):
        write_report(tmp_path / "r.html", StudyReport("t", [], {}))
    with pytest.raises(InputError, match=r"more than one verdict on the cell sst2, copied"):
        write_report(tmp_path / "r.html", StudyReport("t", [make_verdict(), make_verdict()], {}))
    report = StudyReport("t", [make_verdict()], {})
    with pytest.raises(InputError, match=r"a page is written to \.html"):
        write_report(tmp_path / "r.pdf", report)
    (tmp_path / "r.html").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_report(tmp_path / "r.html", report)
    assert (tmp_path / "r.html").read_text() == "mine"


# Parts of a page


def test_parts_of_a_section_in_any_order(tmp_path: Path) -> None:
    table = make_verdict().components.assign(tag=Tag("<different>", "◆", "#d55e00"), text="one\ntwo")
    more = [Preformatted("@a{\n  b}"), "some <words>", Subheading("<h>"), table, {"<term>": "<meaning>"}]
    page = write_page(tmp_path / "p.html", "t", [Section("A", ["first"], more=more)], lead=Section("Lead <l>"))
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


# In a browser


@pytest.fixture
def offline(browser: webdriver.Chrome) -> Iterator[webdriver.Chrome]:  # noqa: F811
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
