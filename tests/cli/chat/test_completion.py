"""Tab completes a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from edge_llm.cli.chat.completion import CommandCompleter
from edge_llm.runner.sampling import PARAMETERS


def offered(text: str) -> list[str]:
    completer = CommandCompleter(lambda: ["qwen-8da4w", "smol-fp32", "qwen-8da4w"])
    found = completer.get_completions(Document(text), CompleteEvent(completion_requested=True))
    return [text[: len(text) + each.start_position] + each.text for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/un", ["/undo"]),
        ("/s", ["/system", "/set", "/show", "/stats", "/save"]),
        ("/model ", ["/model qwen-8da4w", "/model smol-fp32"]),
        ("/model s", ["/model smol-fp32"]),
        ("/set thi", ["/set think"]),
        ("/set think o", ["/set think on", "/set think off"]),
        ("/set loops ", ["/set loops stop", "/set loops ignore"]),
        ("/set speculation n", ["/set speculation ngram"]),
        (
            "/set ignore_eos ",
            ["/set ignore_eos on", "/set ignore_eos off", "/set ignore_eos default"],
        ),
        ("/system /s", []),
        ("/nothing x", []),
        ("hello /s", []),
        ("/s\nmore", []),
        ("", []),
    ],
)
def test_offers(text: str, expected: list[str]) -> None:
    assert offered(text) == expected


def test_every_setting_is_offered() -> None:
    assert {f"/set {name}" for name in PARAMETERS} <= set(offered("/set "))


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my talks").mkdir()
    (tmp_path / "my talks" / "one.json").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert offered("/save ") == ["/save my talks/"]
    assert offered("/load my talks/o") == ["/load my talks/one.json"]
    assert offered("/load ~/my talks/") == ["/load ~/my talks/one.json"]
    assert offered(f"/load {tmp_path}/.h") == [f"/load {tmp_path}/.hidden"]
    assert offered("/load nowhere/x") == []
