"""Histories of calls: OpenAI's shape, as each chat template takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from answers_read import TOOLS, offers

from edge_llm.tokenizers.chat.history import History, history_of
from edge_llm.tokenizers.chat.template import ChatTemplate

USER = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}


def call(identity: str, arguments: Any, name: str = "weather") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def turn(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def result(identity: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": content}


LOOP = [
    USER,
    turn(call("call_one", '{"city": "Köln"}'), call("call_two", '{"city": "Rom"}')),
    result("call_one", "12 degrees"),
    result("call_two", [{"type": "text", "text": "21 degrees"}]),
    {"role": "assistant", "content": "Warmer in Rome."},
    {"role": "user", "content": "Thanks"},
]


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("qwen2_5", History()),
        ("qwen3", History()),
        ("qwen3_5_think", History()),
        ("Qwen3-Coder", History()),
        ("gemma4_v5", History(developer=True)),
        ("glm4moe", History()),
        ("llama3_2", History(several=False)),
        ("mistral_v2v3", History(short_ids=True)),
        ("mistral_v3_tekken", History(short_ids=True)),
        ("mistralai-Ministral-3-14B-Reasoning-2512", History()),
        ("gptoss", History(several=False, both=False, developer=True)),
    ],
)
def test_two_calls_and_their_results(
    name: str, facts: History, chat_template_source: Callable[[str], str]
) -> None:
    source = chat_template_source(name)
    history = history_of(source)
    assert history == facts
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    text = template.render(history.prepared(LOOP), offers(TOOLS))
    places = [text.index(part) for part in ("ab", "Köln", "12 degrees", "21 degrees", "Warmer")]
    assert places == sorted(places)
    if not history.several:  # each result behind its call
        assert text.index("12 degrees") < text.index("Rom") < text.index("21 degrees")


@pytest.mark.parametrize("name", ["qwen3", "Qwen3-Coder", "llama3_2", "gemma4_v5", "gptoss"])
@pytest.mark.parametrize("arguments", ['{"city": "Kö', "[1]", "", "null", None, {"city": 1}])
def test_malformed_arguments_are_no_error(
    name: str, arguments: Any, chat_template_source: Callable[[str], str]
) -> None:
    source = chat_template_source(name)
    chat = [USER, turn(call("x", arguments)), result("x", None)]
    prepared = history_of(source).prepared(chat)
    text = ChatTemplate(source, bos="<s>", eos="</s>").render(prepared, offers(TOOLS))
    assert "weather" in text
    if isinstance(arguments, str):
        assert arguments.strip('{"') in text.replace("\\", "")


def test_what_becomes_of_messages() -> None:
    chat = [
        {"role": "developer", "content": "d"},
        *LOOP[:4],
        {"role": "assistant", "tool_calls": []},
    ]
    before = json.dumps(chat)
    prepared = History().prepared(chat)
    assert json.dumps(chat) == before
    assert prepared[0] == {"role": "system", "content": "d"}
    assert prepared[1]["content"] == "ab"
    assert prepared[2]["content"] == ""
    assert prepared[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Köln"}
    assert prepared[4]["name"] == "weather"
    assert prepared[4]["content"] == "21 degrees"
    assert prepared[5] == {"role": "assistant", "content": ""}
    assert History(developer=True).prepared(chat)[0]["role"] == "developer"


def test_short_ids() -> None:
    prepared = History(short_ids=True).prepared(LOOP)
    ids = [one["id"] for one in prepared[1]["tool_calls"]]
    assert [prepared[2]["tool_call_id"], prepared[3]["tool_call_id"]] == ids
    assert len(set(ids)) == 2
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    assert prepared == History(short_ids=True).prepared(LOOP)
    kept = History(short_ids=True).prepared([turn(call("abcdefgh1", {}))])
    assert kept[0]["tool_calls"][0]["id"] == "abcdefgh1"


def test_text_for_templates_that_write_it_as_it_is() -> None:
    source = (
        "{% for m in messages %}{{ m.role }}{% for c in m.tool_calls or [] %}"
        "{{ '<' + c.function.name + '>' + c.function.arguments }}{% endfor %}{% endfor %}"
        "{{ tools }}"
    )
    history = history_of(source)
    assert history == History(objects=False)
    prepared = history.prepared([turn(call("x", '{"a":1')), turn(call("y", {"b": 2}))])
    text = ChatTemplate(source, bos=None, eos=None).render(prepared)
    assert '<weather>{"a":1assistant<weather>{"b": 2}' in text


def test_thinking_and_content_beside_a_call() -> None:
    chat = [turn(call("x", "{}"), content="Say", reasoning_content="Think")]
    (message,) = History(both=False).prepared(chat)
    assert message["content"] == ""
    assert message["reasoning_content"] == "Think\n\nSay"
    assert History().prepared(chat)[0]["content"] == "Say"


def test_what_has_another_shape_is_left_alone() -> None:
    odd: list[Any] = [
        "text",
        {"role": "assistant", "content": {"a": 1}, "tool_calls": "x"},
        {"role": "tool", "content": [{"type": "image"}], "tool_call_id": 3},
        {"role": "assistant", "content": "", "tool_calls": [1, {"function": 2}]},
    ]
    for history in (History(), History(several=False, short_ids=True, both=False)):
        prepared = history.prepared(odd)
        assert prepared[0] == "text"
        assert prepared[2]["content"] == [{"type": "image"}]
