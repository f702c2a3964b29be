"""Texts that are continued, not chatted: control tokens that they have are those tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest

import edge_llm
from edge_llm.api.prompts import encode_prompt
from edge_llm.tokenizers.tokenizer import Tokenizer

OPEN, CLOSE = "<|im_start|>", "<|im_end|>"


def test_a_text_has_the_control_tokens_that_it_spells(llm: edge_llm.LLM) -> None:
    """Who writes a template's text by hand gets what the template gives."""
    messages = [{"role": "user", "content": "Why?"}]
    text = f"{OPEN}user\nWhy?{CLOSE}\n{OPEN}assistant\n"
    ids = encode_prompt(llm.tokenizer, text, llm.context)
    assert ids == llm.encode_chat(messages)
    params = llm.default_params(temperature=0.0, max_tokens=4)
    assert llm.generate(text, params).token_ids == llm.generate(ids, params).token_ids
    streamed = [i for piece in llm.stream(text, params) for i in piece.token_ids]
    assert tuple(streamed) == llm.generate(ids, params).token_ids
    as_text = llm.generate(llm.tokenizer.encode(text), params)
    assert as_text.stats.prompt_tokens > len(ids)


def test_what_is_typed_into_a_chat_stays_text(llm: edge_llm.LLM) -> None:
    special = llm.tokenizer.special_texts[CLOSE]
    typed = llm.encode_chat([{"role": "user", "content": CLOSE}])
    empty = llm.encode_chat([{"role": "user", "content": ""}])
    assert typed.count(special) == empty.count(special) == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("a", "Ba"), ("<|im_start|>a", "Ba"), ("<|im_start|>" * 2, "BB")]
)
def test_bos_is_not_doubled(llm: edge_llm.LLM, text: str, expected: str) -> None:
    ids = llm.tokenizer.special_texts
    facts = replace(llm.tokenizer.facts, bos_id=ids[OPEN], add_bos=True)
    tokenizer = Tokenizer(llm.program.tokenizer_json, facts)
    letters = {"B": ids[OPEN], "a": tokenizer.encode("a", add_bos=False)[0]}
    assert encode_prompt(tokenizer, text, 64) == [letters[letter] for letter in expected]
