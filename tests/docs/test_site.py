"""The site of the documentation is built without a warning, has every page, and asks nobody."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("material", reason="needs the extra `site`")

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site" / "html"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Return the HTML of each page, by its path."""
    command = [sys.executable, str(ROOT / "tools" / "site.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        str(path.relative_to(SITE)): path.read_text(encoding="utf-8")
        for path in SITE.rglob("*.html")
    }


def test_every_page_is_there_and_in_the_navigation(pages: dict[str, str]) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.stem}.html" in pages
        assert f"docs/{page.name}" in navigation


def test_nothing_is_loaded_from_elsewhere(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?([^\"'> ]+)", text)
        loaded += [
            target
            for tag in re.findall(r"<link\b[^>]*>", text)
            if "canonical" not in tag
            for target in re.findall(r"href=[\"']?([^\"'> ]+)", tag)
        ]
        assert loaded
        assert [url for url in loaded if re.match(r"(https?:)?//", url)] == [], name
