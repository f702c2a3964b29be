"""/save and /load: whole files, and what is refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from edge_llm.cli.chat import transcript
from edge_llm.errors import RequestError

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "h\u00e9llo"},
    {"role": "assistant", "content": "hi", "reasoning_content": "hm"},
]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    size = transcript.write(path, TALK)
    assert size == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert transcript.read(path) == TALK
    path.write_text(json.dumps({"model": "x", "messages": TALK}))
    assert transcript.read(path) == TALK
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.json"]


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.json"
    path.write_text("before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RequestError, match=r"cannot write .*No space left on device"):
        transcript.write(path, TALK)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.json"]


def test_links_and_modes_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "talk.json", tmp_path / "link.json"
    path.write_text("before")
    path.chmod(0o644)
    link.symlink_to(path)
    transcript.write(link, TALK)
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert transcript.read(path) == TALK


@pytest.mark.parametrize("name", ["", "no/such/folder/talk.json", "."])
def test_names_that_cannot_be_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError):
        transcript.write(transcript.path_of(name), TALK)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("3", "no list of messages"),
        ('["hi"]', "message 1 is no object"),
        ('[{"role": "user", "content": "a"}, {"role": "cat", "content": "b"}]', "message 2: role"),
        ('[{"role": "user", "content": [1]}]', "message 1: content"),
        ('[{"role": "user", "content": "\\ud800"}]', "half of a character"),
    ],
)
def test_files_that_are_no_conversation(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=told):
        transcript.read(path)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    with pytest.raises(RequestError, match="No such file"):
        transcript.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match="no text in UTF-8"):
        transcript.read(path)


def test_names_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert transcript.path_of("~/my talk.json") == tmp_path / "my talk.json"
    assert transcript.path_of('"my talk.json"') == Path("my talk.json")
    with pytest.raises(RequestError):
        transcript.path_of("~nobody-of-this-name/talk.json")
