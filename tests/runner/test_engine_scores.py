"""Results that need every position: log-probabilities of a prompt, and logits."""

from __future__ import annotations

import numpy as np
import pytest
from prompts import prompt

from edge_llm.errors import (
    CapacityError,
    ContextLengthError,
    GenerationError,
    NativeError,
    RequestError,
)
from edge_llm.runner.evaluation.logits import collect_logits

# ---- log-probabilities of a prompt ----


def expected_scores(expected_logits, ids: list[int]) -> list[float | None]:
    rows = [expected_logits(tuple(ids[:i])) for i in range(1, len(ids))]
    return [None, *(float(row[token]) for row, token in zip(rows, ids[1:], strict=True))]


def scores_of(listener) -> list[float | None]:
    return [None if item is None else item.logprob for item in listener.scores]


@pytest.mark.parametrize("max_rows", [16, 5])
def test_a_prompt_is_scored_beside_others_and_then_continued(
    bench, expected_logits, max_rows: int
) -> None:
    both = bench(max_rows=max_rows)
    neighbour, _ = both.submit(prompt(2, 9), 20)
    ids = prompt(1, 40)
    scored, _ = both.submit(ids, 10, prompt_logprobs=0)
    alone, _ = both.submit(ids, 0, prompt_logprobs=0)
    both.run()
    expected = expected_scores(expected_logits, ids)
    assert scores_of(scored) == scores_of(alone) == expected
    assert scored.ids == both.solo(ids, 10)
    assert alone.ids == []
    assert neighbour.ids == both.solo(prompt(2, 9), 20)
    stats = alone.finish.stats
    assert (alone.finish.reason, stats.completion_tokens, stats.prompt_tokens) == ("length", 0, 40)
    assert stats.prefill_seconds > 0
    assert all(batch.want_logits is False for batch in both.executor.batches)


def test_a_scored_prompt_fills_the_cache_but_needs_every_token(bench, expected_logits) -> None:
    warm = bench()
    ids = prompt(1, 30)
    listeners = []
    for options in ({"prompt_logprobs": 0}, {"prompt_logprobs": 0}, {}):
        listeners.append(warm.submit(ids, 4, **options)[0])
        warm.run()
    assert scores_of(listeners[1]) == expected_scores(expected_logits, ids)
    figures = [(item.finish.stats.cached_tokens, item.finish.stats.cache) for item in listeners]
    assert figures == [(0, "not used"), (0, "not used"), (29, "hit")]


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([(prompt(i, 18), 16) for i in range(3)], id="while it decodes"),
        pytest.param([*((prompt(i, 4), 16) for i in range(3)), (prompt(3, 24), 4)], id="before"),
    ],
)
def test_a_preempted_prompt_is_scored_once(
    bench, expected_logits, monkeypatch: pytest.MonkeyPatch, requests: list[tuple[list[int], int]]
) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    tight = bench(pages=12, step_tokens=5)
    listeners = [tight.submit(ids, count, prompt_logprobs=0)[0] for ids, count in requests]
    tight.run()
    assert tight.engine.stats().preemptions > 0
    for listener, (ids, count) in zip(listeners, requests, strict=True):
        assert scores_of(listener) == expected_scores(expected_logits, ids)
        assert listener.ids == tight.solo(ids, count)


def test_no_tokens_after_the_prompt(bench) -> None:
    small = bench(context=16)
    whole, _ = small.submit(prompt(1, 16), 0, prompt_logprobs=0)
    small.run()
    plain, _ = small.submit(prompt(1, 16), 0)
    small.run()
    assert len(whole.scores) == 16
    assert len(plain.events) == 1
    assert (plain.finish.reason, plain.finish.stats.cached_tokens) == ("length", 15)
    one, _ = small.submit([5], 0, prompt_logprobs=0)
    small.run()
    assert one.scores == (None,)
    with pytest.raises(ContextLengthError):
        small.submit(prompt(1, 17), 0, prompt_logprobs=0)
    with pytest.raises(ContextLengthError):
        small.submit(prompt(1, 16), 1, prompt_logprobs=0)


def test_a_scored_prompt_is_cancelled_between_steps(bench) -> None:
    cancelled = bench()
    listener, request = cancelled.submit(prompt(1, 40), 4, prompt_logprobs=0)
    cancelled.engine.step()
    request.cancel()
    cancelled.run()
    assert [type(event).__name__ for event in listener.events] == ["FinishEvent"]
    assert listener.finish.reason == "cancelled"


def test_non_finite_logits_inside_a_scored_prompt_end_it(bench) -> None:
    failing = bench()
    failing.executor.non_finite.add((1, 2))
    listener, _ = failing.submit([1, 2, 3, 4], 4, prompt_logprobs=0)
    neighbour, _ = failing.submit([4, 5, 6], 8)
    failing.run()
    assert isinstance(listener.error, GenerationError)
    assert len(listener.events) == 1
    assert neighbour.ids == failing.solo([4, 5, 6], 8)


# ---- logits ----


def test_logits_of_every_position_in_any_chunks(bench, expected_logits) -> None:
    ids = prompt(1, 30)
    expected = np.array([expected_logits(tuple(ids[: i + 1])) for i in range(30)])
    for chunk in (None, 1, 7, 16):
        engine = bench().engine
        engine.start()
        try:
            np.testing.assert_array_equal(collect_logits(engine, ids, chunk), expected)
        finally:
            engine.stop()


def test_logits_while_others_generate(bench, expected_logits) -> None:
    both = bench(max_rows=6)
    listener, _ = both.submit(prompt(2, 9), 20)
    both.engine.start()
    ids = prompt(1, 30)
    got = collect_logits(both.engine, np.array(ids))
    both.engine.stop()
    np.testing.assert_array_equal(got[-1], expected_logits(tuple(ids)))
    assert listener.ids == both.solo(prompt(2, 9), 20)[: len(listener.ids)]


def test_logits_that_cannot_be_had(bench) -> None:
    small = bench(pages=4, context=32, max_rows=8)
    small.engine.start()
    try:
        for chunk in (0, 9):
            with pytest.raises(RequestError, match="expected 1 to 8"):
                collect_logits(small.engine, [1, 2], chunk)
        with pytest.raises(ContextLengthError):
            collect_logits(small.engine, prompt(1, 33))
        with pytest.raises(CapacityError):
            collect_logits(small.engine, prompt(1, 17))

        def fail() -> None:
            raise NativeError("broken")

        small.executor.before_step = fail
        with pytest.raises(NativeError, match="broken"):
            collect_logits(small.engine, [1, 2])
    finally:
        small.engine.stop()
