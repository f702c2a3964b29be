"""The executor as a whole, on a toy transformer of several instructions."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray
from toy_transformer import DIM, HEAD_DIM, KV_HEADS, LAYERS, TOKENS, VOCAB, Toy, toy_sampler

from edge_llm.errors import NativeError
from edge_llm.runner.backends.native import block_size, groups
from edge_llm.runner.executor import StateGroup

Float32 = NDArray[np.float32]


@pytest.mark.parametrize("trace", [False, True])
def test_step_computes_the_transformer(toy: Toy, start: Any, trace: bool) -> None:
    logits = start(trace=trace).logits(TOKENS)
    np.testing.assert_allclose(logits, toy.reference(TOKENS), rtol=0, atol=2e-5)


@pytest.mark.parametrize("chunk", [1, 7, 32, 64])
def test_chunks_do_not_change_a_bit(start: Any, expected: Float32, chunk: int) -> None:
    runner = start(threads=2)
    parts = [runner.logits(TOKENS[i : i + chunk]) for i in range(0, len(TOKENS), chunk)]
    assert_same_bits(np.concatenate(parts), expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("trace", [False, True])
def test_threads_isa_and_trace_do_not_change_a_bit(
    start: Any, expected: Float32, threads: int, trace: bool
) -> None:
    for isa in isas():
        runner = start(isa=isa, threads=threads, trace=trace)
        assert_same_bits(runner.logits(TOKENS), expected)


def test_neighbours_do_not_change_a_bit(start: Any, expected: Float32) -> None:
    runner = start(threads=2)
    others = {1: TOKENS[::-1], 2: TOKENS[40:90], 3: TOKENS[3:4]}
    first = runner.step({1: others[1][:70], 0: TOKENS[:33], 2: others[2][:1]})
    second = runner.step({2: others[2][1:], 3: others[3], 0: TOKENS[33:]})
    got = np.concatenate([first.logits[70:103], second.logits[50:]])
    assert_same_bits(got, expected)


def test_rows_pick_logits(start: Any, expected: Float32) -> None:
    rows = [149, 0, 64, 64]
    result = start().step({0: TOKENS}, rows=rows)
    assert_same_bits(result.logits, expected[rows])


def test_a_step_without_rows_still_fills_the_cache(start: Any, expected: Float32) -> None:
    runner = start(threads=2)
    result = runner.step({0: TOKENS[:100]}, rows=[])
    assert result.logits.shape == (0, VOCAB)
    assert len(result.ids) == len(result.errors) == len(result.logprobs) == 0
    assert_same_bits(runner.logits(TOKENS[100:]), expected[100:])


def test_copied_block_continues_the_same(start: Any, expected: Float32) -> None:
    runner = start()
    runner.logits(TOKENS[:100])
    runner.blocks[1] = [runner.blocks[0][0], 31]  # the first block shared, the second copied
    runner.executor.copy_block(0, runner.blocks[0][1], 31)
    runner.lengths[1] = 100
    assert_same_bits(runner.logits(TOKENS[100:], sequence=1), expected[100:])
    for blocks in [(-1, 0), (0, 32)]:
        with pytest.raises(NativeError, match="block"):
            runner.executor.copy_block(0, *blocks)


def test_trace_reads_values_of_the_last_step(toy: Toy, start: Any) -> None:
    runner = start(trace=True)
    runner.logits(TOKENS)
    embedding = toy.plan.instructions[0].outputs[0]
    np.testing.assert_array_equal(runner.value(embedding), toy.table[TOKENS])
    for instruction in toy.plan.instructions:
        if instruction.op != "split":
            continue
        parts = np.concatenate([runner.value(v) for v in instruction.outputs], axis=1)
        assert_same_bits(parts, runner.value(instruction.inputs[0]))
    assert runner.value(toy.residual).shape == (len(TOKENS), DIM)
    for number in (0, -1, len(toy.plan.values)):
        with pytest.raises(NativeError, match="value"):
            runner.value(number)


def test_values_are_hidden_without_trace(toy: Toy, start: Any) -> None:
    runner = start()
    runner.logits(TOKENS)
    with pytest.raises(NativeError, match="without trace"):
        runner.value(toy.residual)


def test_rows_are_sampled_by_their_own_sampler(start: Any, expected: Float32) -> None:
    wanted = int(np.argsort(expected[2])[0])  # the unlikeliest, until it is biased
    samplers = [
        toy_sampler(temperature=0.0),
        None,
        toy_sampler(temperature=0.0, logit_bias={wanted: 100.0}, top_logprobs=3),
    ]
    result = start(threads=2).step({0: TOKENS[:3]}, samplers=samplers, want_logits=False)
    assert result.logits is None
    assert result.ids.tolist() == [int(expected[0].argmax()), -1, wanted]
    assert list(result.errors) == [None] * 3
    assert result.logprobs[0] is None
    assert result.logprobs[1] is None
    best = [token for token, _ in result.logprobs[2].top]
    assert best == np.argsort(-expected[2])[:3].tolist()


def test_a_slot_keeps_nothing_of_the_sampler_before(start: Any, expected: Float32) -> None:
    runner = start()
    other = int(np.argsort(expected[1])[0])
    mask = np.zeros(-(-VOCAB // 32), np.uint32)
    mask[other // 32] = 1 << (other % 32)
    masked = dataclasses.replace(toy_sampler(temperature=0.0, repetition_penalty=2.0), allowed=mask)
    runner.step({0: TOKENS[:1]}, samplers=[masked])
    result = runner.step({0: TOKENS[1:2]}, samplers=[toy_sampler(temperature=0.0)])
    assert result.ids.tolist() == [int(expected[1].argmax())]


def test_block_sizes(toy: Toy, plan_builder: Any) -> None:
    assert block_size() == 64
    per_token = LAYERS * 2 * KV_HEADS * HEAD_DIM * 4
    assert groups(toy.plan, "f32") == (StateGroup(0, block_size() * per_token),)
    builder = plan_builder()
    stateless = builder.plan(builder.activations(np.ones((2, 16), np.float32)))
    assert groups(stateless, "f32") == ()


@pytest.mark.parametrize("patient", [False, True])
def test_the_number_of_workers_changes_no_bit(start: Any, expected: Float32, patient: bool) -> None:
    runner = start(threads=3)
    parts = []
    for number, first in enumerate(range(0, len(TOKENS), 15)):
        batch = runner.batch({0: TOKENS[first : first + 15]})
        changed = dataclasses.replace(batch, workers=number % 4, patient=patient)
        result = runner.executor.step(changed)
        runner.lengths[0] = first + len(batch.tokens)
        parts.append(result.logits)
    assert_same_bits(np.concatenate(parts), expected)
