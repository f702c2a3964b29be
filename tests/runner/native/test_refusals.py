"""The refusals of the core: plans and batches that reach into foreign memory, limits out of
range."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bits import assert_same_bits
from numpy.typing import NDArray
from plans import replace
from toy_transformer import CONTEXT, TOKENS, VOCAB, Toy, toy_sampler

from edge_llm import native
from edge_llm.errors import CapacityError, NativeError
from edge_llm.program.formats import CODES, WEIGHT_FORMATS
from edge_llm.program.pack import packed_bytes
from edge_llm.program.plan import Plan, State
from edge_llm.runner.backends.native import NativeExecutor, groups
from edge_llm.runner.executor import Batch, Limits, RowSampler
from edge_llm.runner.sampling import SamplingParams

Float32 = NDArray[np.float32]


def _set(array: NDArray[np.int32], index: Any, value: int) -> NDArray[np.int32]:
    array = array.copy()
    array[index] = value
    return array


BAD_BATCHES: dict[str, tuple[Callable[[Batch], dict[str, Any]], str]] = {
    "token": (
        lambda b: {"tokens": _set(b.tokens, 5, VOCAB)},
        "token 5 has id 75, expected 0 to 74",
    ),
    "more workers than threads": (
        lambda b: {"workers": 99},
        "workers is 99, expected 0 to",
    ),
    "negative workers": (lambda b: {"workers": -1}, "workers is -1"),
    "negative token": (lambda b: {"tokens": _set(b.tokens, 5, -1)}, "token 5 has id -1"),
    "position": (
        lambda b: {"positions": b.positions + np.int32(CONTEXT - 149)},
        "position 192, expected 0 to 191",
    ),
    "negative position": (lambda b: {"positions": b.positions - np.int32(1)}, "position -1"),
    "gap": (lambda b: {"positions": _set(b.positions, 9, 10)}, "do not ascend by one at token 9"),
    "sequence": (lambda b: {"sequences": b.sequences + np.int32(1)}, "sequence 1, expected 0 to 0"),
    "negative sequence": (lambda b: {"sequences": b.sequences - np.int32(1)}, "sequence -1"),
    "not contiguous": (
        lambda b: {
            "sequences": _set(b.sequences, 5, 1),
            "positions": _set(b.positions, 5, 0),
            "block_tables": (np.concatenate([b.block_tables[0], b.block_tables[0] + np.int32(3)]),),
        },
        "sequence 0 are not contiguous",
    ),
    "row": (lambda b: {"rows": _set(b.rows, 3, 150)}, "row 3 is token 150"),
    "negative row": (lambda b: {"rows": _set(b.rows, 3, -1)}, "row 3 is token -1"),
    "no block": (
        lambda b: {"block_tables": (_set(b.block_tables[0], (0, 1), -1),)},
        "block 1 .* is -1",
    ),
    "block": (
        lambda b: {"block_tables": (_set(b.block_tables[0], (0, 2), 32),)},
        "expected 0 to 31",
    ),
    "short table": (lambda b: {"block_tables": (b.block_tables[0][:, :2],)}, "block 2 .* is -1"),
    "wide table": (
        lambda b: {"block_tables": (np.tile(b.block_tables[0], (1, 2)),)},
        r"is \[1, 6\], expected \[1, up to 3\]",
    ),
    "tables": (lambda b: {"block_tables": b.block_tables * 2}, "2 block tables, expected one"),
    "block twice": (
        lambda b: {"block_tables": (_set(b.block_tables[0], (0, 2), 1),)},
        "block 2 of sequence 0 in group 0 is 1, which this step writes already",
    ),
    "block of another": (
        lambda b: {
            "sequences": (np.arange(150) >= 149).astype(np.int32),
            "positions": _set(b.positions, 149, 0),
            "block_tables": (_set(np.stack([b.block_tables[0][0]] * 2), (1, 0), 1),),
        },
        "block 0 of sequence 1 in group 0 is 1, which this step writes already",
    ),
    "lengths": (lambda b: {"positions": b.positions[1:]}, "differ in length"),
    "samplers": (lambda b: {"samplers": [None]}, "1 samplers for 150 rows"),
    "no tokens": (
        lambda b: {
            "tokens": b.tokens[:0],
            "positions": b.positions[:0],
            "sequences": b.sequences[:0],
            "rows": b.rows[:0],
            "samplers": [],
        },
        "tokens_count is 0",
    ),
    "history": (
        lambda b: {
            "samplers": [
                RowSampler(
                    SamplingParams(presence_penalty=1.0), 0, 0, np.array([VOCAB], np.int32), 0
                )
            ]
            * 150
        },
        "history of row 0 holds an id outside 0..74",
    ),
    "bias": (lambda b: {"samplers": [toy_sampler(logit_bias={10**6: 1.0})] * 150}, "bias of row 0"),
    "target": (
        lambda b: {"samplers": [dataclasses.replace(toy_sampler(), target=75)] * 150},
        "target of row 0 is 75, expected -1 to 74",
    ),
    "mask": (
        lambda b: {
            "samplers": [dataclasses.replace(toy_sampler(), allowed=np.zeros(2, np.uint32))] * 150
        },
        "2 words, expected 3",
    ),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batch_is_refused_and_leaves_no_trace(start: Any, expected: Float32, name: str) -> None:
    change, message = BAD_BATCHES[name]
    runner = start()
    batch = runner.batch({0: TOKENS})
    with pytest.raises(NativeError, match=message):
        runner.executor.step(dataclasses.replace(batch, **change(batch)))
    assert_same_bits(runner.executor.step(batch).logits, expected)


@pytest.mark.parametrize(
    ("limit", "message"),
    [("max_tokens", "150 tokens"), ("max_rows", "150 rows"), ("max_sequences", "2 sequences")],
)
def test_limits_are_kept(start: Any, limit: str, message: str) -> None:
    runner = start(**{limit: 1})
    tokens = {0: [1], 1: [2]} if limit == "max_sequences" else {0: TOKENS}
    with pytest.raises(NativeError, match=f"{message}, the executor was loaded for at most 1"):
        runner.step(tokens)


def test_closed_executor_says_so(start: Any) -> None:
    runner = start()
    batch = runner.batch({0: TOKENS})
    runner.executor.close()
    runner.executor.close()
    uses: list[Callable[[], object]] = [
        lambda: runner.executor.step(batch),
        lambda: runner.executor.copy_block(0, 0, 1),
        lambda: runner.executor.read_value(4),
    ]
    for use in uses:
        with pytest.raises(NativeError, match="closed"):
            use()


def _replace_instruction(plan: Plan, op: str, **changes: Any) -> Plan:
    index = next(i for i, instruction in enumerate(plan.instructions) if instruction.op == op)
    instructions = list(plan.instructions)
    instructions[index] = dataclasses.replace(instructions[index], **changes)
    return replace(plan, instructions=tuple(instructions))


def _linear_weights(plan: Plan) -> tuple[int, ...]:
    return next(i for i in plan.instructions if i.op == "linear").weights[:1]


BAD_PLANS: dict[str, tuple[Callable[[Plan], Plan], str]] = {
    "input later": (
        lambda p: _replace_instruction(p, "rms_norm", inputs=(p.output,)),
        r"\(rms_norm\): an input is used before it is computed",
    ),
    "input out of range": (
        lambda p: _replace_instruction(p, "rms_norm", inputs=(len(p.values),)),
        "an input is no value",
    ),
    "output twice": (
        lambda p: _replace_instruction(p, "rms_norm", outputs=p.instructions[0].outputs),
        "computed twice",
    ),
    "weight missing": (lambda p: _replace_instruction(p, "linear", weights=(-1,)), "weight"),
    "wrong weight": (
        lambda p: _replace_instruction(p, "linear", weights=(0,)),
        "not a matrix in panels",
    ),
    "weight of nothing": (
        lambda p: _replace_instruction(p, "silu", weights=(99,)),
        r"\(silu\): a weight that it does not take",
    ),
    "second table": (
        lambda p: _replace_instruction(
            p, "embedding", weights=p.instructions[0].weights + _linear_weights(p)
        ),
        r"\(embedding\): a weight that it does not take",
    ),
    "more vectors than two": (
        lambda p: _replace_instruction(p, "linear", weights=(*_linear_weights(p), -1, 0, 0, 0, 0)),
        r"\(linear\): a weight that it does not take",
    ),
    "no state": (lambda p: _replace_instruction(p, "attention", state=-1), "state is missing"),
    "state out of range": (lambda p: _replace_instruction(p, "attention", state=9), "state"),
    "too long a context": (
        lambda p: replace(p, context=193),
        "a size is too small for another",
    ),
    "vocab": (lambda p: replace(p, vocab=74), r"not \[R, vocab\]"),
    "no output": (lambda p: replace(p, output=0), "not a computed value"),
    "narrow value": (
        lambda p: replace(
            p,
            values=tuple(
                replace(v, dims=("T", 16)) if i == p.instructions[0].outputs[0] else v
                for i, v in enumerate(p.values)
            ),
        ),
        r"\(embedding\): the output has another width",
    ),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_plan_that_would_corrupt_memory_is_refused(toy: Toy, run_plan: Any, name: str) -> None:
    change, message = BAD_PLANS[name]
    with pytest.raises(NativeError, match=message):
        run_plan(toy.tensors, change(toy.plan), sampleable=1)


@pytest.mark.parametrize("code", [-1, 3])
def test_unknown_cache_dtype_is_refused(
    toy: Toy, run_plan: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr("edge_llm.runner.backends.native_program.KV_DTYPES", {"f32": code})
    with pytest.raises(NativeError, match="kv_dtype is"):
        run_plan(toy.tensors, toy.plan)


@pytest.mark.parametrize(
    ("fmt", "k", "panel"),
    [("i4g64", 96, 3 * 256 + 32 + 64), ("u4g64z", 96, 3 * 256 + 64 + 64), ("u4g32k", 128, 0)],
)
def test_groups_must_divide_the_columns(
    plan_builder: Any, run_plan: Any, fmt: str, k: int, panel: int
) -> None:
    builder = plan_builder()
    x = builder.activations(np.ones((2, k), np.float32))
    # The size that 1 1/2 groups round down to; half a frame of byte scales has no size at all.
    weight = builder.packed(np.zeros(panel or 64 + 4 * 288 + 64, np.uint8), fmt, 16, k)
    with pytest.raises(NativeError, match="no multiple of its group"):
        run_plan(builder, builder.linear(x, weight))


def test_formats_that_a_core_does_not_know_are_refused(
    plan_builder: Any, run_plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older core knows none of the codes at the end of the list."""
    builder = plan_builder()
    x = builder.activations(np.ones((2, 256), np.float32))
    weight = builder.packed(np.zeros(3424, np.uint8), "i6g16k", 16, 256)
    made = builder.linear(x, weight)
    codes = tuple(code for code in CODES if code != "i6")
    monkeypatch.setattr("edge_llm.runner.backends.native_program.CODES", (*codes, "i7", "u7", "i6"))
    with pytest.raises(NativeError, match=r"a weight has an unknown format \(12 16 5 0 0 0\)"):
        run_plan(builder, made)


@pytest.mark.parametrize(
    ("fmt", "ways", "said"),
    [("i8", ("token", "x", "y", "group"), "3 0 1 0 0 3"), ("f32", None, "0 0 0 0 0 1")],
)
def test_activations_that_a_core_does_not_know_are_refused(
    plan_builder: Any,
    run_plan: Any,
    monkeypatch: pytest.MonkeyPatch,
    fmt: str,
    ways: tuple[str, ...] | None,
    said: str,
) -> None:
    """Floats are not rounded."""
    builder = plan_builder()
    x = builder.activations(np.ones((2, 32), np.float32))
    size = packed_bytes(WEIGHT_FORMATS[fmt], 16, 32)
    made = builder.linear(x, builder.packed(np.zeros(size, np.uint8), fmt, 16, 32, "group"))
    if ways is not None:
        monkeypatch.setattr("edge_llm.runner.backends.native_program.ACTIVATIONS", ways)
    with pytest.raises(NativeError, match=rf"a weight has an unknown format \({said}\)"):
        run_plan(builder, made)


def test_weights_must_have_their_size(toy: Toy, run_plan: Any) -> None:
    name = toy.plan.weights[-1].tensor
    toy.tensors.tensors[name] = toy.tensors.tensors[name][:-64]
    with pytest.raises(NativeError, match="size does not fit"):
        run_plan(toy.tensors, toy.plan)
    del toy.tensors.tensors[name]
    with pytest.raises(NativeError, match=f"needs tensor {name}"):
        run_plan(toy.tensors, toy.plan)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_untouched_blocks_cost_no_memory(toy: Toy, start: Any, expected: Float32) -> None:
    before = _resident_bytes()
    blocks = 2**36 // groups(toy.plan, "f32")[0].block_bytes  # 64 GiB
    runner = start(blocks=blocks)
    assert_same_bits(runner.logits(TOKENS), expected)
    assert _resident_bytes() - before < 2**26


def test_blocks_beyond_the_address_space_are_a_capacity_error(toy: Toy, run_plan: Any) -> None:
    large = State.kv("large", 1024, 128, 128)  # 64 MiB a block
    plan = dataclasses.replace(toy.plan, states=(*toy.plan.states, large))
    with pytest.raises(CapacityError, match="KV blocks"):
        run_plan(toy.tensors, plan, blocks=2**31 - 1)


def test_limits_say_what_runs(toy: Toy) -> None:
    asked = Limits(max_tokens=4, max_rows=1, max_sequences=1, blocks=(1,), kv_dtype="f32")
    executor = NativeExecutor(toy.plan, toy.tensors.tensors, sampleable=VOCAB, limits=asked)
    try:
        assert executor.limits == dataclasses.replace(
            asked, threads=native.default_threads(), context=CONTEXT
        )
    finally:
        executor.close()


@pytest.mark.parametrize("field", ["max_tokens", "max_sequences"])
def test_empty_limits_are_refused(start: Any, field: str) -> None:
    with pytest.raises(NativeError, match=f"{field} is 0"):
        start(**{field: 0})
