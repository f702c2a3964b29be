"""The snippets of docs/python.md run, in order, on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"


def test_the_snippets_run(tiny_program: Any, capsys: Any) -> None:
    names: dict[str, Any] = {"path": tiny_program(max_position_embeddings=2048)}
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) == 7
    try:
        for snippet in snippets:
            exec(compile(snippet, str(PAGE), "exec", dont_inherit=True), names)
        assert [type(answer).__name__ for answer in names["answers"]] == ["Completion"] * 2
        assert len(names["drafts"]) == 3
        assert names["params"].stop == ("\n\n",)
        assert names["scores"].shape == (2,)
    finally:
        names["llm"].close()


def test_the_calls_exist() -> None:
    import edge_llm

    for call in re.findall(r"`(?:await )?llm\.(\w+)", PAGE.read_text()):
        assert hasattr(edge_llm.LLM, call) or call == "tokenizer", call
