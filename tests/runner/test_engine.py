from __future__ import annotations

import logging
import random
import threading

import numpy as np
import pytest

from edge_llm.errors import (
    CapacityError,
    ContextLengthError,
    GenerationError,
    NativeError,
    RequestError,
)
from edge_llm.runner.config import SamplingParams
from edge_llm.runner.logits import collect_logits


def prompt(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(97), k=length)


# ---- the text of a request does not depend on anything but itself ----


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_together_is_as_alone(bench, temperature: float) -> None:
    together = bench()
    requests = [(prompt(i, 3 + 7 * i), 5 + i) for i in range(6)]
    options = {"temperature": temperature, "seed": 7}
    listeners = [together.submit(ids, count, **options)[0] for ids, count in requests]
    together.run()
    for listener, (ids, count) in zip(listeners, requests, strict=True):
        assert listener.ids == together.solo(ids, count, **options)
        assert len(listener.ids) == count
        assert listener.finish.reason == "length"
    assert max(len(batch.page_tables) for batch in together.executor.batches) == 4


def test_another_seed_is_another_text(bench) -> None:
    both = bench()
    first, _ = both.submit([1, 2, 3], 12, temperature=1.0, seed=1)
    second, _ = both.submit([1, 2, 3], 12, temperature=1.0, seed=2)
    both.run()
    assert first.ids != second.ids


def test_preempted_is_as_undisturbed(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_llm.runner.scheduler.RESERVE_TOKENS", 0)
    tight = bench(pages=10)
    requests = [(prompt(i, 6), 24) for i in range(4)]
    options = {"temperature": 1.0, "seed": 3}
    listeners = [tight.submit(ids, count, **options)[0] for ids, count in requests]
    tight.run()
    assert tight.engine.stats().preemptions > 0
    for listener, (ids, count) in zip(listeners, requests, strict=True):
        assert listener.ids == tight.solo(ids, count, **options)


def test_a_cache_hit_is_as_a_miss(bench) -> None:
    warm = bench()
    ids = prompt(1, 30)
    first, _ = warm.submit(ids, 10)
    warm.run()
    again, _ = warm.submit(ids, 10)
    warm.run()
    turn = [*ids, *first.ids, *prompt(2, 5)]
    longer, _ = warm.submit(turn, 10)
    warm.run()
    branch, _ = warm.submit([*ids[:21], 96, 96], 10)
    warm.run()
    assert first.ids == again.ids
    assert longer.ids == warm.solo(turn, 10)
    assert branch.ids == warm.solo([*ids[:21], 96, 96], 10)
    figures = [
        (item.finish.stats.cached_tokens, item.finish.stats.cache)
        for item in (first, again, longer, branch)
    ]
    # The last token of a prompt is always computed; the last of an answer never was.
    assert figures == [(0, "empty"), (29, "hit"), (39, "partial"), (21, "partial")]


def test_a_cached_page_that_makes_room_for_its_own_sequence_counts_as_evicted(bench) -> None:
    tight = bench(pages=2)
    tight.submit([1, 2, 3, 4, 5, 6], 2)
    tight.run()
    again, _ = tight.submit([1, 2, 3, 4, 5, 6], 2)
    tight.run()
    stats = again.finish.stats
    assert (stats.cached_tokens, stats.cache) == (4, "evicted")  # a copy would need a third page


def test_equal_prompts_at_once_share_their_pages(bench) -> None:
    shared = bench()
    ids = prompt(5, 40)
    listeners = [shared.submit(ids, 6, temperature=1.0, seed=seed)[0] for seed in range(3)]
    shared.run()
    assert [item.finish.stats.cached_tokens for item in listeners] == [0, 39, 39]
    assert [item.finish.stats.cache for item in listeners] == ["empty", "hit", "hit"]
    for seed, listener in enumerate(listeners):
        assert listener.ids == shared.solo(ids, 6, temperature=1.0, seed=seed)


def test_many_random_requests_in_few_pages(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_llm.runner.scheduler.RESERVE_TOKENS", 4)
    random_source = random.Random(0)
    busy = bench(pages=14, max_sequences=3, step_tokens=7)
    pending = []
    for number in range(40):
        ids = prompt(random_source.randrange(4), random_source.randrange(1, 30))
        count = random_source.randrange(1, 20)
        options = {"temperature": 1.0, "seed": number}
        listener, request = busy.submit(ids, count, **options)
        cancelled = random_source.random() < 0.2
        for _ in range(random_source.randrange(6)):
            busy.engine.step()
        if cancelled:
            request.cancel()
        pending.append((listener, ids, count, options, cancelled))
    busy.run()
    for listener, ids, count, options, cancelled in pending:
        expected = busy.solo(ids, count, **options)
        if cancelled:
            assert listener.ids == expected[: len(listener.ids)]
        else:
            assert listener.ids == expected


# ---- ends ----


def test_a_stop_id_ends_the_answer_and_is_no_part_of_it(bench) -> None:
    plain = bench().solo([1, 2, 3], 8)
    stopping = bench(stop_ids=(plain[3],))
    listener, _ = stopping.submit([1, 2, 3], 8)
    stopping.run()
    assert listener.ids == plain[:3]
    assert listener.finish.reason == "stop"
    assert listener.finish.stats.completion_tokens == 3


def test_a_stop_id_first_is_an_empty_answer(bench) -> None:
    plain = bench().solo([1, 2, 3], 1)
    stopping = bench(stop_ids=tuple(plain))
    listener, _ = stopping.submit([1, 2, 3], 8)
    stopping.run()
    assert listener.ids == []
    assert listener.finish.reason == "stop"


def test_ignore_eos_goes_on_past_stop_ids(bench) -> None:
    plain = bench().solo([1, 2, 3], 8)
    stopping = bench(stop_ids=(plain[3],))
    listener, _ = stopping.submit([1, 2, 3], 8, ignore_eos=True)
    stopping.run()
    assert listener.ids == plain
    assert listener.finish.reason == "length"


def test_own_stop_ids_take_the_place_of_the_programs(bench) -> None:
    plain = bench().solo([1, 2, 3], 8)
    stopping = bench(stop_ids=(plain[1],))
    listener, _ = stopping.submit([1, 2, 3], 8, stop_ids=(plain[4],))
    stopping.run()
    assert listener.ids == plain[:4]


def test_the_context_ends_an_answer(bench) -> None:
    small = bench(context=20)
    listener, _ = small.submit(prompt(1, 15), None)
    clipped, _ = small.submit(prompt(2, 15), 100)
    small.run()
    assert len(listener.ids) == len(clipped.ids) == 5
    assert listener.finish.reason == clipped.finish.reason == "length"


def test_few_pages_end_an_answer_without_a_given_length(bench) -> None:
    small = bench(pages=3)
    listener, _ = small.submit(prompt(1, 6), None)
    small.run()
    assert len(listener.ids) == 7  # twelve positions, and the last token needs none
    assert listener.finish.reason == "length"


# ---- refusals ----


def test_what_can_never_run_is_refused(bench) -> None:
    small = bench(pages=4, context=32)
    with pytest.raises(ContextLengthError) as raised:
        small.submit(prompt(1, 32))
    assert (raised.value.context, raised.value.prompt_tokens) == (32, 32)
    with pytest.raises(CapacityError, match="up to 18 tokens, the KV pages hold 17"):
        small.submit(prompt(1, 17), None)
    with pytest.raises(CapacityError):
        small.submit(prompt(1, 10), 12)
    with pytest.raises(RequestError, match="no tokens"):
        small.submit([])
    with pytest.raises(RequestError, match="token 1 of the prompt is outside the vocabulary of 97"):
        small.submit([96, 98])
    with pytest.raises(RequestError, match="logit_bias"):
        small.submit([1], logit_bias={97: 1.0})
    assert not small.engine.step()


# ---- cancellation ----


@pytest.mark.parametrize("phase", ["queued", "waiting", "prefill", "decode"])
def test_cancelled_in_any_phase(bench, phase: str) -> None:
    busy = bench(max_sequences=2)
    neighbour, _ = busy.submit(prompt(1, 5), 12)
    if phase in ("queued", "waiting"):
        busy.submit(prompt(2, 5), 12)
    listener, request = busy.submit(prompt(3, 40), 12)
    for _ in range({"queued": 0, "waiting": 2, "prefill": 2, "decode": 6}[phase]):
        busy.engine.step()
    assert bool(listener.ids) == (phase == "decode")
    request.cancel()
    tokens = len(listener.ids)
    busy.engine.step()
    assert listener.finish.reason == "cancelled"
    assert (listener.finish.stats.cache == "not used") == (phase in ("queued", "waiting"))
    assert len(listener.ids) == tokens
    request.cancel()
    busy.run()
    assert neighbour.ids == busy.solo(prompt(1, 5), 12)


def test_a_cancelled_step_keeps_what_it_computed_in_the_cache(bench) -> None:
    again = bench()
    _, request = again.submit(prompt(1, 40))
    again.engine.step()
    request.cancel()
    again.run()
    listener, _ = again.submit(prompt(1, 40))
    again.run()
    assert listener.finish.stats.cached_tokens == 16


# ---- failures ----


def test_non_finite_logits_end_one_sequence(bench) -> None:
    plain = bench().solo([1, 2, 3], 8)
    failing = bench()
    failing.executor.non_finite.add((1, 2, 3, *plain[:2]))
    listener, _ = failing.submit([1, 2, 3], 8)
    neighbour, _ = failing.submit([4, 5, 6], 8)
    failing.run()
    assert listener.ids == plain[:2]
    assert isinstance(listener.error, GenerationError)
    assert neighbour.ids == failing.solo([4, 5, 6], 8)


@pytest.mark.parametrize("failure", [NativeError("broken"), ValueError("broken")])
def test_a_failing_executor_ends_all_requests_and_not_the_engine(
    bench, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failing = bench(max_sequences=2)
    listeners = [failing.submit(prompt(i, 5))[0] for i in range(3)]
    failing.engine.step()

    def fail() -> None:
        failing.executor.before_step = lambda: None
        raise failure

    failing.executor.before_step = fail
    with caplog.at_level(logging.CRITICAL):
        failing.engine.step()
    kind = NativeError if isinstance(failure, NativeError) else GenerationError
    errors = [listener.error for listener in listeners]
    assert all(type(error) is kind and "broken" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == 3
    again, _ = failing.submit(prompt(1, 5))
    failing.run()
    assert again.ids == failing.solo(prompt(1, 5), 8)


def test_a_failing_callback_cancels_its_request_alone(
    bench, caplog: pytest.LogCaptureFixture
) -> None:
    failing = bench()
    neighbour, _ = failing.submit([4, 5, 6], 8)
    calls = []

    def callback(event: object) -> None:
        calls.append(event)
        raise RuntimeError("a bug in the caller")

    with caplog.at_level(logging.CRITICAL):
        failing.engine.submit([1, 2, 3], SamplingParams(max_tokens=50), callback)
        failing.run()
    assert len(calls) == 2  # one token, then the end
    assert neighbour.ids == failing.solo([4, 5, 6], 8)


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
    monkeypatch.setattr("edge_llm.runner.scheduler.RESERVE_TOKENS", 0)
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


# ---- statistics ----


def test_statistics_count_what_happened(bench) -> None:
    counted = bench()
    listener, _ = counted.submit(prompt(1, 20), 6, top_logprobs=0)
    counted.run()
    stats = listener.finish.stats
    assert (stats.prompt_tokens, stats.cached_tokens, stats.completion_tokens) == (20, 0, 6)
    assert 0 < stats.prefill_seconds <= stats.time_to_first_token
    assert stats.decode_tokens_per_second == pytest.approx(5 / stats.decode_seconds)
    assert stats.decode_gb_per_second > 0
    assert stats.as_dict()["completion_tokens"] == 6
    assert stats.as_dict()["cache"] == "empty"
    assert "20 prompt tokens (0 cached: empty)" in stats.summary()
    assert all(event.logprobs is not None for event in listener.events[:-1])


# ---- the thread ----


def test_the_thread_serves_many_callers(bench) -> None:
    served = bench()
    served.engine.start()
    answers: dict[int, list[int]] = {}

    def call(number: int) -> None:
        done = threading.Event()
        ids: list[int] = []

        def on_event(event: object) -> None:
            if hasattr(event, "id"):
                ids.append(event.id)
            else:
                done.set()

        served.engine.submit(
            prompt(number, 10), SamplingParams(temperature=0.0, max_tokens=9), on_event
        )
        done.wait()
        answers[number] = ids

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served.engine.stop()
    assert served.executor.closed
    for number, ids in answers.items():
        assert ids == served.solo(prompt(number, 10), 9)


def test_stop_ends_requests_with_an_error_and_refuses_more(bench) -> None:
    stopped = bench(context=100_000, pages=30_000)
    running = threading.Event()
    stopped.executor.before_step = running.set
    listener, _ = stopped.submit([1, 2, 3], None)
    stopped.engine.start()
    running.wait()
    stopped.engine.stop()
    stopped.engine.stop()
    assert isinstance(listener.error, GenerationError)
    with pytest.raises(GenerationError, match="stopped"):
        stopped.submit([1, 2, 3])


def test_stop_from_a_callback_does_not_hang(bench) -> None:
    stopped = bench()
    ended = threading.Event()

    def on_event(event: object) -> None:
        stopped.engine.stop()
        if not hasattr(event, "id"):
            ended.set()

    stopped.engine.submit([1, 2, 3], SamplingParams(), on_event)
    stopped.engine.start()
    ended.wait()
    stopped.engine.stop()
    assert stopped.executor.closed


def test_stop_without_a_thread_ends_requests_too(bench) -> None:
    stopped = bench()
    listener, _ = stopped.submit([1, 2, 3])
    stopped.engine.stop()
    assert isinstance(listener.error, GenerationError)
    assert stopped.executor.closed
