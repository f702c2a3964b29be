"""Every relative link of README and docs leads to a file that is there, and to a heading of it."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN = MarkdownIt("commonmark").enable("table")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _targets(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_heading_stands_twice(page: Path) -> None:
    """A link to the second one would have to count."""
    headings = _headings(page)
    assert len(headings) == len(set(headings)) or page.name in ("log.md", "performance.md")


def test_every_page_can_be_found_from_the_first() -> None:
    reached, new = set(), {ROOT / "README.md", ROOT / "docs" / "index.md"}
    while new:
        page = new.pop()
        reached.add(page)
        for target in _targets(page):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.exists() and path not in reached:
                new.add(path)
    assert {page for page in PAGES if page not in reached} == set()


def _targets(page: Path) -> list[str]:
    return [
        str(part.attrs["href" if part.type == "link_open" else "src"])
        for token in _tokens(page)
        for part in token.children or []
        if part.type in ("link_open", "image")
    ]


@cache
def _anchors(page: Path) -> set[str]:
    return {
        re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-") for text in _headings(page)
    }


def _headings(page: Path) -> list[str]:
    tokens = _tokens(page)
    return [
        "".join(part.content for part in following.children or [])
        for token, following in itertools.pairwise(tokens)
        if token.type == "heading_open"
    ]


@cache
def _tokens(page: Path) -> list[Token]:
    return MARKDOWN.parse(page.read_text(encoding="utf-8"))
