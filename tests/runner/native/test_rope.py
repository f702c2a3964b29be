"""Rotary embedding against float64: whole and partial, several steps, one result in bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
CONTEXT = 64


def tables(d: int) -> tuple[Float32, Float32]:
    angles = np.arange(CONTEXT)[:, None] * 1e4 ** (-np.arange(d) / d)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def rope(
    run_plan: Any,
    plan_builder: Any,
    x: Float32,
    d: int,
    head_dim: int,
    chunks: tuple[int, ...],
    **options: Any,
) -> Float32:
    builder = plan_builder(context=CONTEXT)
    cos, sin = (builder.raw(table) for table in tables(d))
    heads = x.shape[1] // head_dim
    y = builder.rope(builder.activations(x), cos, sin, heads=heads, head_dim=head_dim)
    runner = run_plan(builder, y, **options)
    ends = np.cumsum(chunks)
    return np.concatenate(
        [runner.logits(range(end - count, end)) for end, count in zip(ends, chunks, strict=True)]
    )


def reference(x: Float32, d: int, head_dim: int) -> NDArray[np.float64]:
    heads = x.astype(np.float64).reshape(len(x), -1, head_dim)
    cos, sin = (table.astype(np.float64)[: len(x), None] for table in tables(d))
    a, b, rest = heads[..., :d], heads[..., d : 2 * d], heads[..., 2 * d :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], -1).reshape(x.shape)


@pytest.mark.parametrize(
    ("d", "head_dim", "heads"), [(32, 64, 9), (8, 16, 3), (48, 128, 2), (3, 7, 5), (20, 40, 1)]
)
def test_against_float64_and_in_bits(
    run_plan: Any, plan_builder: Any, d: int, head_dim: int, heads: int
) -> None:
    x = np.random.default_rng(d).standard_normal((40, heads * head_dim)).astype(np.float32)
    expected = rope(run_plan, plan_builder, x, d, head_dim, (40,), isa="scalar")
    np.testing.assert_allclose(expected, reference(x, d, head_dim), rtol=0, atol=5e-7)
    for threads, chunks in ((1, (40,)), (2, (40,)), (2, (1, 7, 32))):
        got = rope(run_plan, plan_builder, x, d, head_dim, chunks, threads=threads)
        assert_same_bits(got, expected)


def test_position_zero_changes_nothing(run_plan: Any, plan_builder: Any) -> None:
    x = np.random.default_rng(1).standard_normal((1, 32)).astype(np.float32)
    np.testing.assert_array_equal(rope(run_plan, plan_builder, x, 8, 16, (1,)), x)
