"""The memory that a loaded model takes before and while it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from toy_transformer import TOKENS, Toy

from edge_llm.runner.backends.native import groups

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident() -> int:
    """Bytes of this process that no file holds."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_blocks_cost_memory_only_when_they_are_used(toy: Toy, start: Any) -> None:
    reserved = 64 * 1024  # blocks
    assert reserved * groups(toy.plan, "f32")[0].block_bytes > 512 * MIB
    before = resident()
    runner = start(blocks=reserved, threads=2)
    assert resident() - before < 8 * MIB
    runner.logits(TOKENS)
    assert resident() - before < 16 * MIB
    last = reserved - 1
    runner.executor.copy_block(0, 0, last)
    assert resident() - before < 16 * MIB


def test_keys_and_values_may_lie_in_huge_pages(toy: Toy, start: Any) -> None:
    blocks = 48 * 1024
    before = advised()
    if before is None:
        pytest.skip("this kernel has no transparent huge pages")
    start(blocks=blocks)
    found = advised()
    assert found is not None
    assert found - before >= blocks * groups(toy.plan, "f32")[0].block_bytes


def advised() -> int | None:
    """Bytes of address space for which huge pages were asked; None where there are none."""
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        return None
    total = size = 0
    for line in Path("/proc/self/smaps").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "Size":
            size = int(rest.split()[0]) * 1024
        elif name == "VmFlags" and "hg" in rest.split():
            total += size
    return total
