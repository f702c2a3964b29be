"""A request has its place before its text is looked at, and gives it back when it is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import waiting

from edge_llm.api.prompts import encode_prompt
from edge_llm.errors import ContextLengthError
from edge_llm.server import body
from edge_llm.server.body import LONG_BODY
from edge_llm.tokenizers.pieces import checkpoint
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer

PATH = "/v1/chat/completions"
CHAT: dict[str, Any] = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}
FULL_TEXT = 8_000_000


class SlowEncoder:
    """Encodes in pieces of some milliseconds, until it is let go or broken off."""

    def __init__(self, encode: Any) -> None:
        self._encode = encode
        self.begun = 0
        self.broken_off = 0
        self.go = threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.begun += 1
        while not self.go.wait(0.005):
            try:
                checkpoint()
            except BaseException:
                self.broken_off += 1
                raise
        return self._encode(*arguments)


@pytest.fixture
def slow(model: Any) -> SlowEncoder:
    model.chat_jobs = SlowEncoder(model.chat_jobs)
    encoder: SlowEncoder = model.chat_jobs
    return encoder


def test_the_limit_counts_choices(serve_live: Any, model: Any) -> None:
    model.gate.clear()
    with (
        serve_live(max_choices=8) as server,
        waiting.client(base_url=server.url) as client,
        client.stream("POST", PATH, json=CHAT | {"n": 6, "stream": True}),
    ):
        assert waiting.post(server.url + PATH, json=CHAT | {"n": 3}).status_code == 429
        refused = waiting.post(server.url + PATH, json=CHAT | {"n": 9})  # which never fits
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
        model.gate.set()
        assert waiting.post(server.url + PATH, json=CHAT | {"n": 2}).status_code == 200


def test_a_full_server_encodes_nothing(serve_live: Any, slow: SlowEncoder) -> None:
    with serve_live(max_choices=1) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(waiting.post, server.url + PATH, json=CHAT)
        waiting.wait_until(lambda: slow.begun == 1)
        assert waiting.post(server.url + PATH, json=CHAT).status_code == 429
        assert slow.begun == 1
        slow.go.set()
        assert first.result().status_code == 200


def test_health_answers_while_texts_are_encoded(serve_live: Any, slow: SlowEncoder) -> None:
    with serve_live() as server, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(waiting.post, server.url + PATH, json=CHAT) for _ in range(8)]
        waiting.wait_until(lambda: slow.begun == 2)  # the others wait for one of the threads
        assert waiting.get(f"{server.url}/health").status_code == 200
        assert slow.begun == 2
        slow.go.set()
        assert [reply.result().status_code for reply in asked] == [200] * 8


def test_a_hang_up_while_a_text_is_encoded(serve_live: Any, model: Any, slow: SlowEncoder) -> None:
    with serve_live(max_choices=1) as server:
        host, port = server.url.removeprefix("http://").split(":")
        data = json.dumps(CHAT).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        with socket.create_connection((host, int(port))) as connection:
            head = head.replace("x", host) + f"content-length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data)
            waiting.wait_until(lambda: slow.begun == 1)
        waiting.wait_until(lambda: slow.broken_off == 1)
        slow.go.set()
        assert waiting.post(server.url + PATH, json=CHAT).status_code == 200
        assert len(model.requests) == 1


def test_stopping_while_a_text_is_encoded(serve_live: Any, slow: SlowEncoder, caplog: Any) -> None:
    caplog.set_level(logging.INFO, logger="edge_llm.server")
    with serve_live(drain_seconds=0.1) as server, ThreadPoolExecutor(1) as pool:
        reply = pool.submit(waiting.post, server.url + PATH, json=CHAT)
        waiting.wait_until(lambda: slow.begun == 1)
        server.stop()
        assert reply.result().status_code == 503
        server.thread.join(60)
        assert not server.thread.is_alive()
        assert slow.broken_off == 1
    assert "waiting for 1 request, at most 0.1 seconds; a second Ctrl-C ends" in caplog.text


@pytest.fixture(scope="module")
def qwen3(qwen3_tokenizer_dir: Path) -> Tokenizer:
    document = from_directory(qwen3_tokenizer_dir)
    return Tokenizer(document.json, document.facts)


def resident() -> int:
    """Return the bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog, again.\n",
        "中文、日本語。한국어 русский",
        "<|im_start|>",
    ],
)
def test_a_text_of_the_longest_body_is_refused_for_what_it_is(
    qwen3: Tokenizer, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = qwen3._encode

    def count(piece: str, specials: bool, continues: bool) -> Any:
        encoded.append(len(piece))
        return encode(piece, specials, continues)

    monkeypatch.setattr(qwen3, "_encode", count)
    long = (text * (FULL_TEXT // len(text.encode()) + 1))[:FULL_TEXT]
    qwen3.encode("a " * LONG_BODY)
    before = resident()
    encoded.clear()
    with pytest.raises(ContextLengthError) as info:
        encode_prompt(qwen3, long, 4096)
    assert info.value.at_least
    assert sum(encoded) < 200_000
    assert resident() - before < 200e6


def test_a_list_of_ids_beyond_the_context_is_not_read(qwen3: Tokenizer) -> None:
    class Unread(list[int]):
        def __iter__(self) -> Any:
            raise AssertionError("it was read")

    with pytest.raises(ContextLengthError) as info:
        encode_prompt(qwen3, Unread([1] * 5000), 4096)
    assert info.value.prompt_tokens == 5000


@pytest.mark.parametrize("step", ["_parsed", "validate"])
def test_a_long_body_is_read_off_the_loop(
    client: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    used: list[bool] = []
    real = getattr(body, step)

    def noting(*given: Any, **options: Any) -> Any:
        try:
            asyncio.get_running_loop()
            used.append(False)
        except RuntimeError:
            used.append(True)
        return real(*given, **options)

    monkeypatch.setattr(body, step, noting)
    for length in (10, LONG_BODY):
        client.post(PATH, content=json.dumps(CHAT | {"user": "x" * length}), headers=JSON)
    assert used == [False, True]


JSON = {"content-type": "application/json"}
