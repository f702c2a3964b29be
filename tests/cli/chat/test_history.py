"""The history of what was typed, in a file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from edge_llm.cli.chat import history
from edge_llm.cli.chat.history import FileHistory, history_path


def entries(path: Path) -> list[str]:
    return list(FileHistory(path).load_history_strings())


def test_what_is_stored_comes_back_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.jsonl"
    kept = FileHistory(path)
    for text in ("one", "two\nlines", "h\u00e9", "no text: \udcff"):
        kept.store_string(text)
    assert entries(path) == ["no text: \udcff", "h\u00e9", "two\nlines", "one"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_damaged_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'"one"\n{"a": 1}\n"tw\n\xff\n"three"\n"cu')
    assert entries(path) == ["three", "one"]


def test_a_long_file_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    monkeypatch.setattr(history, "_MOST_BYTES", 1000)
    monkeypatch.setattr(history, "_MOST", 100)
    path.write_text("".join(json.dumps(f"entry {n}") + "\n" for n in range(500)))
    assert entries(path)[0] == "entry 499"
    assert entries(path) == [f"entry {n}" for n in range(499, 449, -1)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_is_told_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = FileHistory(tmp_path / "history.jsonl")

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    kept.append_string("one")
    assert "No space left on device" in str(kept.trouble)
    assert kept.get_strings() == ["one"]


def test_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("EDGE_LLM_HOME", "/shared")
    assert history_path() == tmp_path / ".local/state/edge-llm/chat-history.jsonl"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert history_path() == tmp_path / "state/edge-llm/chat-history.jsonl"
    monkeypatch.setattr("sys.platform", "darwin")
    assert history_path() == (tmp_path / "Library/Application Support/edge-llm/chat-history.jsonl")
