"""Messages of a chat are checked before the template sees them."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any

import pytest

import edge_llm
from edge_llm.errors import RequestError

USER = {"role": "user", "content": "Hi"}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}

WRONG: list[tuple[Any, str]] = [
    ("Hi", "messages are of type str, expected a list"),
    ([], "messages are empty, expected at least one"),
    (["Hi"], r"messages\[0\] is of type str, expected an object with role and content"),
    ([None], r"messages\[0\] is of type NoneType, expected an object"),
    ([[USER], [USER]], r"messages\[0\] is of type list, expected an object"),
    ([USER, {"content": "x"}], r"messages\[1\] has no role, expected one of: system, developer,"),
    ([{"role": "foo", "content": "x"}], r"messages\[0\]\.role is 'foo', expected one of: system"),
    ([{"role": "f" * 99, "content": "x"}], r"messages\[0\]\.role is 'f{36}\.\.\., expected one of"),
    ([{"role": 5, "content": "x"}], r"messages\[0\]\.role is of type int, expected one of"),
    ([{"role": "user"}], r"messages\[0\]\.content is missing, expected text or a list of parts$"),
    ([{"role": "user", "content": None}], r"messages\[0\]\.content is None, expected text"),
    ([{"role": "assistant"}], r"content is missing, expected .* or tool_calls beside it$"),
    ([{"role": "user", "content": 5}], r"messages\[0\]\.content is of type int, expected text or"),
    ([{"role": "user", "content": {"a": 1}}], r"content is of type dict, expected text or a list"),
    ([{"role": "user", "content": [5]}], r"content\[0\] is of type int, expected a part"),
    (
        [{"role": "user", "content": [{"type": "image_url"}]}],
        r"content\[0\]\.type is 'image_url', expected 'text'",
    ),
    ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\]\.text is of type NoneType"),
    ([{**CALL, "tool_calls": 5}], r"tool_calls is of type int, expected a list of calls"),
    ([{**CALL, "tool_calls": [5]}], r"tool_calls\[0\] is of type int, expected an object"),
    ([{**CALL, "tool_calls": [{}]}], r"tool_calls\[0\]\.function\.name is of type NoneType"),
    ([USER | {"tool_calls": CALL["tool_calls"]}], "tool_calls is only for messages of the assist"),
    ([USER | {"name": 5}], r"messages\[0\]\.name is of type int, expected text"),
]


@pytest.mark.parametrize(("messages", "problem"), WRONG, ids=lambda value: None)
def test_what_is_wrong_is_named_with_its_place(
    llm: edge_llm.LLM, messages: Any, problem: str
) -> None:
    with pytest.raises(RequestError, match=problem) as error:
        llm.chat(messages, max_tokens=1)
    assert (error.value.param or "").startswith("messages")
    with pytest.raises(RequestError, match=problem):
        llm.encode_chat(messages)


def test_every_form_of_a_chat_checks(llm: edge_llm.LLM) -> None:
    chats: Any = [[USER], [USER]]
    with pytest.raises(RequestError) as error:
        list(llm.chat(chats, stream=True))
    assert "one chat at a time" in str(error.value.hint)
    with pytest.raises(RequestError, match=r"messages\[0\]"):
        asyncio.run(llm.achat(chats))

    async def pieces() -> None:
        async for _ in llm.achat(chats, stream=True):
            pass

    with pytest.raises(RequestError, match=r"messages\[0\]"):
        asyncio.run(pieces())


def test_what_the_server_takes_is_taken(llm: edge_llm.LLM) -> None:
    class Role(StrEnum):
        USER = "user"

    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    plain = llm.encode_chat([USER])
    assert llm.encode_chat([{"role": "user", "content": parts}]) == plain
    assert llm.encode_chat(({"role": Role.USER, "content": "Hi"},)) == plain
    history = [
        {"role": "developer", "content": "Be brief"},
        USER,
        CALL,
        {"role": "tool", "content": None, "tool_call_id": "x"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "a", "tool_calls": [], "reasoning_content": None},
    ]
    assert llm.chat(history, max_tokens=1, ignore_eos=True).token_ids
