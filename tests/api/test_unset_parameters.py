"""A sampling parameter that is left out is the model's own, wherever parameters are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import edge_llm
from edge_llm.errors import RequestError
from edge_llm.program.documents import GenerationDefaults
from edge_llm.runner.sampling import PARAMETERS, SamplingParams

OWN = {
    "temperature": 0.625,
    "top_k": 40,
    "top_p": 0.75,
    "min_p": 0.0625,
    "repetition_penalty": 1.25,
}
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
def llm(tiny_program: Callable[..., Path]) -> Iterator[edge_llm.LLM]:
    """A program whose authors recommend `OWN`."""
    with edge_llm.load(tiny_program("fp32")) as loaded:
        documents = loaded.program.documents
        generation = GenerationDefaults(documents.generation.stop_ids, **OWN)  # type: ignore[arg-type]
        loaded.program.documents = replace(documents, generation=generation)
        yield loaded


def sampled(llm: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch) -> list[SamplingParams]:
    """The parameters of what the engine is given from now on."""
    seen: list[SamplingParams] = []
    submit = llm.engine.submit

    def recorded(prompt, params, on_event, **options):  # type: ignore[no-untyped-def]
        seen.append(params)
        return submit(prompt, params, on_event, **options)

    monkeypatch.setattr(llm.engine, "submit", recorded)
    return seen


def test_the_table_says_which_are_recommended() -> None:
    assert {name for name, item in PARAMETERS.items() if item.recommended} == set(OWN)


def test_unset_is_the_models_own_in_every_call(
    llm: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = sampled(llm, monkeypatch)
    llm.generate("hi", SamplingParams(max_tokens=1))
    llm.generate("hi", max_tokens=1)
    llm.chat(MESSAGES, SamplingParams(max_tokens=1))
    llm.chat(MESSAGES, max_tokens=1)
    list(llm.stream("hi", SamplingParams(), max_tokens=1))
    assert len(seen) == 5
    for params in (*seen, llm.default_params()):
        assert {name: getattr(params, name) for name in OWN} == OWN


def test_what_is_given_is_obeyed_also_where_it_is_neutral(
    llm: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = sampled(llm, monkeypatch)
    neutral = {name: PARAMETERS[name].default for name in OWN}
    llm.generate("hi", SamplingParams(max_tokens=1, **neutral))
    llm.generate("hi", SamplingParams(max_tokens=1), **neutral)
    for params in seen:
        assert {name: getattr(params, name) for name in OWN} == neutral


def test_a_program_that_recommends_nothing_is_neutral(tiny_program: Callable[..., Path]) -> None:
    with edge_llm.load(tiny_program("fp32")) as loaded:
        documents = loaded.program.documents
        bare = GenerationDefaults(documents.generation.stop_ids)
        loaded.program.documents = replace(documents, generation=bare)
        params = loaded.default_params()
    assert {name: getattr(params, name) for name in OWN} == {
        name: PARAMETERS[name].default for name in OWN
    }


def test_what_was_left_out_shows() -> None:
    assert "temperature=the model's own" in repr(SamplingParams())
    assert "temperature=1.0" in repr(SamplingParams(temperature=1.0))


def test_a_chat_takes_sampling_by_name_and_refuses_what_it_does_not_know(
    llm: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = sampled(llm, monkeypatch)
    llm.chat(MESSAGES, temperature=0, max_tokens=4)
    assert (seen[0].temperature, seen[0].max_tokens) == (0.0, 4)
    with pytest.raises(RequestError, match="'stpo'") as caught:
        llm.chat(MESSAGES, temperature=0, max_tokens=4, stpo="x")  # type: ignore[call-overload]
    assert "did you mean stop?" in (caught.value.hint or "")
    with pytest.raises(RequestError, match="'stpo'"):
        asyncio.run(llm.achat(MESSAGES, stpo="x"))  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="'max_tokns'"):
        llm.generate("hi", max_tokns=4)  # type: ignore[call-overload]
