"""One sequence on one executor, for `bench` and whatever else measures speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from edge_llm.errors import RequestError
from edge_llm.program.file import Program
from edge_llm.runner.backends import native, registry
from edge_llm.runner.config import DEFAULT_STEP_TOKENS
from edge_llm.runner.engine.crew import Staff
from edge_llm.runner.executor import Batch, Limits, RowSampler, Segment
from edge_llm.runner.sampling import SamplingParams


@contextmanager
def loaded(path: Path, longest: int, threads: int, *, saver: bool = False) -> Iterator[Measure]:
    """Load a program with room for one sequence of ``longest`` tokens, on ``threads`` threads (0:
    the physical cores), or as `Power` has it where it saves power.

    Raises:
        RequestError: the program's context is shorter.
    """
    with Program.open(path, draft=False) as program:
        plan = program.plan
        if longest > plan.context:
            raise RequestError(
                f"depth plus tokens is {longest}, expected at most the context {plan.context}"
            )
        executor = registry.open_executor(
            program,
            Limits(
                max_tokens=longest if plan.bidirectional else DEFAULT_STEP_TOKENS,
                max_rows=1,
                max_sequences=1,
                blocks=registry.blocks_of(plan, longest),
                kv_dtype=program.documents.model.kv_dtype,
                threads=threads,
            ),
        )
        try:
            most = executor.limits.threads
            staff = Staff(max(1, most // 2), patient=True) if saver else Staff(most)
            yield Measure(program, cast(native.NativeExecutor, executor), staff)
        finally:
            executor.close()


class Measure:
    """One sequence on one executor; token ids repeat a fixed pseudo-random pattern.

    Attributes:
        plan: the program's plan.
        step_tokens: the tokens that a step computes at most.
        staff: who computes.
    """

    def __init__(self, program: Program, executor: native.NativeExecutor, staff: Staff) -> None:
        self.staff = staff
        self.plan = program.plan
        self.executor = executor
        self.step_tokens = executor.limits.max_tokens
        self._tables = registry.block_tables(executor.limits.blocks)
        self._size = program.documents.tokenizer.size
        self._greedy = SamplingParams(temperature=0)

    def fill(self, depth: int) -> None:
        """Put ``depth`` tokens into the cache."""
        for begin in range(0, depth, self.step_tokens):
            self._step(begin, min(self.step_tokens, depth - begin), sample=False)

    def prefill(self, tokens: int, depth: int) -> float:
        """Return the seconds to compute ``tokens`` tokens after ``depth`` cached ones, and to
        sample once."""
        start = time.perf_counter()
        for begin in range(0, tokens, self.step_tokens):
            count = min(self.step_tokens, tokens - begin)
            self._step(depth + begin, count, sample=begin + count == tokens)
        return time.perf_counter() - start

    def decode(self, tokens: int, depth: int) -> float:
        """Return the seconds to compute ``tokens`` tokens one by one after ``depth`` cached ones,
        sampling after each."""
        start = time.perf_counter()
        for index in range(tokens):
            self._step(depth + index, 1, sample=True)
        return time.perf_counter() - start

    def _step(self, begin: int, count: int, *, sample: bool) -> None:
        tokens = ((np.arange(begin, begin + count) * 7919 + 1) % self._size).tolist()
        samplers = [RowSampler(self._greedy)] if sample else []
        workers, patient = self.staff
        segment = Segment(tokens, samplers, begin)
        self.executor.step(
            Batch.of(segment, block_tables=self._tables, workers=workers, patient=patient)
        )
