"""Long steps, in which each worker computes rows of its own: the bits of one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from transformer_block import HEAD_DIM, KV_HEADS, VOCAB, WIDTH, Block

ROWS_EACH = 96  # from there on steps are split by rows (core/executor.cpp)
LENGTH = 640
TOKENS = [token % VOCAB for token in range(0, 7 * LENGTH, 7)]


def steps_of(runner: Any, steps: list[int]) -> Any:
    """Logits of the tokens whose number is a multiple of 5, and of the last of each step."""
    parts, begin = [], 0
    for count in steps:
        numbers = range(begin, begin + count)
        rows = [i - begin for i in numbers if i % 5 == 0 or i == numbers[-1]]
        parts.append(runner.step({0: TOKENS[begin : begin + count]}, rows=rows).logits)
        begin += count
    return np.concatenate(parts)


def block(plan_builder: Any, fmt: str, **options: Any) -> tuple[Any, int]:
    builder = plan_builder(context=LENGTH)
    return builder, Block(builder, fmt).build(**options)


@pytest.mark.parametrize("fmt", ["i4g32", "i8", "f16"])
@pytest.mark.parametrize("merged", [True, False])
def test_rows_give_the_same_bits(plan_builder: Any, run_plan: Any, fmt: str, merged: bool) -> None:
    builder, output = block(plan_builder, fmt, merged=merged)
    expected = steps_of(run_plan(builder, output, max_tokens=LENGTH), [LENGTH])
    assert np.isfinite(expected).all()
    for isa in (isa for isa in isas() if isa != "scalar"):
        for threads in (2, 3):
            runner = run_plan(builder, output, isa=isa, threads=threads, max_tokens=LENGTH)
            assert_same_bits(steps_of(runner, [LENGTH]), expected)


def test_either_split_may_follow_the_other(plan_builder: Any, run_plan: Any) -> None:
    builder, output = block(plan_builder, "i4g32", merged=True)
    steps = [1, 2 * ROWS_EACH, 2 * ROWS_EACH - 1, 2 * ROWS_EACH + 1, 1, 1, 40, 20]
    steps.append(LENGTH - sum(steps))
    expected = steps_of(run_plan(builder, output, max_tokens=LENGTH), steps)
    for threads in (2, 3):
        runner = run_plan(builder, output, threads=threads, max_tokens=LENGTH)
        assert_same_bits(steps_of(runner, steps), expected)


def test_operators_that_stand_alone_are_split_too(plan_builder: Any, run_plan: Any) -> None:
    """None of these is fused: splits that are no views, ropes that are read twice, norms of parts,
    activations, sums and scales."""
    builder = plan_builder(context=LENGTH)
    maker = Block(builder, "i8")
    x = builder.activations(maker.rng.standard_normal((VOCAB, WIDTH)).astype(np.float32))
    first = builder.op("split", x, width=[KV_HEADS * HEAD_DIM + 1, WIDTH - KV_HEADS * HEAD_DIM - 1])
    y = maker.linear(first, KV_HEADS * HEAD_DIM, "f16")
    angles = np.arange(LENGTH)[:, None] * 0.3 ** np.arange(HEAD_DIM // 2)
    tables = [builder.raw(f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
    y = builder.rope(y, *tables, heads=KV_HEADS, head_dim=HEAD_DIM)
    y = builder.op("mul", maker.norm(y, HEAD_DIM), builder.op("gelu", y))
    y = builder.op("softcap", builder.op("scale", y, factor=1.7), cap=2.0)
    y = builder.op("add", builder.op("silu", y), y)
    output = maker.linear(builder.select(maker.norm(y)), 75)
    expected = steps_of(run_plan(builder, output, max_tokens=LENGTH), [LENGTH])
    assert np.isfinite(expected).all()
    for threads in (2, 5):
        runner = run_plan(builder, output, threads=threads, max_tokens=LENGTH)
        assert_same_bits(steps_of(runner, [LENGTH]), expected)


def test_sequences_of_one_step(plan_builder: Any, run_plan: Any) -> None:
    builder, output = block(plan_builder, "i4g32", merged=True)
    batch = {2: TOKENS[:150], 0: TOKENS[150:151], 5: TOKENS[151:400]}
    results = [
        run_plan(builder, output, threads=threads, max_tokens=LENGTH, blocks=64).step(batch).logits
        for threads in (1, 2, 4)
    ]
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])
