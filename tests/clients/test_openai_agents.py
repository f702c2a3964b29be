"""The OpenAI agents SDK: loops of tools of two turns, over chat and over responses."""

from __future__ import annotations

import asyncio
from typing import Any

import agents
import pytest
from agents import Agent, Runner, function_tool
from openai import AsyncOpenAI
from pydantic import BaseModel

agents.set_tracing_disabled(True)


class City(BaseModel):
    name: str
    people: int


@pytest.fixture(params=["chat", "responses"])
def make(request: Any, scripted: Any) -> Any:
    kind = (
        agents.OpenAIChatCompletionsModel
        if request.param == "chat"
        else agents.OpenAIResponsesModel
    )

    def make(**options: Any) -> Agent[None]:
        client = AsyncOpenAI(base_url=scripted.openai, api_key="unused", max_retries=0)
        model = kind(model=scripted.model, openai_client=client)
        return Agent(name="helper", instructions="Help.", model=model, **options)

    return make


def weather_tool(asked: list[str]) -> Any:
    @function_tool
    def get_weather(city: str) -> str:
        """Return the weather of a city."""
        asked.append(city)
        return "sun" if city == "Bonn" else "rain"

    return get_weather


def test_two_turns(make: Any) -> None:
    asked: list[str] = []
    agent = make(tools=[weather_tool(asked)])

    async def run() -> list[str]:
        first = await Runner.run(agent, "The weather in Bonn?")
        history = [*first.to_input_list(), {"role": "user", "content": "And in Ulm?"}]
        second = await Runner.run(agent, history)
        return [first.final_output, second.final_output]

    assert asyncio.run(run()) == ["The result is sun.", "The result is rain."]
    assert asked == ["Bonn", "Ulm"]


def test_streamed(make: Any) -> None:
    asked: list[str] = []
    agent = make(tools=[weather_tool(asked)])

    async def run() -> tuple[str, list[str]]:
        result = Runner.run_streamed(agent, "The weather in Bonn?")
        kinds = [event.type async for event in result.stream_events()]
        return result.final_output, kinds

    output, kinds = asyncio.run(run())
    assert output == "The result is sun."
    assert "raw_response_event" in kinds
    assert asked == ["Bonn"]


def test_output_type(make: Any) -> None:
    agent = make(output_type=City)
    result = asyncio.run(Runner.run(agent, "Tell me of Bonn."))
    assert result.final_output == City(name="Bonn", people=330_000)


def test_handoff(make: Any) -> None:
    other = make(output_type=City)
    agent = make(handoffs=[other], model_settings=agents.ModelSettings(tool_choice="required"))
    result = asyncio.run(Runner.run(agent, "Who knows?"))
    assert result.last_agent is other
