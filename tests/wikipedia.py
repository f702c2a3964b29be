"""Wikipedia dump -> plain text: good enough to measure perplexity on, no more."""

from __future__ import annotations

import bz2
import html
import re
from pathlib import Path
from xml.etree import ElementTree

_INNERMOST = re.compile(r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL)
_FILE = re.compile(r"\[\[(?:File|Image|Category|[a-z-]{2,12}):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]")
_RULES = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"<ref[^>]*/>|<ref[^>]*>.*?</ref>", re.DOTALL | re.IGNORECASE), ""),
    (re.compile(r"<(math|gallery|timeline)[^>]*>.*?</\1>", re.DOTALL | re.IGNORECASE), ""),
    (_FILE, ""),
    (re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]"), r"\1"),
    (re.compile(r"\[(?:https?|ftp):[^\s\]]*\s?([^\]]*)\]"), r"\1"),
    (re.compile(r"<[^<>]+>"), ""),
    (re.compile(r"'{2,}"), ""),
    (re.compile(r"^=+\s*(.*?)\s*=+\s*$", re.MULTILINE), r"\1"),
    (re.compile(r"^[*#:;]+\s*", re.MULTILINE), ""),
    (re.compile(r"[ \t]+\n"), "\n"),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def plain_text(dump: Path) -> str:
    """The articles of a ``pages-articles`` dump, without redirects, separated by blank lines."""
    articles = []
    with bz2.open(dump) as stream:
        # The dump was cut off in the middle of a page.
        parser = ElementTree.XMLPullParser(["end"])
        parser.feed(stream.read())
    for _, node in parser.read_events():
        if not node.tag.endswith("}page"):
            continue
        space = node.tag.removesuffix("page")
        source = node.findtext(f"{space}revision/{space}text") or ""
        if node.findtext(f"{space}ns") == "0" and not source.lower().startswith("#redirect"):
            articles.append(f"{node.findtext(f'{space}title')}\n\n{_strip(source)}")
    return "\n\n".join(articles)


def _strip(source: str) -> str:
    text, count = source, 1
    while count:  # templates and tables, from the inside out
        text, count = _INNERMOST.subn("", text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return html.unescape(text).strip()
