"""Functions of a request that change what is sampled from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import edge_llm
from edge_llm.errors import GenerationError, RequestError

Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def llm(tiny_program: Callable[..., Path]) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program("fp32")) as loaded:
        yield loaded


def same(tokens: Sequence[int], logits: Logits) -> Logits:
    return logits


def only(token: int) -> Callable[[Sequence[int], Logits], Logits]:
    def process(tokens: Sequence[int], logits: Logits) -> Logits:
        logits[:] = -np.inf
        logits[token] = 0.0
        return logits

    return process


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_one_that_changes_nothing_changes_nothing(llm: edge_llm.LLM, temperature: float) -> None:
    options = {"max_tokens": 24, "temperature": temperature, "seed": 3, "top_logprobs": 2}
    plain = llm.generate("hello there", **options)  # type: ignore[call-overload]
    processed = llm.generate("hello there", logits_processors=[same], **options)  # type: ignore[call-overload]
    assert processed.token_ids == plain.token_ids
    for ours, theirs in zip(processed.logprobs, plain.logprobs, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)


def test_they_see_the_tokens_and_decide(llm: edge_llm.LLM) -> None:
    seen: list[tuple[int, ...]] = []

    def watch(tokens: Sequence[int], logits: Logits) -> Logits:
        seen.append(tuple(tokens))
        return logits

    answer = llm.generate(
        [5, 6, 7], max_tokens=4, logits_processors=[only(65), watch, only(66)], temperature=0
    )
    assert answer.token_ids == (66,) * 4
    assert seen == [(5, 6, 7, *(66,) * length) for length in range(4)]


def test_a_form_holds_whatever_they_want(llm: edge_llm.LLM) -> None:
    answer = llm.chat(
        [{"role": "user", "content": "hi"}],
        choice=["yes", "no"],
        logits_processors=[lambda tokens, logits: -logits],
        max_tokens=20,
    )
    assert answer.text in ("yes", "no")


def test_neighbours_are_left_alone(llm: edge_llm.LLM) -> None:
    alone = llm.generate("abc", max_tokens=12, temperature=0)
    stream = llm.stream("abc", max_tokens=12, logits_processors=[only(66)], temperature=0)
    beside = llm.generate("abc", max_tokens=12, temperature=0)
    stream.close()
    assert beside.token_ids == alone.token_ids


def test_one_that_fails_ends_its_request_alone(
    llm: edge_llm.LLM, caplog: pytest.LogCaptureFixture
) -> None:
    mine = ZeroDivisionError("oh")

    def broken(tokens: Sequence[int], logits: Logits) -> Logits:
        raise mine

    with pytest.raises(GenerationError, match=r"logits processor failed: ZeroDivision") as failed:
        llm.generate("a", max_tokens=2, logits_processors=[broken])
    assert failed.value.__cause__ is mine
    assert not caplog.records  # it is the caller's, who gets it
    assert llm.generate("a", max_tokens=2, ignore_eos=True).token_ids


@pytest.mark.parametrize(
    ("process", "problem"),
    [
        (lambda logits: None, r"it returned None, expected logits of shape \[\d+\]"),
        (lambda logits: logits[:1], r"it returned logits of shape \[1\], expected logits of shape"),
        (lambda logits: logits * np.nan, "not finite after the request's logits processors"),
        (lambda logits: logits + np.inf, "not finite after the request's logits processors"),
        (lambda logits: np.full_like(logits, -np.inf), r"no token is left \(-inf for all .* after"),
    ],
)
def test_what_is_returned_is_checked(
    llm: edge_llm.LLM, process: Callable[[Logits], Logits], problem: str
) -> None:
    with pytest.raises(GenerationError, match=problem):
        llm.generate("a", max_tokens=2, logits_processors=[lambda t, logits: process(logits)])
    assert llm.generate("a", max_tokens=2, ignore_eos=True).token_ids


def test_one_that_asks_the_model_that_waits_for_it(llm: edge_llm.LLM) -> None:
    def asking(tokens: Sequence[int], logits: Logits) -> Logits:
        llm.generate("b", max_tokens=1)
        return logits

    with pytest.raises(GenerationError, match="asked the model that waits for it"):
        llm.generate("a", max_tokens=2, logits_processors=[asking])
    assert llm.generate("a", max_tokens=2, ignore_eos=True).token_ids


def test_what_cannot_be_had(llm: edge_llm.LLM) -> None:
    with pytest.raises(RequestError, match="together with speculation"):
        llm.generate("a", max_tokens=2, logits_processors=[same], speculation="ngram")
    for wrong in (same, [1], "x"):
        with pytest.raises(RequestError, match="expected a list of functions"):
            llm.generate("a", max_tokens=2, logits_processors=wrong)  # type: ignore[call-overload]


def test_one_that_fails_ends_its_own_request_alone(llm: edge_llm.LLM) -> None:
    def broken(tokens: Sequence[int], logits: Logits) -> Logits:
        if len(tokens) > 4:
            raise RuntimeError("mine")
        return logits

    params = edge_llm.SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
    alone = llm.generate([[5, 6, 7], [7, 6, 5]], params)
    streams = [
        llm.stream([5, 6, 7], params),
        llm.stream([8, 9], params, logits_processors=[broken]),
        llm.stream([7, 6, 5], params),
    ]
    with pytest.raises(GenerationError, match="logits processor failed"):
        list(streams[1])
    for stream, expected in zip((streams[0], streams[2]), alone, strict=True):
        assert stream.completions()[0].token_ids == expected.token_ids
