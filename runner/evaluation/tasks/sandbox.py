"""Programs that a model has written, run where they can do no harm."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_llm.errors import ConfigError

_SCRIPT = Path(__file__).with_name("confined.py")
_REPORT_BYTES = 8192  # that are read of what a child says


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """The bounds of a program.

    Attributes:
        seconds: of the processor.
        wall_seconds: on the clock, for one that sleeps.
        memory: bytes of address space.
    """

    seconds: int = 10
    wall_seconds: float = 30.0
    memory: int = 1 << 29

    def of_the_kernel(self) -> dict[str, int]:
        """Return limits by their names in `resource`."""
        return {
            "RLIMIT_CPU": self.seconds,
            "RLIMIT_AS": self.memory,
            "RLIMIT_FSIZE": 0,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_NPROC": 0,
        }


def run_code(source: str, limits: CodeLimits | None = None) -> str | None:
    """Run a Python program in a process of its own, which can compute and read files and nothing
    else: it writes no file, starts no process and reaches no network (`confined` says how), has an
    empty environment, an empty folder, and the standard library alone. Its output goes nowhere.

    Returns:
        None if it came to its end, else why not. A program that wants to deceive those who count
        can; one that ends early (``sys.exit()``) has not come to its end.

    Raises:
        ConfigError: processes cannot be confined here.
    """
    limits = limits or CodeLimits()
    document = json.dumps(limits.of_the_kernel()).encode() + b"\n"
    try:
        content = document + source.encode()
    except UnicodeEncodeError as error:
        return f"it is no text: {error}"
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory(prefix="edge-llm-code-") as folder:
        try:
            child = _started(folder, writing)
        finally:
            os.close(writing)
        try:
            said = _conversation(child, content, reading, time.monotonic() + limits.wall_seconds)
        finally:
            os.close(reading)
            _end(child)
    return _outcome(child.returncode, said, limits)


def _started(folder: str, writing: int) -> subprocess.Popen[bytes]:
    # -I -S: nothing of the user's, and no installed packages, on which results would depend.
    command = [sys.executable, "-I", "-S", "-B", str(_SCRIPT), str(writing)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
        pass_fds=(writing,),
        start_new_session=True,
    )


def _conversation(
    child: subprocess.Popen[bytes], content: bytes, reading: int, deadline: float
) -> bytes | None:
    """Hand the child its program, and return what it says until it ends; None at the deadline."""
    assert child.stdin is not None
    given, said = memoryview(content), b""
    pipe = child.stdin.fileno()
    os.set_blocking(pipe, False)
    while len(said) < _REPORT_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        ready, free, _ = select.select([reading], [pipe] if given else [], [], left)
        if ready:
            if not (chunk := os.read(reading, _REPORT_BYTES)):
                break
            said += chunk
        if free:
            try:
                given = given[os.write(pipe, given[: 1 << 16]) :]
            except BrokenPipeError:
                given = memoryview(b"")
            if not given:
                child.stdin.close()
    # It has closed what it speaks through: it ends, or has only pretended to.
    try:
        child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    return said


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    with suppress(BrokenPipeError):
        child.stdin.close()


def _outcome(code: int, said: bytes | None, limits: CodeLimits) -> str | None:
    if said is None:
        return f"it takes longer than {limits.wall_seconds:g} s"
    reports = [_report(line) for line in said.splitlines()]
    if not reports or not reports[0].get("confined"):
        reason = reports[0].get("reason") if reports else f"the process ended with {code}"
        raise ConfigError(
            f"code cannot be confined here: {reason}",
            hint="It takes Linux on x86-64 or aarch64, with filters of system calls (seccomp).",
        )
    if len(reports) > 1 and "reason" in reports[-1]:
        reason = reports[-1]["reason"]
        return None if reason is None else str(reason)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it computes for longer than {limits.seconds} s"
    return f"the process ended early, with {code}"


def _report(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):  # the program may have written it
        return {}
    return document if isinstance(document, dict) else {}
