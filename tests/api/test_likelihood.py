"""Likelihoods of continuations against the logits of every position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edge_llm
from edge_llm.api.likelihood import log_likelihoods, rolling_log_likelihood, split
from edge_llm.errors import RequestError

CONTEXT = [3, 17, 90, 41, 5]


@pytest.fixture(scope="module")
def llm(tiny_program: Callable[..., Path]) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program("fp32"), threads=1, context=32) as loaded:
        yield loaded


def log_probabilities(llm: edge_llm.LLM, ids: list[int]) -> np.ndarray:
    logits = llm.logits(ids).astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("continuation", [[9], [9, 200], [77, 3, 3, 8]])
def test_against_logits(llm: edge_llm.LLM, continuation: list[int]) -> None:
    [(score, greedy)] = log_likelihoods(llm, CONTEXT, [continuation])
    ids = CONTEXT + continuation
    rows = log_probabilities(llm, ids)[len(CONTEXT) - 1 : -1]
    expected = sum(row[token] for row, token in zip(rows, continuation, strict=True))
    assert score == pytest.approx(expected, rel=1e-5)
    assert greedy == ([int(row.argmax()) for row in rows] == continuation)


def test_what_greedy_decoding_writes(llm: edge_llm.LLM) -> None:
    params = edge_llm.SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
    ids = list(llm.generate(CONTEXT, params).token_ids)
    other = [*ids[:2], (ids[2] + 1) % 250]
    found = log_likelihoods(llm, CONTEXT, [ids, ids[:1], other, [(ids[0] + 1) % 250]])
    assert [greedy for _, greedy in found] == [True, True, False, False]


def test_one_at_a_time_or_together(llm: edge_llm.LLM) -> None:
    several = [[9], [10], [11, 12], []]
    together = log_likelihoods(llm, CONTEXT, several)
    assert together == [log_likelihoods(llm, CONTEXT, [one])[0] for one in several]
    assert together[3] == (0.0, True)


def test_a_context_that_is_too_long_loses_its_beginning(llm: edge_llm.LLM) -> None:
    long = [(n * 37) % 250 for n in range(50)]
    assert log_likelihoods(llm, long, [[9], [9, 8]]) == [
        log_likelihoods(llm, long[-32:], [[9]])[0],
        log_likelihoods(llm, long[-30:], [[9, 8]])[0],
    ]


@pytest.mark.parametrize(("context", "continuation"), [([], [1]), ([1], [2] * 32)])
def test_what_cannot_be_scored(
    llm: edge_llm.LLM, context: list[int], continuation: list[int]
) -> None:
    with pytest.raises(RequestError, match="expected"):
        log_likelihoods(llm, context, [continuation])


def test_a_short_text_is_scored_whole(llm: edge_llm.LLM) -> None:
    text = [9, 8, 7]
    rows = log_probabilities(llm, [0, *text])
    expected = sum(rows[place][token] for place, token in enumerate(text))
    assert rolling_log_likelihood(llm, text, 0) == pytest.approx(expected, rel=1e-5)
    assert rolling_log_likelihood(llm, [], 0) == 0


def test_a_long_text_is_scored_in_windows(llm: edge_llm.LLM) -> None:
    text = [(n * 37) % 250 for n in range(31 + 31 + 5)]
    windows = [  # what is read, and how many tokens at its end are scored
        ([0, *text[:31]], 31),
        (text[30:62], 31),
        (text[35:67], 5),
    ]
    expected = 0.0
    for ids, count in windows:
        assert len(ids) == 32
        rows = log_probabilities(llm, ids)[-count - 1 : -1]
        expected += sum(row[token] for row, token in zip(rows, ids[-count:], strict=True))
    assert rolling_log_likelihood(llm, text, 0) == pytest.approx(expected, rel=1e-5)


def test_texts_are_cut_where_the_context_ends(llm: edge_llm.LLM) -> None:
    encode = llm.tokenizer.encode
    assert split(llm, "ab ", "cd", prefix=7) == (encode("ab"), encode("ab cd")[len(encode("ab")) :])
    assert split(llm, "", "cd", prefix=7) == ([7], encode("cd", add_bos=False))
    assert split(llm, "ab", "", prefix=7) == (encode("ab"), [])
