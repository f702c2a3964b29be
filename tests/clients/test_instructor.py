"""instructor's structured modes: form on the small model, knowledge on the scripted one."""

from __future__ import annotations

from enum import Enum
from typing import Any

import instructor
import openai
import pytest
from pydantic import BaseModel, Field

MODES = [
    instructor.Mode.TOOLS,
    instructor.Mode.JSON,
    instructor.Mode.JSON_SCHEMA,
    instructor.Mode.MD_JSON,
    instructor.Mode.RESPONSES_TOOLS,
]


class City(BaseModel):
    name: str
    people: int


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Street(BaseModel):
    name: str = Field(max_length=20)
    size: Size


class Town(BaseModel):
    name: str = Field(max_length=20)
    streets: list[Street] = Field(min_length=1, max_length=2)
    mayor: str | None = Field(max_length=20)


def client_of(server: Any, mode: instructor.Mode) -> Any:
    client = openai.OpenAI(base_url=server.openai, api_key="unused", max_retries=0)
    return instructor.from_openai(client, mode=mode)


def ask(server: Any, mode: instructor.Mode, kind: Any, text: str, **more: Any) -> Any:
    return client_of(server, mode).chat.completions.create(
        model=server.model,
        response_model=kind,
        messages=[{"role": "user", "content": text}],
        max_retries=0,
        temperature=0,
        **more,
    )


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_knowledge(scripted: Any, mode: instructor.Mode) -> None:
    found = ask(scripted, mode, City, "Tell me of Bonn.")
    assert isinstance(found, City)
    assert found.model_dump() == {"name": "Bonn", "people": 330_000}


@pytest.mark.parametrize(
    "mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA], ids=lambda mode: mode.name
)
def test_form(real: Any, mode: instructor.Mode) -> None:
    town = ask(real, mode, Town, "Describe a town.", max_tokens=400)
    assert 1 <= len(town.streets) <= 2


@pytest.mark.parametrize(
    "mode", [instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA], ids=lambda mode: mode.name
)
def test_partial(scripted: Any, mode: instructor.Mode) -> None:
    parts = client_of(scripted, mode).chat.completions.create_partial(
        model=scripted.model,
        response_model=City,
        messages=[{"role": "user", "content": "Tell me of Bonn."}],
        max_retries=0,
    )
    assert list(parts)[-1].model_dump() == {"name": "Bonn", "people": 330_000}
