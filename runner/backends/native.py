"""The native backend: plans run by the C++ core.

One call crosses the boundary per step, with the GIL released. Everything that a step hands over
lives in buffers made once, whose addresses never change.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_llm import abi, native
from edge_llm.errors import ConfigError, NativeError
from edge_llm.program.hidden import hidden_tail
from edge_llm.program.ops import KV_DTYPES
from edge_llm.program.plan import Plan
from edge_llm.runner.backends.native_batch import StepBuffers
from edge_llm.runner.backends.native_program import (
    aligned,
    native_limits,
    native_program,
    native_states,
)
from edge_llm.runner.backends.weights import prefault
from edge_llm.runner.evaluation.profile import Phase, StepTimes
from edge_llm.runner.executor import Batch, Float32, Limits, StateGroup, StepResult, Took

# Threads that wait for each other at barriers crawl when they far outnumber the processors; a few
# too many are fine, so that results can be compared across thread counts on a small machine.
ALWAYS_ALLOWED_THREADS = 16

# Steps of all programs of a process take turns, since they share the core's workers. It does so
# itself; here the wait is kept apart from what a step takes.
_turn = threading.Lock()


def _begin_anew() -> None:
    global _turn
    _turn = threading.Lock()


if hasattr(os, "register_at_fork"):  # a step that runs meanwhile does not in the child
    os.register_at_fork(after_in_child=_begin_anew)


def block_size() -> int:
    """Return the positions of a block."""
    return int(native.library().edge_block_size())


def groups(plan: Plan, kv_dtype: str) -> tuple[StateGroup, ...]:
    """Return the groups of this plan's states in a cache of ``kv_dtype``."""
    groups = plan.groups
    program = abi.Program()
    program.state_count = len(plan.states)
    program.states = native_states(plan)
    sizes = (ctypes.c_uint64 * len(groups))()
    native.check(
        native.library().edge_block_bytes(
            ctypes.byref(program), KV_DTYPES[kv_dtype], sizes, len(groups)
        )
    )
    return tuple(StateGroup(group.window, size) for group, size in zip(groups, sizes, strict=True))


def load(
    plan: Plan,
    weights: Mapping[str, NDArray[np.uint8]],
    *,
    sampleable: int,
    limits: Limits,
) -> NativeExecutor:
    """Load a plan. ``weights`` maps tensor names to their packed bytes; they are borrowed, not
    copied, when they start on a 64-byte boundary. Token ids from ``sampleable`` on are never
    sampled.

    Raises:
        ConfigError: more threads than can be of use.
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
        most = max(ALWAYS_ALLOWED_THREADS, 2 * (os.cpu_count() or 1))
        if not 0 <= limits.threads <= most:
            raise ConfigError(f"threads is {limits.threads}, expected 0 (automatic) to {most}")
        self._limits = replace(
            limits,
            threads=limits.threads or native.default_threads(),
            context=limits.context or plan.context,
        )
        self._plan = plan
        self._weights = {name: aligned(data) for name, data in weights.items()}  # kept alive
        prefault(self._weights)
        program = native_program(plan, self._weights, sampleable)
        reserved = native_limits(self._limits)
        model = ctypes.c_void_p()
        native.check(
            self._library.edge_load(
                ctypes.byref(program), ctypes.byref(reserved), ctypes.byref(model)
            )
        )
        self._model = model
        self._block_bytes = [g.block_bytes for g in groups(plan, self._limits.kv_dtype)]
        self._step = self._library.edge_step
        tail = hidden_tail(plan)
        self._steps = StepBuffers(
            self._limits,
            vocab=plan.vocab,
            block_size=block_size(),
            hidden_width=0 if tail is None else tail.width,
        )
        self._rows = {"T": 0, "R": 0}  # of the last step

    @property
    def limits(self) -> Limits:
        """Return what was reserved; ``threads`` is the number that runs."""
        return self._limits

    def step(self, batch: Batch) -> StepResult:
        """Run one step; see `Executor`."""
        model = self._open()
        buffers = self._steps
        logits, hidden = buffers.fill(batch)
        with _turn:
            begun, cpu_begun = time.perf_counter(), time.thread_time()
            status = self._step(model, buffers.address)
            # The CPU time first: asking for it is where a system takes back a core that was used
            # for longer than is fair, and that is a part of what the step cost.
            computed = time.thread_time() - cpu_begun
            took = Took(time.perf_counter() - begun, computed)
        if status != 0:
            native.check(status)
        self._rows = {"T": len(batch.tokens), "R": len(batch.rows)}
        return replace(buffers.result(batch, logits), hidden=hidden, took=took)

    def copy_block(self, group: int, source: int, target: int) -> None:
        """Copy a whole block of a group of states."""
        native.check(self._library.edge_copy_block(self._open(), group, source, target))

    def block_bytes(self, group: int) -> int:
        """Return the size of a block of a group of states."""
        return self._block_bytes[group]

    def read_block(self, group: int, block: int) -> bytes:
        """Return what a block holds; see `Executor`."""
        data = ctypes.create_string_buffer(self.block_bytes(group))
        native.check(self._library.edge_read_block(self._open(), group, block, data, len(data)))
        return data.raw

    def write_block(self, group: int, block: int, data: bytes) -> None:
        """Let a block hold ``data``; see `Executor`."""
        native.check(self._library.edge_write_block(self._open(), group, block, data, len(data)))

    def read_value(self, value: int) -> Float32:
        """Return value number ``value`` of the last step, [rows, width]; needs ``limits.trace``."""
        model = self._open()
        if not 0 <= value < len(self._plan.values):
            raise NativeError(
                f"value {value} does not exist, the plan has {len(self._plan.values)}"
            )
        shape = self._plan.values[value]
        out = np.empty((self._rows[shape.rows], shape.width), np.float32)
        native.check(self._library.edge_read_value(model, value, out.ctypes.data, out.size))
        return out

    def start_profile(self, steps: int) -> None:
        """Record the next ``steps`` steps, in memory that is taken now; 0 ends it and frees what
        was recorded."""
        native.check(self._library.edge_profile_start(self._open(), steps))

    def phases(self, *, wanted: bool) -> list[Phase]:
        """Return what the workers do in a step, in order; ``wanted``: one that wants rows."""
        model, count = self._open(), ctypes.c_int32()
        phases = self._library.edge_profile_phases
        native.check(phases(model, wanted, None, 0, ctypes.byref(count)))
        table = (abi.Phase * count.value)()
        native.check(phases(model, wanted, table, count.value, ctypes.byref(count)))
        return [
            Phase(
                entry.work.decode(),
                bool(entry.barrier),
                tuple(entry.instructions[: entry.instruction_count]),
            )
            for entry in table
        ]

    def profiled_step(self, number: int) -> StepTimes:
        """Return step ``number`` of those recorded since `start_profile`."""
        model, step = self._open(), abi.ProfileStep()
        read = self._library.edge_profile_read
        native.check(read(model, number, ctypes.byref(step), None, 0))
        stamps = np.empty((step.threads, step.phases, 2), np.int64)
        native.check(read(model, number, ctypes.byref(step), stamps.ctypes.data, stamps.size))
        return StepTimes(step.tokens, step.rows, step.begin, step.end, stamps)

    def close(self) -> None:
        """Free blocks and threads; the executor is unusable afterwards."""
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
