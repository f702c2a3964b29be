"""docs/settings.md has every setting and every variable that the sources read."""

from __future__ import annotations

import re
from pathlib import Path

from edge_llm.catalogue.settings import SETTINGS, variable

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_table_has_every_setting() -> None:
    table = PAGE.partition("| setting |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (f"`{name}`", f"`{variable(name)}`", setting.meaning) for name, setting in SETTINGS.items()
    ]


def test_every_variable_is_named() -> None:
    named = set(re.findall(r"EDGE_LLM_[A-Z_]+", PAGE))
    read = {variable(name) for name in SETTINGS}
    for folder in ("src/edge_llm", "llm", "export", "runner", "server", "tokenizers"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cpp"):
                text = path.read_text(encoding="utf-8")
                read |= set(re.findall(r"EDGE_LLM_(?:HOME|ISA|NATIVE|[A-Z]{4,}_?[A-Z]*)\b", text))
    assert read - {"EDGE_LLM_KEY"} <= named
    assert named <= read
