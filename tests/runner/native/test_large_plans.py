"""Plans as long as files may have them load in time that grows as their length does.

There is no clock here: with 30,000 instructions anything quadratic would take minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits

from edge_llm.program.check import check_plan
from edge_llm.program.plan import Plan
from edge_llm.program.serialize import plan_from_text, plan_to_text

COUNT = 30_000
WIDTH = 16


def start(builder: Any, width: int = WIDTH) -> int:
    return int(builder.activations(np.ones((WIDTH, width), np.float32)))


def chain(builder: Any) -> int:
    """Each instruction works on what the one before it made."""
    x = start(builder)
    for _ in range(COUNT):
        x = builder.op("scale", x, factor=1.0)
    return x


def fan(builder: Any) -> int:
    """All read one value, and what they make is read at the end, so that all of it lives at once
    and no two instructions wait for each other."""
    x = start(builder)
    made = [builder.op("silu", x) for _ in range(COUNT // 2)]
    total = x
    for value in made:
        total = builder.op("add", total, value)
    return int(total)


def pieces(builder: Any) -> int:
    """One value is cut into thousands of views, each of which could be written in place."""
    parts = [start(builder, 4**7 * 16)]
    for _ in range(7):
        quarter = builder.values[parts[0]].width // 4
        parts = [
            first + i
            for first in (builder.op("split", part, width=[quarter] * 4) for part in parts)
            for i in range(4)
        ]
    made = [builder.op("silu", part) for part in parts]
    total = made[0]
    for value in made[1:]:
        total = builder.op("add", total, value)
    return int(total)


def gaps(builder: Any) -> int:
    """Every other value dies early and leaves a gap that no later value fits into."""
    x = start(builder)
    wide = start(builder, 3 * WIDTH)
    kept = []
    for i in range(COUNT // 4):
        value = builder.op("silu", x)
        if i % 2:
            kept.append(value)
    for _ in range(COUNT // 4):
        wide = builder.op("gelu", wide)
    total = builder.op("split", wide, width=[WIDTH] * 3)
    for value in kept:
        total = builder.op("add", total, value)
    return int(total)


@pytest.mark.parametrize("made", [chain, fan, pieces, gaps])
def test_a_long_plan_loads(plan_builder: Any, run_plan: Any, made: Callable[[Any], int]) -> None:
    builder = plan_builder()
    plan: Plan = builder.plan(made(builder))
    assert len(plan.instructions) > COUNT // 3
    read = plan_from_text(plan_to_text(plan))
    check_plan(read)
    logits = run_plan(builder, read).logits([0, 1, 2])
    assert np.isfinite(logits).all()
    assert_same_bits(run_plan(builder, read, threads=2).logits([0, 1, 2]), logits)
