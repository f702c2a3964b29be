"""A toy transformer as a native plan, and what it computes in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.plan import Plan
from edge_llm.runner.executor import RowSampler
from edge_llm.runner.sampling import SamplingParams

Float32 = NDArray[np.float32]

CONTEXT, VOCAB, DIM, HEADS, KV_HEADS, HEAD_DIM, FFN, LAYERS = 192, 75, 48, 3, 1, 16, 40, 2
TOKENS = [int(t) for t in np.random.default_rng(7).integers(0, VOCAB, 150)]  # three pages


class Toy:
    """Two llama-like layers with merged weights: a split that is a view (q, k, v), one that has to
    be copied (gate, up: 40 columns each), and writes in place (rope, silu, mul, add)."""

    def __init__(self, builder: Any) -> None:
        rng = np.random.default_rng(3)

        def weight(n: int, k: int) -> Float32:
            return (rng.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32)

        def gain(n: int) -> Float32:
            return rng.uniform(0.5, 1.5, n).astype(np.float32)

        angles = np.arange(CONTEXT)[:, None] * 100.0 ** (-np.arange(HEAD_DIM // 2) / HEAD_DIM * 2)
        self.cos = np.cos(angles).astype(np.float32)
        self.sin = np.sin(angles).astype(np.float32)
        self.table = weight(VOCAB, DIM) * np.float32(4)
        self.bias = weight(1, (HEADS + 2 * KV_HEADS) * HEAD_DIM)[0]
        self.layers = [
            {
                "norm": gain(DIM),
                "qkv": weight((HEADS + 2 * KV_HEADS) * HEAD_DIM, DIM),
                "o": weight(DIM, HEADS * HEAD_DIM),
                "ffn_norm": gain(DIM),
                "gate_up": weight(2 * FFN, DIM),
                "down": weight(DIM, FFN),
            }
            for _ in range(LAYERS)
        ]
        self.norm = gain(DIM)
        self.head = weight(VOCAB, DIM)
        self.tensors, self.plan = self._build(builder)

    def _build(self, b: Any) -> tuple[Any, Plan]:
        cos, sin, bias = b.raw(self.cos), b.raw(self.sin), b.raw(self.bias)
        x = b.embedding(b.matrix(self.table))
        kv_width = KV_HEADS * HEAD_DIM
        for layer in self.layers:
            y = self._norm(b, x, layer["norm"])
            qkv = b.linear(y, b.matrix(layer["qkv"]), bias)
            q = b.op("split", qkv, width=[HEADS * HEAD_DIM, kv_width, kv_width])
            k, v = q + 1, q + 2
            q = b.rope(q, cos, sin, heads=HEADS, head_dim=HEAD_DIM)
            k = b.rope(k, cos, sin, heads=KV_HEADS, head_dim=HEAD_DIM)
            state = b.state(KV_HEADS, HEAD_DIM)
            y = b.attention(q, k, v, state, heads=HEADS, scale=HEAD_DIM**-0.5)
            x = b.op("add", x, b.linear(y, b.matrix(layer["o"])))
            y = self._norm(b, x, layer["ffn_norm"])
            gate = b.op("split", b.linear(y, b.matrix(layer["gate_up"])), width=[FFN, FFN])
            y = b.op("mul", b.op("silu", gate), gate + 1)
            x = b.op("add", x, b.linear(y, b.matrix(layer["down"])))
        self.residual = x
        x = self._norm(b, b.select(x), self.norm)
        return b, b.plan(b.linear(x, b.matrix(self.head)))

    @staticmethod
    def _norm(b: Any, x: int, weight: Float32) -> int:
        return int(b.op("rms_norm", x, weights=(b.raw(weight),), size=len(weight), eps=1e-5))

    def reference(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Logits [T, vocab] in float64."""
        count = len(tokens)

        def norm(x: NDArray[np.float64], weight: Float32) -> NDArray[np.float64]:
            return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight)

        def rope(x: NDArray[np.float64]) -> NDArray[np.float64]:
            a, b = np.split(x, 2, axis=-1)
            cos, sin = self.cos[:count, None], self.sin[:count, None]
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

        x = self.table[list(tokens)].astype(np.float64)
        for layer in self.layers:
            qkv = norm(x, layer["norm"]) @ layer["qkv"].T + self.bias
            heads = qkv.reshape(count, HEADS + 2 * KV_HEADS, HEAD_DIM)
            q, k = rope(heads[:, :HEADS]), rope(heads[:, HEADS : HEADS + KV_HEADS])
            v = heads[:, HEADS + KV_HEADS :]
            k, v = (np.repeat(a, HEADS // KV_HEADS, axis=1) for a in (k, v))
            scores = np.einsum("ihd,jhd->hij", q, k) * HEAD_DIM**-0.5
            scores = np.where(np.tri(count, dtype=bool), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            x = x + np.einsum("hij,jhd->ihd", weights, v).reshape(count, -1) @ layer["o"].T
            gate, up = np.split(norm(x, layer["ffn_norm"]) @ layer["gate_up"].T, 2, axis=-1)
            x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["down"].T
        return np.asarray(norm(x, self.norm) @ self.head.T)


def toy_sampler(**params: Any) -> RowSampler:
    """A row's sampler after the prompt TOKENS."""
    history = np.array(TOKENS, np.int32)
    return RowSampler(SamplingParams(**params), 1, 0, history, len(TOKENS))
