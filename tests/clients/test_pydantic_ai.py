"""pydantic-ai: every output mode, streams, and a loop of tools, over chat and over responses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, TextOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.openai import OpenAIProvider

MODELS = [OpenAIChatModel, OpenAIResponsesModel]


class City(BaseModel):
    name: str
    people: int


def model_of(kind: Any, server: Any) -> Any:
    provider = OpenAIProvider(base_url=server.openai, api_key="unused")
    profile = ModelProfile(supports_json_schema_output=True, supports_json_object_output=True)
    return kind(server.model, provider=provider, profile=profile)


@pytest.fixture(params=MODELS, ids=lambda kind: kind.__name__)
def model(request: Any, scripted: Any) -> Any:
    return model_of(request.param, scripted)


@pytest.fixture(params=MODELS, ids=lambda kind: kind.__name__)
def small(request: Any, real: Any) -> Any:
    return model_of(request.param, real)


@pytest.mark.parametrize("mode", [ToolOutput, NativeOutput, PromptedOutput])
def test_knowledge(model: Any, mode: Any) -> None:
    agent = Agent(model, output_type=mode(City), retries=0)
    assert agent.run_sync("Tell me of Bonn.").output == City(name="Bonn", people=330_000)


def test_text(model: Any) -> None:
    def upper(text: str) -> str:
        return text.upper()

    agent = Agent(model, output_type=TextOutput(upper), instructions="Be short.")
    result = agent.run_sync("The capital of France?")
    assert result.output == "PARIS"
    assert result.usage.output_tokens > 0


@pytest.mark.parametrize("mode", [ToolOutput, NativeOutput])
def test_form(small: Any, mode: Any) -> None:
    agent = Agent(small, output_type=mode(City), retries=0)
    settings: Any = {"temperature": 0, "max_tokens": 200}
    found = agent.run_sync("Tell me of a city.", model_settings=settings).output
    assert isinstance(found, City)


def test_a_loop_of_tools(model: Any) -> None:
    agent = Agent(model)
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        asked.append(city)
        return "sun" if city == "Bonn" else "rain"

    first = agent.run_sync("The weather in Bonn and in Ulm?")
    assert asked == ["Bonn", "Ulm"]
    assert first.output == "The result is sun, rain."
    second = agent.run_sync("And in Ulm?", message_history=first.all_messages())
    assert asked[2:] == ["Ulm"]
    assert second.output == "The result is rain."


def test_a_streamed_loop_of_tools(model: Any) -> None:
    agent = Agent(model)

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        return "sun"

    async def run() -> str:
        async with agent.run_stream("The weather in Bonn?") as result:
            return "".join([part async for part in result.stream_text(delta=True)])

    assert asyncio.run(run()) == "The result is sun."
