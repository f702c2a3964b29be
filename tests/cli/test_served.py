"""``edge-llm ps`` and ``stop`` against a server that runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from edge_llm.cli.main import main

MODELS = [
    {"id": "one", "state": "loaded", "context_length": 8192},
    {"id": "two", "state": "unloaded", "context_length": 512},
]
HELD = {"name": "one:latest", "size": 92_000_000, "expires_at": "9999-12-31T23:59:59Z"}


class Server(BaseHTTPRequestHandler):
    """Says what a server of edge-llm says (`tests/server/test_several_models.py`)."""

    asked: ClassVar[list[tuple[str, Any, str | None]]] = []

    def do_GET(self) -> None:
        body = {"data": MODELS} if self.path == "/v1/models" else {"models": [HELD]}
        self._reply(200, None, body)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked["model"] == "three":
            self._reply(404, asked, {"error": "no such model"})
        else:
            self._reply(200, asked, {"model": asked["model"], "done_reason": "unload"})

    def _reply(self, status: int, asked: Any, body: Any) -> None:
        self.asked.append((self.path, asked, self.headers["authorization"]))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *about: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    Server.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_ps(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--url", url]) == 0
    head, one, two = capsys.readouterr().out.splitlines()
    assert head.split() == ["MODEL", "STATE", "MEMORY", "CONTEXT", "UNTIL"]
    assert one.split()[:5] == ["one", "loaded", "92.0", "MB", "8192"]
    assert two.split() == ["two", "unloaded", "512"]
    assert main(["ps", "--url", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"]
    assert [(m["id"], m.get("size")) for m in found] == [("one", 92_000_000), ("two", None)]


def test_stop(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_LLM_API_KEY", "sk-1")
    assert main(["stop", "one", "--url", url]) == 0
    [(path, asked, key)] = Server.asked
    assert (path, key) == ("/api/generate", "Bearer sk-1")
    assert (asked["model"], asked["keep_alive"]) == ("one", 0)
    assert main(["stop", "three", "--url", url]) == 1
    assert "refuses: no such model" in capsys.readouterr().err


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "--url", "http://127.0.0.1:1"]) == 1
    assert "no server of edge-llm answers" in capsys.readouterr().err
