"""The official Python client of Ollama, on every route that it has and we have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from pydantic import BaseModel

FEW: Any = {"num_predict": 8, "temperature": 0}


class City(BaseModel):
    name: str
    people: int


def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name.
    """
    return f"sun in {city}"


@pytest.fixture(scope="module")
def client(real: Any) -> Iterator[ollama.Client]:
    with ollama.Client(real.url) as client:
        yield client


@pytest.fixture(scope="module")
def knowing(scripted: Any) -> Iterator[ollama.Client]:
    with ollama.Client(scripted.url) as client:
        yield client


def ask(text: str) -> Any:
    return [{"role": "user", "content": text}]


# --- form, on the small model --------------------------------------------------------------------


def test_models(client: ollama.Client, real: Any) -> None:
    (model,) = client.list().models
    assert model.model == f"{real.model}:latest"
    assert model.size
    assert model.digest
    (running,) = client.ps().models
    assert running.model == model.model
    assert running.context_length
    shown = client.show(model.model)
    assert shown.capabilities
    assert "completion" in shown.capabilities
    assert shown.modelinfo
    assert shown.details
    assert shown.details.parameter_size == "135M"
    assert "im_start" in (shown.template or "")


@pytest.mark.parametrize("tag", ["", ":latest"])
def test_chat(client: ollama.Client, real: Any, tag: str) -> None:
    request: Any = {"model": real.model + tag, "messages": ask("Say hi."), "options": FEW}
    whole = client.chat(**request)
    assert whole.message.content
    assert whole.done_reason in ("stop", "length")
    assert whole.eval_count
    assert whole.eval_duration
    parts = list(client.chat(**request, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts].index(True) == len(parts) - 1
    assert parts[-1].eval_count == whole.eval_count


def test_generate(client: ollama.Client, real: Any) -> None:
    request: Any = {"model": real.model, "prompt": "One, two,", "options": FEW}
    whole = client.generate(**request, raw=True)
    assert whole.response
    parts = list(client.generate(**request, raw=True, stream=True))
    assert "".join(part.response or "" for part in parts) == whole.response
    assert client.generate(**request, system="Be brief.").response is not None
    scored = client.generate(**request, logprobs=True, top_logprobs=2)
    assert scored.logprobs
    assert scored.logprobs[0].top_logprobs
    assert len(scored.logprobs[0].top_logprobs) == 2


def test_load(client: ollama.Client, real: Any) -> None:
    assert client.generate(model=real.model, keep_alive="10m").done_reason == "load"
    assert client.chat(model=real.model).done_reason == "load"


def test_format(client: ollama.Client, real: Any) -> None:
    options: Any = {"num_predict": 200, "temperature": 0}
    for format_ in ("json", City.model_json_schema()):
        reply = client.chat(
            model=real.model, messages=ask("Answer in JSON."), format=format_, options=options
        )
        if format_ != "json" and reply.done_reason == "stop":
            assert City.model_validate_json(reply.message.content or "")
        assert (reply.message.content or "").startswith("{")


def test_embed(client: ollama.Client, real: Any) -> None:
    reply = client.embed(model=real.model, input=["a cat", "a dog"])
    assert len(reply.embeddings) == 2
    assert abs(sum(number * number for number in reply.embeddings[0]) - 1) < 1e-3
    assert reply.prompt_eval_count
    older = client.embeddings(model=real.model, prompt="a cat")
    assert len(older.embedding) == len(reply.embeddings[0])


async def _chat_text(url: str, **request: Any) -> str:
    async with ollama.AsyncClient(url) as client:
        parts = await client.chat(**request, stream=True)
        return "".join([part.message.content or "" async for part in parts])


def test_asynchronous_chat(real: Any) -> None:
    import asyncio

    request: Any = {"model": real.model, "messages": ask("Say hi."), "options": FEW}
    assert asyncio.run(_chat_text(real.url, **request))


def test_errors(client: ollama.Client, real: Any) -> None:
    with pytest.raises(ollama.ResponseError) as missing:
        client.chat(model="no such", messages=ask("hi"))
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="temperature") as wrong:
        client.chat(model=real.model, messages=ask("hi"), options={"temperature": 9})
    assert wrong.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="'suffix' is not supported"):
        client.generate(model=real.model, prompt="a", suffix="b")


# --- what a model knows, on the scripted one -----------------------------------------------------


def test_thinking(knowing: ollama.Client, scripted: Any) -> None:
    request: Any = {
        "model": scripted.model,
        "messages": ask("step by step: the capital of France?"),
        "think": True,
    }
    whole = knowing.chat(**request).message
    assert "Let me see." in (whole.thinking or "")
    assert (whole.content or "").strip() == "Paris"
    parts = [part.message for part in knowing.chat(**request, stream=True)]
    assert "".join(part.thinking or "" for part in parts) == whole.thinking
    assert "".join(part.content or "" for part in parts) == whole.content
    assert "thinking" in (knowing.show(scripted.model).capabilities or ())


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_of_calls(knowing: ollama.Client, scripted: Any, streamed: bool) -> None:
    messages = ask("The weather in Bonn and in Ulm?")
    request: Any = {"model": scripted.model, "tools": [get_weather]}
    if streamed:
        parts = list(knowing.chat(messages=messages, stream=True, **request))
        calls = [call for part in parts for call in part.message.tool_calls or ()]
    else:
        calls = list(knowing.chat(messages=messages, **request).message.tool_calls or ())
    assert [dict(call.function.arguments) for call in calls] == [{"city": "Bonn"}, {"city": "Ulm"}]
    messages.append({"role": "assistant", "content": "", "tool_calls": calls})
    for call in calls:
        result = get_weather(**call.function.arguments)
        messages.append({"role": "tool", "tool_name": call.function.name, "content": result})
    final = knowing.chat(messages=messages, **request)
    assert "sun in Bonn, sun in Ulm" in (final.message.content or "")
