"""`edge-llm chat` with scripted input."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import edge_llm
from edge_llm.cli.chat import Conversation
from edge_llm.cli.main import main


def talk(program: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    command = ["chat", "--model", str(program), "--temperature", "0", "--max-tokens", "5"]
    assert main(command) == 0


def test_a_conversation(
    tiny_program: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = tmp_path / "talk.json"
    lines = f"/stats\nhello\n/stats\nand again\n/save {saved}\n/dance\n/quit\nnever read\n"
    program = tiny_program("8da4w")
    capsys.readouterr()  # what the export said
    talk(program, lines, monkeypatch)
    told = capsys.readouterr().err
    assert told.startswith("nothing was answered yet")
    assert "tokens/s" in told
    assert "unknown command /dance" in told
    messages = json.loads(saved.read_text())
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert [message["content"] for message in messages[::2]] == ["hello", "and again"]


def test_system_and_reset(
    tiny_program: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "talk.json"
    talk(tiny_program("8da4w"), f"hello\n/system be brief\nhi\n/save {saved}\n", monkeypatch)
    assert [message["role"] for message in json.loads(saved.read_text())] == [
        "system",
        "user",
        "assistant",
    ]
    talk(tiny_program("8da4w"), f"hello\n/reset\n/save {saved}\n", monkeypatch)
    assert json.loads(saved.read_text()) == []


def test_a_message_that_cannot_be_answered_ends_nothing(
    tiny_program: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = tmp_path / "talk.json"
    talk(tiny_program("8da4w"), f"{'long ' * 400}\nhello\n/save {saved}\n", monkeypatch)
    assert "maximum context length" in capsys.readouterr().err
    assert len(json.loads(saved.read_text())) == 2


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(
    tiny_program: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with edge_llm.load(tiny_program("8da4w"), max_sequences=1) as llm:
        conversation = Conversation(llm, llm.default_params(temperature=0, ignore_eos=True), None)
        whole = llm.chat

        def interrupted(*arguments: object, **options: object) -> object:
            pieces = whole(*arguments, **options)  # type: ignore[call-overload]

            def two_then_ctrl_c() -> object:
                yield next(pieces)
                yield next(pieces)
                pieces.close()
                raise KeyboardInterrupt

            return two_then_ctrl_c()

        llm.chat = interrupted  # type: ignore[method-assign,assignment]
        conversation.handle("hello")
        assert "(stopped)" in capsys.readouterr().err
        assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
        llm.chat = whole  # type: ignore[method-assign]
        conversation.handle("go on")
        assert len(conversation.messages) == 4
        assert llm.stats().running == 0


def test_bytes_that_are_no_text_change_nothing(
    tiny_program: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    saved = tmp_path / "talk.json"
    program = tiny_program("8da4w")
    talk(program, f"/system be \udcff\n\udcff\n/save \udcff\n/save {saved}\n", monkeypatch)
    assert capsys.readouterr().err.count("not valid text") == 3
    assert json.loads(saved.read_text()) == []
    assert main(["chat", "--model", str(program), "--system", "\udcff"]) == 1
