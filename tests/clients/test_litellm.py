"""litellm as a client, by its OpenAI-compatible providers and its responses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest
from pydantic import BaseModel

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class City(BaseModel):
    name: str
    people: int


def options(server: Any, text: str = "Say hi.", provider: str = "openai") -> dict[str, Any]:
    return {
        "model": f"{provider}/{server.model}",
        "api_base": server.openai,
        "api_key": "unused",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "num_retries": 0,
    }


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_completion(real: Any, provider: str) -> None:
    request = options(real, provider=provider) | {"max_tokens": 8}
    whole = litellm.completion(**request)
    text = "".join(
        part.choices[0].delta.content or "" for part in litellm.completion(**request, stream=True)
    )
    assert text == whole.choices[0].message.content != ""
    assert whole.usage.completion_tokens <= 8


def test_acompletion(real: Any) -> None:
    reply = asyncio.run(litellm.acompletion(**options(real), max_tokens=8))
    assert reply.choices[0].message.content


def test_text_completion(real: Any) -> None:
    request = {
        name: value for name, value in options(real).items() if name not in ("messages", "model")
    }
    reply = litellm.text_completion(
        model=f"text-completion-openai/{real.model}",
        prompt="One, two,",
        max_tokens=4,
        **request,
    )
    assert reply.choices[0].text


def test_structured(real: Any) -> None:
    reply = litellm.completion(
        **options(real, "Answer in JSON."), response_format=City, max_tokens=200
    )
    City.model_validate_json(reply.choices[0].message.content)


def test_tools(scripted: Any) -> None:
    request = options(scripted, "The weather in Bonn?") | {"tools": [TOOL]}
    message = litellm.completion(**request).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Bonn"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
    request["messages"] += [message.model_dump(), result]
    assert litellm.completion(**request).choices[0].message.content == "The result is sun."


def test_streamed_tools(scripted: Any) -> None:
    request = options(scripted, "The weather in Bonn and Ulm?") | {"tools": [TOOL]}
    chunks = list(litellm.completion(**request, stream=True))
    message = litellm.stream_chunk_builder(chunks).choices[0].message
    cities = [json.loads(call.function.arguments)["city"] for call in message.tool_calls]
    assert cities == ["Bonn", "Ulm"]


def test_thinking(scripted: Any) -> None:
    question = "The capital of France? Think step by step."
    message = litellm.completion(**options(scripted, question, "hosted_vllm")).choices[0].message
    assert message.content == "Paris"
    assert message.reasoning_content.strip() == "Let me see."


def test_responses(scripted: Any) -> None:
    reply = litellm.responses(
        model=f"openai/{scripted.model}",
        api_base=scripted.openai,
        api_key="unused",
        input="The capital of France?",
    )
    assert reply.output[0].content[0].text == "Paris"


def test_embedding(real: Any) -> None:
    reply = litellm.embedding(
        model=f"openai/{real.model}", api_base=real.openai, api_key="unused", input=["a cat"]
    )
    assert len(reply.data[0]["embedding"]) > 8


def test_errors(real: Any) -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**options(real) | {"model": "openai/no-such"})
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**options(real) | {"temperature": 3})
