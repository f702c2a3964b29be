"""Faults around a server stay there: whoever is not affected gets the very bits that a
quiet server gives, everybody else a well-formed error, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import wait_until

Start = Callable[..., Any]


def prompt(number: int, length: int = 60) -> list[int]:
    source = random.Random(number)
    return [source.randrange(3, 200) for _ in range(length)]


@pytest.fixture(scope="module")
def expected(program: Path) -> dict[int, Any]:
    """Return the answers of a quiet model to some prompts."""
    import edge_llm

    answers = {}
    with edge_llm.load(program, threads=1, max_sequences=1) as llm:
        for number in range(12):
            got = llm.generate(
                prompt(number),
                max_tokens=40,
                temperature=0,
                ignore_eos=True,
                top_logprobs=0,
                speculation="off",
            )
            assert got.logprobs is not None
            answers[number] = [entry.logprob for entry in got.logprobs]
    return answers


def holds(server: Any, number: int, expected: dict[int, Any]) -> bool:
    _, logprobs = server.answer(prompt(number), max_tokens=40)
    return bool(logprobs == expected[number])


def leave(url: str, phase: str, number: int) -> None:
    """Begin a request and hang up: while it is sent, at once after, or in the answer."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(
        {"prompt": prompt(number, 400), "max_tokens": 500, "stream": True, "ignore_eos": True}
    ).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection((host, int(port)), timeout=60) as client:
        if phase == "head":
            client.sendall(head[: len(head) // 2])
            return
        client.sendall(head + (body[:-5] if phase == "body" else body))
        if phase == "answer":
            client.recv(600)
        if phase == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


@pytest.mark.parametrize("phase", ["head", "body", "sent", "answer", "reset"])
def test_clients_that_leave(
    start: Start, program: Path, expected: dict[int, Any], phase: str
) -> None:
    server = start(program, "--max-sequences", "4")
    with ThreadPoolExecutor(6) as pool:
        gone = [pool.submit(leave, server.url, phase, 100 + n) for n in range(12)]
        kept = [pool.submit(holds, server, n, expected) for n in range(6)]
        assert all(future.result() for future in kept)
        for future in gone:
            future.result()
    server.is_quiet()
    assert holds(server, 7, expected)


def test_a_reader_who_hangs(start: Start, program: Path, expected: dict[int, Any]) -> None:
    server = start(program, "--max-sequences", "2")
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(
        {"prompt": prompt(200), "max_tokens": 900, "stream": True, "ignore_eos": True, "n": 4}
    ).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        assert all(holds(server, number, expected) for number in range(4))
    server.is_quiet()


def test_blocks_run_out(start: Start, program: Path, expected: dict[int, Any]) -> None:
    """Memory for two of them: the others wait, or are preempted and computed again."""
    import edge_llm

    with edge_llm.load(program, threads=1, max_sequences=1) as llm:
        size = llm.engine._executor.block_bytes(0)  # type: ignore[attr-defined]
    server = start(program, "--kv-budget", str(5 * size), "--max-sequences", "6")
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda n: holds(server, n, expected), [*range(6), *range(6)]))
    long = server.ask(prompt(1, 500), max_tokens=10)
    assert long.status_code == 400
    assert long.json()["error"]["code"] == "capacity_exceeded"
    server.is_quiet()


def test_stopping_under_load(start: Start, program: Path) -> None:
    """Streams end with an error event or whole; new requests are refused or find nobody."""
    server = start(program, "--max-sequences", "4")
    begun = threading.Barrier(5)

    def stream(number: int) -> list[str]:
        body = {"prompt": prompt(number), "max_tokens": 900, "stream": True, "ignore_eos": True}
        with (
            httpx.Client(timeout=60) as client,
            client.stream("POST", f"{server.url}/v1/completions", json=body) as reply,
        ):
            lines = reply.iter_lines()
            first = next(lines)
            begun.wait(60)
            return [first, *lines]

    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(stream, number) for number in range(4)]
        begun.wait(60)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)  # now
        for future in streams:
            events = [line.removeprefix("data: ") for line in future.result() if line]
            whole = events[-1] == "[DONE]"
            assert whole or json.loads(events[-1])["error"]["type"] == "server_error"
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert "Traceback" not in server.said()
    with pytest.raises(httpx.ConnectError):
        server.ask(prompt(1))


def test_a_kill_and_a_restart(
    start: Start, program: Path, expected: dict[int, Any], tmp_path: Path
) -> None:
    sessions = ("--sessions", str(tmp_path))
    server = start(program, *sessions)
    assert holds(server, 0, expected)
    wait_until(lambda: len(list(tmp_path.rglob("*.block"))) >= 1)
    threading.Thread(target=lambda: _fails(server, 5), daemon=True).start()
    server.end(signal.SIGKILL)
    for path in list(tmp_path.rglob("*.block"))[:1]:
        path.write_bytes(path.read_bytes()[:-1])  # and a file is damaged
    again = start(program, *sessions)
    assert all(holds(again, number, expected) for number in range(4))
    again.is_quiet()
    assert again.end() != ""
    assert again.process.returncode == 0


def _fails(server: Any, number: int) -> None:
    try:
        server.ask(prompt(number), max_tokens=900)
    except httpx.HTTPError:
        return


def test_the_file_is_replaced_underneath(
    start: Start, program: Path, tiny_program: Any, expected: dict[int, Any], tmp_path: Path
) -> None:
    """A loaded model goes on with what it was loaded from; one loaded later is the new one, or
    an error where that is none."""
    served = tmp_path / "served.edge"
    served.write_bytes(program.read_bytes())
    server = start(served)
    assert holds(server, 0, expected)
    other = tmp_path / "other"
    other.write_bytes(tiny_program("fp32", max_position_embeddings=1024).read_bytes())
    os.replace(other, served)
    assert all(holds(server, number, expected) for number in range(3))
    unload = {"model": "served", "keep_alive": 0}
    assert httpx.post(f"{server.url}/api/generate", json=unload, timeout=60).status_code == 200
    _, logprobs = server.answer(prompt(0), max_tokens=40)
    assert logprobs != expected[0]
    assert httpx.post(f"{server.url}/api/generate", json=unload, timeout=60).status_code == 200
    served.unlink()
    gone = server.ask(prompt(0))
    assert gone.status_code == 500
    assert gone.json()["error"]["code"] == "model_not_loaded"
    other.write_bytes(program.read_bytes())
    os.replace(other, served)
    assert holds(server, 0, expected)


def test_memory_stays_flat(start: Start, program: Path) -> None:
    """Ten thousand requests with EDGE_LLM_LONG set, else a few hundred."""
    server = start(program, "--max-sequences", "8", "--kv-budget", "8MB")
    count = 10_000 if os.environ.get("EDGE_LLM_LONG") else 600

    def work(first: int) -> None:
        with httpx.Client(timeout=60) as client:
            for number in range(first, count, 4):
                body = {"prompt": prompt(number, 40 + number % 50), "max_tokens": 4}
                assert client.post(f"{server.url}/v1/completions", json=body).status_code == 200

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: work(n + count - 200), range(4)))  # the caches fill
        before = server.resident_bytes()
        list(pool.map(work, range(4)))
    server.is_quiet()
    grown = server.resident_bytes() - before
    assert grown < 16e6, f"{grown / 1e6:.1f} MB more after {count} requests"
