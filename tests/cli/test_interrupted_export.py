"""Exports that are interrupted, terminated or killed from outside, as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]

EXPORT = """
    import sys, time
    from edge_llm.cli import console, main

    def stop(self, stage, done, total):
        if stage == "verify":
            print("verify", flush=True)
            time.sleep(60)

    console.Progress.__call__ = stop
    sys.exit(main.main(sys.argv[1:]))
"""


@pytest.fixture
def started(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> Callable[[], subprocess.Popen[str]]:
    """``started()``: an export to ``x.edge`` that has written all weights, and waits."""

    def start() -> subprocess.Popen[str]:
        command = ["export", "--model", str(tiny_checkpoint("llama"))]
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(EXPORT), *command, "-o", tmp_path / "x.edge"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "verify\n"
        return process

    return start


def partial_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "x.edge")


def test_signals(started: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    target = tmp_path / "x.edge"
    target.write_bytes(b"the old file")
    killed = started()
    killed.kill()
    killed.communicate(timeout=60)
    (stale,) = partial_files(tmp_path)
    for number in (signal.SIGTERM, signal.SIGINT):
        process = started()
        (living,) = partial_files(tmp_path)
        assert living != stale
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130
        assert told.endswith("interrupted\n")
        assert partial_files(tmp_path) == []
    assert target.read_bytes() == b"the old file"


def test_two_at_once(started: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    first, second = started(), started()
    assert len(partial_files(tmp_path)) == 2
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert len(partial_files(tmp_path)) == 1
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=60)
    assert partial_files(tmp_path) == []
