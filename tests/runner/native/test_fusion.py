"""Fused plans against the same plans with trace, which fuses nothing: not a bit may differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray

from edge_llm.program import pack

Float32 = NDArray[np.float32]

WIDTH, FFN, HEADS, KV_HEADS, HEAD_DIM = 96, 128, 4, 2, 32
TOKENS = list(range(40))


class Block:
    """One transformer block over quantized weights, in the spellings that exports write."""

    def __init__(self, builder: Any, fmt: str) -> None:
        self.b, self.fmt = builder, fmt
        self.rng = np.random.default_rng(5)

    def linear(self, x: int, n: int, fmt: str | None = None, *, bias: bool = False) -> int:
        fmt = fmt or self.fmt
        k = self.b.values[x].width
        w = (self.rng.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)
        if group := pack.format_group(fmt):
            q = self.rng.integers(-8, 8, (n, k), dtype=np.int8)
            scales = np.full((n, k // group), 0.02, np.float16)
            packed = pack.pack_int4(q, scales, group)
        elif fmt == "i8":
            q = self.rng.integers(-127, 128, (n, k), dtype=np.int8)
            packed = pack.pack_int8(q, np.full(n, 0.002, np.float32))
        else:
            packed = pack.pack_float(w, fmt)
        vector = self.b.raw(self.rng.standard_normal(n).astype(np.float32)) if bias else None
        return int(self.b.linear(x, self.b.packed(packed, fmt, n, k), vector))

    def norm(self, x: int, size: int = 0) -> int:
        size = size or self.b.values[x].width
        weight = self.b.raw(self.rng.uniform(0.5, 1.5, size).astype(np.float32))
        return int(self.b.op("rms_norm", x, weights=(weight,), size=size, eps=1e-5))

    def attention(self, y: int, *, merged: bool) -> int:
        b, q_width, kv_width = self.b, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
        if merged:
            q = b.op(
                "split", self.linear(y, q_width + 2 * kv_width), width=[q_width, kv_width, kv_width]
            )
            k, v = q + 1, q + 2
        else:
            q, k, v = (self.linear(y, n, bias=True) for n in (q_width, kv_width, kv_width))
        q, k = self.norm(q, HEAD_DIM), self.norm(k, HEAD_DIM)
        angles = np.arange(b.context)[:, None] * 100.0 ** (-np.arange(HEAD_DIM // 2) / HEAD_DIM * 2)
        tables = b.raw(np.cos(angles).astype(np.float32)), b.raw(np.sin(angles).astype(np.float32))
        q = b.rope(q, *tables, heads=HEADS, head_dim=HEAD_DIM)
        k = b.rope(k, *tables, heads=KV_HEADS, head_dim=HEAD_DIM)
        state = b.state(KV_HEADS, HEAD_DIM, "f16")
        return int(b.attention(q, k, v, state, heads=HEADS, scale=HEAD_DIM**-0.5))

    def feed_forward(self, y: int, *, merged: bool, activation: str, up_first: bool) -> int:
        b = self.b
        if merged:
            first = b.op("split", self.linear(y, 2 * FFN, bias=True), width=[FFN, FFN])
            gate, up = (first + 1, first) if up_first else (first, first + 1)
            active = b.op(activation, gate)
        else:
            active = b.op(activation, self.linear(y, FFN))
            up = self.linear(y, FFN)
        return int(b.op("mul", up, active) if up_first else b.op("mul", active, up))

    def build(self, *, merged: bool, activation: str = "silu", up_first: bool = False) -> int:
        b = self.b
        table = self.rng.standard_normal((len(TOKENS), WIDTH)).astype(np.float32)
        x = b.activations(table)
        for _ in range(2):
            y = self.attention(self.norm(x), merged=merged)
            x = b.op("add", x, self.linear(y, WIDTH))
            y = self.norm(x)
            y = self.feed_forward(y, merged=merged, activation=activation, up_first=up_first)
            x = b.op("add", x, self.linear(y, WIDTH))
        return self.linear(self.norm(b.select(x)), 75, "i8")


def logits(runner: Any, steps: list[int]) -> Float32:
    parts, begin = [], 0
    for count in steps:
        parts.append(runner.logits(TOKENS[begin : begin + count]))
        begin += count
    return np.concatenate(parts)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("fmt", ["i4g32", "i8", "f16"])
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
    expected = logits(run_plan(builder, y, isa="scalar", trace=True), [40])
    assert np.isfinite(expected).all()
    for isa in isas():
        for threads in (1, 3):
            runner = run_plan(builder, y, isa=isa, threads=threads)
            assert_same_bits(logits(runner, [1, 9, 30]), expected)


def test_a_sum_takes_the_place_of_its_residual(plan_builder: Any, run_plan: Any) -> None:
    """One phase multiplies and adds: nothing is left to do for the adds, silus and muls."""
    builder = plan_builder()
    output = Block(builder, "i4g32").build(merged=True)
    phases = run_plan(builder, output).executor.phases(wanted=True)
    ops = [instruction.op for instruction in builder.instructions]
    for op, first in (("add", "linear"), ("silu", "linear"), ("mul", "linear")):
        found = [phase for phase in phases if op in {ops[n] for n in phase.instructions}]
        assert len(found) == ops.count(op)
        assert {ops[phase.instructions[0]] for phase in found} == {first}
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
    expected = logits(run_plan(builder, y, isa="scalar", trace=True), [40])
    assert np.isfinite(expected).all()
    for isa in isas():
        for threads in (1, 3):
            runner = run_plan(builder, y, isa=isa, threads=threads)
            assert_same_bits(logits(runner, [1, 9, 30]), expected)
    ops = [instruction.op for instruction in builder.instructions]
    names = [[ops[n] for n in phase.instructions] for phase in runner.executor.phases(wanted=True)]
    assert ["rope"] not in names
