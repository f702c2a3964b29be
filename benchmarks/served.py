"""Our server as a process, for benchmarks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def served(model: str, threads: int, *options: str) -> Iterator[str]:
    """Run ``edge-llm serve`` with these options on a free port; give its address."""
    command = [sys.executable, "-m", "edge_llm.cli.main", "serve", "--model", model]
    command += ["--port", "0", "--threads", str(threads), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait()
