"""Small plans, built in memory and run by the native executor.

A test builds a plan with ``plan_builder()`` (one operator or a whole toy model), and runs it with
``run_plan``. To feed arbitrary activations, ``builder.activations(x)`` is an embedding whose table
is ``x`` and whose tokens are 0..T-1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toy_transformer import CONTEXT, Toy
from toy_transformer import TOKENS as TEXT

from edge_llm.native import library_path
from edge_llm.program.formats import WEIGHT_FORMATS, Activations
from edge_llm.program.pack import pack_float
from edge_llm.program.plan import (
    INPUTS,
    POSITIONS,
    ROWS,
    SEQUENCES,
    TOKENS,
    Attribute,
    Instruction,
    Plan,
    Rows,
    State,
    Value,
    Weight,
    matrix,
)
from edge_llm.runner.backends.native import NativeExecutor, block_size, load
from edge_llm.runner.executor import Batch, Limits, RowSampler, StepResult

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _needs_native_library() -> None:
    if not library_path().is_file():
        pytest.fail(f"the native library is not built: {library_path()}")


@dataclass
class PlanBuilder:
    """Collects values, weights and instructions; every method returns value or weight numbers."""

    context: int = 256
    kv_dtype: str = "f32"
    values: list[Value] = field(default_factory=lambda: [*INPUTS])
    weights: list[Weight] = field(default_factory=list)
    tensors: dict[str, Bytes] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)

    def packed(
        self, data: Bytes, fmt: str, n: int, k: int, activations: Activations = "token"
    ) -> int:
        """A matrix [n, k] in panel format ``fmt``, packed already."""
        return self._weight(data, fmt, (n, k), activations)

    def stack(
        self,
        data: Bytes,
        fmt: str,
        shape: tuple[int, int, int],
        activations: Activations = "token",
    ) -> int:
        """Matrices [experts, n, k] in panel format ``fmt``, packed one after the other."""
        return self._weight(data, fmt, shape, activations)

    def matrix(self, values: Float32, fmt: str = "f32") -> int:
        """A float matrix [n, k], packed as f32, f16 or bf16."""
        n, k = values.shape
        return self.packed(
            pack_float(np.ascontiguousarray(values, np.float32), WEIGHT_FORMATS[fmt]), fmt, n, k
        )

    def raw(self, values: Float32) -> int:
        """A plain float32 array: norm weight, bias, rope table."""
        data = np.ascontiguousarray(values, np.float32)
        return self._weight(data.reshape(-1).view(np.uint8), "raw_f32", data.shape)

    def state(self, kv_heads: int, head_dim: int, dtype: str = "f32") -> int:
        """A KV cache; ``dtype`` is that of all."""
        self.kv_dtype = dtype
        self.states.append(State.kv(f"state.{len(self.states)}", kv_heads, head_dim, head_dim))
        return len(self.states) - 1

    def op(
        self,
        name: str,
        *inputs: int,
        width: int | Sequence[int] | None = None,
        rows: Rows | None = None,
        weights: tuple[int, ...] = (),
        state: int = -1,
        **attributes: Attribute,
    ) -> int:
        """Appends an instruction; returns its (first) output. ``width`` and ``rows`` default to
        those of the first input; several widths make several consecutive outputs."""
        first = self.values[inputs[0]]
        width = first.width if width is None else width
        widths = [width] if isinstance(width, int) else list(width)
        number = len(self.values)
        self.values += [matrix(rows or first.rows, w) for w in widths]
        outputs = tuple(range(number, len(self.values)))
        self.instructions.append(
            Instruction(name, inputs, outputs, weights, state, dict(attributes), "test")
        )
        return number

    def embedding(self, table: int) -> int:
        return self.op("embedding", TOKENS, width=self.weights[table].shape[1], weights=(table,))

    def activations(self, x: Float32) -> int:
        """The value [T, K] that equals ``x`` when the tokens are 0..T-1. ``x`` may hold NaN and
        infinity, which no weight may, so they are put in after packing."""
        rows, columns = np.nonzero(~np.isfinite(x))
        data = pack_float(
            np.nan_to_num(x, posinf=0, neginf=0).astype(np.float32), WEIGHT_FORMATS["f32"]
        )
        panels = data.view(np.float32).reshape(-(-len(x) // 16), -1, 16)
        panels[rows // 16, columns, rows % 16] = x[rows, columns]
        return self.embedding(self.packed(data, "f32", *x.shape))

    def linear(self, x: int, weight: int, bias: int | None = None) -> int:
        operands = (weight,) if bias is None else (weight, bias)
        return self.op("linear", x, width=self.weights[weight].shape[0], weights=operands)

    def causal_conv(self, x: int, weight: Float32, bias: Float32 | None = None) -> int:
        """A convolution over a new state of rows."""
        width, taps = weight.shape
        self.states.append(State.rows(f"state.{len(self.states)}", width, taps))
        weights = (self.raw(weight), -1 if bias is None else self.raw(bias))
        state = len(self.states) - 1
        return self.op(
            "causal_conv", x, POSITIONS, SEQUENCES, weights=weights, state=state, taps=taps
        )

    def gated_delta(self, *inputs: int, key_heads: int, heads: int, k_dim: int, v_dim: int) -> int:
        """The gated delta rule of q, k, v, decay and strength over a new state."""
        name = f"state.{len(self.states)}"
        self.states.append(State.fold(name, key_heads, heads, k_dim, v_dim))
        return self.op(
            "gated_delta",
            *inputs,
            POSITIONS,
            SEQUENCES,
            width=heads * v_dim,
            state=len(self.states) - 1,
            key_heads=key_heads,
            heads=heads,
            k_dim=k_dim,
            v_dim=v_dim,
            eps=1e-6,
            scale=k_dim**-0.5,
        )

    def state_space(
        self,
        *inputs: int,
        rate: Float32,
        skip: Float32,
        key_heads: int,
        heads: int,
        k_dim: int,
        v_dim: int,
    ) -> int:
        """The state space of q, k, v and step over a new state."""
        name = f"state.{len(self.states)}"
        self.states.append(State.fold(name, key_heads, heads, k_dim, v_dim))
        return self.op(
            "state_space",
            *inputs,
            POSITIONS,
            SEQUENCES,
            width=heads * v_dim,
            weights=(self.raw(rate), self.raw(skip)),
            state=len(self.states) - 1,
            key_heads=key_heads,
            heads=heads,
            k_dim=k_dim,
            v_dim=v_dim,
        )

    def attention(
        self,
        q: int,
        k: int,
        v: int,
        state: int,
        *,
        heads: int,
        window: int = 0,
        scale: float = 1.0,
        softcap: float = 0.0,
        sinks: Float32 | None = None,
        bidirectional: bool = False,
    ) -> int:
        """Attention over the step's tokens and what ``state`` holds."""
        shape = self.states[state] = replace(self.states[state], window=window)
        return self.op(
            "attention",
            q,
            k,
            v,
            POSITIONS,
            SEQUENCES,
            weights=() if sinks is None else (self.raw(sinks),),
            state=state,
            heads=heads,
            kv_heads=shape.sizes["heads"],
            head_dim=shape.sizes["k_dim"],
            scale=scale,
            softcap=softcap,
            bidirectional=int(bidirectional),
        )

    def rope(self, x: int, cos: int, sin: int, *, heads: int, head_dim: int) -> int:
        return self.op("rope", x, POSITIONS, weights=(cos, sin), heads=heads, head_dim=head_dim)

    def select(self, x: int) -> int:
        return self.op("select_rows", x, ROWS, rows="R")

    def plan(self, output: int) -> Plan:
        """The plan whose logits are ``output``; one that has a row per token is selected first."""
        if self.values[output].rows == "T":
            output = self.select(output)
        return Plan.causal_lm(
            context=self.context,
            vocab=self.values[output].width,
            values=tuple(self.values),
            weights=tuple(self.weights),
            states=tuple(self.states),
            instructions=tuple(self.instructions),
            output=output,
        )

    def _weight(
        self, data: Bytes, fmt: str, shape: tuple[int, ...], activations: Activations = "token"
    ) -> int:
        name = f"weight.{len(self.weights)}"
        self.weights.append(Weight(name, name, WEIGHT_FORMATS[fmt], shape, activations))
        self.tensors[name] = data
        return len(self.weights) - 1


@dataclass
class Runner:
    """An executor over one plan, with blocks handed out per sequence as a real engine would."""

    executor: NativeExecutor
    plan: Plan
    blocks: dict[int, list[int]] = field(default_factory=dict)  # by sequence
    lengths: dict[int, int] = field(default_factory=dict)
    _next_block: int = 0

    def batch(
        self,
        tokens: Mapping[int, Sequence[int]],
        *,
        rows: Sequence[int] | None = None,
        samplers: Sequence[RowSampler | None] | None = None,
        want_logits: bool = True,
    ) -> Batch:
        """The next ``tokens`` of each sequence as a step. ``rows``: indices into the flat batch
        (default: all tokens)."""
        flat: list[int] = []
        positions: list[int] = []
        owners: list[int] = []
        for index, (sequence, ids) in enumerate(tokens.items()):
            begin = self.lengths.get(sequence, 0)
            flat += ids
            positions += range(begin, begin + len(ids))
            owners += [index] * len(ids)
            self._reserve(sequence, begin + len(ids))
        wanted = np.arange(len(flat)) if rows is None else np.array(rows)
        width = max(len(self.blocks[sequence]) for sequence in tokens)
        tables = np.full((len(tokens), width), -1, np.int32)
        for index, sequence in enumerate(tokens):
            tables[index, : len(self.blocks[sequence])] = self.blocks[sequence]
        return Batch(
            tokens=np.array(flat, np.int32),
            positions=np.array(positions, np.int32),
            sequences=np.array(owners, np.int32),
            rows=wanted.astype(np.int32),
            block_tables=(tables,) * len(self.plan.groups),
            samplers=[None] * len(wanted) if samplers is None else samplers,
            want_logits=want_logits,
        )

    def step(
        self,
        tokens: Mapping[int, Sequence[int]],
        *,
        rows: Sequence[int] | None = None,
        samplers: Sequence[RowSampler | None] | None = None,
        want_logits: bool = True,
    ) -> StepResult:
        """Runs one step of ``batch(...)`` and counts its tokens as computed."""
        batch = self.batch(tokens, rows=rows, samplers=samplers, want_logits=want_logits)
        result = self.executor.step(batch)
        for sequence, ids in tokens.items():
            self.lengths[sequence] = self.lengths.get(sequence, 0) + len(ids)
        return result

    def logits(self, tokens: Sequence[int], *, sequence: int = 0) -> Float32:
        """Logits [T, vocab] of the next ``tokens`` of a sequence."""
        result = self.step({sequence: tokens})
        assert result.logits is not None
        return result.logits

    def value(self, number: int) -> Float32:
        """Value ``number`` of the last step; needs trace."""
        return self.executor.read_value(number)

    def _reserve(self, sequence: int, length: int) -> None:
        blocks = self.blocks.setdefault(sequence, [])
        while len(blocks) * block_size() < length:
            blocks.append(self._next_block)
            self._next_block += 1


RunPlan = Callable[..., Runner]


@pytest.fixture
def plan_builder() -> type[PlanBuilder]:
    """``plan_builder(context=...)`` starts a plan."""
    return PlanBuilder


@pytest.fixture
def run_plan(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPlan]:
    """``run_plan(builder, output, isa="scalar", threads=1, trace=True, ...) -> Runner``: loads the
    builder's plan with logits ``output``, or an earlier Runner's plan once more. ``isa`` None takes
    the best one here. Executors are closed when the test ends."""
    executors: list[NativeExecutor] = []

    def run(
        builder: PlanBuilder,
        output: int | Plan,
        *,
        isa: str | None = None,
        threads: int = 1,
        trace: bool = False,
        max_tokens: int = 512,
        max_rows: int = 512,
        max_sequences: int = 8,
        blocks: int = 32,
        sampleable: int | None = None,
    ) -> Runner:
        plan = output if isinstance(output, Plan) else builder.plan(output)
        if isa is None:
            monkeypatch.delenv("EDGE_LLM_ISA", raising=False)
        else:
            monkeypatch.setenv("EDGE_LLM_ISA", isa)
        limits = Limits(
            max_tokens=max_tokens,
            max_rows=max_rows,
            max_sequences=max_sequences,
            blocks=(blocks,) * len(plan.groups),
            kv_dtype=builder.kv_dtype,
            threads=threads,
            trace=trace,
        )
        executor = load(
            plan,
            builder.tensors,
            sampleable=plan.vocab if sampleable is None else sampleable,
            limits=limits,
        )
        executors.append(executor)
        return Runner(executor, plan)

    yield run
    for executor in executors:
        executor.close()


@pytest.fixture
def open_oracle() -> Callable[[Plan, Mapping[str, Bytes], Limits], Any]:
    """``open_oracle(plan, tensors, limits)``: the executor in PyTorch. The tests here run where
    there is none, too: on emulated processors."""
    pytest.importorskip("torch")
    from edge_llm.runner.backends import torch as backend

    return lambda plan, tensors, limits: backend.load(
        plan, tensors, sampleable=plan.vocab, limits=limits, device="cpu"
    )


@pytest.fixture
def toy() -> Toy:
    """Two layers of a transformer as a plan."""
    return Toy(PlanBuilder(context=CONTEXT))


@pytest.fixture
def start(toy: Toy, run_plan: RunPlan) -> RunPlan:
    """``start(threads=..., ...)``: a runner of the toy."""
    return lambda **options: run_plan(toy.tensors, toy.plan, **options)


@pytest.fixture
def expected(start: RunPlan) -> Float32:
    """The toy's logits of TOKENS whose bits everything must give: one step, one thread."""
    return start(threads=1).logits(TEXT)
