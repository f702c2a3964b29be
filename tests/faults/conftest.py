"""A server as a process of its own, which tests end as they like."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from waiting import wait_until

CONTEXT = 1024


class Server:
    """``edge-llm serve`` on a program."""

    def __init__(self, program: Path, *options: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "edge_llm.cli.main", "serve", str(program)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe would fill up)
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--threads", "2", *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said()
        self.url: str = json.loads(line)["url"]

    def ask(self, prompt: list[int], **options: Any) -> httpx.Response:
        """Complete a prompt, greedily unless told otherwise."""
        body = {"prompt": prompt, "temperature": 0, "ignore_eos": True, "logprobs": 0, **options}
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=60)

    def answer(self, prompt: list[int], **options: Any) -> Any:
        """Return the text of an answer and the log-probabilities of its tokens."""
        reply = self.ask(prompt, **options)
        assert reply.status_code == 200, reply.text
        return told(reply.json())

    def figures(self) -> dict[str, float]:
        """Return the figures of `/metrics`, by name and labels."""
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def used_blocks(self) -> float:
        return sum(
            value
            for name, value in self.figures().items()
            if name.startswith("edge_llm_blocks{") and 'state="used"' in name
        )

    def resident_bytes(self) -> float:
        return self.figures()["process_resident_memory_bytes"]

    def is_quiet(self) -> None:
        """Wait until nothing runs, and check that every block is back."""
        wait_until(lambda: self.figures()["edge_llm_requests_active"] == 0)
        wait_until(lambda: self.used_blocks() == 0)

    def end(self, number: int = signal.SIGTERM) -> str:
        """Stop it; return what it said."""
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.said()

    def said(self) -> str:
        """Return what it has logged."""
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        """Kill it, if it still runs."""
        self.process.kill()
        self.process.communicate()
        self._log.close()


def told(body: Any) -> Any:
    [choice] = body["choices"]
    return choice["text"], choice["logprobs"]["token_logprobs"]


@pytest.fixture(scope="session")
def program(tiny_program: Any) -> Path:
    path: Path = tiny_program("8da4w", max_position_embeddings=CONTEXT)
    return path


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts servers; those that still run at the end are killed."""
    servers: list[Server] = []

    def begin(program: Path, *options: str) -> Server:
        servers.append(Server(program, *options))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()
