"""Times a program file straight on the executor, greedy sampling included."""

from __future__ import annotations

from pathlib import Path

from worker import serve, timed, token_ids

import edge_llm
from edge_llm.native import isa
from edge_llm.program.file import Program
from edge_llm.runner.backends.registry import block_tables, blocks_of, open_executor
from edge_llm.runner.config import DEFAULT_STEP_TOKENS
from edge_llm.runner.executor import Batch, Limits, RowSampler, Segment
from edge_llm.runner.sampling import SamplingParams

GREEDY = RowSampler(SamplingParams(temperature=0))


class EdgeLlm:
    def __init__(self, path: str, threads: int, context: int) -> None:
        self._program = program = Program.open(Path(path))
        blocks = blocks_of(program.plan, context)
        self._executor = open_executor(
            program,
            Limits(
                max_tokens=DEFAULT_STEP_TOKENS,
                max_rows=1,
                max_sequences=1,
                blocks=blocks,
                kv_dtype=program.documents.model.kv_dtype,
                threads=threads,
            ),
        )
        self.version = f"{edge_llm.__version__} ({isa()})"
        self.vocab = program.plan.vocab
        self._tables = block_tables(blocks)
        self._held = 0

    def fill(self, depth: int) -> None:
        if depth > self._held:
            self._run(depth - self._held)
        self._held = depth

    def prefill(self, tokens: int) -> float:
        return timed(lambda: self._run(tokens))

    def decode(self, tokens: int) -> float:
        return timed(lambda: [self._run(1) for _ in range(tokens)])

    def greedy(self, ids: list[int]) -> int:
        self._held = 0
        return self._step(ids, sample=True)

    def _run(self, tokens: int) -> None:
        end = self._held + tokens
        while self._held < end:
            count = min(DEFAULT_STEP_TOKENS, end - self._held)
            ids = token_ids(self._held, count, self.vocab)
            self._step(ids, sample=self._held + count == end)

    def _step(self, ids: list[int], *, sample: bool) -> int:
        piece = Segment(ids, [GREEDY] if sample else [], self._held)
        batch = Batch.of(piece, block_tables=self._tables)
        result = self._executor.step(batch)
        self._held += len(ids)
        return int(result.ids[0]) if sample else -1


if __name__ == "__main__":
    serve(EdgeLlm)
