"""Every recurrence over a fold must keep this: the bits of a token depend on its prefix alone,
whatever was computed at once, before, or in vain.

``start(x, **options)`` gives a runner of a plan that looks its tokens up in ``x``, float32
[TOKENS, width], and gives the recurrence's outputs as logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from bits import assert_same_bits, isas
from numpy.typing import NDArray

from edge_llm.program.plan import Plan
from edge_llm.runner.executor import Batch, Limits, Segment

Float32 = NDArray[np.float32]
Start = Callable[..., Any]

TOKENS = 210  # more than three pages of 64


def in_chunks(runner: Any, tokens: Sequence[int], chunks: Iterable[int]) -> Float32:
    """Return the logits of tokens that are computed some at a time."""
    parts, begin = [], 0
    for chunk in chunks:
        parts.append(runner.logits(tokens[begin : begin + chunk]))
        begin += chunk
    assert begin >= len(tokens)
    return np.concatenate(parts)


def check_recurrence(start: Start, x: Float32, expected: NDArray[Any], tolerance: float) -> None:
    """The outputs are those of the recurrence in float64, to the bit the same on every instruction
    set, by any threads and in any chunks; ``tolerance`` in units of their deviation."""
    got = start(x, isa="scalar").logits(range(TOKENS))
    assert np.abs(got - expected).max() / expected.std() < tolerance
    for isa in isas():
        for threads, chunks in ((1, [TOKENS]), (3, [7, 100, 1, 1, 3, 50, 64]), (2, [1] * TOKENS)):
            runner = start(x, isa=isa, threads=threads)
            assert_same_bits(in_chunks(runner, range(TOKENS), chunks), got)


def check_neighbours(start: Start, x: Float32) -> None:
    """Other sequences of a step change nothing."""
    alone = start(x).logits(range(TOKENS))
    for threads in (1, 2, 5):
        runner = start(x, threads=threads)
        runner.step({5: range(70), 6: range(50, 51)})
        first = runner.step({6: range(3), 0: range(40), 5: range(120, 121)}).logits
        second = runner.step({5: range(9), 7: range(80), 0: range(40, TOKENS)}).logits
        assert_same_bits(np.concatenate([first[3:43], second[89:]]), alone)


def check_rewinds(start: Start, x: Float32, kept: int) -> None:
    """Rows behind the first ``kept`` that were computed in vain leave nothing, inside and across
    blocks of 16 and pages of 64, as drafts make them."""
    expected = start(x).logits(range(TOKENS))
    for vain in (1, 5, 16, 30, 66):
        runner = start(x)
        first = runner.logits(range(kept))
        for chunk in (vain, 1):  # the rows of other tokens
            runner.logits(range(TOKENS - chunk, TOKENS))
            runner.lengths[0] = kept
        got = np.concatenate([first, runner.logits(range(kept, TOKENS))])
        assert_same_bits(got, expected)


def check_copied_page(start: Start, x: Float32, shared: int) -> None:
    """The first ``shared`` rows are those of another sequence, which went on otherwise; pages
    behind the window are not looked at, nor what nobody wrote."""
    expected = start(x).logits(range(TOKENS))
    runner = start(x, blocks=16)
    runner.logits([*range(shared), *range(TOKENS - 60, TOKENS)])
    full, part = divmod(shared, 64)
    table = [-1] * full + list(range(10, 14 - full))
    if part:
        runner.executor.copy_block(0, runner.blocks[0][full], 10)
    else:
        table[full - 1] = runner.blocks[0][full - 1]
    runner.blocks[1], runner.lengths[1] = table, shared
    got = runner.logits(range(shared, TOKENS), sequence=1)
    assert_same_bits(got, expected[shared:])


def check_used_pages(start: Start, x: Float32) -> None:
    """The former content of a page is never read."""
    expected = start(x).logits(range(110))
    x = x.copy()
    x[110:] = np.nan
    runner = start(x)
    assert np.isnan(runner.logits([TOKENS - 1] * TOKENS)).all()
    runner.blocks[1] = runner.blocks.pop(0)
    for chunk in (TOKENS, 33):
        runner.lengths.clear()
        parts = [
            runner.logits(range(begin, min(begin + chunk, TOKENS)), sequence=1)
            for begin in range(0, TOKENS, chunk)
        ]
        assert_same_bits(np.concatenate(parts)[:110], expected)


def check_oracle(open_oracle: Any, builder: Any, plan: Plan, expected: NDArray[Any]) -> None:
    """The PyTorch backend agrees, over steps, rewinds and a copied page."""
    limits = Limits(max_tokens=256, max_rows=256, max_sequences=1, blocks=(5,), kv_dtype="f16")
    oracle = open_oracle(plan, builder.tensors, limits)

    def step(first: int, end: int, table: list[int]) -> None:
        result = oracle.step(
            Batch.of(
                Segment(range(first, end), [None] * (end - first), first),
                block_tables=(np.array([table], np.int32),),
                want_logits=True,
            )
        )
        np.testing.assert_allclose(
            result.logits, expected[first:end], rtol=0, atol=1e-4 * expected.std()
        )

    for first, end in ((0, 70), (70, 71), (71, 128), (128, 130), (129, TOKENS)):
        step(first, end, [2, 0, 3, 1])
    oracle.copy_block(0, 0, 4)
    step(100, TOKENS, [-1, 4, 3, 1])
