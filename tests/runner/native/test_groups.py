"""States in groups: block tables, windows and blocks of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from numpy.typing import NDArray

from edge_llm.errors import NativeError
from edge_llm.program.plan import Group, Plan
from edge_llm.runner.backends.native import NativeExecutor, load
from edge_llm.runner.executor import Batch, Limits

TOKENS, WINDOW, WIDTH = 200, 20, 32  # four blocks


def two_layers(builder: Any) -> tuple[Any, Plan]:
    """Return two layers of attention, the second with a window."""
    rng = np.random.default_rng(5)
    x = builder.activations(rng.standard_normal((TOKENS, 3 * WIDTH)).astype(np.float32))
    q = builder.op("split", x, width=[WIDTH] * 3)
    for window in (0, WINDOW):
        state = builder.state(2, 16)
        out = builder.attention(q, q + 1, q + 2, state, heads=2, window=window)
        q = builder.op("split", builder.op("add", x, x), width=[WIDTH] * 3) if not window else q
    return builder, builder.plan(builder.op("add", out, q))


def executor(builder: Any, plan: Plan, blocks: tuple[int, ...], **changes: Any) -> NativeExecutor:
    limits = Limits(
        max_tokens=TOKENS,
        max_rows=TOKENS,
        max_sequences=1,
        blocks=blocks,
        kv_dtype="f16",
        threads=2,
    )
    return load(plan, builder.tensors, sampleable=plan.vocab, limits=replace(limits, **changes))


def step(running: NativeExecutor, first: int, end: int, *tables: list[int]) -> NDArray[np.float32]:
    result = running.step(
        Batch(
            tokens=np.arange(first, end, dtype=np.int32),
            positions=np.arange(first, end, dtype=np.int32),
            sequences=np.zeros(end - first, np.int32),
            rows=np.arange(end - first, dtype=np.int32),
            block_tables=tuple(np.array([table], np.int32) for table in tables),
            samplers=[None] * (end - first),
            want_logits=True,
        )
    )
    assert result.logits is not None
    return result.logits


def test_blocks_behind_a_window_are_not_read(plan_builder: Any) -> None:
    builder, plan = two_layers(plan_builder())
    assert plan.groups == (Group("kv", 0, (0,)), Group("kv", WINDOW, (1,)))
    running = executor(builder, plan, (4, 4))
    try:
        expected = step(running, 0, TOKENS, [0, 1, 2, 3], [0, 1, 2, 3])
    finally:
        running.close()
    running = executor(builder, plan, (5, 2))
    try:
        # The window's blocks are used again as soon as nobody can see them.
        parts = [
            step(running, 0, 128, [4, 2, -1, -1], [0, 1, -1, -1]),
            step(running, 128, 150, [4, 2, 1, -1], [-1, 1, 0, -1]),
            step(running, 150, 192, [4, 2, 1, -1], [-1, -1, 0, -1]),
            step(running, 192, TOKENS, [4, 2, 1, 0], [-1, -1, 0, 1]),
        ]
        assert_same_bits(np.concatenate(parts), expected)
        for tables, message in (
            (([4, -1, 1, 0], [-1, -1, 0, 1]), "block 1 of sequence 0 in group 0 is -1"),
            (([4, 2, 1, 0], [-1, -1, -1, 1]), "block 2 of sequence 0 in group 1 is -1"),
            (([4, 2, 1, 0], [-1, -1, 0, 2]), "in group 1 is 2, expected 0 to 1"),
        ):
            with pytest.raises(NativeError, match=message):
                step(running, 192, TOKENS, *tables)
        running.copy_block(0, 4, 3)
        for group, source in ((1, 2), (2, 0), (-1, 0)):
            with pytest.raises(NativeError, match="does not exist"):
                running.copy_block(group, source, 0)
    finally:
        running.close()


def test_states_of_one_window_share_a_group(plan_builder: Any) -> None:
    builder, plan = two_layers(plan_builder())
    same = replace(plan, states=(plan.states[1], replace(plan.states[1], name="other")))
    assert same.groups == (Group("kv", WINDOW, (0, 1)),)
    with pytest.raises(NativeError, match="group_count is 2, the program has 1"):
        executor(builder, same, (4, 4))
    executor(builder, same, (4,)).close()


def test_the_context_is_a_limit_of_loading(plan_builder: Any) -> None:
    builder, plan = two_layers(plan_builder(context=256))
    running = executor(builder, plan, (4, 4), context=100)
    try:
        step(running, 0, 100, [0, 1], [0, 1])
        with pytest.raises(NativeError, match="position 100, expected 0 to 99"):
            step(running, 100, 101, [0, 1], [0, 1])
    finally:
        running.close()
    with pytest.raises(NativeError, match="context is 257, the program has 256"):
        executor(builder, plan, (4, 4), context=257)
