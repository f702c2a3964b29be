"""The example of the Python API runs as it stands."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "generate.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_every_part_answers(
    tiny_program: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, str(tiny_program()))
    parts = capsys.readouterr().out.split("# ")[1:]
    assert len(parts) == 4
    assert all(len(part.strip().splitlines()) > 1 for part in parts)


def test_a_name_of_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="error: no program 'nope'"):
        run(monkeypatch, "nope")
