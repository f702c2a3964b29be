"""Decode speed of programs and GGUF files, in turn, each in a process of its own."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp_tools
from comparison import busy_share
from process import EngineProcess
from registry import CONTEXT
from sources import PEERS, THREADS

TOKENS = 64


def decode(files: Mapping[str, Path], beside: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return for each title tokens a second, and how many times faster that is than the file
    ``beside``: medians over the rounds, the ratio's of each round's own."""
    seconds: dict[str, list[float]] = {title: [] for title in files}
    with contextlib.ExitStack() as stack:
        engines = {}
        for title, path in files.items():
            engines[title] = stack.enter_context(_engine(path))
            engines[title].ask("decode", depth=0, tokens=4)  # warms up
        for _ in range(rounds):
            for title, engine in engines.items():
                engine.ask("fill", depth=0)
                answer = engine.ask("decode", depth=0, tokens=TOKENS)
                seconds[title].append(answer["seconds"])
    return {
        title: {
            "per_second": round(TOKENS / statistics.median(times), 1),
            "ratio": round(
                statistics.median(b / a for a, b in zip(times, seconds[beside], strict=True)), 2
            ),
        }
        for title, times in seconds.items()
    }


def _engine(path: Path) -> EngineProcess:
    theirs = path.suffix == ".gguf"
    python = str(llama_cpp_tools.PYTHON) if theirs else sys.executable
    script = PEERS / ("time_llama_cpp.py" if theirs else "time_edge_llm.py")
    command = [python, str(script), str(path), "--threads", str(THREADS)]
    environment = {"OMP_NUM_THREADS": str(THREADS)}
    if theirs:
        environment |= llama_cpp_tools.ENVIRONMENT
    return EngineProcess([*command, "--context", str(CONTEXT)], environment)


def facts() -> dict[str, Any]:
    """Return what to say beside speeds: threads, and how much of the machine others take now."""
    return {"threads": THREADS, "others_share": round(busy_share(), 3)}
