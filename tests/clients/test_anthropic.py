"""The official Python client of Anthropic, and a coding client's session through it."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

TOOL: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
# As coding clients send them: marked for a cache, with more options than we have.
CODING: Any = [
    {
        "name": "Read",
        "description": "Reads a file.",
        "input_schema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {
                "file_path": {"type": "string"},
                "limit": {"type": "number"},
            },
            "required": ["file_path"],
            "additionalProperties": False,
        },
    },
    {
        "name": "Bash",
        "description": "Runs a command.",
        "input_schema": {
            "type": "object",
            "properties": {"script": {"type": "string"}},
            "required": ["script"],
        },
        "cache_control": {"type": "ephemeral"},
    },
]

# This version of the client has no parameter for it any more.
GREEDY: Any = {"extra_body": {"temperature": 0}}


class City(BaseModel):
    name: str
    people: int


def client_of(server: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def client(real: Any) -> anthropic.Anthropic:
    return client_of(real)


@pytest.fixture(scope="module")
def knowing(scripted: Any) -> anthropic.Anthropic:
    return client_of(scripted)


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


# --- form, on the small model --------------------------------------------------------------------


def test_messages(client: anthropic.Anthropic, real: Any) -> None:
    reply = client.messages.create(
        model=real.model, messages=ask("Say hi."), max_tokens=8, **GREEDY
    )
    (block,) = reply.content
    assert block.type == "text"
    assert block.text
    assert 0 < reply.usage.output_tokens <= 8
    assert reply._request_id
    assert reply.stop_reason in ("end_turn", "max_tokens")


def test_stream(client: anthropic.Anthropic, real: Any) -> None:
    request: Any = {
        "model": real.model,
        "messages": ask("Say hi."),
        "max_tokens": 8,
        **GREEDY,
        "system": [{"type": "text", "text": "Be brief."}],
    }
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert [block.text for block in whole.content if block.type == "text"] == [text]
    assert [block.to_dict() for block in final.content] == [whole.content[0].to_dict()]
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    kinds = [event.type for event in client.messages.create(**request, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-2:] == ["message_delta", "message_stop"]


async def _stream_text(url: str, **request: Any) -> str:
    async with (
        anthropic.AsyncAnthropic(base_url=url, api_key="unused", max_retries=0) as client,
        client.messages.stream(**request) as stream,
    ):
        return await stream.get_final_text()


def test_asynchronous_stream(real: Any) -> None:
    import asyncio

    text = asyncio.run(
        _stream_text(real.url, model=real.model, messages=ask("Say hi."), max_tokens=8)
    )
    assert text


def test_stop_sequence(client: anthropic.Anthropic, real: Any) -> None:
    request: Any = {"model": real.model, "messages": ask("Say hi."), **GREEDY}
    whole = client.messages.create(**request, max_tokens=12)
    assert whole.content[0].type == "text"
    stop = whole.content[0].text[-3:]
    cut = client.messages.create(**request, max_tokens=12, stop_sequences=["\0", stop])
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)


def test_prefill(client: anthropic.Anthropic, real: Any) -> None:
    begun: Any = [*ask("Count to five."), {"role": "assistant", "content": "1, 2,"}]
    reply = client.messages.create(model=real.model, messages=begun, max_tokens=8, **GREEDY)
    assert reply.content[0].type == "text"
    assert not reply.content[0].text.startswith("1, 2,")


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_tools(client: anthropic.Anthropic, real: Any, choice: Any) -> None:
    request: Any = {
        "model": real.model,
        "messages": ask("The weather in Bonn?"),
        "tools": [TOOL],
        "tool_choice": {**choice, "disable_parallel_tool_use": True},
        "max_tokens": 100,
        **GREEDY,
    }
    reply = client.messages.create(**request)
    assert reply.stop_reason == "tool_use"
    (call,) = [block for block in reply.content if block.type == "tool_use"]
    assert call.name == "get_weather"
    assert isinstance(call.input["city"], str)
    with client.messages.stream(**request) as stream:
        final = stream.get_final_message()
    (streamed,) = [block for block in final.content if block.type == "tool_use"]
    assert streamed.input == call.input


def test_parse(client: anthropic.Anthropic, real: Any) -> None:
    reply = client.messages.parse(
        model=real.model,
        messages=ask("Answer in JSON."),
        output_format=City,
        max_tokens=200,
        **GREEDY,
    )
    assert isinstance(reply.parsed_output, City)


def test_count_tokens(client: anthropic.Anthropic, real: Any) -> None:
    counted = client.messages.count_tokens(model=real.model, messages=ask("Say hi."))
    reply = client.messages.create(model=real.model, messages=ask("Say hi."), max_tokens=1)
    used = reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == used


def test_errors(client: anthropic.Anthropic, real: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="no such", messages=ask("hi"), max_tokens=1)
    assert missing.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(
            model=real.model, messages=ask("hi"), max_tokens=1, extra_body={"temperature": 2}
        )
    image: Any = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    with pytest.raises(anthropic.BadRequestError, match="'image' is not supported"):
        client.messages.create(
            model=real.model, messages=[{"role": "user", "content": [image]}], max_tokens=1
        )
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match="'web_search' are not supported"):
        client.messages.create(model=real.model, messages=ask("hi"), max_tokens=1, tools=[search])


# --- what a model knows, on the scripted one -----------------------------------------------------


def test_thinking(knowing: anthropic.Anthropic, scripted: Any) -> None:
    request: Any = {
        "model": scripted.model,
        "messages": ask("step by step: the capital of France?"),
        "max_tokens": 2000,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    thinking, text = knowing.messages.create(**request).content
    assert thinking.type == "thinking"
    assert "Let me see." in thinking.thinking
    assert thinking.signature
    assert text.type == "text"
    assert text.text.strip() == "Paris"
    with knowing.messages.stream(**request) as stream:
        streamed = stream.get_final_message().content
    assert [block.to_dict() for block in streamed] == [thinking.to_dict(), text.to_dict()]


def test_a_loop_of_calls(knowing: anthropic.Anthropic, scripted: Any) -> None:
    messages = ask("The weather in Bonn and in Ulm?")
    request: Any = {"model": scripted.model, "max_tokens": 500, "tools": [TOOL]}
    first = knowing.messages.create(messages=messages, **request)
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Bonn"}, {"city": "Ulm"}]
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"{call.input['city']}: sun"}
        for call in calls
    ]
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    second = knowing.messages.create(messages=messages, **request)
    assert second.stop_reason == "end_turn"
    assert second.content[0].type == "text"
    assert "Bonn: sun, Ulm: sun" in second.content[0].text


def test_tool_runner(knowing: anthropic.Anthropic, scripted: Any) -> None:
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: its name.
        """
        return f"sun in {city}"

    runner = knowing.beta.messages.tool_runner(
        model=scripted.model,
        max_tokens=500,
        tools=[get_weather],
        messages=ask("The weather in Ulm?"),
    )
    final = runner.until_done()
    assert final.content[0].type == "text"
    assert "sun in Ulm" in final.content[0].text


def test_a_coding_clients_session(knowing: anthropic.Anthropic, scripted: Any) -> None:
    """Two turns in the form in which coding clients speak: streamed, with blocks of the system
    prompt marked for a cache, reminders beside the question, thinking sent back, results in
    blocks."""
    marked = {"cache_control": {"type": "ephemeral"}}
    request: Any = {
        "model": scripted.model,
        "max_tokens": 8000,
        "system": [
            {"type": "text", "text": "You are a coding assistant."},
            {"type": "text", "text": "Use the tools.", **marked},
        ],
        "tools": CODING,
        "metadata": {"user_id": "somebody"},
        "thinking": {"type": "enabled", "budget_tokens": 4000},
    }
    messages: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>Be careful.</system-reminder>"},
                {"type": "text", "text": "step by step: what does the README say?", **marked},
            ],
        }
    ]
    assert knowing.beta.messages.count_tokens(
        **{name: request[name] for name in ("model", "system", "tools")}, messages=messages
    ).input_tokens
    betas = ["interleaved-thinking-2025-05-14"]
    with knowing.beta.messages.stream(**request, messages=messages, betas=betas) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    assert first.content[0].type == "thinking"
    (call,) = [block for block in first.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("Read", {"file_path": "README.md"})
    result = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": "1\t# Cats"}],
        **marked,
    }
    messages += [
        {"role": "assistant", "content": [block.to_dict() for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    with knowing.beta.messages.stream(**request, messages=messages, betas=betas) as stream:
        second = stream.get_final_message()
    assert second.stop_reason == "end_turn"
    assert "# Cats" in second.content[-1].text
