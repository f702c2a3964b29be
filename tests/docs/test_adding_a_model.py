"""docs/adding-a-model.md shows files of the tree, and the operators that lowering has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_llm.export.lowering.lower import _RULES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-a-model.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("language", "paths"),
    [
        ("python", ["llm/families/olmo2.py", "llm/models/olmo2.py"]),
        ("yaml", ["configs/models/olmo2-1b.yaml"]),
    ],
)
def test_the_example_is_the_file(language: str, paths: list[str]) -> None:
    shown = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert shown == [(ROOT / path).read_text(encoding="utf-8") for path in paths]


def test_the_table_of_operators_is_complete() -> None:
    table = set(re.findall(r"`((?:aten|edge)\.\w+)`", PAGE))
    supported = {str(target).rpartition(".")[0] for target in _RULES}
    assert table == supported - {""}  # getitem, which picks a part of a split


def test_paths_exist() -> None:
    for path in re.findall(r"`((?:llm|tests|configs|export)/[\w/.-]+)`", PAGE):
        assert "NAME" in path or (ROOT / path).exists(), path
