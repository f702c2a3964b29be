"""The executor as a whole: a toy transformer of several instructions, and what a step refuses."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.errors import CapacityError, NativeError
from edge_llm.program.plan import Plan, State
from edge_llm.runner.backends.native import NativeExecutor, page_bytes, page_tokens
from edge_llm.runner.config import SamplingParams
from edge_llm.runner.executor import Batch, Limits, RowSampler

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


@pytest.fixture
def toy(plan_builder: Any) -> Toy:
    return Toy(plan_builder(context=CONTEXT))


@pytest.fixture
def start(toy: Toy, run_plan: Any) -> Callable[..., Any]:
    """``start(threads=..., ...)``: a runner of the toy."""
    return lambda **options: run_plan(toy.tensors, toy.plan, **options)


def isas() -> list[str]:
    return ["scalar"] if native.isa() == "scalar" else ["scalar", native.isa()]


@pytest.fixture
def expected(start: Any) -> Float32:
    """The bits that everything else must give: one step, one thread."""
    return np.asarray(start(threads=1).logits(TOKENS))


def assert_same_bits(got: Float32, expected: Float32) -> None:
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


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


def test_copied_page_continues_the_same(start: Any, expected: Float32) -> None:
    runner = start()
    runner.logits(TOKENS[:100])
    runner.pages[1] = [runner.pages[0][0], 31]  # the first page shared, the second copied
    runner.executor.copy_page(runner.pages[0][1], 31)
    runner.lengths[1] = 100
    assert_same_bits(runner.logits(TOKENS[100:], sequence=1), expected[100:])
    for pages in [(-1, 0), (0, 32)]:
        with pytest.raises(NativeError, match="page"):
            runner.executor.copy_page(*pages)


def test_models_share_the_pool(start: Any, expected: Float32) -> None:
    runners = [start(threads=2), start(threads=3), start(threads=2)]
    got: dict[int, Float32] = {}

    def run(index: int) -> None:
        chunks = [runners[index].logits([token]) for token in TOKENS]
        got[index] = np.concatenate(chunks)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(3):
        assert_same_bits(got[index], expected)


def test_pool_grows_shrinks_and_comes_back(start: Any, expected: Float32) -> None:
    for threads in (1, 4, 2):
        runner = start(threads=threads)
        assert_same_bits(runner.logits(TOKENS), expected)
        runner.executor.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_can_go_on(start: Any, expected: Float32) -> None:
    runner = start(threads=2)
    runner.logits(TOKENS[:100])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that forking with threads is unwise
        child = os.fork()
    if child == 0:
        same = False
        try:
            got = runner.logits(TOKENS[100:])
            same = bool(np.array_equal(got.view(np.uint32), expected[100:].view(np.uint32)))
            runner.executor.close()
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert_same_bits(runner.logits(TOKENS[100:]), expected[100:])


def test_rounding_mode_of_the_caller_is_ignored_and_kept(start: Any, expected: Float32) -> None:
    upward = {"x86_64": 0x800, "aarch64": 0x400000}.get(platform.machine())
    if upward is None:
        pytest.skip(f"the code of FE_UPWARD on {platform.machine()} is not known")
    runner = start(threads=2)
    libm = ctypes.CDLL(None)
    batch = runner.batch({0: TOKENS})
    before = libm.fegetround()
    assert libm.fesetround(upward) == 0
    try:
        result = runner.executor.step(batch)
        assert libm.fegetround() == upward
    finally:
        libm.fesetround(before)
    assert_same_bits(result.logits, expected)


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


def _sampler(**params: Any) -> RowSampler:
    history = np.array(TOKENS, np.int32)
    return RowSampler(SamplingParams(**params), 1, 0, history, len(TOKENS))


def test_rows_are_sampled_by_their_own_sampler(start: Any, expected: Float32) -> None:
    wanted = int(np.argsort(expected[2])[0])  # the unlikeliest, until it is biased
    samplers = [
        _sampler(temperature=0.0),
        None,
        _sampler(temperature=0.0, logit_bias={wanted: 100.0}, top_logprobs=3),
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
    masked = dataclasses.replace(_sampler(temperature=0.0, repetition_penalty=2.0), allowed=mask)
    runner.step({0: TOKENS[:1]}, samplers=[masked])
    result = runner.step({0: TOKENS[1:2]}, samplers=[_sampler(temperature=0.0)])
    assert result.ids.tolist() == [int(expected[1].argmax())]


def _set(array: NDArray[np.int32], index: Any, value: int) -> NDArray[np.int32]:
    array = array.copy()
    array[index] = value
    return array


BAD_BATCHES: dict[str, tuple[Callable[[Batch], dict[str, Any]], str]] = {
    "token": (
        lambda b: {"tokens": _set(b.tokens, 5, VOCAB)},
        "token 5 has id 75, expected 0 to 74",
    ),
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
            "page_tables": np.concatenate([b.page_tables] * 2),
        },
        "sequence 0 are not contiguous",
    ),
    "row": (lambda b: {"rows": _set(b.rows, 3, 150)}, "row 3 is token 150"),
    "negative row": (lambda b: {"rows": _set(b.rows, 3, -1)}, "row 3 is token -1"),
    "no page": (lambda b: {"page_tables": _set(b.page_tables, (0, 1), -1)}, "page 1 .* is -1"),
    "page": (lambda b: {"page_tables": _set(b.page_tables, (0, 2), 32)}, "expected 0 to 31"),
    "short table": (lambda b: {"page_tables": b.page_tables[:, :2]}, "page 2 .* is -1"),
    "wide table": (lambda b: {"page_tables": np.tile(b.page_tables, (1, 2))}, "6 pages"),
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
    "bias": (lambda b: {"samplers": [_sampler(logit_bias={-1: 1.0})] * 150}, "bias of row 0"),
    "mask": (
        lambda b: {
            "samplers": [dataclasses.replace(_sampler(), allowed=np.zeros(2, np.uint32))] * 150
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
        lambda: runner.executor.copy_page(0, 1),
        lambda: runner.executor.read_value(4),
    ]
    for use in uses:
        with pytest.raises(NativeError, match="closed"):
            use()


def _replace_instruction(plan: Plan, op: str, **changes: Any) -> Plan:
    index = next(i for i, instruction in enumerate(plan.instructions) if instruction.op == op)
    instructions = list(plan.instructions)
    instructions[index] = dataclasses.replace(instructions[index], **changes)
    return dataclasses.replace(plan, instructions=tuple(instructions))


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
    "wrong weight": (lambda p: _replace_instruction(p, "linear", weights=(0,)), "not a matrix"),
    "no state": (lambda p: _replace_instruction(p, "attention", state=-1), "state is missing"),
    "state out of range": (lambda p: _replace_instruction(p, "attention", state=9), "state"),
    "too long a context": (lambda p: dataclasses.replace(p, context=193), "tables do not fit"),
    "vocab": (lambda p: dataclasses.replace(p, vocab=74), r"not \[R, vocab\]"),
    "no output": (lambda p: dataclasses.replace(p, output=0), "not a computed value"),
    "narrow value": (
        lambda p: dataclasses.replace(
            p,
            values=tuple(
                dataclasses.replace(v, width=16) if i == p.instructions[0].outputs[0] else v
                for i, v in enumerate(p.values)
            ),
        ),
        r"\(embedding\): the table does not fit",
    ),
}


@pytest.mark.parametrize("name", BAD_PLANS)
def test_plan_that_would_corrupt_memory_is_refused(toy: Toy, run_plan: Any, name: str) -> None:
    change, message = BAD_PLANS[name]
    with pytest.raises(NativeError, match=message):
        run_plan(toy.tensors, change(toy.plan), sampleable=1)


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
def test_untouched_pages_cost_no_memory(toy: Toy, start: Any, expected: Float32) -> None:
    before = _resident_bytes()
    pages = 2**36 // page_bytes(toy.plan)  # 64 GiB
    runner = start(pages=pages)
    assert_same_bits(runner.logits(TOKENS), expected)
    assert _resident_bytes() - before < 2**26


def test_pages_beyond_the_address_space_are_a_capacity_error(toy: Toy, run_plan: Any) -> None:
    large = State("large", 1024, 128, "f32")  # 64 MiB a page
    plan = dataclasses.replace(toy.plan, states=(*toy.plan.states, large))
    with pytest.raises(CapacityError, match="KV pages"):
        run_plan(toy.tensors, plan, pages=2**31 - 1)


def test_page_sizes(toy: Toy, plan_builder: Any) -> None:
    assert page_tokens() == 64
    per_token = LAYERS * 2 * KV_HEADS * HEAD_DIM * 4
    assert page_bytes(toy.plan) == page_tokens() * per_token
    builder = plan_builder()
    stateless = builder.plan(builder.activations(np.ones((2, 16), np.float32)))
    assert page_bytes(stateless) == 0


def test_limits_say_what_runs(toy: Toy) -> None:
    asked = Limits(max_tokens=4, max_rows=1, max_sequences=1, pages=1)
    executor = NativeExecutor(toy.plan, toy.tensors.tensors, sampleable=VOCAB, limits=asked)
    try:
        assert executor.limits == dataclasses.replace(asked, threads=native.physical_cores())
    finally:
        executor.close()


@pytest.mark.parametrize("field", ["max_tokens", "max_sequences"])
def test_empty_limits_are_refused(start: Any, field: str) -> None:
    with pytest.raises(NativeError, match=f"{field} is 0"):
        start(**{field: 0})
