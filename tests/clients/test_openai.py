"""The official Python client, on every route that it has."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
# The same for responses.
FLAT: Any = {"type": "function", **TOOL["function"]}


class City(BaseModel):
    name: str
    people: int


class Mood(BaseModel):
    feeling: Literal["good", "bad"]
    score: int


def client_of(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.openai, api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def client(real: Any) -> openai.OpenAI:
    return client_of(real)


@pytest.fixture(scope="module")
def knowing(scripted: Any) -> openai.OpenAI:
    return client_of(scripted)


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


# --- form, on the small model --------------------------------------------------------------------


def test_models(client: openai.OpenAI, real: Any) -> None:
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id == real.model


def test_chat(client: openai.OpenAI, real: Any) -> None:
    reply = client.chat.completions.create(
        model=real.model, messages=ask("Say hi."), max_tokens=8, temperature=0
    )
    assert reply.choices[0].message.content
    assert reply.usage
    assert 0 < reply.usage.completion_tokens <= 8


def test_chat_stream(client: openai.OpenAI, real: Any) -> None:
    request: Any = {
        "model": real.model,
        "messages": ask("Say hi."),
        "max_tokens": 8,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**request)
    chunks = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    with client.chat.completions.stream(**request) as helper:
        streamed = [event.delta for event in helper if event.type == "content.delta"]
    assert "".join(streamed) == text


@pytest.mark.parametrize("kind", [City, Mood])
def test_chat_parse(client: openai.OpenAI, real: Any, kind: Any) -> None:
    reply = client.chat.completions.parse(
        model=real.model,
        messages=ask("Answer in JSON."),
        response_format=kind,
        temperature=0,
        max_tokens=200,
    )
    assert isinstance(reply.choices[0].message.parsed, kind)


@pytest.mark.parametrize("choice", ["required", "named"])
def test_chat_tools(client: openai.OpenAI, real: Any, choice: str) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    request: Any = {
        "model": real.model,
        "messages": ask("The weather in Bonn?"),
        "tools": [TOOL],
        "tool_choice": named if choice == "named" else choice,
        "parallel_tool_calls": False,
        "temperature": 0,
        "max_tokens": 100,
    }
    (call,) = client.chat.completions.create(**request).choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments)["city"], str)
    arguments, names = "", []
    for chunk in client.chat.completions.create(**request, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.index == 0
            assert delta.function
            names += [delta.function.name] if delta.function.name else []
            arguments += delta.function.arguments or ""
    assert (names, arguments) == (["get_weather"], call.function.arguments)


def test_completions(client: openai.OpenAI, real: Any) -> None:
    reply = client.completions.create(
        model=real.model, prompt=["One, two,", "A, B,"], max_tokens=4, temperature=0, logprobs=1
    )
    assert len(reply.choices) == 2
    assert reply.choices[0].logprobs
    parts = client.completions.create(
        model=real.model, prompt="One, two,", max_tokens=4, temperature=0, stream=True
    )
    assert "".join(part.choices[0].text for part in parts) == reply.choices[0].text


def test_embeddings(client: openai.OpenAI, real: Any) -> None:
    reply = client.embeddings.create(model=real.model, input=["a cat", "a dog"])
    assert len(reply.data) == 2
    assert len(reply.data[0].embedding) == len(reply.data[1].embedding) > 8


def test_responses(client: openai.OpenAI, real: Any) -> None:
    first = client.responses.create(
        model=real.model, input="Say hi.", max_output_tokens=8, temperature=0
    )
    assert first.output_text
    second = client.responses.create(
        model=real.model,
        input="Again.",
        previous_response_id=first.id,
        max_output_tokens=8,
        temperature=0,
    )
    assert second.usage
    assert first.usage
    assert second.usage.input_tokens > first.usage.input_tokens


def test_responses_stream(client: openai.OpenAI, real: Any) -> None:
    with client.responses.stream(
        model=real.model, input="Say hi.", max_output_tokens=64, temperature=0
    ) as helper:
        kinds = [event.type for event in helper]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")


def test_responses_parse(client: openai.OpenAI, real: Any) -> None:
    reply = client.responses.parse(
        model=real.model,
        input="Answer in JSON.",
        text_format=City,
        temperature=0,
        max_output_tokens=200,
    )
    assert isinstance(reply.output_parsed, City)


def test_responses_tools(client: openai.OpenAI, real: Any) -> None:
    reply = client.responses.create(
        model=real.model,
        input="The weather in Bonn?",
        tools=[FLAT],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
        max_output_tokens=100,
    )
    (call,) = [item for item in reply.output if item.type == "function_call"]
    assert isinstance(json.loads(call.arguments)["city"], str)


def test_errors(client: openai.OpenAI, real: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no such", messages=ask("hi"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=real.model, messages=ask("hi"), temperature=3)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as unfit:
        client.responses.create(
            model=real.model,
            input="hi",
            text={
                "format": {
                    "type": "json_schema",
                    "name": "a",
                    "schema": {"type": "object", "unevaluatedProperties": False},
                }
            },
        )
    assert unfit.value.code == "unsupported_value"


# --- what a model knows, on the scripted one ------------------------------------------------------


def test_a_tool_loop_in_chat(knowing: openai.OpenAI, scripted: Any) -> None:
    messages = ask("The weather in Bonn and in Ulm?")
    request: Any = {"model": scripted.model, "messages": messages, "tools": [TOOL]}
    reply = knowing.chat.completions.create(**request)
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason == "tool_calls"
    calls = message.tool_calls or []
    cities = [json.loads(call.function.arguments)["city"] for call in calls]  # type: ignore[union-attr]
    assert cities == ["Bonn", "Ulm"]
    messages.append(message.to_dict())
    for call, result in zip(calls, ("sun", "rain"), strict=True):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    final = knowing.chat.completions.create(**request)
    assert final.choices[0].message.content == "The result is sun, rain."


def test_one_call_at_a_time(knowing: openai.OpenAI, scripted: Any) -> None:
    reply = knowing.chat.completions.create(
        model=scripted.model,
        messages=ask("The weather in Bonn and in Ulm?"),
        tools=[TOOL],
        parallel_tool_calls=False,
    )
    assert len(reply.choices[0].message.tool_calls or ()) == 1


def test_a_tool_loop_in_responses(knowing: openai.OpenAI, scripted: Any) -> None:
    first = knowing.responses.create(
        model=scripted.model, input="The weather in Bonn?", tools=[FLAT]
    )
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Bonn"}
    second = knowing.responses.create(
        model=scripted.model,
        previous_response_id=first.id,
        tools=[FLAT],
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sun"}],
    )
    assert second.output_text == "The result is sun."


def test_parsed_knowledge(knowing: openai.OpenAI, scripted: Any) -> None:
    reply = knowing.responses.parse(
        model=scripted.model, input="Tell me of Bonn.", text_format=City
    )
    assert reply.output_parsed == City(name="Bonn", people=330_000)
    tool = openai.pydantic_function_tool(City)
    parsed = knowing.chat.completions.parse(
        model=scripted.model, messages=ask("Tell me of Bonn."), tools=[tool]
    )
    (call,) = parsed.choices[0].message.tool_calls or ()
    assert call.function.parsed_arguments == City(name="Bonn", people=330_000)


def test_thinking(knowing: openai.OpenAI, scripted: Any) -> None:
    question = "The capital of France? Think step by step."
    message = (
        knowing.chat.completions.create(model=scripted.model, messages=ask(question))
        .choices[0]
        .message
    )
    assert message.content == "Paris"
    assert message.to_dict()["reasoning_content"].strip() == "Let me see."
    reply = knowing.responses.create(
        model=scripted.model, input=question, reasoning={"summary": "auto"}
    )
    assert reply.output_text == "Paris"
    assert reply.output[0].type == "reasoning"
    assert reply.output[0].summary[0].text.strip() == "Let me see."
    assert reply.usage
    assert reply.usage.output_tokens_details.reasoning_tokens > 0
