"""A deterministic executor without arithmetic: its pages hold token ids, and the next token is a
hash of the prefix that it reads back from them, so that any mistake with pages changes the text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from prompts import VOCAB

from edge_llm.errors import NativeError
from edge_llm.runner.context import ContextPolicy
from edge_llm.runner.engine.engine import Engine
from edge_llm.runner.engine.events import (
    EmbeddingEvent,
    ErrorEvent,
    Event,
    FinishEvent,
    LogitsEvent,
    PromptEvent,
    TokenEvent,
)
from edge_llm.runner.engine.power import Power
from edge_llm.runner.engine.requests import EngineFacts, Request
from edge_llm.runner.executor import Batch, Float32, Limits, StepResult, TokenLogprobs
from edge_llm.runner.sampling import SamplingParams


class FakeExecutor:
    def __init__(
        self, limits: Limits, block_size: int = 4, windows: tuple[int, ...] = (0,)
    ) -> None:
        self.limits = limits
        self.windows = windows  # of the groups; the first has none
        self.pages = [np.full((count, block_size), -1, np.int32) for count in limits.blocks]
        self.block_size = block_size
        self.batches: list[Batch] = []
        self.before_step: Callable[[], None] = lambda: None
        self.non_finite: set[tuple[int, ...]] = set()  # prefixes whose logits are not finite
        self.closed = False

    def step(self, batch: Batch) -> StepResult:
        self.before_step()
        assert not self.closed
        assert len(batch.tokens) <= self.limits.max_tokens
        assert len(batch.rows) <= self.limits.max_rows
        assert len(batch.block_tables[0]) <= self.limits.max_sequences
        self.batches.append(batch)
        for token, position, sequence in zip(
            batch.tokens, batch.positions, batch.sequences, strict=True
        ):
            for pages, table in zip(self.pages, batch.block_tables, strict=True):
                page = table[sequence, position // self.block_size]
                assert page >= 0
                pages[page, position % self.block_size] = token
        ids, logprobs, errors, logits = [], [], [], []
        for row, sampler in zip(batch.rows, batch.samplers, strict=True):
            prefix = self._prefix(batch, int(row))
            values = logits_after(prefix)
            logits.append(values)
            errors.append("the logits are not finite" if prefix in self.non_finite else None)
            if sampler is None:
                ids.append(-1)
                logprobs.append(None)
                continue
            if sampler.target >= 0:
                ids.append(sampler.target)
                logprobs.append(TokenLogprobs(float(values[sampler.target]), ()))
                continue
            held = len(prefix) - sampler.prompt_length  # less than was sampled if a window moved
            assert sampler.counter >= held
            assert tuple(sampler.history) == prefix
            ids.append(
                sample(
                    permitted(values, sampler.allowed),
                    sampler.params,
                    sampler.seed,
                    sampler.counter,
                )
            )
            wanted = sampler.params.top_logprobs is not None
            logprobs.append(TokenLogprobs(float(values[ids[-1]]), ()) if wanted else None)
        return StepResult(
            np.array(ids, np.int32),
            logprobs,
            errors,
            np.array(logits, np.float32).reshape(-1, VOCAB) if batch.want_logits else None,
            self._hidden(batch) if len(batch.hidden_rows) else None,
        )

    def _hidden(self, batch: Batch) -> Float32:
        """Hidden states here are logits."""
        return np.stack([logits_after(self._prefix(batch, int(row))) for row in batch.hidden_rows])

    def _prefix(self, batch: Batch, row: int) -> tuple[int, ...]:
        end = int(batch.positions[row]) + 1
        count = -(-end // self.block_size)
        whole: list[int] = []
        for window, pages, tables in zip(self.windows, self.pages, batch.block_tables, strict=True):
            begin = max(end - window, 0) if window else 0
            first = begin // self.block_size  # what is before is not read
            table = tables[batch.sequences[row]][first:count]
            assert (table >= 0).all()
            read = pages[table].reshape(-1)[begin - first * self.block_size :][: end - begin]
            assert (read >= 0).all()  # nothing is read that was not written
            whole = whole or read.tolist()
            assert read.tolist() == whole[begin:]
        return tuple(whole)

    def copy_block(self, group: int, source: int, target: int) -> None:
        self.pages[group][target] = self.pages[group][source]

    def read_value(self, value: int) -> Float32:
        raise NativeError("nothing to read")

    def close(self) -> None:
        self.closed = True


def logits_after(prefix: tuple[int, ...]) -> Float32:
    digest = hashlib.sha256(np.array(prefix, np.int32).tobytes()).digest()
    return np.random.default_rng(list(digest)).standard_normal(VOCAB).astype(np.float32)


def permitted(logits: Float32, allowed: NDArray[np.uint32] | None) -> Float32:
    """The logits where only the ids of the bit mask ``allowed`` can be chosen."""
    if allowed is None:
        return logits
    bits = np.unpackbits(allowed.view(np.uint8), bitorder="little")[:VOCAB]
    return np.where(bits == 1, logits, np.float32(-np.inf))


def sample(logits: Float32, params: SamplingParams, seed: int, counter: int) -> int:
    if params.temperature == 0:
        return int(logits.argmax())
    noise = np.random.default_rng([seed, counter]).gumbel(size=VOCAB)
    return int((logits + params.temperature * noise).argmax())


class Listener:
    """Collects one request's events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        assert not self.ended, "an event after the last one"
        self.events.append(event)

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events if isinstance(event, TokenEvent)]

    @property
    def ended(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], FinishEvent | ErrorEvent)

    @property
    def finish(self) -> FinishEvent:
        assert isinstance(self.events[-1], FinishEvent), self.events[-1]
        return self.events[-1]

    @property
    def error(self) -> Exception:
        assert isinstance(self.events[-1], ErrorEvent), self.events[-1]
        return self.events[-1].error

    @property
    def scores(self) -> tuple[TokenLogprobs | None, ...]:
        """Return the scores of the prompt: one event, before any token."""
        first, *rest = self.events
        assert isinstance(first, PromptEvent)
        assert not any(isinstance(event, PromptEvent) for event in rest)
        return first.logprobs

    @property
    def vector(self) -> NDArray[np.float64]:
        """Return the vector of an embedding, which has one event before its end."""
        vector, end = self.events
        assert isinstance(vector, EmbeddingEvent)
        assert isinstance(end, FinishEvent)
        return vector.vector

    @property
    def logits(self) -> list[LogitsEvent]:
        return [event for event in self.events if isinstance(event, LogitsEvent)]


class Bench:
    """An engine over a fake executor, stepped by hand."""

    def __init__(
        self,
        *,
        pages: int | tuple[int, ...] = 64,
        windows: tuple[int, ...] = (0,),
        block_size: int = 4,
        max_sequences: int = 4,
        step_tokens: int = 16,
        max_rows: int | None = None,
        context: int = 128,
        stop_ids: tuple[int, ...] = (),
        context_policy: ContextPolicy = "error",
        threads: int = 0,
        power: Power | None = None,
    ) -> None:
        limits = Limits(
            max_tokens=step_tokens,
            max_rows=max_rows or step_tokens,
            max_sequences=max_sequences,
            blocks=(pages,) if isinstance(pages, int) else pages,
            kv_dtype="f16",
            threads=threads,
        )
        self.executor = FakeExecutor(limits, block_size, windows)
        self.engine = Engine(
            self.executor,
            EngineFacts(
                context=context,
                vocab=VOCAB,
                block_size=block_size,
                stop_ids=frozenset(stop_ids),
                read_bytes=lambda depths: 1000 + sum(depths),
                windows=windows,
                hidden_states=True,
                context_policy=context_policy,
            ),
            power=power,
        )

    def submit(
        self, prompt: list[int], max_tokens: int | None = 8, *, client: str = "", **params: object
    ) -> tuple[Listener, Request]:
        listener = Listener()
        request = self.engine.submit(
            prompt,
            SamplingParams(**{"temperature": 0.0, "max_tokens": max_tokens, **params}),
            listener,
            client=client,
        )
        return listener, request

    def embed(self, text: list[int], pooling: str = "mean") -> tuple[Listener, Request]:
        listener = Listener()
        return listener, self.engine.submit_embedding(text, pooling, listener)

    def run(self, steps: int = 10_000) -> None:
        """Steps until nothing is left to do."""
        for _ in range(steps):
            if not self.engine.step():
                stats = self.engine.stats()
                assert stats.running == stats.waiting == 0
                assert stats.blocks_free == stats.blocks, "pages leaked"
                return
        raise AssertionError(f"not done after {steps} steps")

    def solo(self, prompt: list[int], max_tokens: int, **params: object) -> list[int]:
        """Return what a request gives when it runs alone on a fresh engine with plenty of pages,
        without drafts."""
        bench = Bench(block_size=self.executor.block_size, context=self.engine.facts.context)
        listener, _ = bench.submit(prompt, max_tokens, speculation="off", **params)
        bench.run()
        return listener.ids


@pytest.fixture
def bench() -> type[Bench]:
    return Bench


@pytest.fixture
def vocab() -> int:
    return VOCAB


@pytest.fixture
def expected_logits() -> Callable[[tuple[int, ...]], Float32]:
    return logits_after


@pytest.fixture
def sampled() -> Callable[..., int]:
    return sample
