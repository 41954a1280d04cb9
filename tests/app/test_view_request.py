"""A view as a link's query and back, and queries that are malformed or malicious."""

from dataclasses import fields, replace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerangles.app.views import ViewRequest

NAMES = [field.name for field in fields(ViewRequest)]
WHOLE = [field.name for field in fields(ViewRequest) if "int" in str(field.type)]
TEXTS = [name for name in NAMES if name not in WHOLE]

whole = st.none() | st.integers(0, 999_999_999)
text = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
views = st.builds(ViewRequest, **{name: whole if name in WHOLE else text for name in NAMES})


def test_fields_are_numbers_or_texts() -> None:
    assert WHOLE == ["step", "first_step", "second_step", "layer", "low", "high"]
    assert TEXTS == ["first", "second", "tower", "way", "null", "aggregation"]


@settings(deadline=None, derandomize=True)
@given(views)
@example(ViewRequest(first="a&second=b#c?d=e;f", second="+ %2B\n\0ü🙂", way="teacher · fitted: ridge"))
@example(ViewRequest(step=0, layer=0, low=0))
def test_a_link_gives_the_view_back(view: ViewRequest) -> None:
    query = view.query()
    assert ViewRequest.from_query(query) == view
    assert ViewRequest.from_query(query.removeprefix("?")) == view
    assert query.isascii()  # so it stands in an address as it is
    assert not set(query) & set(" \"'<>#\\\n")


def test_what_is_left_open_is_not_in_the_link() -> None:
    assert ViewRequest().query() == "?"
    assert ViewRequest(first="forward-seed0", step=20, low=0).query() == "?first=forward-seed0&step=20&low=0"
    assert ViewRequest.from_query("") == ViewRequest.from_query("?") == ViewRequest()


def test_the_last_of_repeated_keys_counts_and_unknown_keys_are_ignored() -> None:
    view = ViewRequest.from_query("?layer=1&first=a&layer=2&path=/etc/passwd&__class__=x&self=y")
    assert view == ViewRequest(first="a", layer=2)


@settings(deadline=None, derandomize=True)
@given(st.text(st.characters()))
@example("first=\ud800&step=1")
@example("?" + "first=a&" * 5000)
@example("step=" + "9" * 5000)
@example("%" * 100 + "&first=%ED%A0%80&second=%ff%zz%00")
def test_no_query_raises_and_every_view_has_a_link(query: str) -> None:
    view = ViewRequest.from_query(query)
    assert ViewRequest.from_query(view.query()) == view
    assert all(value is None or (isinstance(value, int) and 0 <= value < 10**9) for value in _whole_values(view))
    assert all(value is None or (isinstance(value, str) and value) for value in _text_values(view))


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "1e3", " 1", "1_0", "0x1", "²", "١", "１", "9" * 10, "None"])
@pytest.mark.parametrize("name", WHOLE)
def test_values_that_are_not_plain_numbers_are_ignored(name: str, value: str) -> None:
    assert ViewRequest.from_query(f"?first=a&{name}={quote(value)}") == ViewRequest(first="a")
    assert ViewRequest.from_query(urlencode({name: "12"})) == replace(ViewRequest(), **{name: 12})


def _whole_values(view: ViewRequest) -> list[Any]:
    return [getattr(view, name) for name in WHOLE]


def _text_values(view: ViewRequest) -> list[Any]:
    return [getattr(view, name) for name in TEXTS]
