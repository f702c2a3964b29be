"""Whatever a body holds: a reply of ours comes, and never a 5xx. The long run is `slow`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_llm.errors import ProgramError

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/show",
    "/tokenize",
    "/detokenize",
)
MESSAGES = [{"role": "user", "content": "hi"}]
BASES: tuple[dict[str, Any], ...] = (
    {"model": "fake-model", "messages": MESSAGES, "max_tokens": 2},
    {"model": "fake-model", "prompt": "hi", "max_tokens": 2},
    {"model": "fake-model", "input": "hi", "query": "a", "documents": ["b"]},
    {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}},
    {"content": "hi", "tokens": [1, 2], "tools": [{"type": "function", "function": {"name": "f"}}]},
)
NAMES = sorted(
    {
        *("", "a", "\ud800", "\n", "\r\nx: y", "é", "x" * 200, "__proto__", "model", "messages"),
        *("prompt", "n", "stop", "logit_bias", "logprobs", "top_logprobs", "stream", "seed"),
        *("stream_options", "temperature", "max_tokens", "tools", "tool_choice", "response_format"),
        *(
            "chat_template_kwargs",
            "suffix",
            "echo",
            "input",
            "top_k",
            "metadata",
            "grammar",
            "type",
        ),
        *(
            "type",
            "role",
            "content",
            "text",
            "tool_calls",
            "name",
            "options",
            "format",
            "think",
            "system",
        ),
        *("reasoning_effort", "documents", "query", "dimensions", "ignore_eos", "min_tokens"),
    }
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["\ud800", "\udfff", "\0", "<special>", "user", "assistant", "function", "9" * 400]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([10**400, -(10**400), 2**31, 2**63, 0, 1, -1]),
    st.floats(),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), TEXTS), inner, max_size=4),
    ),
    max_leaves=12,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A request that is nearly one of ours: fields are added or changed, the bytes too."""
    body = dict(draw(st.sampled_from(BASES)))
    for name in draw(st.lists(st.one_of(st.sampled_from(NAMES), TEXTS), max_size=4)):
        body[name] = draw(VALUES)
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    data = text.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from([b"", b"\xff", b"[" * 80, b'{"":', b"1e999", b'"n":1,', b"}"]))
        data = data[:at] + piece + data[at + draw(st.integers(0, 3)) :]
    return data


ODD = [
    b'{"a":1,"":1}',
    b'{"messages":[{"role":"user","content":"hi","":1}],"":2}',
    b'{"messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"messages":[{"role":"user","content":"hi"}],"chat_template_kwargs":{"\\ud800":{"":1}}}',
    b'{"messages":[{"role":"user","content":"hi"}],"logit_bias":{"":1,"\\ud800":1e400}}',
    b'{"messages":[{"role":"user","content":"hi"}],"stream_options":{"":1},"stream":true}',
    b'{"prompt":"hi","prompt":["a","b"],"n":3,"n":2}',
    b'{"prompt":[[1],[2,"x"]],"max_tokens":1}',
    b'{"prompt":"hi","stop":["\\ud800"]}',
    b'{"prompt":"hi","suffix":"\\ud800","user":"\\r\\nx: y"}',
    b'{"prompt":"hi","seed":1' + b"0" * 4000 + b"}",
    b'{"prompt":"hi","seed":1' + b"0" * 5000 + b"}",
    b'{"model":"\\ud800","prompt":"hi"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


@pytest.fixture
def connection(serve_live: Any, model: Any) -> Iterator[HTTPConnection]:
    def without_vectors(call: Any) -> Any:
        raise ProgramError("there is no method 'embed'")

    model.embed_job = model.rerank_job = without_vectors
    with serve_live() as server:
        host, port = server.url.removeprefix("http://").split(":")
        with opened(host, int(port)) as client:
            yield client


@contextmanager
def opened(host: str, port: int) -> Iterator[HTTPConnection]:
    client = HTTPConnection(host, port, timeout=60)
    try:
        yield client
    finally:
        client.close()


def check(connection: HTTPConnection, path: str, body: bytes) -> None:
    connection.request("POST", path, body, {"content-type": "application/json"})
    reply = connection.getresponse()
    content = reply.read()
    assert reply.status < 500, (path, body, content)
    assert reply.headers["x-request-id"]
    if reply.status >= 400:
        json.loads(content)
    elif b"event: error" in content:
        raise AssertionError((path, body, content))


@pytest.mark.parametrize("path", PATHS)
def test_odd_bodies(connection: HTTPConnection, path: str) -> None:
    for body in ODD:
        check(connection, path, body)


def run(connection: HTTPConnection, examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.sampled_from(PATHS), bodies())
    def hostile(path: str, body: bytes) -> None:
        check(connection, path, body)

    hostile()


def test_generated_bodies(connection: HTTPConnection) -> None:
    run(connection, 300)


@pytest.mark.slow
def test_many_generated_bodies(connection: HTTPConnection) -> None:
    run(connection, 5_000)


NAME = st.one_of(st.text(max_size=80), st.sampled_from(["", " ", "\t", "\r\n", "a,b", '"', "\x7f"]))


@given(st.lists(NAME, min_size=1, max_size=30))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_names_that_are_ignored_lose_no_reply(connection: HTTPConnection, names: list[str]) -> None:
    body = {"prompt": "hi", **dict.fromkeys(names, 1)}
    data = json.dumps(body).encode()
    connection.request("POST", "/v1/completions", data, {"content-type": "application/json"})
    reply = connection.getresponse()
    reply.read()
    assert reply.status in (200, 400)
