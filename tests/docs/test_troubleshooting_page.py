"""The messages that docs/troubleshooting.md quotes are ones that the sources say."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^\*\*`(.+?)`\*\*", PAGE, re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_said_somewhere(message: str) -> None:
    """`…` stands for what a message fills in."""
    parts = [re.escape(part) for part in message.split("…")]
    pattern = re.compile(r"[^\n]{0,200}?".join(parts))
    assert any(pattern.search(text) for text in _texts()), message


def test_the_page_quotes_messages() -> None:
    assert len(MESSAGES) > 20


@cache
def _texts() -> list[str]:
    """Return every text in the sources, with `\\0` for what is filled in; of C++ the literals."""
    found = []
    for folder in ("src/edge_llm", "llm", "export", "runner", "server", "tokenizers"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    found.append("".join(map(_part, node.values)))
    for path in (ROOT / "runner" / "native").rglob("*.cpp"):
        text = path.read_text(encoding="utf-8")
        found += re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)
    return found


def _part(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "\0"
