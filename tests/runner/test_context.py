"""What does not fit the context: prompts without their middle, and windows that move on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prompts import prompt

from edge_llm.errors import ConfigError, ContextLengthError
from edge_llm.runner.config import RunnerConfig
from edge_llm.runner.context import Context, ContextReport
from edge_llm.runner.sampling import SamplingParams

CONTEXT = 64


def test_a_prompt_keeps_beginning_and_end() -> None:
    context = Context(800, "truncate-middle")
    ids = list(range(5000))
    kept, report = context.cut(ids, 50)
    assert len(kept) <= 750
    dropped = 5000 - len(kept)
    assert report == ContextReport("truncate-middle", dropped_prompt_tokens=dropped)
    assert kept[:100] == ids[:100]
    assert kept[100:] == ids[100 + dropped :]


@pytest.mark.parametrize("max_tokens", [None, 1, 7, 10**9])
@pytest.mark.parametrize("length", [64, 65, 80, 1000])
def test_there_is_room_for_an_answer(length: int, max_tokens: int | None) -> None:
    context = Context(CONTEXT, "truncate-middle")
    kept, report = context.cut(range(length), max_tokens)
    room = min(CONTEXT // 4 if max_tokens is None else max_tokens, CONTEXT // 4)
    assert CONTEXT // 2 - 1 <= len(kept) <= CONTEXT - room
    assert report is not None


@pytest.mark.parametrize("context", range(2, 20))
def test_the_smallest_contexts(context: int) -> None:
    kept, _ = Context(context, "truncate-middle").cut(range(50), None)
    assert 0 < len(kept) < context
    assert kept[-1] == 49


def test_what_fits_is_left_alone() -> None:
    for policy, length, max_tokens in [
        ("truncate-middle", CONTEXT - 1, None),
        ("sliding-window", CONTEXT, 0),
        ("error", 10 * CONTEXT, None),
    ]:
        ids = range(length)
        assert Context(CONTEXT, policy).cut(ids, max_tokens) == (ids, None)  # type: ignore[arg-type]


def test_a_text_that_grows_loses_the_same_for_a_while() -> None:
    context, ids = Context(400, "truncate-middle"), list(range(2000))
    cuts = [context.cut(ids[:length], None)[1] for length in range(1000, 1100, 10)]
    dropped = [report.dropped_prompt_tokens for report in cuts if report is not None]
    assert len(dropped) == 10
    assert len(set(dropped)) <= 2


def slid(
    ids: list[int],
    count: int,
    after: Callable[[tuple[int, ...]], object],
    sampled: Callable[..., int],
    params: SamplingParams,
) -> tuple[list[int], int]:
    """Return the answer to a prompt in a window of CONTEXT tokens, and how often it moved."""
    held, answer, moves = list(ids), [], 0
    while len(answer) < count:
        token = sampled(after(tuple(held)), params, params.seed, len(answer))
        answer.append(token)
        held.append(token)
        if len(held) == CONTEXT and len(answer) < count:
            moves += 1
            del held[CONTEXT // 8 : CONTEXT // 8 + CONTEXT // 4]
    return answer, moves


@pytest.mark.parametrize("speculation", ["off", "ngram", "auto"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_window_reads_again_what_it_keeps(
    bench, expected_logits, sampled, temperature: float, speculation: str
) -> None:
    together = bench(context=CONTEXT, context_policy="sliding-window", pages=48)
    requests = [(prompt(i, 3 + 13 * i), 40 + 50 * i) for i in range(5)]
    options = {"temperature": temperature, "seed": 9, "speculation": speculation}
    listeners = [together.submit(ids, count, **options)[0] for ids, count in requests]
    together.run()
    params = SamplingParams(temperature=temperature, seed=9)
    for listener, (ids, count) in zip(listeners, requests, strict=True):
        expected, moves = slid(ids, count, expected_logits, sampled, params)
        assert listener.ids == expected
        assert listener.finish.reason == "length"
        stats = listener.finish.stats
        assert (stats.prompt_tokens, stats.completion_tokens) == (len(ids), count)
        assert stats.context == (
            ContextReport(
                "sliding-window",
                window_moves=moves,
                window_dropped_tokens=moves * CONTEXT // 4,
            )
            if moves
            else None
        )
        assert stats.max_tokens_clipped is None
    assert max(len(batch.block_tables[0]) for batch in together.executor.batches) > 2


def test_windows_move_in_few_blocks(bench, expected_logits, sampled, monkeypatch) -> None:
    monkeypatch.setattr("edge_llm.runner.engine.scheduler.RESERVE_TOKENS", 0)
    tight = bench(context=CONTEXT, context_policy="sliding-window", pages=20)
    requests = [(prompt(i, 20), 150) for i in range(4)]
    listeners = [tight.submit(ids, count)[0] for ids, count in requests]
    tight.run()
    assert tight.engine.stats().preemptions > 0
    params = SamplingParams(temperature=0.0, seed=0)
    for listener, (ids, count) in zip(listeners, requests, strict=True):
        assert listener.ids == slid(ids, count, expected_logits, sampled, params)[0]


def test_a_window_is_what_the_blocks_hold(bench) -> None:
    small = bench(context=CONTEXT, context_policy="sliding-window", pages=5)
    listener, _ = small.submit(prompt(1, 9), 100)
    small.run()
    assert len(listener.ids) == 100
    assert small.engine.prompt_context == Context(21, "sliding-window")


def test_an_answer_without_a_bound_ends(bench) -> None:
    sliding = bench(context=CONTEXT, context_policy="sliding-window")
    free, _ = sliding.submit(prompt(1, 30), None)
    most, _ = sliding.submit(prompt(2, 30), 10**6)
    sliding.run()
    assert len(free.ids) == CONTEXT
    assert len(most.ids) == most.finish.stats.max_tokens_clipped == 16 * CONTEXT


def test_a_stop_id_ends_an_answer_in_a_window(bench, expected_logits, sampled) -> None:
    params = SamplingParams(temperature=0.0, seed=0)
    answer, _ = slid(prompt(1, 30), 200, expected_logits, sampled, params)
    last = next(t for i, t in enumerate(answer) if i > 100 and t not in answer[:i])
    sliding = bench(context=CONTEXT, context_policy="sliding-window", stop_ids=(last,))
    listener, _ = sliding.submit(prompt(1, 30), 200)
    sliding.run()
    assert listener.ids == answer[: answer.index(last)]
    assert listener.finish.reason == "stop"


@pytest.mark.parametrize("policy", ["error", "truncate-middle"])
def test_other_answers_end_at_the_context(bench, policy: str) -> None:
    plain = bench(context=CONTEXT, context_policy=policy)
    listener, _ = plain.submit(prompt(1, 30), 100)
    plain.run()
    assert len(listener.ids) == CONTEXT - 30
    assert listener.finish.reason == "length"
    with pytest.raises(ContextLengthError):  # the engine cuts no prompt: it knows no messages
        plain.submit(prompt(1, CONTEXT), 1)


def test_the_policy_is_one_of_three() -> None:
    with pytest.raises(ConfigError, match=r"'middle', expected one of: error, truncate-middle"):
        RunnerConfig(context_policy="middle")  # type: ignore[arg-type]
