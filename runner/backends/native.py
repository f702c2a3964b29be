"""The native backend: plans run by the C++ core.

One call crosses the boundary per step, with the GIL released. Everything that a step hands over
lives in buffers made once, whose addresses never change.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.errors import NativeError
from edge_llm.program.ops import KV_DTYPES, OPS, WEIGHT_FORMATS
from edge_llm.program.plan import Instruction, Plan
from edge_llm.runner.config import SamplingParams
from edge_llm.runner.executor import (
    Batch,
    Float32,
    Limits,
    RowSampler,
    StepResult,
    TokenLogprobs,
)

_ALIGNMENT = 64
_FAILURES = {
    1: "the logits are not finite",
    2: "the mask of allowed tokens allows none",
}


def page_tokens() -> int:
    """Tokens of one KV page."""
    return int(native.library().edge_page_tokens())


def page_bytes(plan: Plan) -> int:
    """Bytes of one KV page of this plan, all its states together."""
    program = native.Program()
    states = _states(plan)
    program.state_count = len(plan.states)
    program.states = states
    out = ctypes.c_uint64()
    native.check(native.library().edge_page_bytes(ctypes.byref(program), ctypes.byref(out)))
    return int(out.value)


def load(
    plan: Plan,
    weights: Mapping[str, NDArray[np.uint8]],
    *,
    sampleable: int,
    limits: Limits,
) -> NativeExecutor:
    """Loads a plan. ``weights`` maps tensor names to their packed bytes; they are borrowed, not
    copied, when they start on a 64-byte boundary. Token ids from ``sampleable`` on are never
    sampled.

    Raises:
        NativeError: the core is missing or refuses the plan.
        CapacityError: the memory for ``limits`` cannot be reserved.
    """
    return NativeExecutor(plan, weights, sampleable=sampleable, limits=limits)


class NativeExecutor:
    """Implements `Executor` over one loaded model of the core. Not thread-safe."""

    def __init__(
        self,
        plan: Plan,
        weights: Mapping[str, NDArray[np.uint8]],
        *,
        sampleable: int,
        limits: Limits,
    ) -> None:
        self._model: ctypes.c_void_p | None = None
        self._library = native.library()
        threads = limits.threads or native.physical_cores()
        self._limits = Limits(
            max_tokens=limits.max_tokens,
            max_rows=limits.max_rows,
            max_sequences=limits.max_sequences,
            pages=limits.pages,
            threads=threads,
            trace=limits.trace,
        )
        self._plan = plan
        self._weights = {name: _aligned(data) for name, data in weights.items()}  # kept alive
        program, self._tables = _program(plan, self._weights, sampleable)
        model = ctypes.c_void_p()
        native.check(
            self._library.edge_load(
                ctypes.byref(program),
                ctypes.byref(
                    native.Limits(
                        limits.max_tokens,
                        limits.max_rows,
                        limits.max_sequences,
                        limits.pages,
                        threads,
                        int(limits.trace),
                    )
                ),
                ctypes.byref(model),
            )
        )
        self._model = model
        self._step = self._library.edge_step
        self._steps = _StepBuffers(self._limits, plan.context, plan.vocab)
        self._rows = {"T": 0, "R": 0}  # of the last step

    @property
    def limits(self) -> Limits:
        """What was reserved; ``threads`` is the number that runs."""
        return self._limits

    def step(self, batch: Batch) -> StepResult:
        """Runs one step; see `Executor`."""
        model = self._open()
        buffers = self._steps
        logits = buffers.fill(batch)
        status = self._step(model, buffers.address)
        if status != 0:
            native.check(status)
        self._rows = {"T": len(batch.tokens), "R": len(batch.rows)}
        return buffers.result(batch, logits)

    def copy_page(self, source: int, target: int) -> None:
        """Copies a whole KV page (all states)."""
        native.check(self._library.edge_copy_page(self._open(), source, target))

    def read_value(self, value: int) -> Float32:
        """Value number ``value`` of the last step, [rows, width]; needs ``limits.trace``."""
        model = self._open()
        if not 0 <= value < len(self._plan.values):
            raise NativeError(
                f"value {value} does not exist, the plan has {len(self._plan.values)}"
            )
        shape = self._plan.values[value]
        out = np.empty((self._rows[shape.rows], shape.width), np.float32)
        native.check(self._library.edge_read_value(model, value, out.ctypes.data, out.size))
        return out

    def close(self) -> None:
        """Frees pages and threads; the executor is unusable afterwards."""
        model, self._model = self._model, None
        if model is not None:
            self._library.edge_free(model)

    def __del__(self) -> None:
        if getattr(self, "_model", None) is not None:
            self.close()

    def _open(self) -> ctypes.c_void_p:
        if self._model is None:
            raise NativeError("the executor is closed")
        return self._model


class _StepBuffers:
    """The C batch and the arrays behind its pointers, filled in place for every step."""

    def __init__(self, limits: Limits, context: int, vocab: int) -> None:
        self._limits = limits
        self._vocab = vocab
        self._stride = -(-context // page_tokens())
        self._tokens = np.zeros(limits.max_tokens, np.int32)
        self._positions = np.zeros(limits.max_tokens, np.int32)
        self._sequences = np.zeros(limits.max_tokens, np.int32)
        self._rows = np.zeros(max(limits.max_rows, 1), np.int32)
        self._pages = np.full((limits.max_sequences, self._stride), -1, np.int32)
        self._samplers = (native.Sampler * max(limits.max_rows, 1))()
        self._samples = (native.Sample * max(limits.max_rows, 1))()
        # The same records for numpy, to read a whole column at once.
        self._sample_view = np.ctypeslib.as_array(self._samples)
        self._params: list[SamplingParams | None] = [None] * limits.max_rows
        self._borrowed: list[object] = []  # what the samplers' pointers point at
        batch = native.Batch()
        batch.page_stride = self._stride
        batch.tokens = self._tokens.ctypes.data
        batch.positions = self._positions.ctypes.data
        batch.sequences = self._sequences.ctypes.data
        batch.rows = self._rows.ctypes.data
        batch.page_table = self._pages.ctypes.data
        batch.samples = ctypes.addressof(self._samples)
        self._batch = batch
        self.address = ctypes.addressof(batch)

    def fill(self, batch: Batch) -> Float32 | None:
        """Copies ``batch`` in; returns the array that will receive the logits, if wanted."""
        tokens, rows, sequences = len(batch.tokens), len(batch.rows), len(batch.page_tables)
        _check_count("tokens", tokens, self._limits.max_tokens)
        _check_count("rows", rows, self._limits.max_rows)
        _check_count("sequences", sequences, self._limits.max_sequences)
        if not tokens == len(batch.positions) == len(batch.sequences):
            raise NativeError("batch: tokens, positions and sequences differ in length")
        if len(batch.samplers) != rows:
            raise NativeError(f"batch: {len(batch.samplers)} samplers for {rows} rows")
        self._tokens[:tokens] = batch.tokens
        self._positions[:tokens] = batch.positions
        self._sequences[:tokens] = batch.sequences
        self._rows[:rows] = batch.rows
        width = batch.page_tables.shape[1]
        if width > self._stride:
            raise NativeError(f"batch: {width} pages a sequence, the context has {self._stride}")
        self._pages[:sequences, :width] = batch.page_tables
        self._pages[:sequences, width:] = -1
        target = self._batch
        target.tokens_count, target.rows_count, target.sequence_count = tokens, rows, sequences
        self._borrowed.clear()
        sampling = False
        for row, sampler in enumerate(batch.samplers):
            if sampler is None:
                self._samplers[row].sample = 0
            else:
                sampling = True
                self._fill_sampler(row, sampler)
        target.samplers = ctypes.addressof(self._samplers) if sampling else None
        if not batch.want_logits:
            target.logits = None
            return None
        logits = np.empty((rows, self._vocab), np.float32)
        target.logits = logits.ctypes.data
        return logits

    def _fill_sampler(self, row: int, sampler: RowSampler) -> None:
        out, params = self._samplers[row], sampler.params
        if params is not self._params[row]:  # unchanged from step to step for a running sequence
            self._params[row] = params
            out.temperature = params.temperature
            out.top_k = params.top_k
            out.top_p = params.top_p
            out.min_p = params.min_p
            out.repetition_penalty = params.repetition_penalty
            out.presence_penalty = params.presence_penalty
            out.frequency_penalty = params.frequency_penalty
            out.top_logprobs = -1 if params.top_logprobs is None else params.top_logprobs
        out.sample = 1
        out.seed = sampler.seed & 0xFFFF_FFFF_FFFF_FFFF
        out.counter = sampler.counter
        penalized = (
            params.repetition_penalty != 1.0
            or params.presence_penalty != 0.0
            or params.frequency_penalty != 0.0
        )
        if penalized:
            out.history = self._borrow(sampler.history, np.int32)
            out.history_length = len(sampler.history)
            out.prompt_length = sampler.prompt_length
        else:
            out.history_length = out.prompt_length = 0
        out.bias_count = len(params.logit_bias)
        if params.logit_bias:
            out.bias_ids = self._borrow(list(params.logit_bias), np.int32)
            out.bias_values = self._borrow(list(params.logit_bias.values()), np.float32)
        if sampler.allowed is None:
            out.allowed = None
        else:
            words = -(-self._vocab // 32)
            if len(sampler.allowed) != words:
                raise NativeError(
                    f"batch: a mask of allowed tokens has {len(sampler.allowed)} words, "
                    f"expected {words}"
                )
            out.allowed = self._borrow(sampler.allowed, np.uint32)

    def _borrow(self, values: object, dtype: type[np.generic]) -> int:
        array = np.ascontiguousarray(values, dtype)
        self._borrowed.append(array)
        return array.ctypes.data

    def result(self, batch: Batch, logits: Float32 | None) -> StepResult:
        """What the core left for the rows of ``batch``."""
        count = len(batch.rows)
        if not any(sampler is not None for sampler in batch.samplers):
            none: list[None] = [None] * count
            return StepResult(np.full(count, -1, np.int32), none, none, logits)
        samples = self._sample_view[:count]
        return StepResult(
            ids=samples["id"].copy(),
            logprobs=[
                _logprobs(self._samples[row]) if _wants_logprobs(sampler) else None
                for row, sampler in enumerate(batch.samplers)
            ],
            errors=[_FAILURES.get(status) for status in samples["status"].tolist()],
            logits=logits,
        )


def _check_count(name: str, count: int, limit: int) -> None:
    if count > limit:
        raise NativeError(f"batch: {count} {name}, the executor was loaded for at most {limit}")


def _wants_logprobs(sampler: RowSampler | None) -> bool:
    return sampler is not None and sampler.params.top_logprobs is not None


def _logprobs(sample: native.Sample) -> TokenLogprobs | None:
    if sample.status != 0:
        return None
    count = sample.top_count
    return TokenLogprobs(
        logprob=sample.logprob,
        top=tuple(zip(sample.top_ids[:count], sample.top_logprobs[:count], strict=True)),
    )


def _aligned(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``data`` as contiguous bytes on a 64-byte boundary, copied only if it is not already."""
    data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    if data.ctypes.data % _ALIGNMENT == 0:
        return data
    room = np.empty(data.size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    copy = room[start : start + data.size]
    copy[:] = data
    return copy


def _program(
    plan: Plan, weights: Mapping[str, NDArray[np.uint8]], sampleable: int
) -> tuple[native.Program, Sequence[object]]:
    """The C form of a plan, and the tables that must stay alive as long as it."""
    values = (native.Value * len(plan.values))(
        *(
            native.Value(int(value.rows == "R"), value.width, int(value.dtype == "i32"))
            for value in plan.values
        )
    )
    table = (native.Weight * len(plan.weights))()
    for entry, weight in zip(table, plan.weights, strict=True):
        data = weights.get(weight.tensor)
        if data is None:
            raise NativeError(f"weight {weight.name} needs tensor {weight.tensor}, there is none")
        entry.format = WEIGHT_FORMATS[weight.format]
        entry.n = weight.shape[0]
        entry.k = weight.shape[1] if len(weight.shape) > 1 else 1
        entry.data = data.ctypes.data
        entry.bytes = data.size
    states = _states(plan)
    instructions = (native.Instruction * len(plan.instructions))(
        *(_instruction(instruction) for instruction in plan.instructions)
    )
    program = native.Program(
        plan.context,
        plan.vocab,
        sampleable,
        plan.output,
        len(values),
        len(table),
        len(states),
        len(instructions),
        values,
        table,
        states,
        instructions,
    )
    return program, (values, table, states, instructions)


def _states(plan: Plan) -> ctypes.Array[native.State]:
    return (native.State * len(plan.states))(
        *(
            native.State(state.kv_heads, state.head_dim, KV_DTYPES[state.dtype])
            for state in plan.states
        )
    )


def _instruction(instruction: Instruction) -> native.Instruction:
    spec = OPS[instruction.op]
    out = native.Instruction(
        op=spec.code,
        input_count=len(instruction.inputs),
        output_count=len(instruction.outputs),
        weights=(-1, -1),
        state=instruction.state,
    )
    for slots, numbers, name in (
        (out.inputs, instruction.inputs, "inputs"),
        (out.outputs, instruction.outputs, "outputs"),
        (out.weights, instruction.weights, "weights"),
    ):
        if len(numbers) > len(slots):
            raise NativeError(f"{instruction.op} has {len(numbers)} {name}, at most {len(slots)}")
        for slot, number in enumerate(numbers):
            slots[slot] = number
    ints = floats = 0
    for name, kind in spec.attributes:
        if kind == "int":
            out.ints[ints] = int(instruction.attributes[name])
            ints += 1
        else:
            out.floats[floats] = float(instruction.attributes[name])
            floats += 1
    return out
