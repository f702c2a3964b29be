"""A server with several models on offer, over HTTP."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import waiting
from fixtures_server import offered

from edge_llm.errors import ConfigError
from edge_llm.runner.config import RunnerConfig
from edge_llm.server.models.programs import ServedProgram, offers_of

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def second(model: Any) -> Any:
    other = type(model)()
    other.name, other.answer = "other-model", "From the other"
    return other


def listed(url: str) -> dict[str, str]:
    return {entry["id"]: entry["state"] for entry in waiting.get(f"{url}/v1/models").json()["data"]}


def test_each_answers_under_its_name(serve_live: Any, second: Any) -> None:
    with serve_live(others=[offered(second, aliases=("gpt",))]) as server:
        url = server.url
        assert listed(url) == {"fake-model": "loaded", "other-model": "unloaded"}
        for name, text in (("fake-model", "Hello, world"), ("gpt", "From the other")):
            reply = waiting.post(f"{url}/v1/chat/completions", json={"model": name, **CHAT}).json()
            assert reply["choices"][0]["message"]["content"] == text
        assert listed(url) == {"fake-model": "loaded", "other-model": "loaded"}
        tags = waiting.get(f"{url}/api/tags").json()["models"]
        assert [entry["name"] for entry in tags] == ["fake-model:latest", "other-model:latest"]
        none = waiting.post(f"{url}/v1/chat/completions", json={"model": "third", **CHAT})
        assert none.status_code == 404
        unnamed = waiting.post(f"{url}/api/chat", json={"stream": False, **CHAT}).json()
        assert unnamed["model"] == "fake-model"  # the first
    assert second.closed


def test_what_ollama_clients_say_of_memory(serve_live: Any, second: Any) -> None:
    def running() -> dict[str, dict[str, Any]]:
        return {m["name"]: m for m in waiting.get(f"{server.url}/api/ps").json()["models"]}

    def ask(**body: Any) -> Any:
        return waiting.post(f"{server.url}/api/generate", json={"stream": False, **body}).json()

    with serve_live(others=[offered(second)]) as server:
        assert list(running()) == ["fake-model:latest"]
        told = ask(model="other-model:latest", keep_alive="10m")
        assert told["done_reason"] == "load"
        other = running()["other-model:latest"]
        assert (other["size"], other["state"]) == (77, "loaded")
        assert not other["expires_at"].startswith("9999")
        ask(model="other-model", prompt="x", keep_alive=-1)
        assert running()["other-model:latest"]["expires_at"].startswith("9999")
        told = ask(model="other-model", keep_alive=0)
        assert (told["model"], told["done_reason"]) == ("other-model", "unload")
        waiting.wait_until(lambda: "other-model:latest" not in running())
        ask(model="other-model", prompt="x", keep_alive=0)  # answers, and goes
        waiting.wait_until(lambda: "other-model:latest" not in running())
        refused = waiting.post(f"{server.url}/api/generate", json={"keep_alive": "soon"})
        assert refused.status_code == 400
        assert "keep_alive" in refused.json()["error"]


def test_a_pinned_model_is_not_said_to_be_unloaded(serve_live: Any, second: Any) -> None:
    with serve_live(others=[offered(second, pinned=True)]) as server:
        body = {"model": "other-model", "keep_alive": 0}
        refused = waiting.post(f"{server.url}/api/generate", json=body)
        assert refused.status_code == 400
        assert "'other-model' is pinned" in refused.json()["error"]


def test_a_request_waits_while_its_model_loads(serve_live: Any, second: Any) -> None:
    loading = threading.Event()

    def load() -> Any:
        assert loading.wait(60)
        return second

    others = [offered(second, load=load)]
    with serve_live(others=others, load_seconds=0.2) as server:
        ask = {"model": "other-model", **CHAT}
        early = waiting.post(f"{server.url}/v1/chat/completions", json=ask)
        assert early.status_code == 503
        assert early.headers["retry-after"]
        assert listed(server.url)["other-model"] == "loading"
        quick = waiting.post(f"{server.url}/v1/chat/completions", json=CHAT)
        assert quick.status_code == 200  # others do not wait for it
        loading.set()
        late = waiting.post(f"{server.url}/v1/chat/completions", json=ask)
        assert late.json()["choices"][0]["message"]["content"] == "From the other"


def test_programs_on_offer(tiny_program: Any, tmp_path: Path) -> None:
    own: Path = tiny_program()
    twin = tmp_path / "twin.edge"
    twin.write_bytes(own.read_bytes())
    config = RunnerConfig(threads=1, context=32, max_sequences=2)
    programs = [ServedProgram(path, config) for path in (own, twin)]
    first, second = offers_of(programs, aliases=["mine"], pinned=["twin"], keep=60.0)
    # Both have the model's name in them: each goes by its file's.
    assert (first.name, second.name) == (own.stem, "twin")
    assert first.names == (own.stem, "mine")
    assert (first.pinned, second.pinned, second.usual) == (False, True, 60.0)
    assert first.needs() == second.needs() > 0
    model = second.load()
    try:
        assert model.name == "twin"
        assert model.memory == second.needs()
        facts = second.describe()
        assert (facts.digest, facts.context, facts.about) == (model.digest, 32, model.about)
    finally:
        model.close()
    with pytest.raises(ConfigError, match="nobody is to be pinned"):
        offers_of(programs, pinned=["nobody"])
    tight = ServedProgram(twin, RunnerConfig(context=10**6))
    with pytest.raises(ConfigError, match=r"twin cannot be served: context is 1000000"):
        offers_of([programs[0], tight])
    with pytest.raises(ConfigError, match="two of the models have the name"):
        offers_of([programs[0], programs[0]])
