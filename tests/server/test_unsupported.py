"""The closed list of options that change the answer and are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from edge_llm.server.openai.schemas import ChatRequest, CompletionRequest
from edge_llm.server.requests.unsupported import UNSUPPORTED

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
LEGACY = {"prompt": "hi"}
ROUTES = [
    ("/v1/chat/completions", CHAT, ChatRequest),
    ("/v1/completions", LEGACY, CompletionRequest),
]
# What a client would send.
ASKED: dict[str, Any] = {
    "add_generation_prompt": False,
    "chat_template_kwargs": {"enable_thinking": False},
    "choice": ["a"],
    "continue_final_message": True,
    "enable_thinking": False,
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "grammar": 'root ::= "a"',
    "guided_choice": ["a"],
    "guided_grammar": 'root ::= "a"',
    "guided_json": {},
    "guided_regex": "a",
    "json_schema": {},
    "reasoning_effort": "high",
    "regex": "a",
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a"},
    "thinking_budget": 5,
    "tool_calls": [{}],
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "allowed_token_ids": [1],
    "audio": {"voice": "a", "format": "wav"},
    "bad_words": ["x"],
    "cache_prompt": False,
    "chat_template": "{{ x }}",
    "documents": [{"text": "x"}],
    "dynatemp_range": 0.5,
    "early_stopping": True,
    "echo": True,
    "id_slot": 2,
    "length_penalty": 1.5,
    "logit_processors": ["x"],
    "logits_processors": ["x"],
    "lora": [{"id": 0, "scale": 0.5}],
    "mirostat": 2,
    "modalities": ["text", "audio"],
    "prediction": {"type": "content", "content": "x"},
    "prompt_logprobs": 1,
    "samplers": ["top_k"],
    "structural_tag": {},
    "suffix": "end",
    "truncate_prompt_tokens": 5,
    "use_beam_search": True,
    "web_search_options": {},
    "whitespace_pattern": " ?",
}


def test_every_entry_has_an_example() -> None:
    assert ASKED.keys() == UNSUPPORTED.keys()


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.parametrize(("path", "body", "kind"), ROUTES)
def test_an_option_that_is_refused(
    client: Any, model: Any, path: str, body: dict[str, Any], kind: Any, name: str
) -> None:
    if name in kind.model_fields:
        return  # obeyed: tests of their own
    response = client.post(path, json=body | {name: ASKED[name]})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == (
        "invalid_request_error",
        name,
        "unsupported_parameter",
    )
    assert not model.requests


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.parametrize(("path", "body", "kind"), ROUTES)
def test_a_value_that_asks_for_nothing(
    client: Any, path: str, body: dict[str, Any], kind: Any, name: str
) -> None:
    for value in UNSUPPORTED[name]:
        if name in kind.model_fields and name != "echo":
            continue
        response = client.post(path, json=body | {name: value})
        assert response.status_code == 200, response.text
        assert "x-edge-llm-ignored" not in response.headers
