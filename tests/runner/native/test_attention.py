"""Paged attention against float64, and its promise: a token's bits depend on its prefix only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
TOKENS = 150  # three blocks


@dataclass(frozen=True)
class Shape:
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str = "f16"
    window: int = 0
    softcap: float = 0.0
    sharpness: float = 1.0
    sunk: bool = False  # its heads have sinks
    both: bool = False  # a token sees those behind it, too

    @property
    def sinks(self) -> Float32 | None:
        rng = np.random.default_rng(self.heads)
        return (3 * rng.standard_normal(self.heads)).astype(np.float32) if self.sunk else None

    @property
    def scale(self) -> float:
        return float(np.float32(self.sharpness * self.head_dim**-0.5))

    @property
    def widths(self) -> list[int]:
        kv = self.kv_heads * self.head_dim
        return [self.heads * self.head_dim, kv, kv]


SHAPES = [
    Shape(4, 4, 16, "f32"),
    Shape(8, 2, 64),
    Shape(9, 3, 64, "f32"),
    Shape(6, 1, 40, softcap=4.0),
    Shape(3, 3, 7, window=20),
    Shape(4, 2, 96, window=64),
    Shape(2, 1, 17, "f32", window=1),
    Shape(5, 1, 24, "f32", window=130, softcap=2.0),
    Shape(60, 1, 8),  # more query heads than one tile holds
    Shape(2, 2, 256),
    Shape(4, 1, 512),
    Shape(2, 1, 500, "i8", window=70),
    Shape(8, 2, 64, "i8"),
    Shape(6, 2, 80, "i8"),
    Shape(4, 4, 96, "i8", window=64),
    Shape(7, 1, 128, "i8", softcap=3.0),
    Shape(3, 3, 7, "i8", window=20),
    Shape(5, 1, 24, "i8", window=130, softcap=2.0),
    Shape(60, 1, 8, "i8"),
    Shape(9, 3, 64, sunk=True),
    Shape(4, 2, 24, "f32", window=20, sunk=True),
    Shape(60, 1, 8, "i8", softcap=3.0, sunk=True),
]


# A window that no row reaches the ends of, others inside a block, across one, and of one token.
BIDIRECTIONAL = [
    Shape(4, 4, 16, "f32", both=True),
    Shape(3, 1, 256, window=40, both=True),
    Shape(6, 2, 40, "i8", window=100, softcap=3.0, both=True),
    Shape(2, 1, 17, "f32", window=1, both=True),
    Shape(60, 1, 8, window=65, sunk=True, both=True),
    Shape(3, 3, 7, "i8", window=149, both=True),
    Shape(3, 3, 24, "f32", window=1000, both=True),
]


def activations(shape: Shape, tokens: int = TOKENS) -> Float32:
    """Rows [q | k | v]; token i of the plan is row i."""
    rng = np.random.default_rng(shape.head_dim)
    return rng.standard_normal((tokens, sum(shape.widths))).astype(np.float32)


def start(run_plan: Any, plan_builder: Any, shape: Shape, x: Float32, **options: Any) -> Any:
    builder = plan_builder()
    q = builder.op("split", builder.activations(x), width=shape.widths)
    state = builder.state(shape.kv_heads, shape.head_dim, shape.dtype)
    out = builder.attention(
        q,
        q + 1,
        q + 2,
        state,
        heads=shape.heads,
        window=shape.window,
        scale=shape.scale,
        softcap=shape.softcap,
        sinks=shape.sinks,
        bidirectional=shape.both,
    )
    return run_plan(builder, out, **options)


def in_chunks(runner: Any, tokens: Sequence[int], chunk: int, sequence: int = 0) -> Float32:
    return np.concatenate(
        [
            runner.logits(tokens[begin : begin + chunk], sequence=sequence)
            for begin in range(0, len(tokens), chunk)
        ]
    )


def cached(shape: Shape, x: Float32) -> NDArray[np.float64]:
    """Return what the cache keeps of rows [..., head_dim]."""
    if shape.dtype != "i8":
        return x.astype(np.float16 if shape.dtype == "f16" else np.float32).astype(np.float64)
    scale = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)
    q = np.clip(np.rint(x * (np.float32(1) / scale)), -127, 127)
    return q.astype(np.float64) * scale


def reference(shape: Shape, x: Float32) -> NDArray[np.float64]:
    parts = np.split(x, np.cumsum(shape.widths)[:2], axis=1)
    q, *rows = (part.reshape(len(x), -1, shape.head_dim) for part in parts)
    group = shape.heads // shape.kv_heads
    k, v = (np.repeat(cached(shape, a), group, axis=1) for a in rows)
    scores = np.einsum("ihd,jhd->hij", q.astype(np.float64), k) * shape.scale
    if shape.softcap:
        scores = shape.softcap * np.tanh(scores / shape.softcap)
    distance = np.arange(len(x))[:, None] - np.arange(len(x))
    distance = np.abs(distance) if shape.both else distance
    seen = (distance >= 0) & (distance < (shape.window or len(x)))
    scores = np.where(seen, scores, -np.inf)
    most = scores.max(-1, keepdims=True)
    sinks = np.full((shape.heads, 1, 1), -np.inf)
    if shape.sinks is not None:
        sinks[:, 0, 0] = shape.sinks
    most = np.maximum(most, sinks)
    weights = np.exp(scores - most)
    weights /= weights.sum(-1, keepdims=True) + np.exp(sinks - most)
    return np.asarray(np.einsum("hij,jhd->ihd", weights, v).reshape(len(x), -1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64_and_in_bits(run_plan: Any, plan_builder: Any, shape: Shape) -> None:
    x = activations(shape)
    tokens = range(TOKENS)
    expected = start(run_plan, plan_builder, shape, x, isa="scalar").logits(tokens)
    np.testing.assert_allclose(expected, reference(shape, x), rtol=0, atol=5e-6)
    for chunk in (1, 7, 32, TOKENS):
        for threads in (1, 2):
            runner = start(run_plan, plan_builder, shape, x, threads=threads)
            assert_same_bits(in_chunks(runner, tokens, chunk), expected)


@pytest.mark.parametrize("shape", BIDIRECTIONAL, ids=str)
def test_rows_that_see_what_follows(run_plan: Any, plan_builder: Any, shape: Shape) -> None:
    """In every instruction set, by any number of workers, and beside another text in the step."""
    x = activations(shape)
    tokens = range(TOKENS)
    expected = start(run_plan, plan_builder, shape, x, isa="scalar").logits(tokens)
    np.testing.assert_allclose(expected, reference(shape, x), rtol=0, atol=5e-6)
    for isa in isas():
        for threads in (1, 3):
            runner = start(run_plan, plan_builder, shape, x, isa=isa, threads=threads)
            assert_same_bits(runner.logits(tokens), expected)
    short = start(run_plan, plan_builder, shape, x).logits(tokens[:70])
    runner = start(run_plan, plan_builder, shape, x, threads=2)
    both = runner.step({1: tokens[:70], 0: tokens, 2: tokens[:1]}).logits
    assert_same_bits(both[:70], short)
    assert_same_bits(both[70 : 70 + TOKENS], expected)


@pytest.mark.parametrize(
    "shape", [Shape(8, 2, 64), Shape(3, 3, 7, window=20), Shape(4, 2, 24, "i8", window=40)], ids=str
)
def test_neighbours_change_nothing(run_plan: Any, plan_builder: Any, shape: Shape) -> None:
    x = activations(shape)
    alone = start(run_plan, plan_builder, shape, x).logits(range(100))
    for threads in (1, 2):
        runner = start(run_plan, plan_builder, shape, x, threads=threads)
        runner.step({5: range(70), 6: range(50, 51)})
        first = runner.step({6: range(3), 0: range(40), 5: range(120, 121)}).logits
        second = runner.step({5: range(9), 7: range(80), 0: range(40, 100)}).logits
        assert_same_bits(np.concatenate([first[3:43], second[89:]]), alone)


SHARING = [s for s in SHAPES if s.head_dim < 500] + [Shape(6, 2, 24, window=230)]
# How many blocks of the first sequence's beginning others have too, and what follows in each.
ANSWERS = ((3, 1), (3, 18), (2, 3), (2, 70), (3, 2), (0, 150), (3, 22), (3, 60))


def share_blocks(runner: Any, sequence: int) -> None:
    """Give a sequence four blocks, the first ones of them shared, and what these hold."""
    shared = ANSWERS[sequence][0]
    runner.blocks[sequence] = [*range(shared), *(4 + 4 * sequence + i for i in range(4 - shared))]
    runner.lengths[sequence] = 64 * shared


def answer(sequence: int) -> list[int]:
    """The tokens of a sequence behind what it shares."""
    return [(7 * i + sequence) % TOKENS for i in range(ANSWERS[sequence][1])]


def beginning(sequence: int) -> list[int]:
    """The tokens that a sequence shares."""
    return [i % TOKENS for i in range(64 * ANSWERS[sequence][0])]


@pytest.mark.parametrize("shape", SHARING, ids=str)
def test_sequences_that_share_blocks_are_as_alone(
    run_plan: Any, plan_builder: Any, shape: Shape
) -> None:
    """Where many go on with one prompt, by one token in a step or, as with drafts, by several, and
    have more of it in common or less, or nothing."""
    x = activations(shape)
    whole = start(run_plan, plan_builder, shape, x, isa="scalar", blocks=40)
    last = [3 if s == 6 else 1 for s in range(len(ANSWERS))]  # tokens of the step
    expected = [
        whole.logits([*beginning(s), *answer(s)], sequence=s)[-count:]
        for s, count in enumerate(last)
    ]
    for isa in isas():
        for threads in (1, 2, 3):
            runner = start(run_plan, plan_builder, shape, x, isa=isa, threads=threads, blocks=40)
            runner.blocks[20] = [0, 1, 2]
            runner.logits(beginning(0), sequence=20)
            for sequence, count in enumerate(last):
                share_blocks(runner, sequence)
                if before := answer(sequence)[:-count]:
                    runner.step({sequence: before}, rows=[])
            step = {s: answer(s)[-count:] for s, count in enumerate(last)}
            assert_same_bits(runner.step(step).logits, np.concatenate(expected))


@pytest.mark.parametrize("dtype", ["f16", "f32", "i8"])
@pytest.mark.parametrize("window", [0, 70])
def test_what_is_masked_is_never_read(
    run_plan: Any, plan_builder: Any, dtype: str, window: int
) -> None:
    """Blocks full of NaN from an earlier sequence, and NaN in later tokens of the same step."""
    shape = Shape(4, 2, 24, dtype, window)
    x = activations(shape)
    expected = start(run_plan, plan_builder, shape, x).logits(range(110))
    broken = x.copy()
    broken[110:] = np.nan
    runner = start(run_plan, plan_builder, shape, broken)
    assert np.isnan(runner.logits([TOKENS - 1] * TOKENS)).all()
    runner.blocks[1] = runner.blocks.pop(0)
    for chunk in (TOKENS, 33):
        runner.lengths.clear()
        assert_same_bits(in_chunks(runner, range(TOKENS), chunk, sequence=1)[:110], expected)


@pytest.mark.parametrize(
    "shape", [Shape(8, 2, 64), Shape(3, 3, 7, "f32", window=20), Shape(4, 1, 512, "i8")], ids=str
)
def test_others_may_read_what_one_layer_wrote(
    run_plan: Any, plan_builder: Any, shape: Shape
) -> None:
    """Queries of wanted rows alone, in any order, give what the layer itself gives them."""
    x = activations(shape)
    expected = start(run_plan, plan_builder, shape, x, isa="scalar").logits(range(TOKENS))

    def reading(**options: Any) -> Any:
        builder = plan_builder()
        q = builder.op("split", builder.activations(x), width=shape.widths)
        state = builder.state(shape.kv_heads, shape.head_dim, shape.dtype)
        settings = {"heads": shape.heads, "window": shape.window, "scale": shape.scale}
        builder.attention(q, q + 1, q + 2, state, **settings)
        attributes = {
            "heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "scale": shape.scale,
            "softcap": 0.0,
        }
        wanted = builder.select(q)
        out = builder.op("attend", wanted, 1, 2, state=state, **attributes)
        return run_plan(builder, out, **options)

    for threads in (1, 2):
        runner = reading(threads=threads)
        runner.step({0: range(40)}, rows=[])
        runner.step({1: range(70), 0: range(40, 60)}, rows=[])
        rows = [89, 3, 3, 60, 0, 88, 1, 2]  # of 50 tokens of one, and 40 of the other
        got = runner.step({0: range(60, 110), 1: range(70, 110)}, rows=rows).logits
        tokens = [110 - 1, 63, 63, 80, 60, 108, 61, 62]
        assert_same_bits(got, expected[tokens])
        runner = reading(threads=threads)  # and of sequences that share blocks
        runner.step({0: range(128)}, rows=[])
        for sequence in (1, 2):
            runner.blocks[sequence] = [0, 1, 3 * sequence]
            runner.lengths[sequence] = 128
        rows = [2, 12, 0, 22, 21, 1, 20, 3]
        step = {0: range(128, 138), 1: range(128, 138), 2: range(128, 138)}
        got = runner.step(step, rows=rows).logits
        assert_same_bits(got, expected[[128 + row % 10 for row in rows]])


def test_one_broken_query_spoils_no_other(run_plan: Any, plan_builder: Any) -> None:
    shape = Shape(4, 2, 16)
    x = activations(shape)
    expected = start(run_plan, plan_builder, shape, x).logits(range(TOKENS))
    x[77, : shape.widths[0]] = [np.nan, np.inf, -np.inf, 3e38] * 16
    got = start(run_plan, plan_builder, shape, x).logits(range(TOKENS))
    assert np.isnan(got[77]).any()
    np.testing.assert_array_equal(np.delete(got, 77, 0), np.delete(expected, 77, 0))


def test_large_scores_do_not_overflow(run_plan: Any, plan_builder: Any) -> None:
    shape = Shape(2, 1, 16, "f32", sharpness=1000.0)
    x = activations(shape)
    got = start(run_plan, plan_builder, shape, x).logits(range(TOKENS))
    np.testing.assert_allclose(got, reference(shape, x), rtol=0, atol=5e-3)


def test_a_window_as_long_as_the_sequence_is_none(run_plan: Any, plan_builder: Any) -> None:
    whole, windowed = Shape(2, 1, 16), Shape(2, 1, 16, window=TOKENS)
    x = activations(whole)
    assert_same_bits(
        start(run_plan, plan_builder, windowed, x).logits(range(TOKENS)),
        start(run_plan, plan_builder, whole, x).logits(range(TOKENS)),
    )


@pytest.mark.parametrize("dtype", ["f16", "i8"])
def test_copied_blocks_hold_the_same_cache(run_plan: Any, plan_builder: Any, dtype: str) -> None:
    shape = Shape(4, 2, 24, dtype)
    x = activations(shape)
    runner = start(run_plan, plan_builder, shape, x, blocks=6)
    runner.logits(range(100))
    expected = runner.logits(range(100, TOKENS))
    for block in range(2):
        runner.executor.copy_block(0, runner.blocks[0][block], 3 + block)
    runner.blocks[1], runner.lengths[1] = [3, 4, 5], 100
    assert_same_bits(runner.logits(range(100, TOKENS), sequence=1), expected)


@pytest.mark.parametrize("isa", ["scalar", None])
def test_int8_values_are_rounded_exactly(run_plan: Any, plan_builder: Any, isa: str | None) -> None:
    """A token that sees itself alone gives back its own value, as the cache keeps it: ties to even,
    rows of zeros and of subnormals, the largest floats, scales that differ from head to head."""
    shape = Shape(2, 2, 40, "i8", window=1)
    x = activations(shape, 10)
    v = x[:, -80:].reshape(10, 2, 40)
    v[0, 0, :8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, -127]
    v[0, 0, 8:] = 0
    v[1] = 0
    v[2, 0] = np.float32(1e-45) * np.arange(40)
    v[3, 1] = np.finfo(np.float32).tiny * np.arange(-20, 20)
    v[4] *= np.float32(1e38)
    v[5, 0], v[5, 1] = v[5, 0] * np.float32(1e-30), v[5, 1] * np.float32(1e6)
    got = start(run_plan, plan_builder, shape, x, isa=isa).logits(range(10))
    assert_same_bits(got, cached(shape, v).astype(np.float32).reshape(10, 80) + np.float32(0))
    np.testing.assert_array_equal(got[0, :8], [127, 0, 2, 2, 0, -2, -126, -127])


@pytest.mark.parametrize("isa", ["scalar", None])
@pytest.mark.parametrize("part", [1, 2])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_never_rounded_away(
    run_plan: Any, plan_builder: Any, broken: float, part: int, isa: str | None
) -> None:
    shape = Shape(2, 2, 24, "i8")
    x = activations(shape, 80)
    expected = start(run_plan, plan_builder, shape, x, isa=isa).logits(range(80))
    x[50, 48 * part + 5] = broken  # one element of the first head's key or value
    got = start(run_plan, plan_builder, shape, x, isa=isa).logits(range(80))
    assert np.isnan(got[50:, :24]).all()
    assert_same_bits(got[:50], expected[:50])
    assert_same_bits(got[:, 24:], expected[:, 24:])
