"""Texts of which a vector is wanted, among requests that generate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prompts import prompt

from edge_llm.errors import (
    CapacityError,
    ContextLengthError,
    GenerationError,
    ProgramError,
    RequestError,
)

Logits = Callable[[tuple[int, ...]], NDArray[np.float32]]


def pooled(text: list[int], pooling: str, expected_logits: Logits) -> NDArray[np.float64]:
    """The vector by its definition: the fake executor's hidden states are logits."""
    states = [
        expected_logits(tuple(text[: end + 1])).astype(np.float64) for end in range(len(text))
    ]
    if pooling == "last":
        return states[-1]
    total = np.zeros_like(states[0])
    for state in states:
        total = total + state
    return total / len(states)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vector_of_a_text_in_chunks(bench: Any, pooling: str, expected_logits: Logits) -> None:
    engine = bench(step_tokens=7)
    text = prompt(1, 40)
    listener, request = engine.embed(text, pooling)
    engine.run()
    assert request.prompt_tokens == 40
    assert np.array_equal(listener.vector, pooled(text, pooling, expected_logits))
    assert listener.finish.reason == "length"
    wanted = sum(len(batch.hidden_rows) for batch in engine.executor.batches)
    assert wanted == (1 if pooling == "last" else 40)
    assert not any(len(batch.rows) for batch in engine.executor.batches)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_texts_among_chats_are_as_alone(bench: Any, pooling: str, expected_logits: Logits) -> None:
    engine = bench(step_tokens=12, pages=96)
    chats = [(prompt(i, 9 + i), 20) for i in range(2)]
    listeners = [engine.submit(ids, count)[0] for ids, count in chats]
    texts = [prompt(10 + i, 5 + 6 * i) for i in range(5)]
    embedded = [engine.embed(text, pooling)[0] for text in texts]
    engine.run()
    for listener, (ids, count) in zip(listeners, chats, strict=True):
        assert listener.ids == engine.solo(ids, count)
    for listener, text in zip(embedded, texts, strict=True):
        assert np.array_equal(listener.vector, pooled(text, pooling, expected_logits))


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_preempted_text_is_as_undisturbed(
    bench: Any, pooling: str, expected_logits: Logits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    engine = bench(pages=12, step_tokens=5)
    chats = [engine.submit(prompt(i, 4), 24)[0] for i in range(2)]
    text = prompt(9, 30)
    listener, _ = engine.embed(text, pooling)
    engine.run()
    assert engine.engine.stats().preemptions > 0
    assert all(len(chat.ids) == 24 for chat in chats)
    assert np.array_equal(listener.vector, pooled(text, pooling, expected_logits))


def test_last_state_takes_its_prefix_from_the_cache(bench: Any, expected_logits: Logits) -> None:
    engine = bench()
    text = prompt(3, 30)
    engine.embed(text, "mean")
    engine.run()
    before = len(engine.executor.batches)
    last, _ = engine.embed([*text, 1], "last")
    engine.run()
    assert np.array_equal(last.vector, pooled([*text, 1], "last", expected_logits))
    assert sum(len(batch.tokens) for batch in engine.executor.batches[before:]) < 10
    mean, _ = engine.embed(text, "mean")  # needs every state, so nothing is taken
    engine.run()
    assert np.array_equal(mean.vector, pooled(text, "mean", expected_logits))
    assert mean.finish.stats.cached_tokens == 0


def test_cancelled_text_ends(bench: Any) -> None:
    engine = bench(step_tokens=4)
    listener, request = engine.embed(prompt(1, 30))
    engine.engine.step()
    request.cancel()
    engine.run()
    assert [type(event).__name__ for event in listener.events] == ["FinishEvent"]
    assert listener.finish.reason == "cancelled"


def test_states_that_are_not_finite_are_an_error(bench: Any, monkeypatch: Any) -> None:
    engine = bench()
    step = engine.executor.step

    def poisoned(batch: Any) -> Any:
        result = step(batch)
        return replace(result, hidden=np.full_like(result.hidden, np.nan))

    monkeypatch.setattr(engine.executor, "step", poisoned)
    listener, _ = engine.embed([1, 2, 3])
    engine.run()
    assert isinstance(listener.error, GenerationError)
    assert "not finite" in str(listener.error)


def test_what_cannot_be_embedded_is_refused(bench: Any) -> None:
    engine = bench(pages=4, context=64)
    with pytest.raises(ContextLengthError):
        engine.embed(prompt(1, 65))
    with pytest.raises(CapacityError):
        engine.embed(prompt(1, 17))
    with pytest.raises(RequestError, match="no tokens"):
        engine.embed([])
    with pytest.raises(RequestError, match="'cls', expected one of: last, mean"):
        engine.embed([1], "cls")
    engine.engine.facts = replace(engine.engine.facts, hidden_states=False)
    with pytest.raises(ProgramError, match="no method"):
        engine.embed([1])
