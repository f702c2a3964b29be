"""`previous`, which looks one position back over a state of rows, and `concat`: in bits, on every
instruction set, however tokens are divided among steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray

from edge_llm.errors import NativeError
from edge_llm.program.plan import POSITIONS, SEQUENCES, State
from edge_llm.runner.executor import Batch, Limits, Segment

Float32 = NDArray[np.float32]
TOKENS = 200


def numbers(*shape: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def previous(builder: Any, x: int, window: int = 2) -> int:
    width = builder.values[x].width
    builder.states.append(State.rows(f"state.{len(builder.states)}", width, window))
    state = len(builder.states) - 1
    number: int = builder.op("previous", x, POSITIONS, SEQUENCES, state=state)
    return number


def beside(builder: Any, x: Float32, y: Float32) -> int:
    """The rows of x before each of y's, beside y's."""
    before, now = previous(builder, builder.activations(x)), builder.activations(y)
    number: int = builder.op("concat", before, now, width=2 * x.shape[1])
    return number


def expected(x: Float32, y: Float32) -> Float32:
    before = np.concatenate([np.zeros_like(x[:1]), x[:-1]])
    return np.concatenate([before, y], axis=1)


@pytest.mark.parametrize("width", [7, 16, 37, 64])
def test_the_row_before_beside_a_row(run_plan: Any, plan_builder: Any, width: int) -> None:
    x, y = numbers(TOKENS, width), numbers(TOKENS, width, seed=1)
    for isa in isas():
        for threads in (1, 2, 3):
            for chunk in (TOKENS, 193, 33, 1):
                builder = plan_builder()
                runner = run_plan(
                    builder, beside(builder, x, y), isa=isa, threads=threads, max_tokens=256
                )
                got = [
                    runner.logits(range(begin, min(begin + chunk, TOKENS)))
                    for begin in range(0, TOKENS, chunk)
                ]
                assert_same_bits(np.concatenate(got), expected(x, y))


def test_what_is_not_finite_reaches_the_next_row_alone(run_plan: Any, plan_builder: Any) -> None:
    x, y = numbers(TOKENS, 24), numbers(TOKENS, 24, seed=1)
    x[70] = np.nan
    builder = plan_builder()
    runner = run_plan(builder, beside(builder, x, y))
    assert_same_bits(runner.logits(range(TOKENS)), expected(x, y))


def test_oracle(plan_builder: Any, open_oracle: Any) -> None:
    x, y = numbers(TOKENS, 24), numbers(TOKENS, 24, seed=1)
    builder = plan_builder()
    plan = builder.plan(beside(builder, x, y))
    limits = Limits(max_tokens=256, max_rows=256, max_sequences=1, blocks=(4,), kv_dtype="f16")
    oracle = open_oracle(plan, builder.tensors, limits)
    for first, end in ((0, 70), (70, 71), (71, TOKENS)):
        result = oracle.step(
            Batch.of(
                Segment(range(first, end), [None] * (end - first), first),
                block_tables=(np.array([[2, 0, 3, 1]], np.int32),),
                want_logits=True,
            )
        )
        np.testing.assert_array_equal(result.logits, expected(x, y)[first:end])


def test_another_window_is_refused(run_plan: Any, plan_builder: Any) -> None:
    builder = plan_builder()
    output = previous(builder, builder.activations(numbers(4, 16)), window=3)
    with pytest.raises(NativeError, match="two sizes differ that should not"):
        run_plan(builder, output)


def test_a_draft_of_a_program_that_makes_none_is_refused(run_plan: Any, plan_builder: Any) -> None:
    builder = plan_builder()
    runner = run_plan(builder, builder.activations(numbers(4, 16)))
    batch = Batch.of(Segment([0], [None]), block_tables=(), want_logits=True, draft=True)
    with pytest.raises(NativeError, match="a draft is wanted, which the program does not make"):
        runner.executor.step(batch)
