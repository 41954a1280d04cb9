"""The citations are those of CITATION.cff."""

import re
from pathlib import Path

import yaml

from layerangles import __version__
from layerangles.report.citation import PAPER, SOFTWARE

ROOT = Path(__file__).parents[2]


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
