"""A result in a notebook: its table and facts, without scripts, and small."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from toys.results import make_result, with_steps

from layerangles import AngleResult, measure_angles
from layerangles.results.notebook_html import summary_html

MOST_BYTES = 50_000
HOSTILE = "</div><script>alert(1)</script> \"quoted\" & 'so'"


class Parsed(HTMLParser):
    """The elements of a snippet, which must be closed in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(result: AngleResult) -> str:
    """The HTML of a result, which is well formed, small, and runs and loads nothing."""
    text = result._repr_html_()
    assert len(text.encode()) < MOST_BYTES
    parsed = Parsed(text)
    assert {tag for tag, _ in parsed.tags} <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on") or name in ("src", "href")]
    assert "nan" not in text.lower().replace("nan-", "")
    assert result.in_words in text
    return text


def rows(text: str) -> list[list[str]]:
    """The cells of the table, without its head."""
    return [re.findall(r"<td>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)]


def many(n_students: int, n_steps: int, n_teacher: int, n_student: int) -> AngleResult:
    names = [f"forward-with-a-long-name-of-its-own-{i}-seed{i}" for i in range(n_students)]
    made = make_result(tuple(names), n_teacher, n_student, matched=((0, 1),))
    return with_steps(made, [10 * i for i in range(n_steps)])


def test_the_table_has_the_means_of_each_student_with_intervals(result):
    text = checked(result)
    row = next(row for row in rows(text) if row[0] == "identity")
    low, mean, high = (
        float(result.dataset[f"student_{name}"].sel(student="identity").item())
        for name in ("ci_low", "angle_deg", "ci_high")
    )
    excess = float(result.dataset["student_excess_deg"].sel(student="identity", null="N1").item())
    assert row[1] == f"{mean:.1f} [{low:.1f}, {high:.1f}]"
    assert row[3].startswith(f"{excess:+.1f} [".replace("-", "−"))
    assert "<th>excess over N1 °</th>" in text
    assert [row[0] for row in rows(text)] == result.students


def test_more_than_forty_students_are_counted_and_not_shown():
    text = checked(many(100, 2, 4, 2))
    assert len(rows(text)) == 40
    assert "… and 60 more." in text


@pytest.mark.parametrize(("n_teacher", "n_student"), [(2, 1), (33, 29), pytest.param(81, 81, marks=pytest.mark.long)])
def test_a_deep_model_makes_no_longer_page(n_teacher, n_student):
    assert len(checked(many(3, 1, n_teacher, n_student))) < 2_000


def test_names_are_escaped_and_cut():
    text = checked(make_result((HOSTILE, "x" * 500)))
    assert "&lt;script&gt;" in text
    assert "x" * 61 not in text


def test_a_student_is_shown_at_its_own_last_step(study_with_steps, study):
    result = measure_angles(study_with_steps, study.texts, steps=True, device="cpu")
    steps = {row[0]: row[1] for row in rows(checked(result))}
    assert steps == {"late": "30", "early": "20"}


def test_a_student_without_any_angle_has_dashes():
    text = checked(make_result(("one", "blank"), blank=((1,),)))
    assert next(row for row in rows(text) if row[0] == "blank")[1:3] == ["–", "–"]


@pytest.mark.parametrize(
    "settings",
    [
        {"space": "gradient"},
        {"convention": "paper", "max_length": 32},
        {"space": "pull"},
        {"alternatives": "all"},
        {"nulls": ()},
    ],
)
def test_every_kind_of_result_has_a_table(study, settings):
    result = measure_angles(study.identity, study.texts, device="cpu", **settings)
    assert len(rows(checked(result))) == 1
    assert repr(result) == f"<AngleResult: {result.in_words}>"


def test_two_towers_have_a_row_each():
    text = checked(make_result(("one",), towers=("encoder", "decoder")))
    assert [row[:2] for row in rows(text)] == [["one", "encoder"], ["one", "decoder"]]


def test_a_result_in_plain_text(result):
    assert repr(result) == (
        "<AngleResult: 4 students; 4 student layers × 5 teacher layers (encoder); 24 texts; space teacher; nulls N1>"
    )


def test_notes_follow_the_table_and_an_empty_table_is_left_out():
    text = summary_html("facts & figures", pd.DataFrame(), ["a note"])
    assert text == "<p>facts &amp; figures</p><p>a note</p>"
