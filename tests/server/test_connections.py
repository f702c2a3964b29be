"""Connections on real sockets: half-closed, abandoned, too slow, too many, and what is no HTTP."""

from __future__ import annotations

import json
import logging
import resource
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import waiting

CHAT: dict[str, Any] = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}
PATHS = ("/v1/chat/completions", "/v1/completions")


@contextmanager
def connected(url: str, *, window: int | None = None) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        if window is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        client.settimeout(60)
        client.connect((host, int(port)))
        yield client


def request(body: dict[str, Any], path: str = PATHS[0], version: str = "1.1") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data


def read(client: socket.socket) -> bytes:
    """Return all that comes until the other side closes."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def final(reply: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a reply, behind the provisional ones."""
    while reply.startswith(b"HTTP/1.1 1"):
        reply = reply.partition(b"\r\n\r\n")[2]
    head, _, body = reply.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    pairs = (text.split(": ", 1) for text in lines)
    return int(line.split()[1]), {name.lower(): value for name, value in pairs}, body


def joined(chunked: bytes) -> bytes:
    """Return the body of a reply in chunks."""
    parts = []
    while True:
        size, _, chunked = chunked.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return b"".join(parts)
        parts.append(chunked[:length])
        chunked = chunked[length + 2 :]


# --- clients that send no more, and clients that are gone -----------------------------------------


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_closes_its_half_gets_its_answer(
    serve_live: Any, model: Any, begun: bool
) -> None:
    model.gate.clear()
    with serve_live() as server, connected(server.url) as client:
        client.sendall(request(CHAT))
        if begun:
            waiting.wait_until(lambda: len(model.requests) == 1)
        client.shutdown(socket.SHUT_WR)
        waiting.wait_until(lambda: len(model.requests) == 1)
        assert client.recv(17) == b"HTTP/1.1 100 Cont"
        model.gate.set()
        reply = b"HTTP/1.1 100 Cont" + read(client)
    status, _, body = final(reply)
    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hello, world"


def test_a_client_that_closes_its_half_gets_its_stream(serve_live: Any, model: Any) -> None:
    model.gate.clear()
    with serve_live() as server, connected(server.url) as client:
        client.sendall(request(CHAT | {"stream": True}))
        reply = b""
        while b"\r\n\r\ndata: " not in reply.replace(b"\n\n", b"") and b"assistant" not in reply:
            reply += client.recv(65536)
        client.shutdown(socket.SHUT_WR)
        reply += client.recv(1)  # a part of the next chunk's size
        model.gate.set()
        reply += read(client)
    status, headers, body = final(reply)
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert joined(body).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_client_that_is_gone_is_noticed(
    serve_live: Any, model: Any, caplog: Any, stream: bool, how: str
) -> None:
    caplog.set_level(logging.INFO, logger="edge_llm.server")
    model.gate.clear()
    with serve_live() as server:
        with connected(server.url) as client:
            client.sendall(request(CHAT | {"stream": stream}))
            waiting.wait_until(lambda: len(model.requests) == 1)
            if how == "half":
                client.shutdown(socket.SHUT_WR)
                time.sleep(0.1)
            elif how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        waiting.wait_until(lambda: model.requests[0].ended.is_set())
        assert model.requests[0].cancelled.is_set()
        waiting.wait_until(lambda: " 499 " in caplog.text)
        figures = waiting.get(f"{server.url}/metrics").text
    assert 'route="/v1/chat/completions",status="499"} 1.0' in figures
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_that_leaves_while_it_sends(serve_live: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="edge_llm.server")
    with serve_live() as server:
        with connected(server.url) as client:
            client.sendall(request(CHAT)[:-5])
            time.sleep(0.05)
        waiting.wait_until(lambda: " 499 " in caplog.text)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_failure_after_a_stream_began_is_told(serve_live: Any, model: Any, caplog: Any) -> None:
    from edge_llm.errors import GenerationError

    caplog.set_level(logging.INFO, logger="edge_llm.server")
    model.error = GenerationError("the logits are not finite")
    with serve_live() as server:
        assert waiting.post(server.url + PATHS[0], json=CHAT | {"stream": True}).status_code == 200
        waiting.wait_until(lambda: " 500 " in caplog.text)
        assert 'status="500"} 1.0' in waiting.get(f"{server.url}/metrics").text
    assert "failed after it began" in caplog.text


# --- readers that stop ----------------------------------------------------------------------------


def test_a_reader_who_stops_gives_its_place_back(serve_live: Any, model: Any) -> None:
    model.answer = "x" * 3000
    with serve_live(max_choices=1) as server, connected(server.url, window=4096) as client:
        client.sendall(request(CHAT | {"stream": True, "logprobs": True, "top_logprobs": 20}))
        waiting.wait_until(lambda: len(model.requests) == 1 and model.requests[0].ended.is_set())
        model.answer = "y"
        waiting.wait_until(lambda: waiting.post(server.url + PATHS[0], json=CHAT).is_success)


def test_a_reader_who_stops_is_cut_off(serve_live: Any, model: Any) -> None:
    model.answer = "x" * 100_000
    with (
        serve_live(max_choices=1, send_seconds=0.2) as server,
        connected(server.url, window=4096) as client,
    ):
        client.sendall(request(CHAT | {"stream": True, "logprobs": True, "top_logprobs": 20}))
        waiting.wait_until(
            lambda: len(model.requests) == 1 and model.requests[0].cancelled.is_set()
        )
        model.answer = "y"
        waiting.wait_until(lambda: waiting.post(server.url + PATHS[0], json=CHAT).is_success)


def test_a_reader_who_stops_does_not_delay_the_end(serve_live: Any, model: Any) -> None:
    model.answer = "x" * 3000
    with (
        serve_live(send_seconds=600, drain_seconds=600) as server,
        connected(server.url, window=4096) as client,
    ):
        client.sendall(request(CHAT | {"stream": True, "logprobs": True, "top_logprobs": 20}))
        waiting.wait_until(lambda: len(model.requests) == 1 and model.requests[0].ended.is_set())
        server.stop()
        server.thread.join(60)
        assert not server.thread.is_alive()


# --- too slow -------------------------------------------------------------------------------------


def check_error(reply: bytes, status: int) -> dict[str, str]:
    """Check an error and return its headers."""
    got, headers, body = final(reply)
    assert got == status
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert json.loads(body)["error"].keys() >= {"message", "type", "param", "code"}
    return headers


@pytest.mark.parametrize("sent", [b"G", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"])
def test_headers_that_do_not_come(serve_live: Any, sent: bytes) -> None:
    with serve_live(header_seconds=0.2) as server, connected(server.url) as client:
        client.sendall(sent)
        check_error(read(client), 408)


def test_headers_one_byte_at_a_time(serve_live: Any) -> None:
    with serve_live(header_seconds=0.2) as server, connected(server.url) as client:
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(read, client)
            for _ in range(200):
                if reply.done():
                    break
                client.sendall(b"x")
                time.sleep(0.01)
        check_error(reply.result(), 408)


def test_a_body_that_does_not_come(serve_live: Any) -> None:
    with serve_live(body_seconds=0.2) as server, connected(server.url) as client:
        client.sendall(request(CHAT)[:-5])
        check_error(read(client), 408)


def test_idle_connections_end(serve_live: Any) -> None:
    with serve_live(idle_seconds=0.2) as server, connected(server.url) as fresh:
        with connected(server.url) as used:
            used.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert final(read(used))[0] == 200
        assert read(fresh) == b""


# --- too many -------------------------------------------------------------------------------------


def test_more_connections_than_there_may_be(serve_live: Any, model: Any) -> None:
    model.gate.clear()
    with serve_live(max_connections=2) as server, ExitStack() as stack:
        busy = [stack.enter_context(connected(server.url)) for _ in range(2)]
        for client in busy:
            client.sendall(request(CHAT))
        waiting.wait_until(lambda: len(model.requests) == 2)
        with connected(server.url) as third:
            third.sendall(request(CHAT))
            headers = check_error(read(third), 429)
            assert headers["retry-after"]
        model.gate.set()
        assert busy[0].recv(17) == b"HTTP/1.1 200 OK\r\n"


def test_an_idle_connection_makes_room(serve_live: Any) -> None:
    with serve_live(max_connections=1) as server, connected(server.url) as first:
        first.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200 OK" in first.recv(65536)
        assert waiting.get(f"{server.url}/health").status_code == 200


def test_out_of_file_descriptors(serve_live: Any, caplog: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serve_live() as server, ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(8)]
        for client in clients:
            client.settimeout(60)
        highest = max(client.fileno() for client in clients)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            host, port = server.url.removeprefix("http://").split(":")
            for client in clients:
                client.connect((host, int(port)))
                client.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            waiting.wait_until(lambda: "no more connections" in caplog.text)
            time.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caplog.text.count("no more connections") <= 2
        for client in clients:
            assert b"200 OK" in client.recv(65536)


# --- what is no HTTP ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 600 + b"\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /h\xc3\xa4 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n", 431),
        (b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n", 501),
    ],
)
def test_malformed_requests(serve_live: Any, sent: bytes, status: int, caplog: Any) -> None:
    with serve_live() as server:
        with connected(server.url) as client:
            client.sendall(sent)
            check_error(read(client), status)
        assert waiting.get(f"{server.url}/health").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_refusal_before_the_body_is_read_arrives(serve_live: Any) -> None:
    body = b"x" * 20_000_000
    with serve_live() as server:
        reply = waiting.post(f"{server.url}{PATHS[0]}", content=body, headers=JSON)
        assert reply.status_code == 413


JSON = {"content-type": "application/json"}
