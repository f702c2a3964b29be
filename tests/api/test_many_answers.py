"""Lists of prompts, several answers, sampling options by name, and the asynchronous twins."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

import edge_llm
from edge_llm.api.prompts import jobs_of
from edge_llm.errors import ContextLengthError, RequestError
from edge_llm.runner.engine.constraints import AllowedSequences
from edge_llm.runner.generation.async_inbox import AsyncInbox
from edge_llm.runner.generation.loop import Generation, Job, Stream
from edge_llm.tokenizers.stream import TextDecoder

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
PROMPTS = ["Once upon a time", "The sky", "x"]
OPTIONS: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_tokens": 12, "ignore_eos": True}


def run(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(call())


def test_a_list_of_prompts_is_each_of_them(llm: edge_llm.LLM) -> None:
    alone = [llm.generate(prompt, **OPTIONS).token_ids for prompt in PROMPTS]
    together = llm.generate(PROMPTS, **OPTIONS)
    assert [answer.token_ids for answer in together] == alone
    ids = [llm.tokenizer.encode(prompt) for prompt in PROMPTS]
    for kind in (list, np.array):
        answers = llm.generate([kind(item) for item in ids], **OPTIONS)
        assert [answer.token_ids for answer in answers] == alone
    assert llm.generate(["x"], **OPTIONS)[0].token_ids == alone[2]


def test_several_answers_count_on_from_the_seed(llm: edge_llm.LLM) -> None:
    answers = llm.generate(PROMPTS[:2], n=3, **OPTIONS)
    assert len(answers) == 6
    for prompt, three in zip(PROMPTS, (answers[:3], answers[3:]), strict=False):
        for i, answer in enumerate(three):
            expected = llm.generate(prompt, **(OPTIONS | {"seed": 3 + i}))
            assert answer.token_ids == expected.token_ids
    assert len(llm.generate("x", n=1, **OPTIONS)) == 1
    assert len({answer.token_ids for answer in llm.chat(MESSAGES, n=3, **OPTIONS)}) == 3


def test_the_pieces_of_several_answers_say_whose_they_are(llm: edge_llm.LLM) -> None:
    whole = llm.generate(PROMPTS[:2], n=2, **OPTIONS)
    texts = ["", "", "", ""]
    for piece in llm.stream(PROMPTS[:2], n=2, **OPTIONS):
        texts[piece.choice] += piece.text
    assert texts == [answer.text for answer in whole]


def test_options_change_params(llm: edge_llm.LLM) -> None:
    params = llm.default_params(**OPTIONS)
    assert llm.generate("x", params).token_ids == llm.generate("x", **OPTIONS).token_ids
    assert len(llm.generate("x", params, max_tokens=3).token_ids) == 3
    assert len(llm.chat(MESSAGES, params, max_tokens=3).token_ids) == 3
    named: dict[str, Any] = {"max_completion_tokens": 3}
    assert len(llm.generate("x", params, **named).token_ids) == 3


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("x",), {"temprature": 1}, "'temprature'"),
    (("x",), {"enable_thinking": False}, "'enable_thinking'"),
    (("x", {"temperature": 1}), {}, "params is of type dict"),
    (("x",), {"n": 0}, "n is 0"),
    (("x",), {"n": 10**9}, "n is 1000000000"),
    (("x",), {"stop": b"end"}, "stop"),
    (("x",), {"stop": [str(i) for i in range(100_000)]}, "characters together"),
    (("x",), {"logit_bias": {"7": 1}}, "logit_bias"),
    ((b"bytes",), {}, "type bytes"),
    ((None,), {}, "type NoneType"),
    ((7,), {}, "type int"),
    (([1.5],), {}, "prompt"),
    (([1, "a"],), {}, "prompt"),
    (([True],), {}, "prompt"),
    (([[1], [2, True]],), {}, "prompt"),
    ((["a", 1],), {}, "type int"),
    (([],), {}, "no tokens"),
    (([[1], []],), {}, "no tokens"),
]


@pytest.mark.parametrize(("arguments", "options", "match"), WRONG)
def test_what_cannot_be_meant_is_a_typed_error_of_every_call(
    llm: edge_llm.LLM, arguments: tuple[Any, ...], options: dict[str, Any], match: str
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: llm.generate(*arguments, **options),
        lambda: llm.stream(*arguments, **options),
        lambda: run(lambda: llm.agenerate(*arguments, **options)),
        lambda: run(lambda: anext(llm.astream(*arguments, **options))),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(RequestError, match=match):
            call()
    llm.generate("x", max_tokens=1)  # after which the engine has seen what was cancelled
    assert llm.stats().running == llm.stats().waiting == 0


def test_options_of_a_chat_are_known_too(llm: edge_llm.LLM) -> None:
    wrong: dict[str, Any] = {"enable_thinkin": False}
    with pytest.raises(RequestError, match="enable_thinkin"):
        llm.chat(MESSAGES, **wrong)
    with pytest.raises(RequestError, match="enable_thinkin"):
        run(lambda: llm.achat(MESSAGES, **wrong))


@pytest.mark.parametrize(
    ("messages", "options", "match"),
    [
        (None, {}, "type NoneType"),
        ("hi", {}, "type str"),
        (5, {}, "type int"),
        (MESSAGES, {"chat_template_kwargs": [1]}, "a mapping"),
        (MESSAGES, {"chat_template_kwargs": {1: 1}}, "a mapping"),
        (MESSAGES, {"chat_template_kwargs": {"tools": []}}, "cannot set tools"),
        (MESSAGES, {"chat_template_kwargs": {"messages": []}}, "cannot set messages"),
    ],
)
def test_conversations_of_wrong_types_are_typed_errors(
    llm: edge_llm.LLM, messages: Any, options: dict[str, Any], match: str
) -> None:
    for call in (
        lambda: llm.chat(messages, **options),
        lambda: run(lambda: llm.achat(messages, **options)),
    ):
        with pytest.raises(RequestError, match=match):
            call()


def test_other_calls_with_wrong_types_are_typed_errors(llm: edge_llm.LLM) -> None:
    wrong: Any = None
    calls: list[Callable[[], Any]] = [
        lambda: llm.logits(wrong),
        lambda: llm.logits("abc"),  # type: ignore[arg-type]
        lambda: llm.logits([1, 2], chunk="x"),  # type: ignore[arg-type]
        lambda: llm.logits([1, 2], chunk=1.0),  # type: ignore[arg-type]
        lambda: llm.prompt_logprobs([1, 2], top="x"),  # type: ignore[arg-type]
        lambda: llm.submit(wrong, None, print),
        lambda: llm.submit([1], {"temperature": 0}, print),  # type: ignore[arg-type]
        lambda: llm.default_params(foo=1),
    ]
    for call in calls:
        with pytest.raises(RequestError):
            call()


def test_a_prompt_without_end_is_too_long(llm: edge_llm.LLM) -> None:
    with pytest.raises(ContextLengthError, match="256"):
        llm.generate(itertools.repeat(1))


def test_one_refused_prompt_refuses_all(llm: edge_llm.LLM) -> None:
    with pytest.raises(ContextLengthError):
        llm.stream([[1], [1] * 256], **OPTIONS)
    llm.logits([1])  # a step later
    assert (llm.stats().running, llm.stats().waiting) == (0, 0)


def test_a_stream_that_is_let_go_ends(llm: edge_llm.LLM) -> None:
    stream = llm.stream(PROMPTS, max_tokens=200, ignore_eos=True)
    next(stream)
    del stream
    gc.collect()
    llm.logits([1])
    assert (llm.stats().running, llm.stats().waiting) == (0, 0)
    with llm.stream("x", max_tokens=200, ignore_eos=True) as closed:
        next(closed)
    assert list(closed) == []


# ---- asynchronous twins ----


def test_asynchronous_answers_are_the_same(llm: edge_llm.LLM) -> None:
    async def calls() -> list[Any]:
        pieces = [piece.text async for piece in llm.astream("x", **OPTIONS)]
        chat = [piece.text async for piece in llm.achat(MESSAGES, stream=True, **OPTIONS)]
        return [
            "".join(pieces),
            "".join(chat),
            *await asyncio.gather(
                llm.agenerate("x", **OPTIONS),
                llm.agenerate(PROMPTS, **OPTIONS),
                llm.achat(MESSAGES, **OPTIONS),
                llm.achat(MESSAGES, n=2, **OPTIONS),
            ),
        ]

    text, chat, one, several, answer, two = run(calls)
    assert text == one.text == llm.generate("x", **OPTIONS).text
    assert [a.text for a in several] == [a.text for a in llm.generate(PROMPTS, **OPTIONS)]
    assert chat == answer.text == two[0].text == llm.chat(MESSAGES, **OPTIONS).text


async def idle(llm: edge_llm.LLM) -> None:
    while llm.stats().running or llm.stats().waiting:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("twin", ["agenerate", "astream", "achat"])
def test_cancelling_the_task_frees_its_blocks(llm: edge_llm.LLM, twin: str) -> None:
    long: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True}

    async def read() -> None:
        if twin == "astream":
            async for _ in llm.astream(PROMPTS, **long):
                pass
        elif twin == "achat":
            await llm.achat(MESSAGES, n=3, **long)
        else:
            await llm.agenerate(PROMPTS, **long)

    async def cancel() -> None:
        task = asyncio.create_task(read())
        while not llm.stats().running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await idle(llm)

    run(cancel)
    stats = llm.stats()
    assert stats.steps < 200
    assert stats.blocks_free == stats.blocks


def test_leaving_an_asynchronous_loop_cancels(llm: edge_llm.LLM) -> None:
    async def leave() -> None:
        pieces = llm.astream("x", max_tokens=200, ignore_eos=True)
        async for _ in pieces:
            break
        await pieces.aclose()
        await idle(llm)

    run(leave)
    assert llm.stats().steps < 200


def test_a_loop_that_closes_first_harms_nobody(llm: edge_llm.LLM) -> None:
    async def begin() -> Any:
        pieces = llm.astream("x", max_tokens=200, ignore_eos=True)
        await anext(pieces)
        return pieces

    loop = asyncio.new_event_loop()
    pieces = loop.run_until_complete(begin())
    loop.close()
    assert llm.generate("x", **OPTIONS).token_ids
    del pieces


def test_a_stream_blocks_without_a_loop(llm: edge_llm.LLM) -> None:
    stream = llm.stream("x", **OPTIONS)
    assert isinstance(stream, Stream)
    assert stream.completions()[0].text == llm.generate("x", **OPTIONS).text


def test_a_job_brings_what_it_may_say(llm: edge_llm.LLM) -> None:
    allowed = [(5, 6, 7), (5, 8)]
    ids = llm.tokenizer.encode("x")
    (end,) = llm.program.documents.generation.stop_ids[:1]
    jobs = [
        Job(
            ids,
            llm.default_params(temperature=2.0, seed=seed),
            TextDecoder(llm.tokenizer),
            constraint=AllowedSequences(allowed, end_ids=[end], vocab=llm.engine.facts.vocab),
        )
        for seed in range(8)
    ]
    answers = Stream(llm.submit, jobs).completions()
    assert {answer.token_ids for answer in answers} == set(allowed)


def test_a_generation_that_failed_has_ended(llm: edge_llm.LLM) -> None:
    async def check() -> None:
        jobs = jobs_of(llm.tokenizer, [[1, 2]], llm.default_params(**OPTIONS), 2)
        generation = Generation(llm.submit, jobs, AsyncInbox())
        generation.fail(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await generation.completions()
        assert await generation.next() is None

    asyncio.run(check())


def test_speculation_changes_no_piece(llm: edge_llm.LLM) -> None:
    prompt = "one two three one two three one two"
    plain = list(llm.stream(prompt, n=2, speculation="off", **OPTIONS))
    for speculation in ("ngram", "auto"):
        drafted = list(llm.stream(prompt, n=2, speculation=speculation, **OPTIONS))
        for choice in (0, 1):
            pieces = [(p.text, p.token_ids) for p in plain if p.choice == choice]
            assert [(p.text, p.token_ids) for p in drafted if p.choice == choice] == pieces
