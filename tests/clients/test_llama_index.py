"""llama-index over OpenAILike: chat, completion, streams, tools and structured prediction."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str
    people: int


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return "sun"


def model_of(server: Any, **options: Any) -> OpenAILike:
    return OpenAILike(
        model=server.model,
        api_base=server.openai,
        api_key="unused",
        max_retries=0,
        temperature=0,
        is_chat_model=True,
        is_function_calling_model=True,
        **options,
    )


@pytest.fixture(scope="module")
def small(real: Any) -> OpenAILike:
    return model_of(real, max_tokens=8)


@pytest.fixture(scope="module")
def knowing(scripted: Any) -> OpenAILike:
    return model_of(scripted)


def test_chat(small: OpenAILike) -> None:
    messages = [ChatMessage(role="system", content="Be short."), ChatMessage(content="Say hi.")]
    text = small.chat(messages).message.content
    streamed = [part.delta or "" for part in small.stream_chat(messages)]
    assert "".join(streamed) == text != ""
    assert asyncio.run(small.achat(messages)).message.content == text


def test_complete(small: OpenAILike) -> None:
    text = small.complete("One, two,").text
    assert text
    assert "".join(part.delta or "" for part in small.stream_complete("One, two,")) == text


def test_raw_completion(real: Any) -> None:
    raw = OpenAILike(
        model=real.model, api_base=real.openai, api_key="unused", max_tokens=4, temperature=0
    )
    assert raw.complete("One, two,").text


def test_tools(knowing: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(get_weather)
    reply = knowing.chat_with_tools([tool], user_msg="The weather in Bonn?")
    (call,) = knowing.get_tool_calls_from_response(reply)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Bonn"})
    result = knowing.predict_and_call([tool], user_msg="The weather in Bonn?")
    assert str(result) == "sun"


@pytest.mark.parametrize("native", [False, True])
def test_structured(scripted: Any, native: bool) -> None:
    model = model_of(scripted, should_use_structured_outputs=native)
    found = model.structured_predict(City, PromptTemplate("Tell me of Bonn."))
    assert found == City(name="Bonn", people=330_000)


def test_form(real: Any) -> None:
    model = model_of(real, should_use_structured_outputs=True, max_tokens=200)
    assert isinstance(model.structured_predict(City, PromptTemplate("A city.")), City)
