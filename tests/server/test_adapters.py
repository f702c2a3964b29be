"""Adapters as models of their own, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import waiting

pytest.importorskip("peft", reason="needs the peft package")
from peft_adapters import write_adapter

import edge_llm
from edge_llm.errors import ConfigError
from edge_llm.runner.config import RunnerConfig
from edge_llm.server.models.programs import ServedProgram, offers_of

CHAT = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 8}


@pytest.fixture
def served(tiny_program: Any, tmp_path: Path) -> ServedProgram:
    """A tiny program with two adapters."""
    adapters = {
        name: write_adapter(tmp_path / name, seed=seed).folder
        for seed, name in enumerate(("law", "prose"))
    }
    return ServedProgram(tiny_program(), RunnerConfig(threads=1, adapters=adapters))


def test_each_answers_under_its_name(served: ServedProgram, serve_live: Any) -> None:
    (offer,) = offers_of([served], aliases=("gpt",))
    with edge_llm.load(served.path, adapters=served.config.adapters) as llm:
        memory = llm.memory
        expected = {
            name: llm.chat(CHAT["messages"], temperature=0.0, max_tokens=8, adapter=name).text
            for name in (None, "law", "prose")
        }
        vector = llm.embed("some text", adapter="law")[0].tolist()
    assert len(set(expected.values())) == 3
    with serve_live(others=[offer]) as server, waiting.client(base_url=server.url) as http:
        listed = {entry["id"]: entry for entry in http.get("/v1/models").json()["data"]}
        base = offer.name
        assert list(listed) == ["fake-model", base, f"{base}:law", f"{base}:prose"]
        assert [entry["parent"] for entry in listed.values()] == [None, None, base, base]
        for name, text in expected.items():
            model = base if name is None else f"{base}:{name}"
            reply = http.post("/v1/chat/completions", json={"model": model, **CHAT}).json()
            assert reply["choices"][0]["message"]["content"] == text
            assert reply["model"] == model
        anthropic = {"model": "gpt:law", "max_tokens": 8, **CHAT}
        reply = http.post("/v1/messages", json=anthropic).json()
        assert reply["content"][0]["text"] == expected["law"]
        ollama = {
            "model": f"{base}:prose",
            "stream": False,
            "messages": CHAT["messages"],
            "options": {"temperature": 0, "num_predict": 8},
        }
        reply = http.post("/api/chat", json=ollama).json()
        assert reply["message"]["content"] == expected["prose"]
        shown = http.post("/api/show", json={"model": f"{base}:law"}).json()
        assert shown["details"]["parent_model"] == f"{base}:latest"
        running = {entry["name"]: entry for entry in http.get("/api/ps").json()["models"]}
        assert running[f"{base}:latest"]["size"] == memory == offer.needs()
        assert len(running) == 2
        asked = {"model": f"{base}:law", "input": "some text"}
        assert http.post("/v1/embeddings", json=asked).json()["data"][0]["embedding"] == vector
        none = http.post("/v1/chat/completions", json={"model": f"{base}:none", **CHAT})
        assert none.status_code == 404
        assert none.json()["error"]["code"] == "model_not_found"
        assert f"'{base}:law'" in none.json()["error"]["message"]


def test_names_that_two_have_are_refused(served: ServedProgram, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two of the models have the name"):
        offers_of([served, served])


def test_no_adapter_has_the_usual_tag_as_its_name(served: ServedProgram, tmp_path: Path) -> None:
    config = RunnerConfig(adapters={"latest": tmp_path})
    with pytest.raises(ConfigError, match="the name latest, which means the model itself"):
        offers_of([ServedProgram(served.path, config)])
