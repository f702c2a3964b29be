"""Requests that run together: their texts, their ends, what is refused, cancellation."""

from __future__ import annotations

import random

import numpy as np
import pytest
from prompts import VOCAB, prompt

from edge_llm.errors import CapacityError, ContextLengthError, RequestError
from edge_llm.runner.engine.constraints import AllowedSequences
from edge_llm.runner.engine.events import Event, FinishEvent, TokenEvent
from edge_llm.runner.sampling import SamplingParams

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
    assert max(len(batch.block_tables[0]) for batch in together.executor.batches) == 4


def test_another_seed_is_another_text(bench) -> None:
    both = bench()
    first, _ = both.submit([1, 2, 3], 12, temperature=1.0, seed=1)
    second, _ = both.submit([1, 2, 3], 12, temperature=1.0, seed=2)
    both.run()
    assert first.ids != second.ids


def test_preempted_is_as_undisturbed(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
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
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 4)
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


def test_more_stop_ids_join_the_programs(bench) -> None:
    plain = bench().solo([1, 2, 3], 8)
    for own, more in ((1, 4), (4, 1), (3, 2)):
        stopping = bench(stop_ids=(plain[own],))
        listener, _ = stopping.submit([1, 2, 3], 8, stop_token_ids=(plain[more],))
        stopping.run()
        assert (listener.ids, listener.finish.reason) == (plain[: min(own, more)], "stop")
    stopping = bench(stop_ids=(plain[1],))
    listener, _ = stopping.submit([1, 2, 3], 8, stop_token_ids=(plain[4],), ignore_eos=True)
    stopping.run()
    assert listener.ids == plain[:4]  # what was asked for by name still ends it
    for token in (VOCAB, -1):
        with pytest.raises(RequestError, match="stop_token_ids"):
            bench().submit([1], 8, stop_token_ids=(token,))


@pytest.mark.parametrize("speculation", ["off", "ngram", "auto"])
def test_nothing_ends_an_answer_before_min_tokens(bench, speculation: str) -> None:
    options = {"speculation": speculation}
    plain = bench().solo([1, 2, 3], 12)
    ends = tuple(plain[2:4])
    for least in range(13):
        stopping = bench(stop_ids=ends)
        listener, _ = stopping.submit([1, 2, 3], 12, min_tokens=least, **options)
        stopping.run()
        said = listener.ids
        assert not set(said[:least]) & set(ends)
        assert len(said) >= least
        assert said[:2] == plain[:2]
        again, _ = stopping.submit([1, 2, 3], 12, min_tokens=least, ignore_eos=True)
        stopping.run()
        assert again.ids == plain


@pytest.mark.parametrize("least", [0, 2, 3, 5])
def test_a_constraint_that_allows_nothing_but_the_end_ends_the_answer(bench, least: int) -> None:
    busy = bench(stop_ids=(7,))
    constraint = AllowedSequences([[1, 2], [1, 2, 3, 4]], end_ids=[7], vocab=VOCAB)
    params = SamplingParams(temperature=0.0, max_tokens=9, min_tokens=least)
    events: list[Event] = []
    busy.engine.submit([5], params, events.append, constraint=constraint)
    busy.run()
    *tokens, finish = events
    said = [event.id for event in tokens if isinstance(event, TokenEvent)]
    assert said in ([[1, 2], [1, 2, 3, 4]] if least < 3 else [[1, 2, 3, 4]])
    assert isinstance(finish, FinishEvent)
    assert finish.reason == "stop"


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


@pytest.mark.parametrize(
    ("asked", "given", "clipped"),
    [(None, 7, None), (5, 5, None), (7, 7, None), (8, 7, 7), (99, 7, 7)],
)
def test_an_answer_has_what_there_is_room_for(bench, asked, given, clipped) -> None:
    small = bench(pages=4, context=32)  # sixteen positions
    listener, _ = small.submit(prompt(1, 10), asked)
    small.run()
    assert len(listener.ids) == given
    assert listener.finish.stats.max_tokens_clipped == clipped
    tight = bench(context=16)
    listener, _ = tight.submit(prompt(1, 10), asked)
    tight.run()
    assert len(listener.ids) == min(given, 6)
    assert listener.finish.stats.max_tokens_clipped == (6 if (asked or 0) > 6 else None)


# ---- refusals ----


def test_what_can_never_run_is_refused(bench) -> None:
    small = bench(pages=4, context=32)
    with pytest.raises(ContextLengthError) as raised:
        small.submit(prompt(1, 32))
    assert (raised.value.context, raised.value.prompt_tokens) == (32, 32)
    with pytest.raises(CapacityError, match="up to 18 tokens, the KV blocks hold 17"):
        small.submit(prompt(1, 17), None)
    assert "an answer needs at least one more" in str(raised.value)
    with pytest.raises(RequestError, match="no tokens"):
        small.submit([])
    outside = "the token at position 1 of the prompt is {}, outside the vocabulary of 97"
    for token, shown in ((98, "98"), (-1, "-1"), (10**30, "a number of more than 64 bits")):
        with pytest.raises(RequestError, match=outside.format(shown)):
            small.submit([96, token])
    with pytest.raises(RequestError, match="logit_bias"):
        small.submit([1], logit_bias={97: 1.0})
    assert not small.engine.step()


@pytest.mark.parametrize("token", [1.5, 1.0, True, "1", None, np.float32(1), np.bool_(True)])
def test_what_is_no_whole_number_is_no_token(bench, token: object) -> None:
    with pytest.raises(
        RequestError, match=r"at position 1 of the prompt is a .*, expected a whole"
    ):
        bench().submit([3, token])


def test_integers_of_numpy_are_tokens(bench) -> None:
    assert bench().solo(np.array([1, 2, 3]), 4) == bench().solo([1, 2, 3], 4)


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
