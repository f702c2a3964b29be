"""Where the servers are. These tests run in environments of their own: `tools/clients.py`."""

from __future__ import annotations

import json
import os
import urllib.request
from dataclasses import dataclass
from functools import cached_property

import pytest


@dataclass(frozen=True)
class Server:
    """A running server and the model that it serves."""

    url: str

    @property
    def openai(self) -> str:
        return f"{self.url}/v1"

    @cached_property
    def model(self) -> str:
        with urllib.request.urlopen(f"{self.url}/v1/models") as reply:
            name: str = json.load(reply)["data"][0]["id"]
        return name


def _server(variable: str) -> Server:
    url = os.environ.get(variable)
    if not url:
        pytest.fail(f"{variable} is not set: run `make test-clients`")
    return Server(url)


@pytest.fixture(scope="session")
def real() -> Server:
    """A server of SmolLM2-135M-Instruct: for the form of answers."""
    return _server("EDGE_LLM_REAL")


@pytest.fixture(scope="session")
def scripted() -> Server:
    """A server of a model that says what `scripted/script.py` has it say: for what a model knows.
    It calls ``get_weather(city)`` where Bonn or Ulm is in the question, and ``magic_function``."""
    return _server("EDGE_LLM_SCRIPTED")


@dataclass(frozen=True)
class KeyedServer(Server):
    """One that asks for a key."""

    key: str = ""


@pytest.fixture(scope="session")
def keyed() -> KeyedServer:
    """A server of the scripted model that asks for a key and refuses unknown parameters."""
    return KeyedServer(_server("EDGE_LLM_KEYED").url, os.environ["EDGE_LLM_KEY"])
