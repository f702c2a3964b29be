"""Causal convolution over a state of rows: against the plain formula, in bits, and its promise: a
token's bits depend on its prefix alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits, isas
from numpy.typing import NDArray
from plans import replace as replace_plan

from edge_llm.errors import NativeError
from edge_llm.program.plan import Group, Plan, State
from edge_llm.runner.backends.native import groups
from edge_llm.runner.executor import Batch, Limits, Segment

Float32 = NDArray[np.float32]
TOKENS = 200  # four blocks; two workers take rows of it, not columns
SHAPES = [(64, 3, False), (64, 4, True), (37, 3, True), (7, 1, False), (16, 64, True)]


def numbers(*shape: int, seed: int = 0) -> Float32:
    """Return numbers of 13 significant bits: products and sums of a few are exact in float64."""
    integers = np.random.default_rng(seed).integers(-(2**12), 2**12, shape)
    return (integers / 2**10).astype(np.float32)


def start(
    run_plan: Any,
    plan_builder: Any,
    x: Float32,
    weight: Float32,
    bias: Float32 | None = None,
    **options: Any,
) -> Any:
    builder = plan_builder()
    return run_plan(builder, builder.causal_conv(builder.activations(x), weight, bias), **options)


def reference(x: Float32, weight: Float32, bias: Float32 | None = None) -> Float32:
    """Return the chain of multiply-adds, each rounded once, from the oldest row on."""
    total = np.zeros_like(x) if bias is None else np.broadcast_to(bias, x.shape).copy()
    taps = weight.shape[1]
    for tap in range(taps):
        back = taps - 1 - tap
        products = weight[:, tap].astype(np.float64) * x[: len(x) - back]
        total[back:] = (total[back:] + products).astype(np.float32)
    return total


def in_chunks(runner: Any, tokens: Sequence[int], chunk: int, sequence: int = 0) -> Float32:
    return np.concatenate(
        [
            runner.logits(tokens[begin : begin + chunk], sequence=sequence)
            for begin in range(0, len(tokens), chunk)
        ]
    )


@pytest.mark.parametrize(("width", "taps", "biased"), SHAPES)
def test_the_chain_of_taps(
    run_plan: Any, plan_builder: Any, width: int, taps: int, biased: bool
) -> None:
    x, weight = numbers(TOKENS, width), numbers(width, taps, seed=1)
    bias = numbers(width, seed=2) if biased else None
    expected = reference(x, weight, bias)
    for isa in isas():
        for threads in (1, 2, 3):
            for chunk in (TOKENS, 193, 33, 1):
                runner = start(
                    run_plan,
                    plan_builder,
                    x,
                    weight,
                    bias,
                    isa=isa,
                    threads=threads,
                    max_tokens=256,
                )
                assert_same_bits(in_chunks(runner, range(TOKENS), chunk), expected)


def test_neighbours_change_nothing(run_plan: Any, plan_builder: Any) -> None:
    x, weight = numbers(TOKENS, 48), numbers(48, 4, seed=1)
    expected = reference(x, weight)
    for threads in (1, 2):
        runner = start(run_plan, plan_builder, x, weight, threads=threads)
        first = runner.step({0: range(66), 1: range(1), 2: range(2)}).logits
        second = runner.step({2: range(2, 130), 0: range(66, 67), 1: range(1, 70)}).logits
        assert_same_bits(np.concatenate([first[:66], second[128:129]]), expected[:67])
        assert_same_bits(np.concatenate([first[66:67], second[129:]]), expected[:70])
        assert_same_bits(np.concatenate([first[67:], second[:128]]), expected[:130])


def test_what_is_not_seen_is_never_read(run_plan: Any, plan_builder: Any) -> None:
    """Blocks full of NaN from an earlier sequence, and NaN in later tokens of the same step."""
    x, weight = numbers(TOKENS, 24), numbers(24, 3, seed=1)
    expected = reference(x, weight)[:110]
    x[110:] = np.nan
    runner = start(run_plan, plan_builder, x, weight)
    assert np.isnan(runner.logits([TOKENS - 1] * TOKENS)).all()
    runner.blocks[1] = runner.blocks.pop(0)
    for chunk in (TOKENS, 33):
        runner.lengths.clear()
        assert_same_bits(in_chunks(runner, range(TOKENS), chunk, sequence=1)[:110], expected)


def test_copied_blocks_hold_the_same_rows(run_plan: Any, plan_builder: Any) -> None:
    x, weight = numbers(TOKENS, 24), numbers(24, 3, seed=1)
    runner = start(run_plan, plan_builder, x, weight, blocks=8)
    runner.logits(range(100))
    runner.executor.copy_block(0, runner.blocks[0][1], 7)
    # Blocks behind the window are not looked at.
    runner.blocks[1], runner.lengths[1] = [-1, 7, 5, 6], 100
    got = runner.logits(range(100, TOKENS), sequence=1)
    assert_same_bits(got, reference(x, weight)[100:])
    runner.blocks[2], runner.lengths[2] = [-1, 7, 5, 6], 65
    with pytest.raises(NativeError, match="block 0 of sequence 0 in group 0 is -1"):
        runner.logits([65], sequence=2)


def test_a_layer_of_both_kinds(run_plan: Any, plan_builder: Any) -> None:
    """Each kind has a group of its own, and the type of keys and values is not that of rows."""
    builder = plan_builder()
    x = builder.activations(numbers(TOKENS, 32))
    convolved = builder.causal_conv(x, numbers(32, 3, seed=1))
    state = builder.state(2, 16, "f16")
    y = builder.attention(convolved, x, x, state, heads=2, window=3)
    plan = builder.plan(builder.op("add", y, convolved))
    assert plan.groups == (Group("rows", 3, (0,)), Group("kv", 3, (1,)))
    for dtype, size in (("f32", 4), ("f16", 2)):
        assert [group.block_bytes for group in groups(plan, dtype)] == [
            64 * 32 * 4,
            64 * 2 * 2 * 16 * size,
        ]
    runs = [run_plan(builder, plan, threads=n).logits(range(TOKENS)) for n in (1, 2)]
    assert_same_bits(*runs)


@pytest.mark.parametrize("biased", [False, True])
def test_the_oracle_agrees(plan_builder: Any, open_oracle: Any, biased: bool) -> None:
    x, weight = numbers(TOKENS, 24), numbers(24, 4, seed=1)
    bias = numbers(24, seed=2) if biased else None
    builder = plan_builder()
    plan = builder.plan(builder.causal_conv(builder.activations(x), weight, bias))
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
        np.testing.assert_allclose(
            result.logits, reference(x, weight, bias)[first:end], rtol=0, atol=1e-5
        )
    oracle.copy_block(0, 1, 2)


def _change(plan: Plan, **changes: Any) -> Plan:
    index = next(i for i, step in enumerate(plan.instructions) if step.op == "causal_conv")
    instructions = list(plan.instructions)
    instructions[index] = replace(instructions[index], **changes)
    changed: Plan = replace_plan(plan, instructions=tuple(instructions))
    return changed


BAD_PLANS: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "no state": (lambda p: _change(p, state=-1), "the state is missing"),
    "a state of another kind": (
        lambda p: replace(p, states=(State.kv("a", 1, 16, 16, 3),)),
        "the state is of another kind",
    ),
    "a narrow state": (
        lambda p: replace(p, states=(State.rows("a", 8, 3),)),
        "two sizes differ that should not",
    ),
    "a short window": (
        lambda p: replace(p, states=(State.rows("a", 16, 2),)),
        "two sizes differ that should not",
    ),
    "more taps": (lambda p: _change(p, attributes={"taps": 4}), "a weight has another shape"),
    "many taps": (lambda p: _change(p, attributes={"taps": 65}), "an attribute is out of range"),
    "a state that nothing takes": (
        lambda p: replace_plan(
            p,
            instructions=tuple(
                replace(step, state=0) if step.op == "select_rows" else step
                for step in p.instructions
            ),
        ),
        r"\(select_rows\): a state that it does not take",
    ),
    "no width": (
        lambda p: replace(p, states=(State.rows("a", 0, 3),)),
        "the shape of state 0 is out of range",
    ),
    "groups of two kinds": (
        lambda p: replace(p, states=(*p.states, State.kv("b", 1, 16, 16, 3))),
        "state 1 has another window or kind than its group",
    ),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_plan_that_would_corrupt_memory_is_refused(
    run_plan: Any, plan_builder: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = plan_builder()
    x = builder.activations(numbers(4, 16))
    plan = builder.plan(builder.causal_conv(x, numbers(16, 3, seed=1)))
    change, message = BAD_PLANS[name]
    if "groups" in name:
        monkeypatch.setattr(Plan, "groups", property(lambda plan: (Group("rows", 3, (0, 1)),)))
    with pytest.raises(NativeError, match=message):
        run_plan(builder, change(plan))


@pytest.mark.parametrize("kinds", [("rows",), ("kv", "rows"), ("a", "b", "c", "rows")])
def test_kinds_that_nothing_runs_are_refused(
    run_plan: Any, plan_builder: Any, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...]
) -> None:
    builder = plan_builder()
    x = builder.activations(numbers(4, 16))
    plan = builder.plan(builder.causal_conv(x, numbers(16, 3, seed=1)))
    monkeypatch.setattr("edge_llm.runner.backends.native_program.STATE_KINDS", kinds)
    expected = "the kind of state 0 is not runnable" if len(kinds) > 3 else "the shape of state 0"
    with pytest.raises(NativeError, match=expected):
        run_plan(builder, plan)
