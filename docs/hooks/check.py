"""Checks of the built site beyond mkdocs' own: links, requests to other hosts, roles in docstrings."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

# Attributes through which a browser fetches a file when it opens a page.
_FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src")}


class _Page(HTMLParser):
    """The anchors of a page, its link targets, the addresses it fetches, and its text outside code."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.fetched += [given[name] for of, name in _FETCHED if of == tag and name in given]
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.fetched.append(given["href"])
        if tag in ("script", "style", "code", "pre"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def problems(site: Path) -> Iterator[str]:
    """One line per broken link, per file from another host, and per role that did not become a link."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        if where == "404.html":  # its links begin at the root of whatever host serves it
            continue
        for link in dict.fromkeys(page.links):
            if (reason := _broken(link, path, pages)) is not None:
                yield f"{where}: the link {link} leads to no {reason}"
        for address in dict.fromkeys(page.fetched):
            if urlsplit(address).netloc:
                yield f"{where}: {address} would be fetched from another host"
        for role in sorted(set(re.findall(r":(?:attr|class|data|exc|func|meth|mod):", " ".join(page.text)))):
            yield f"{where}: {role} is shown as written in the docstring"


def _broken(link: str, path: Path, pages: dict[Path, _Page]) -> str | None:
    """The kind of target that a link within the site lacks (file or anchor); None if it is whole."""
    address, anchor = urldefrag(link)
    if urlsplit(link).scheme or urlsplit(link).netloc:
        return None
    target = (path.parent / unquote(address)).resolve() if address else path
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return "file"
    if anchor and target in pages and unquote(anchor) not in pages[target].anchors and anchor != "__codelineno":
        return "anchor"
    return None
