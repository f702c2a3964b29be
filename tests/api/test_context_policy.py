"""Chats and texts that are too long for the context, and what of them a model reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

import edge_llm
from edge_llm.api.chat import ChatCall
from edge_llm.errors import ConfigError, ContextLengthError
from edge_llm.runner.context import ContextReport

CONTEXT = 256
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}


@pytest.fixture(scope="module")
def cutting(tiny_program: Callable[..., Path]) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(
        tiny_program(), threads=1, context=CONTEXT, context_policy="truncate-middle"
    ) as llm:
        yield llm


def turns(count: int, size: int = 30) -> list[dict[str, Any]]:
    return [
        {"role": ("user", "assistant")[i % 2], "content": f"{i:3d} " + "word " * (size // 5)}
        for i in range(count)
    ]


def ids_of(llm: edge_llm.LLM, messages: list[dict[str, Any]]) -> list[int]:
    with edge_llm.load(llm.program.path, threads=1) as whole:
        return whole.encode_chat(messages)


def test_a_chat_loses_its_oldest_turns(cutting: edge_llm.LLM) -> None:
    system = {"role": "system", "content": "Be short."}
    history = turns(41)
    job, *_ = cutting.chat_jobs(ChatCall(messages=[system, *history]), cutting.default_params())
    assert job.report is not None
    dropped = job.report.dropped_messages
    assert dropped % 2 == 0  # whole turns
    kept = ids_of(cutting, [system, *history[dropped:]])
    assert list(job.prompt_ids) == kept
    whole = ids_of(cutting, [system, *history])
    assert job.report == ContextReport("truncate-middle", len(whole) - len(kept), dropped)
    # No turn less would have done: of the stride in which tokens go, one is left at most.
    assert CONTEXT // 2 - 40 < len(kept) <= CONTEXT - CONTEXT // 4


def test_a_growing_chat_loses_the_same_turns_for_a_while(cutting: edge_llm.LLM) -> None:
    dropped, cached = [], []
    for count in range(41, 55, 2):
        answer = cutting.chat(turns(count), None, **GREEDY)
        report = answer.stats.context
        assert report is not None
        dropped.append(report.dropped_messages)
        cached.append(answer.stats.cached_tokens)
    assert dropped == sorted(dropped)
    assert len(set(dropped)) < len(dropped) - 2
    again = [a for a, b, c in zip(cached[1:], dropped[1:], dropped, strict=False) if b == c]
    assert min(again) > CONTEXT // 3  # the prefix cache had what was read before


def test_the_last_message_alone_loses_its_middle(cutting: edge_llm.LLM) -> None:
    words = " ".join(f"w{i}" for i in range(2000))
    messages = [
        {"role": "system", "content": "Be short."},
        *turns(4),
        {"role": "user", "content": f"Begin. {words} End."},
    ]
    answer = cutting.chat(messages, None, **GREEDY)
    report = answer.stats.context
    assert report is not None
    assert report.dropped_messages == 4
    job, *_ = cutting.chat_jobs(ChatCall(messages=messages), cutting.default_params())
    text = cutting.tokenizer.decode(job.prompt_ids)
    assert "Be short." in text
    assert "Begin. w0 w1" in text
    assert "w1999 End." in text
    assert "w1000" not in text
    assert CONTEXT - CONTEXT // 4 - 40 < len(job.prompt_ids) <= CONTEXT - CONTEXT // 4


def test_parts_of_texts_and_answers_without_any(cutting: edge_llm.LLM) -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "x " * 3000}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "y " * 3000, "tool_call_id": "c1"},
    ]
    answer = cutting.chat(messages, None, **GREEDY)
    assert answer.stats.context is not None
    assert answer.stats.prompt_tokens < CONTEXT


def test_a_result_stays_with_its_call_where_no_user_speaks(cutting: edge_llm.LLM) -> None:
    call = {"id": "c1", "function": {"name": "the_call", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "assistant", "content": "old " * 300},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "one", "tool_call_id": "c1"},
        {"role": "tool", "content": "two", "tool_call_id": "c1"},
    ]
    job, *_ = cutting.chat_jobs(ChatCall(messages=messages), cutting.default_params())
    assert job.report is not None
    assert job.report.dropped_messages == 1
    assert "the_call" in cutting.tokenizer.decode(job.prompt_ids)


def test_what_cannot_be_cut_is_refused(cutting: edge_llm.LLM) -> None:
    many = [{"role": "user", "content": ""}] + [
        {"role": "assistant", "content": ""} for _ in range(2 * CONTEXT)
    ]
    with pytest.raises(ContextLengthError, match=f"length is {CONTEXT}"):
        cutting.chat(many, None, **GREEDY)


def test_a_text_loses_its_middle(cutting: edge_llm.LLM) -> None:
    ids = cutting.tokenizer.encode(" ".join(f"w{i}" for i in range(2000)))
    answer = cutting.generate(ids, **GREEDY)
    report = answer.stats.context
    assert report is not None
    assert report.dropped_messages == 0
    read = len(ids) - report.dropped_prompt_tokens
    assert answer.stats.prompt_tokens == read <= CONTEXT - 8
    kept = [*ids[: CONTEXT // 8], *ids[CONTEXT // 8 + report.dropped_prompt_tokens :]]
    assert cutting.generate(kept, **GREEDY).token_ids == answer.token_ids
    assert f"{report.dropped_prompt_tokens} prompt tokens left out" in answer.stats.summary()


def test_a_text_without_an_end_is_refused(
    cutting: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_llm.api.prompts._MOST_TOKENS", 5000)
    with pytest.raises(ContextLengthError, match="at least 5001 tokens"):
        cutting.generate(repeat(5), **GREEDY)


def test_what_fits_says_nothing(cutting: edge_llm.LLM) -> None:
    assert cutting.chat(turns(3), None, **GREEDY).stats.context is None
    assert cutting.generate("hello", **GREEDY).stats.context is None


def test_a_call_can_refuse_to_be_cut(cutting: edge_llm.LLM) -> None:
    with pytest.raises(ContextLengthError):
        cutting.chat_jobs(ChatCall(messages=turns(99), cut=False), cutting.default_params())


@pytest.mark.parametrize("speculation", ["off", "auto"])
def test_an_answer_goes_on_in_a_window(tiny_program: Callable[..., Path], speculation: str) -> None:
    options: dict[str, Any] = {
        "temperature": 0.8,
        "seed": 3,
        "ignore_eos": True,
        "speculation": speculation,
    }
    with edge_llm.load(
        tiny_program(), threads=1, context=128, context_policy="sliding-window"
    ) as llm:
        ids = llm.tokenizer.encode("hello world " * 5)
        answer = llm.generate(ids, max_tokens=300, **options)
        report = answer.stats.context
        assert report is not None
        assert report.window_moves == report.window_dropped_tokens // 32 > 2
        assert (len(answer.token_ids), answer.finish_reason) == (300, "length")
        # The greedy oracle: each part is the answer to what the window held.
        greedy = llm.generate(ids, max_tokens=300, **options | {"temperature": 0}).token_ids
        held, begin = list(ids), 0
        while begin < 300:
            count = min(128 - len(held), 300 - begin)
            part = llm.generate(held, max_tokens=count, **options | {"temperature": 0}).token_ids
            assert part == greedy[begin : begin + count]
            held += part
            del held[16:48]
            begin += count


def test_the_policy_is_checked(tiny_program: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="context_policy is 'cut', expected one of"):
        edge_llm.load(tiny_program(), context_policy="cut")
