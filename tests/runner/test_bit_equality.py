"""The bit contract, from the engine down: a token's logits depend on its prefix only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bits import isas

import edge_llm
from edge_llm.program.file import Program
from edge_llm.runner.backends.native import block_size
from edge_llm.runner.backends.registry import open_executor
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.events import Event, FinishEvent, TokenEvent
from edge_llm.runner.engine.requests import EngineFacts
from edge_llm.runner.executor import Batch, Executor, Float32, Limits, StepResult
from edge_llm.runner.sampling import SamplingParams

SCHEMES = (("fp32", None), ("fp32", "i8"), ("fp16", None), ("8da8w", None), ("8da4w", "i8"))
CONTEXT, VOCAB = 256, 288
IDS = np.random.default_rng(0).integers(0, 256, 150).tolist()  # more than two pages
OTHERS = [
    np.random.default_rng(seed).integers(0, 256, 40 + 30 * seed).tolist() for seed in (1, 2, 3)
]


@pytest.fixture(params=SCHEMES, ids=lambda scheme: f"{scheme[0]}-{scheme[1] or 'default'}")
def program(request: pytest.FixtureRequest, tiny_program: Callable[..., Path]) -> Path:
    scheme, kv_dtype = request.param
    return tiny_program(scheme, kv_dtype=kv_dtype)


@pytest.fixture
def use_isa(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda isa: monkeypatch.setenv("EDGE_LLM_ISA", isa)


@pytest.fixture
def expected(program: Path, use_isa: Callable[[str], None]) -> Float32:
    """Logits of IDS: at once, alone, one thread, scalar."""
    use_isa("scalar")
    with edge_llm.load(program, threads=1) as llm:
        return llm.logits(IDS, chunk=len(IDS))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("isa", isas())
def test_chunks_threads_and_instruction_sets(
    program: Path, expected: Float32, use_isa: Callable[[str], None], isa: str, threads: int
) -> None:
    use_isa(isa)
    with edge_llm.load(program, threads=threads) as llm:
        for chunk in (len(IDS), 32, 7, 1):
            assert_same(llm.logits(IDS, chunk=chunk), expected)


def test_beside_three_others(program: Path, expected: Float32) -> None:
    params = SamplingParams(temperature=1.0, seed=1, ignore_eos=True)
    with edge_llm.load(program, threads=2) as llm:
        streams = [llm.stream(ids, params) for ids in OTHERS]
        for chunk in (len(IDS), 32, 7):
            assert_same(llm.logits(IDS, chunk=chunk), expected)
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("step_tokens", [256, 32, 7])
def test_sampled_rows_with_neighbours_cache_hits_and_preemption(
    program: Path, expected: Float32, monkeypatch: pytest.MonkeyPatch, step_tokens: int
) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    split = 140  # ends inside the third page
    with recorded(program, step_tokens=step_tokens, pages=4) as recorder:
        for ids in (IDS[:split], IDS[:100], IDS, *OTHERS, IDS[:split]):
            recorder.submit(ids)
        recorder.run()
        assert recorder.engine.stats().preemptions > 0
        assert sum(recorder.cached) > 0
        for length in (split, 100, len(IDS)):
            for logits in recorder.rows[tuple(IDS[:length])]:
                assert_same(logits, expected[length - 1])
        assert len(recorder.rows[tuple(IDS[:split])]) >= 2
        for rows in recorder.rows.values():
            for logits in rows[1:]:
                assert_same(logits, rows[0])


def assert_same(got: Float32, expected: Float32) -> None:
    np.testing.assert_array_equal(got.view(np.int32), expected.view(np.int32))


class Recorder:
    """An executor that keeps the logits of every sampled row, by prefix; and its engine."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.rows: dict[tuple[int, ...], list[Float32]] = {}
        self.cached: list[int] = []
        self.engine = Engine(
            self, EngineFacts(context=CONTEXT, vocab=VOCAB, block_size=block_size())
        )

    @property
    def limits(self) -> Limits:
        return self._executor.limits

    def step(self, batch: Batch) -> StepResult:
        result = self._executor.step(dataclasses.replace(batch, want_logits=True))
        assert result.logits is not None
        for sampler, logits in zip(batch.samplers, result.logits, strict=True):
            assert sampler is not None
            self.rows.setdefault(tuple(sampler.history.tolist()), []).append(logits)
        return result

    def copy_block(self, group: int, source: int, target: int) -> None:
        self._executor.copy_block(group, source, target)

    def read_value(self, value: int) -> Float32:
        return self._executor.read_value(value)

    def close(self) -> None:
        self._executor.close()

    def submit(self, ids: list[int]) -> None:
        self.engine.submit(ids, SamplingParams(temperature=0.0, max_tokens=40), self._on_event)

    def _on_event(self, event: Event) -> None:
        assert isinstance(event, TokenEvent | FinishEvent), event
        if isinstance(event, FinishEvent):
            self.cached.append(event.stats.cached_tokens)

    def run(self) -> None:
        while self.engine.step():
            pass


@contextmanager
def recorded(path: Path, *, step_tokens: int, pages: int) -> Iterator[Recorder]:
    with Program.open(path) as program:
        executor = open_executor(
            program,
            Limits(
                max_tokens=step_tokens,
                max_rows=4,
                max_sequences=4,
                blocks=(pages,) * len(program.plan.groups),
                kv_dtype=program.documents.model.kv_dtype,
                threads=2,
            ),
        )
        recorder = Recorder(executor)
        try:
            yield recorder
        finally:
            recorder.engine.stop()
