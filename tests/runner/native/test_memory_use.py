"""What a loaded model takes of memory before and while it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from toy_transformer import TOKENS, Toy

from edge_llm.runner.backends.native import page_bytes

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident() -> int:
    """Bytes of this process that no file holds."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_pages_cost_memory_only_when_they_are_used(toy: Toy, start: Any) -> None:
    reserved = 64 * 1024  # pages
    assert reserved * page_bytes(toy.plan) > 512 * MIB
    before = resident()
    runner = start(pages=reserved, threads=2)
    assert resident() - before < 8 * MIB
    runner.logits(TOKENS)
    assert resident() - before < 16 * MIB
    last = reserved - 1
    runner.executor.copy_page(0, last)
    assert resident() - before < 16 * MIB
