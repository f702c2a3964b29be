"""Answers of programs under grammars: a tiny one, and SmolLM2."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import edge_llm
from edge_llm.runner.generation.answer import Completion
from edge_llm.runner.generation.loop import Job, Stream
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.phases import Thinking
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.tokenizers.stream import TextDecoder

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
}


@pytest.fixture(scope="module")
def llm(tiny_program: Callable[..., Path]) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(tiny_program("fp32"), threads=1) as loaded:
        yield loaded


def guide_of(llm: edge_llm.LLM) -> Guide:
    facts = llm.engine.facts
    return Guide(lambda: Vocabulary.of(llm.tokenizer, size=facts.vocab, end_ids=facts.stop_ids))


def answers(
    llm: edge_llm.LLM, prompt: str, make: Callable[[], Any], count: int, **options: Any
) -> list[Completion]:
    """Return answers to one prompt, each under a constraint of its own."""
    ids = llm.tokenizer.encode(prompt, specials=True)
    jobs = [
        Job(
            ids,
            llm.default_params(max_tokens=200, seed=seed, **options),
            TextDecoder(llm.tokenizer),
            constraint=make(),
        )
        for seed in range(count)
    ]
    return Stream(llm.submit, jobs).completions()


@pytest.mark.parametrize("speculation", ["off", "ngram"])
def test_answers_are_valid(llm: edge_llm.LLM, speculation: str) -> None:
    guide, grammar = guide_of(llm), Grammar.json_schema(SCHEMA)
    whole = 0
    for answer in answers(
        llm, "x", lambda: guide.constraint(grammar), 8, temperature=1.0, speculation=speculation
    ):
        if answer.finish_reason == "stop":
            jsonschema.validate(json.loads(answer.text), SCHEMA)
            whole += 1
    assert whole


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_smollm2_writes_what_it_is_asked_for(smollm2_8da4w: Path, temperature: float) -> None:
    prompt = (
        "<|im_start|>user\nDescribe a pet as JSON with name, age and kind.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    with edge_llm.load(smollm2_8da4w) as llm:
        guide, grammar = guide_of(llm), Grammar.json_schema(SCHEMA)
        for answer in answers(
            llm, prompt, lambda: guide.constraint(grammar), 4, temperature=temperature
        ):
            assert answer.finish_reason == "stop"
            jsonschema.validate(json.loads(answer.text), SCHEMA)
            assert answer.stats.accepted_tokens > 3  # what the grammar forces is a draft
        then = guide.constraint(grammar)
        (answer,) = answers(
            llm,
            prompt + "<think>",
            lambda: Thinking(guide.vocabulary, b"</think>", budget=20, then=then, gap=b"\n"),
            1,
            temperature=temperature,
        )
        thought, _, said = answer.text.partition("</think>\n")
        assert len(llm.tokenizer.encode(thought)) <= 24
        jsonschema.validate(json.loads(said), SCHEMA)
