"""Fused plans against the same plans with trace, which fuses nothing: not a bit may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray
from transformer_block import HEADS, KV_HEADS, VOCAB, WIDTH, Block

from edge_llm.program.formats import WEIGHT_FORMATS

Float32 = NDArray[np.float32]

TOKENS = list(range(VOCAB))
INTEGERS = [name for name, form in WEIGHT_FORMATS.items() if not form.is_float]


def logits(runner: Any, steps: list[int]) -> Float32:
    parts, begin = [], 0
    for count in steps:
        parts.append(runner.logits(TOKENS[begin : begin + count]))
        begin += count
    return np.concatenate(parts)


def assert_fusion_keeps_bits(run_plan: Any, builder: Any, output: int) -> None:
    expected = logits(run_plan(builder, output, isa="scalar", trace=True), [40])
    assert np.isfinite(expected).all()
    for isa in isas():
        for threads in (1, 3):
            runner = run_plan(builder, output, isa=isa, threads=threads)
            assert_same_bits(logits(runner, [1, 9, 30]), expected)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("fmt", [*INTEGERS, "f16"])
def test_blocks_give_the_same_bits(
    plan_builder: Any, run_plan: Any, fmt: str, merged: bool
) -> None:
    builder = plan_builder()
    output = Block(builder, fmt).build(merged=merged)
    expected = logits(run_plan(builder, output, isa="scalar", trace=True), [40])
    assert np.isfinite(expected).all()
    for isa in isas():
        for threads in (1, 2, 3):
            runner = run_plan(builder, output, isa=isa, threads=threads)
            assert_same_bits(logits(runner, [1, 1, 13, 1, 2, 20, 1, 1]), expected)


@pytest.mark.parametrize("up_first", [True, False])
def test_either_half_may_be_the_gate(plan_builder: Any, run_plan: Any, up_first: bool) -> None:
    builder = plan_builder()
    output = Block(builder, "i4g32").build(merged=True, activation="gelu", up_first=up_first)
    expected = logits(run_plan(builder, output, trace=True), [40])
    for threads in (1, 2, 5):
        runner = run_plan(builder, output, threads=threads)
        assert_same_bits(logits(runner, [1, 38, 1]), expected)


def test_a_norm_that_others_read_too_stays(plan_builder: Any, run_plan: Any) -> None:
    builder = plan_builder()
    block = Block(builder, "i8")
    x = builder.activations(block.rng.standard_normal((40, WIDTH)).astype(np.float32))
    normal = block.norm(x)
    output = builder.op("add", block.linear(normal, WIDTH), normal)
    expected = logits(run_plan(builder, output, trace=True), [40])
    assert_same_bits(logits(run_plan(builder, output, threads=2), [1, 39]), expected)


def test_linears_of_two_formats_prepare_their_own_rows(plan_builder: Any, run_plan: Any) -> None:
    builder = plan_builder()
    block = Block(builder, "i8")
    x = builder.activations(block.rng.standard_normal((40, WIDTH)).astype(np.float32))
    normal = block.norm(x)
    parts = [block.linear(normal, 48, fmt) for fmt in ("i8", "i4g32", "i4g32", "i8")]
    total = parts[0]
    for part in parts[1:]:
        total = builder.op("add", total, part)
    expected = logits(run_plan(builder, total, isa="scalar", trace=True), [40])
    for isa in isas():
        assert_same_bits(logits(run_plan(builder, total, isa=isa, threads=2), [1, 39]), expected)


def test_sums_of_products(plan_builder: Any, run_plan: Any) -> None:
    """What a sum adds to a product may be its own input, another product, made later, or the same
    product once more; and a product may be read by others too."""
    builder = plan_builder()
    block = Block(builder, "i4g32")
    x = builder.activations(block.rng.standard_normal((40, WIDTH)).astype(np.float32))
    y = builder.op("add", block.linear(x, WIDTH, bias=True), x)
    y = builder.op("add", y, block.linear(y, WIDTH, "f16"))
    early, late = block.linear(y, WIDTH), builder.op("silu", y)
    y = builder.op("add", early, late)
    y = builder.op("add", block.linear(y, WIDTH), block.linear(y, WIDTH, "i8"))
    product = block.linear(y, WIDTH)
    y = builder.op("add", product, product)
    product = block.linear(y, WIDTH)
    y = builder.op("add", builder.op("add", y, product), builder.op("gelu", product))
    assert_fusion_keeps_bits(run_plan, builder, y)


def test_a_sum_takes_the_place_of_its_residual(plan_builder: Any, run_plan: Any) -> None:
    """One phase multiplies and adds: nothing is left to do for the adds, silus and muls."""
    builder = plan_builder()
    output = Block(builder, "i4g32").build(merged=True)
    phases = run_plan(builder, output).executor.phases(wanted=True)
    ops = [instruction.op for instruction in builder.instructions]
    for op in ("add", "silu", "mul"):
        found = [phase for phase in phases if op in {ops[n] for n in phase.instructions}]
        assert len(found) == ops.count(op)
        assert {ops[phase.instructions[0]] for phase in found} == {"linear"}
        assert {phase.work for phase in found} == {"multiply"}


@pytest.mark.parametrize("dtype", ["f16", "i8"])
@pytest.mark.parametrize("rotated", ["both", "q", "k"])
def test_ropes_within_attention(plan_builder: Any, run_plan: Any, dtype: str, rotated: str) -> None:
    """Heads of 20 columns, of which 12 are rotated, the keys' by tables of their own."""
    builder = plan_builder()
    block = Block(builder, "i8")
    head_dim, columns = 20, 6
    x = builder.activations(block.rng.standard_normal((40, WIDTH)).astype(np.float32))

    def rope(y: int, heads: int, base: float) -> int:
        angles = np.arange(builder.context)[:, None] * base ** -np.arange(columns)
        tables = [builder.raw(f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
        return int(builder.rope(y, *tables, heads=heads, head_dim=head_dim))

    q, k, v = (block.linear(x, heads * head_dim) for heads in (HEADS, KV_HEADS, KV_HEADS))
    if rotated != "k":
        q = rope(q, HEADS, 3.0)
    if rotated != "q":
        k = rope(k, KV_HEADS, 5.0)
    state = builder.state(KV_HEADS, head_dim, dtype)
    y = builder.attention(q, k, v, state, heads=HEADS, scale=0.3)
    assert_fusion_keeps_bits(run_plan, builder, y)
    phases = run_plan(builder, y).executor.phases(wanted=True)
    ops = [instruction.op for instruction in builder.instructions]
    names = [[ops[n] for n in phase.instructions] for phase in phases]
    assert ["rope"] not in names
