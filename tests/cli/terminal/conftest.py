"""The command line in a real pseudo-terminal."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pexpect", reason="needs pseudo-terminals")
from pty_screen import PtyScreen

Terminal = Callable[..., PtyScreen]


@pytest.fixture
def home(tmp_path: Path, tiny_program: Callable[..., Path]) -> Path:
    """A store with one program, `tiny-8da4w`, made at the first second of 2026."""
    folder = tmp_path / "home"
    path = folder / "programs" / "tiny-8da4w.edge"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_program("8da4w").read_bytes())
    os.utime(path, (1767225600, 1767225600))
    return folder


@pytest.fixture
def terminal(home: Path, tmp_path: Path) -> Terminal:
    """``terminal(*words, rows=24, columns=80, environment={}, before="", behind="")``: `edge-llm`
    with these words, by a shell that may put something before and behind the command."""

    def start(
        *words: str,
        rows: int = 24,
        columns: int = 80,
        environment: dict[str, str] | None = None,
        before: str = "",
        behind: str = "",
    ) -> PtyScreen:
        if not before and not behind:
            before = "exec"
        command = shlex.join([sys.executable, "-m", "edge_llm.cli.main", *words])
        return PtyScreen(
            ["/bin/sh", "-c", f"cd {shlex.quote(str(tmp_path))}; {before} {command} {behind}"],
            rows=rows,
            columns=columns,
            environment={
                "EDGE_LLM_HOME": str(home),
                "HOME": str(tmp_path),
                "TZ": "UTC",
                "LC_ALL": "C.UTF-8",
                **(environment or {}),
            },
        )

    return start
