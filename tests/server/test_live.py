"""A real server on a real socket: the official client, hang-ups, and how it stops."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
import waiting
from fixtures_marked import Marked
from pydantic import BaseModel

from edge_llm.errors import ConfigError, ProgramError
from edge_llm.server.options import ServerOptions
from edge_llm.server.run import address, bind

MESSAGES: Any = [{"role": "user", "content": "hi"}]
CHAT = {"model": "fake-model", "messages": MESSAGES}
SCORED = {"model": "fake-model", "prompt": "hi", "echo": True, "logprobs": 1, "max_tokens": 0}


@pytest.fixture
def url(serve_live: Any) -> Iterator[str]:
    with serve_live() as server:
        yield server.url


@contextmanager
def official(url: str, **options: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{url}/v1", **({"api_key": "unused", "max_retries": 0} | options)
    ) as client:
        yield client


# --- the official client -------------------------------------------------------------------------


def test_official_models(url: str) -> None:
    with official(url) as client:
        assert [model.id for model in client.models.list()] == ["fake-model"]
        assert client.models.retrieve("fake-model").owned_by == "edge-llm"


def test_official_chat(url: str) -> None:
    with official(url) as client:
        reply = client.chat.completions.create(
            model="fake-model", messages=MESSAGES, logprobs=True, top_logprobs=3, n=2, seed=1
        )
        assert [choice.message.content for choice in reply.choices] == ["Hello, world"] * 2
        assert reply.choices[0].finish_reason == "stop"
        assert reply.choices[0].logprobs is not None
        assert reply.choices[0].logprobs.content is not None
        assert len(reply.choices[0].logprobs.content[0].top_logprobs) == 3
        assert reply.usage is not None
        assert reply.usage.prompt_tokens_details is not None
        assert reply.usage.prompt_tokens_details.cached_tokens == 3
        assert reply._request_id is not None


def test_official_chat_stream(url: str) -> None:
    with official(url) as client:
        chunks = list(
            client.chat.completions.create(
                model="fake-model",
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == "Hello, world"
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 12


def test_official_completions(url: str) -> None:
    with official(url) as client:
        reply = client.completions.create(model="fake-model", prompt=["a", "b"], logprobs=1)
        assert [choice.text for choice in reply.choices] == ["Hello, world"] * 2
        scored = client.completions.create(
            model="fake-model", prompt="ab", echo=True, logprobs=1, max_tokens=0
        ).choices[0]
        assert scored.logprobs is not None
        assert scored.logprobs.token_logprobs == [None, -0.125]
        stream = client.completions.create(model="fake-model", prompt="a", stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == "Hello, world"


TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    }
]


def test_official_tools(url: str, model: Any) -> None:
    """A call, streamed and whole, and the turn after it."""
    model.answer, model.parser = '(hm)[add|{"a": 1}][add|{"a": 2}]', Marked
    with official(url) as client:
        create: Any = client.chat.completions.create
        reply = create(model="fake-model", messages=MESSAGES, tools=TOOLS, tool_choice="required")
        message = reply.choices[0].message
        assert reply.choices[0].finish_reason == "tool_calls"
        assert message.content is None
        assert message.reasoning_content == "hm"
        assert [call.function.arguments for call in message.tool_calls] == ['{"a": 1}', '{"a": 2}']
        with client.chat.completions.stream(
            model="fake-model", messages=MESSAGES, tools=TOOLS
        ) as stream:
            done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
            final: Any = stream.get_final_completion().choices[0].message
        assert [event.parsed_arguments for event in done] == [{"a": 1}, {"a": 2}]
        assert [call.function.parsed_arguments for call in final.tool_calls] == [
            {"a": 1},
            {"a": 2},
        ]
        assert final.reasoning_content == "hm"
        model.answer = "Three"
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": "3"} for call in message.tool_calls
        ]
        history = [*MESSAGES, message.model_dump(), *results]
        assert create(model="fake-model", messages=history, tools=TOOLS).choices[0].message.content
    told = model.calls[-1].messages
    assert [item["role"] for item in told] == ["user", "assistant", "tool", "tool"]
    assert told[1]["tool_calls"][0]["function"]["name"] == "add"
    assert told[1]["reasoning_content"] == "hm"


class Sum(BaseModel):
    total: int
    note: str | None


def test_official_parse(url: str, model: Any) -> None:
    model.answer = '{"total": 3, "note": null}'
    with official(url) as client:
        reply = client.chat.completions.parse(
            model="fake-model", messages=MESSAGES, response_format=Sum
        )
        assert reply.choices[0].message.parsed == Sum(total=3, note=None)
        assert '"total"' in model.calls[-1].grammar.text
        with client.chat.completions.stream(
            model="fake-model", messages=MESSAGES, response_format=Sum
        ) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
        assert "".join(deltas) == model.answer
        assert final.choices[0].message.parsed == Sum(total=3, note=None)


def test_official_thinking(url: str, model: Any) -> None:
    model.answer, model.parser = "(so)Yes", Marked
    with official(url) as client:
        reply = client.chat.completions.create(
            model="fake-model",
            messages=MESSAGES,
            reasoning_effort="low",
            extra_body={"enable_thinking": True, "thinking_budget": 9},
        )
        message: Any = reply.choices[0].message
        assert (message.reasoning_content, message.content) == ("so", "Yes")
        assert reply.usage is not None
        assert reply.usage.completion_tokens_details is not None
        assert reply.usage.completion_tokens_details.reasoning_tokens == 3
    thinking = model.calls[-1].thinking
    assert (thinking.effort, thinking.enabled, thinking.budget) == ("low", True, 9)


def test_official_errors(url: str, model: Any) -> None:
    with official(url) as client:
        create: Any = client.chat.completions.create
        with pytest.raises(openai.BadRequestError) as bad:
            create(model="fake-model", messages=MESSAGES, temperature=9)
        assert (bad.value.code, bad.value.param) == ("decimal_above_max_value", "temperature")
        with pytest.raises(openai.NotFoundError):
            create(model="other", messages=MESSAGES)
        model.error = ProgramError("it broke")
        with pytest.raises(openai.InternalServerError):
            create(model="fake-model", messages=MESSAGES)
        stream = create(model="fake-model", messages=MESSAGES, stream=True)
        with pytest.raises(openai.APIError, match="it broke"):
            list(stream)


def test_official_key(serve_live: Any) -> None:
    with serve_live(api_key="sk-right") as server:
        with official(server.url) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with official(server.url, api_key="sk-right") as client:
            assert client.models.list().data


def test_too_many_at_once(serve_live: Any, model: Any) -> None:
    model.gate.clear()
    with (
        serve_live(max_choices=1) as server,
        waiting.client(base_url=server.url) as client,
        client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}),
        official(server.url) as other,
    ):
        with pytest.raises(openai.RateLimitError):
            other.chat.completions.create(model="fake-model", messages=MESSAGES)
        model.gate.set()


# --- hang-ups ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("route", "fields"), [("chat/completions", CHAT), ("completions", SCORED)])
def test_a_hang_up_before_the_first_token_cancels(
    url: str, model: Any, route: str, fields: dict[str, Any], stream: bool
) -> None:
    model.gate.clear()
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(fields | {"stream": stream, "n": 2}).encode()
    head = (
        f"POST /v1/{route} HTTP/1.1\r\nhost: {host}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        waiting.wait_until(lambda: len(model.requests) == 2)
        assert not any(request.cancelled.is_set() for request in model.requests)
    waiting.wait_until(lambda: all(request.ended.is_set() for request in model.requests))
    assert all(request.cancelled.is_set() for request in model.requests)


def test_a_hang_up_in_the_middle_of_a_stream_cancels(url: str, model: Any) -> None:
    model.answer = "x" * 100
    model.gate.clear()
    with (
        waiting.client(base_url=url) as client,
        client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply,
    ):
        next(reply.iter_lines())
    waiting.wait_until(lambda: model.requests[0].ended.is_set())
    assert model.requests[0].cancelled.is_set()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 50, "stream": True}),
        ("/api/chat", {"messages": MESSAGES}),
        ("/api/generate", {"prompt": "hi"}),
    ],
)
def test_a_hang_up_cancels_in_every_dialect(
    url: str, model: Any, path: str, body: dict[str, Any]
) -> None:
    model.gate.clear()
    with waiting.client(base_url=url) as client, client.stream("POST", path, json=body) as reply:
        assert reply.status_code == 200
    waiting.wait_until(lambda: model.requests[0].ended.is_set())
    assert model.requests[0].cancelled.is_set()


def test_a_hang_up_leaves_the_others_alone(url: str, model: Any) -> None:
    model.gate.clear()
    answers: list[str] = []

    def ask() -> None:
        with official(url) as client:
            reply = client.chat.completions.create(model="fake-model", messages=MESSAGES)
            answers.append(reply.choices[0].message.content or "")

    asking = threading.Thread(target=ask)
    asking.start()
    waiting.wait_until(lambda: len(model.requests) == 1)
    with (
        waiting.client(base_url=url) as client,
        client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}),
    ):
        pass
    waiting.wait_until(lambda: len(model.requests) == 2 and model.requests[1].ended.is_set())
    assert not model.requests[0].cancelled.is_set()
    model.gate.set()
    asking.join(60)
    assert answers == ["Hello, world"]


# --- starting and stopping -----------------------------------------------------------------------


def test_health_is_503_while_the_model_loads(serve_live: Any, model: Any) -> None:
    loaded = threading.Event()

    def load() -> Any:
        loaded.wait(60)
        return model

    with serve_live(load, wait=False) as server:
        response = waiting.get(f"{server.url}/health")
        assert response.status_code == 503
        [listed] = waiting.get(f"{server.url}/v1/models").json()["data"]
        assert listed["state"] == "loading"
        loaded.set()
        waiting.wait_until(lambda: waiting.get(f"{server.url}/health").status_code == 200)


def test_what_first_requests_need_is_made_before_they_come(serve_live: Any, model: Any) -> None:
    with serve_live():
        assert model.prepared.wait(60)


def test_a_model_that_does_not_load_ends_the_server(serve_live: Any) -> None:
    def load() -> Any:
        raise ProgramError("no such file")

    with pytest.raises(ProgramError, match="no such file"), serve_live(load) as server:
        server.thread.join(60)


def test_stopping_lets_an_answer_end(serve_live: Any, model: Any) -> None:
    model.gate.clear()
    with (
        serve_live(drain_seconds=600) as server,
        waiting.client(base_url=server.url) as client,
        client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply,
    ):
        waiting.wait_until(lambda: len(model.requests) == 1)
        server.stop()
        waiting.wait_until(lambda: refused(server.url))
        model.gate.set()
        text = reply.read().decode()
        assert text.endswith("data: [DONE]\n\n")
        server.thread.join(60)
        assert model.closed


@pytest.mark.parametrize("twice", [False, True])
def test_stopping_ends_streams_with_an_error_event(
    serve_live: Any, model: Any, twice: bool
) -> None:
    model.gate.clear()
    with (
        serve_live(drain_seconds=600 if twice else 0.1) as server,
        waiting.client(base_url=server.url) as client,
        client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as reply,
    ):
        waiting.wait_until(lambda: len(model.requests) == 1)
        server.stop()
        if twice:
            server.stop()
        name, data = reply.read().decode().rstrip().split("\n\n")[-1].split("\n")
        assert name == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["type"] == "server_error"
        waiting.wait_until(lambda: model.requests[0].ended.is_set())
        server.thread.join(60)
        assert model.closed


def refused(url: str) -> bool:
    try:
        return waiting.get(f"{url}/health").status_code == 503
    except httpx.TransportError:
        return True


def test_an_address_that_is_taken() -> None:
    with bind(ServerOptions(port=0)) as listener:
        port = listener.getsockname()[1]
        assert address("127.0.0.1", listener) == f"http://127.0.0.1:{port}"
        assert address("::1", listener) == f"http://[::1]:{port}"
        with pytest.raises(ConfigError) as taken:
            bind(ServerOptions(port=port))
        problem = f"cannot listen on 127.0.0.1 port {port}: {os.strerror(errno.EADDRINUSE)}"
        assert str(taken.value) == problem
        assert "take another --port" in str(taken.value.hint)
    with pytest.raises(ConfigError, match="cannot listen on host"):
        bind(ServerOptions(host="host.invalid"))
