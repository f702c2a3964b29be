"""Programs whose sessions are kept in a folder, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edge_llm

OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 20, "ignore_eos": True}
PROMPT = [3 + i % 60 for i in range(200)]
OTHER = [5 + i * 7 % 50 for i in range(150)]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.block"))


def ask(llm: edge_llm.LLM, prompt: list[int]) -> tuple[tuple[int, ...], int]:
    answer = llm.generate(prompt, **OPTIONS)
    return answer.token_ids, answer.stats.cached_tokens


def start(program: Path, folder: Path, **options: Any) -> edge_llm.LLM:
    return edge_llm.load(program, threads=1, sessions=folder, **options)
