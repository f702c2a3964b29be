"""The other end of worker.py: one engine in a process of its own, stopped while it is not asked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 900.0  # seconds until an engine that does not answer is given up


class EngineError(Exception):
    """An engine did not start, stopped, or says that it cannot do what was asked."""


class EngineProcess:
    """Start an engine and wait until its model is loaded.

    Between requests the process is stopped (SIGSTOP), so that no thread of it that still waits
    for work takes time from the others.

    Raises:
        EngineError: it did not start; the message has the end of what it printed.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | (environment or {}),
        )
        try:
            hello = self._read()
        except BaseException:
            self.close()
            raise
        self.load_seconds: float = hello["load_seconds"]
        self.version: str = hello["version"]
        self._signal(signal.SIGSTOP)

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Send one request and return the answer; see worker.answer."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": do} | values).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._read()
        except OSError as exc:
            raise EngineError(f"{exc}: {self._last_words()}") from exc
        self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def memory(self) -> dict[str, int]:
        """Return the bytes held now and at most, and those held now that are not of files."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = {name: int(value) for name, value in re.findall(r"(\w+):\s*(\d+) kB", status)}
        return {
            "rss_bytes": found["VmRSS"] * 1024,
            "peak_rss_bytes": found["VmHWM"] * 1024,
            "anonymous_bytes": found["RssAnon"] * 1024,
        }

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()  # nothing of it is kept, and a stopped process could not end
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            what = "stopped" if ready else f"gave no answer in {PATIENCE:.0f} s"
            raise EngineError(f"{what}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-4:] if line.strip()) or "no message"
