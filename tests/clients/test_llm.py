"""Simon Willison's ``llm``, as a library and as a command, with schemas and tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llm.default_plugins.openai_models import Chat, Responses  # noqa: TID251 - the client
from pydantic import BaseModel

KINDS = [Chat, Responses]


class City(BaseModel):
    name: str
    people: int


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return "sun" if city == "Bonn" else "rain"


def model_of(kind: Any, server: Any) -> Any:
    model = kind(server.model, api_base=server.openai, supports_schema=True, supports_tools=True)
    model.needs_key = None
    return model


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def knowing(request: Any, scripted: Any) -> Any:
    return model_of(request.param, scripted)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def small(request: Any, real: Any) -> Any:
    return model_of(request.param, real)


@pytest.mark.parametrize("stream", [False, True])
def test_prompt(knowing: Any, stream: bool) -> None:
    assert knowing.prompt("The capital of France?", stream=stream).text() == "Paris"


def test_conversation(knowing: Any) -> None:
    conversation = knowing.conversation()
    conversation.prompt("Hi.", system="Be short.").text()
    assert conversation.prompt("The capital of France?").text() == "Paris"


def test_schema_knowledge(knowing: Any) -> None:
    found = json.loads(knowing.prompt("Tell me of Bonn.", schema=City).text())
    assert found == {"name": "Bonn", "people": 330_000}


def test_schema_form(small: Any) -> None:
    reply = small.prompt("Tell me of a city.", schema=City, temperature=0, max_tokens=200)
    City.model_validate_json(reply.text())


def test_tools(knowing: Any) -> None:
    chain = knowing.chain("The weather in Bonn and in Ulm?", tools=[get_weather])
    assert chain.text() == "The result is sun, rain."


def test_command(scripted: Any, tmp_path: Path) -> None:
    models = [
        {
            "model_id": "edge",
            "model_name": scripted.model,
            "api_base": scripted.openai,
            "supports_schema": True,
            "supports_tools": True,
        }
    ]
    # JSON is YAML.
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(models))
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path)}

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    assert command("-m", "edge", "The capital of France?") == "Paris"
    schema = command("-m", "edge", "Tell me of Bonn.", "--schema", "name, people int")
    assert json.loads(schema)["people"] == 330_000
    function = "def get_weather(city: str) -> str:\n    'The weather.'\n    return 'sun'\n"
    assert command("-m", "edge", "The weather in Bonn?", "--functions", function).endswith(
        "The result is sun."
    )
