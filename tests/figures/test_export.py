"""Export: HTML files need no network, and impossible or unwanted writes are refused."""

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from toys.reports import loads_something
from toys.results import NAME, make_result

from layerangles.errors import InputError
from layerangles.figures import heatmap, write_html, write_image
from layerangles.report.html_page import Section, write_page


def test_html_is_one_file_that_loads_nothing_and_sends_nothing(tmp_path):
    path = write_html(heatmap(make_result((NAME,))), tmp_path / "map.html")
    page = path.read_text(encoding="utf-8")
    assert path == tmp_path / "map.html"
    assert "plotly.js v" in page
    assert loads_something(page) == []
    assert not re.search(r"<script[^>]*\ssrc", page)
    assert "default-src 'none'" in page
    assert '"showSendToCloud": false' in page
    assert "alert(1)</script>" not in page
    assert "<title>Angles between teacher layers" in page


@pytest.mark.parametrize("write", [lambda path: write_html(go.Figure(), path), lambda path: write_page(path, "t", [])])
def test_nothing_is_overwritten_unasked(tmp_path, write):
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write(path)
    assert path.read_text() == "mine"


def test_an_image_is_refused_before_a_browser_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    (tmp_path / "map.png").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_image(go.Figure(), tmp_path / "map.png")


@pytest.mark.parametrize("write", [write_html, lambda *a, **k: write_page(a[1], "t", [Section("h")], **k)])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, write):
    path = tmp_path / "page.html"
    path.write_text("mine")

    def full(self, *args, **kwargs):
        self.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        write(go.Figure(), path, overwrite=True)
    assert path.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_overwriting_when_asked(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    write_html(go.Figure(), path, overwrite=True)
    assert "plotly" in path.read_text(encoding="utf-8")


def test_other_suffixes_are_refused_with_the_allowed_ones(tmp_path):
    with pytest.raises(InputError, match=r"'\.gif'; static images are written to \.png, \.svg, \.pdf"):
        write_image(go.Figure(), tmp_path / "map.gif")
    with pytest.raises(InputError, match=r"ends in '\.png'; an interactive figure is written to \.html"):
        write_html(go.Figure(), tmp_path / "map.png")
    with pytest.raises(InputError, match=r"ends in ''; a page is written to \.html"):
        write_page(tmp_path / "page", "t", [])


def test_a_missing_kaleido_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kaleido", None)
    with pytest.raises(InputError, match=re.escape("pip install 'layerangles[export]'")):
        write_image(go.Figure(), tmp_path / "map.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("browser", "what"), [("/nonexistent", "is not found"), ("/bin/true", "does not start")])
def test_a_missing_browser_says_what_to_do(tmp_path, monkeypatch, browser, what):
    monkeypatch.setenv("BROWSER_PATH", browser)
    with pytest.raises(InputError, match=what) as caught:
        write_image(go.Figure(), tmp_path / "map.png")
    assert f"BROWSER_PATH is {browser!r}" in str(caught.value)
    assert "plotly_get_chrome" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
