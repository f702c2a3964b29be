"""Transformer blocks over quantized weights, as plans with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from random_weights import random_packed

from edge_llm.program.formats import WEIGHT_FORMATS

WIDTH, FFN, HEADS, KV_HEADS, HEAD_DIM = 96, 128, 4, 2, 32
VOCAB = 40


class Block:
    """Two blocks and a head, in the spellings that exports write."""

    def __init__(self, builder: Any, fmt: str) -> None:
        self.b, self.fmt = builder, fmt
        # Of 96 columns some formats have no groups.
        self.width = 256 if WEIGHT_FORMATS[fmt].has_factors else WIDTH
        self.ffn = 256 if WEIGHT_FORMATS[fmt].has_factors else FFN
        self.rng = np.random.default_rng(5)

    def linear(self, x: int, n: int, fmt: str | None = None, *, bias: bool = False) -> int:
        fmt = fmt or self.fmt
        k = self.b.values[x].width
        form = WEIGHT_FORMATS[fmt]
        if k % form.columns:
            form = WEIGHT_FORMATS["i8"]
        packed = random_packed(form.name, n, k, self.rng, scale=0.02)
        vector = self.b.raw(self.rng.standard_normal(n).astype(np.float32)) if bias else None
        return int(self.b.linear(x, self.b.packed(packed, form.name, n, k), vector))

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
            first = b.op(
                "split", self.linear(y, 2 * self.ffn, bias=True), width=[self.ffn, self.ffn]
            )
            gate, up = (first + 1, first) if up_first else (first, first + 1)
            active = b.op(activation, gate)
        else:
            active = b.op(activation, self.linear(y, self.ffn))
            up = self.linear(y, self.ffn)
        return int(b.op("mul", up, active) if up_first else b.op("mul", active, up))

    def build(self, *, merged: bool, activation: str = "silu", up_first: bool = False) -> int:
        b = self.b
        table = self.rng.standard_normal((VOCAB, self.width)).astype(np.float32)
        x = b.activations(table)
        for _ in range(2):
            y = self.attention(self.norm(x), merged=merged)
            x = b.op("add", x, self.linear(y, self.width))
            y = self.norm(x)
            y = self.feed_forward(y, merged=merged, activation=activation, up_first=up_first)
            x = b.op("add", x, self.linear(y, self.width))
        return self.linear(self.norm(b.select(x)), 75, "i8")
