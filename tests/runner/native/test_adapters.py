"""The operators of adapters: each row by the matrices of its own adapter, bit for bit, and rows
without one as if there were none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray

from edge_llm.errors import NativeError
from edge_llm.program.formats import WEIGHT_FORMATS
from edge_llm.program.pack import pack_float
from edge_llm.program.plan import SEQUENCES, TOKENS

Float32 = NDArray[np.float32]
WIDTH, RANK, ADAPTERS, VOCAB = 48, 16, 3, 64
ADAPTER_OF = {0: 1, 1: -1, 2: 0, 3: 1, 4: 2}  # by sequence
LENGTHS = {0: 5, 1: 3, 2: 1, 3: 4, 4: 2}


def numbers(*shape: int, seed: int) -> Float32:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


TABLE, MATRIX = numbers(VOCAB, WIDTH, seed=1), numbers(WIDTH, WIDTH, seed=2)
GATHER = numbers(ADAPTERS, VOCAB, RANK, seed=3)
DOWN, UP = numbers(ADAPTERS, RANK, WIDTH, seed=4), numbers(ADAPTERS, WIDTH, RANK, seed=5)


def stack(builder: Any, values: Float32, code: str) -> int:
    packed = pack_float(values.reshape(-1, values.shape[2]), WEIGHT_FORMATS[code]).reshape(-1)
    return int(builder.stack(packed, code, values.shape))


def plan_of(builder: Any, code: str, *, adapted: bool = True) -> int:
    """An embedding and two linears, the second over the wanted rows, each with adapters."""
    sizes = {"adapters": ADAPTERS, "rank": RANK}

    def added(x: int, low: int) -> int:
        weights = (stack(builder, UP, code),)
        return int(
            builder.op("adapter_up", x, low, SEQUENCES, weights=weights, height=WIDTH, **sizes)
        )

    def down(x: int) -> int:
        weights = (stack(builder, DOWN, code),)
        return int(builder.op("adapter_down", x, SEQUENCES, width=RANK, weights=weights, **sizes))

    x = builder.embedding(builder.matrix(TABLE))
    if adapted:
        weights = (stack(builder, GATHER, code),)
        low = builder.op(
            "adapter_gather", TOKENS, SEQUENCES, width=RANK, weights=weights, height=VOCAB, **sizes
        )
        x = added(x, low)
    y = builder.linear(x, builder.matrix(MATRIX))
    if adapted:
        y = added(y, down(x))
    x = builder.select(y)
    y = builder.linear(x, builder.matrix(MATRIX))
    return added(y, down(x)) if adapted else int(y)


def computed(runner: Any, adapters: dict[int, int], sequences: list[int]) -> dict[int, Float32]:
    """Run one step of some sequences; return the logits of each."""
    texts = {s: [(11 * s + 3 * i) % VOCAB for i in range(LENGTHS[s])] for s in sequences}
    batch = runner.batch(texts)
    chosen = np.array([adapters[s] for s in sequences], np.int32)
    logits = runner.executor.step(replace(batch, adapters=chosen)).logits
    ends = np.cumsum([LENGTHS[s] for s in sequences])
    return {s: logits[end - LENGTHS[s] : end] for s, end in zip(sequences, ends, strict=True)}


def meant(sequence: int, adapter: int) -> Float32:
    """The logits in float64."""
    ids = [(11 * sequence + 3 * i) % VOCAB for i in range(LENGTHS[sequence])]
    x = TABLE[ids].astype(np.float64)
    if adapter >= 0:
        x = x + GATHER[adapter][ids] @ UP[adapter].T
    for _ in range(2):
        low = x @ DOWN[adapter].T @ UP[adapter].T if adapter >= 0 else 0.0
        x = x @ MATRIX.T + low
    return np.asarray(x, np.float32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("trace", [False, True])
def test_rows_of_many_adapters_at_once(
    run_plan: Any, plan_builder: Any, threads: int, trace: bool
) -> None:
    builder = plan_builder()
    output = plan_of(builder, "f32")
    reference = run_plan(builder, output, isa="scalar")
    alone = {s: computed(reference, ADAPTER_OF, [s])[s] for s in ADAPTER_OF}
    for sequence, adapter in ADAPTER_OF.items():
        expected = meant(sequence, adapter)
        assert np.abs(alone[sequence] - expected).max() < 1e-5 * np.abs(expected).max()
    for isa in isas():
        runner = run_plan(builder, output, isa=isa, threads=threads, trace=trace)
        together = computed(runner, ADAPTER_OF, list(ADAPTER_OF))
        for sequence in ADAPTER_OF:
            assert_same_bits(together[sequence], alone[sequence])
            assert_same_bits(computed(runner, ADAPTER_OF, [sequence])[sequence], alone[sequence])


@pytest.mark.parametrize("code", ["f32", "f16", "bf16"])
def test_rows_without_adapters_keep_their_bits(run_plan: Any, plan_builder: Any, code: str) -> None:
    plain, builder = plan_builder(), plan_builder()
    without = run_plan(plain, plan_of(plain, code, adapted=False))
    runner = run_plan(builder, plan_of(builder, code), threads=2)
    none = dict.fromkeys(ADAPTER_OF, -1)
    expected = computed(without, none, list(none))
    for adapters in (none, none | {4: 0}):  # alone, and beside one that has an adapter
        got = computed(runner, adapters, list(none))
        for sequence in (0, 1, 2, 3):
            assert_same_bits(got[sequence], expected[sequence])


def test_rows_that_are_shared_by_rows(run_plan: Any, plan_builder: Any) -> None:
    builder = plan_builder(context=512)
    output = plan_of(builder, "f16")
    ids = [(5 * i) % VOCAB for i in range(400)]

    def logits(threads: int, chunk: int) -> Float32:
        runner, found = run_plan(builder, output, threads=threads), []
        for begin in range(0, 400, chunk):
            batch = runner.batch({0: ids[begin : begin + chunk]})
            adapted = replace(batch, adapters=np.array([2], np.int32))
            found.append(runner.executor.step(adapted).logits)
        return np.concatenate(found)

    assert_same_bits(logits(2, 400), logits(1, 25))


@pytest.mark.parametrize("adapter", [-2, ADAPTERS])
def test_adapters_that_are_not_there(run_plan: Any, plan_builder: Any, adapter: int) -> None:
    builder = plan_builder()
    runner = run_plan(builder, plan_of(builder, "f32"))
    with pytest.raises(NativeError, match=rf"sequence 0 has adapter {adapter}, expected -1 to 2"):
        computed(runner, {0: adapter}, [0])
    with pytest.raises(NativeError, match="2 adapters for 1 sequences"):
        runner.executor.step(replace(runner.batch({0: [1]}), adapters=np.array([0, 1], np.int32)))


def test_a_program_without_adapters_takes_none(run_plan: Any, plan_builder: Any) -> None:
    builder = plan_builder()
    runner = run_plan(builder, plan_of(builder, "f32", adapted=False))
    with pytest.raises(NativeError, match="has adapter 0, expected -1 to -1"):
        computed(runner, {0: 0}, [0])
