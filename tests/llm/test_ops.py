"""The operators of our own against definitions written out in loops."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest
import torch

from edge_llm.llm.models import ops

HEADS, KV_HEADS, HEAD_DIM, CONTEXT, SLOTS = 4, 2, 8, 16, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def caches(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (SLOTS, CONTEXT, KV_HEADS, HEAD_DIM)
    # Filled with garbage: what was not written must not be read.
    return torch.full(shape, 1e4, dtype=dtype), torch.full(shape, 1e4, dtype=dtype)


def qkv(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        random(count, HEADS, HEAD_DIM, seed=seed),
        random(count, KV_HEADS, HEAD_DIM, seed=seed + 1),
        random(count, KV_HEADS, HEAD_DIM, seed=seed + 2),
    )


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    window: int = 0,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    bidirectional: bool = False,
) -> torch.Tensor:
    """One sequence from position 0, by the textbook, in float64."""
    out = torch.zeros_like(q, dtype=torch.float64)
    for i in range(len(q)):
        for head in range(HEADS):
            kv = head // (HEADS // KV_HEADS)
            first = max(0, i - window + 1) if window else 0
            scores = []
            last = min(len(q), i + window if window else len(q)) if bidirectional else i + 1
            for j in range(first, last):
                score = float(q[i, head].double() @ k[j, kv].double()) * 0.3
                scores.append(softcap * math.tanh(score / softcap) if softcap else score)
            scores += [] if sinks is None else [float(sinks[head])]
            weights = torch.tensor(scores, dtype=torch.float64).softmax(0)[: last - first]
            out[i, head] = weights @ v[first:last, kv].double()
    return out


def run(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: tuple[torch.Tensor, torch.Tensor],
    positions: list[int],
    sequences: list[int],
    *,
    window: int = 0,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    bidirectional: bool = False,
) -> torch.Tensor:
    at, of = torch.tensor(positions), torch.tensor(sequences)
    return ops.attention(q, k, v, *cache, at, of, sinks, 0.3, window, softcap, bidirectional)


@pytest.mark.parametrize("biased", [False, True])
def test_causal_conv_is_the_textbook_over_steps_and_sequences(biased: bool) -> None:
    x, weight = random(9, 5), random(5, 3, seed=1)
    bias = random(5, seed=2) if biased else None
    expected = torch.zeros(9, 5) if bias is None else bias.repeat(9, 1)
    for i in range(9):
        for back in range(min(3, i + 1)):
            expected[i] += weight[:, 2 - back] * x[i - back]
    cache = torch.full((SLOTS, CONTEXT, 5), torch.nan)
    cache[:, 0] = 1e4  # garbage, which what lies before position 0 must not bring in

    def run(rows: torch.Tensor, at: list[int], of: list[int]) -> torch.Tensor:
        out: torch.Tensor = ops.causal_conv(
            rows, weight, bias, cache, torch.tensor(at), torch.tensor(of)
        )
        return out

    first = run(torch.cat((x[:4], x[:1])), [*range(4), 0], [2] * 4 + [0])
    second = run(torch.cat((x[1:9], x[4:5])), [*range(1, 9), 4], [0] * 8 + [2])
    torch.testing.assert_close(torch.cat((first[:4], second[8:])), expected[:5])
    torch.testing.assert_close(torch.cat((first[4:], second[:8])), expected)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (3, 0.0), (0, 0.5), (1, 2.0)])
def test_attention_is_the_textbook(
    window: int, softcap: float, sink: bool, bidirectional: bool
) -> None:
    q, k, v = qkv(9)
    options: dict[str, Any] = {"window": window, "softcap": softcap}
    options["bidirectional"] = bidirectional
    options["sinks"] = random(HEADS, seed=9) if sink else None
    got = run(q, k, v, caches(), [*range(9)], [1] * 9, **options)
    expected = attend(q, k, v, **options)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


def test_attention_over_steps_and_sequences() -> None:
    a, b = qkv(7, seed=10), qkv(5, seed=20)
    cache = caches()
    out_a, out_b = [], []
    # (tokens of a, tokens of b) of each step; a lives in slot 2, b in slot 0
    for part_a, part_b in ((slice(0, 3), slice(0, 4)), (slice(3, 6), slice(4, 5))):
        step = [torch.cat((x[part_b], y[part_a])) for x, y in zip(b, a, strict=True)]
        positions = [*range(part_b.start, part_b.stop), *range(part_a.start, part_a.stop)]
        count_b = part_b.stop - part_b.start
        sequences = [0] * count_b + [2] * (part_a.stop - part_a.start)
        out = run(*step, cache, positions, sequences)
        out_b.append(out[:count_b])
        out_a.append(out[count_b:])
    out_a.append(run(*(x[6:] for x in a), cache, [6], [2]))
    torch.testing.assert_close(torch.cat(out_a).double(), attend(*a), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(out_b).double(), attend(*b), atol=1e-5, rtol=1e-5)
    assert bool((cache[0][1] == 1e4).all()), "a slot that no token named was written"


def test_attention_reads_back_what_the_cache_holds() -> None:
    q, k, v = qkv(6)
    got = run(q, k, v, caches(torch.float16), [*range(6)], [0] * 6)
    rounded = attend(q, k.half(), v.half())
    torch.testing.assert_close(got.double(), rounded, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got.double(), attend(q, k, v), atol=1e-5, rtol=1e-5)


def test_an_int8_row_is_its_integers_and_their_scale() -> None:
    x = torch.tensor([[254.0, 1.0, 3.0, 5.0, -1.0, -253.0, 0.0, -254.0], [0.0] * 8])
    rows = ops.to_cache(x, torch.int8)
    assert rows.shape == (2, ops.cache_width(8, torch.int8))
    assert rows[0, :8].tolist() == [127, 0, 2, 2, 0, -126, 0, -127]
    assert rows[1, :8].tolist() == [0] * 8
    scales = [float(numpy.frombuffer(row[8:].numpy().tobytes(), "<f4")[0]) for row in rows]
    assert scales == [2.0, torch.finfo(torch.float32).tiny]
    torch.testing.assert_close(
        ops.from_cache(rows[0], torch.float32), torch.tensor([254.0, 0, 4, 4, 0, -252, 0, -254])
    )


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_int8_row_that_is_not_finite_stays_so(broken: float) -> None:
    x = random(3, 2, HEAD_DIM)
    x[1, 0, 3] = broken
    back = ops.from_cache(ops.to_cache(x, torch.int8), torch.float32)
    assert bool(back[1, 0].isnan().all())
    assert int(back.isnan().sum()) == HEAD_DIM


@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (3, 0.5)])
def test_attention_over_an_int8_cache(window: int, softcap: float) -> None:
    q, k, v = qkv(9)
    shape = (SLOTS, CONTEXT, KV_HEADS, HEAD_DIM + 4)
    cache = torch.full(shape, 0x7F, dtype=torch.int8), torch.full(shape, 0x7F, dtype=torch.int8)
    got = [
        run(
            q[i : i + 3],
            k[i : i + 3],
            v[i : i + 3],
            cache,
            [i, i + 1, i + 2],
            [1] * 3,
            window=window,
            softcap=softcap,
        )
        for i in (0, 3, 6)
    ]

    def rounded(x: torch.Tensor) -> torch.Tensor:
        scale = x.abs().amax(-1, keepdim=True) / 127
        return torch.round(x / scale) * scale

    expected = attend(q, rounded(k), rounded(v), window=window, softcap=softcap)
    torch.testing.assert_close(torch.cat(got).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pairs", [4, 3])
def test_rope_rotates_pairs_and_keeps_the_rest(pairs: int) -> None:
    x = random(5, HEADS, HEAD_DIM)
    angles = random(CONTEXT, pairs, seed=5)
    positions = torch.tensor([3, 0, 15, 3, 7])
    got = ops.rope(x, positions, angles.cos(), angles.sin())
    expected = x.clone()
    for t, position in enumerate(positions.tolist()):
        for i in range(pairs):
            turn = torch.exp(1j * angles[position, i])
            rotated = torch.complex(x[t, :, i], x[t, :, i + pairs]) * turn
            expected[t, :, i], expected[t, :, i + pairs] = rotated.real, rotated.imag
    torch.testing.assert_close(got, expected)


def test_schemas_and_fakes() -> None:
    q, k, v = qkv(4)
    tables = random(CONTEXT, HEAD_DIM // 2)
    positions = torch.arange(4)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.rope, (q, positions, tables, tables), test_utils=checks)
    sequences = torch.zeros_like(positions)
    args = (q, k, v, *caches(), positions, sequences, None, 0.3, 0, 0.0, False)
    torch.library.opcheck(ops.attention, args, test_utils=checks)
    transposed = q.transpose(0, 1).contiguous().transpose(0, 1)  # same values, other strides
    args = (transposed, *args[1:])
    torch.library.opcheck(ops.attention, args, test_utils=checks)
