"""``--adapter`` of the verbs that load a program."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the peft package")
from peft_adapters import write_adapter

from edge_llm.cli.loading import adapters_of
from edge_llm.cli.main import main
from edge_llm.errors import ConfigError


def test_how_adapters_are_named(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    found = adapters_of([f"law={tmp_path}", str(odd), str(tmp_path / "prose")])
    assert found == {"law": tmp_path, "a=b": odd, "prose": tmp_path / "prose"}
    with pytest.raises(ConfigError, match="two adapters have the name law"):
        adapters_of(["law=x", "law=y"])


def test_run_answers_with_the_adapter(
    tiny_program: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_adapter(tmp_path / "lora").folder
    command = ["run", "-m", str(tiny_program()), "hello", "--temperature", "0", "--max-tokens", "8"]

    def answer(*more: str) -> str:
        assert main([*command, *more]) == 0
        return capsys.readouterr().out

    assert answer("--adapter", str(folder)) == answer("--adapter", f"mine={folder}") != answer()
    assert main([*command, "--adapter", f"a={folder}", "--adapter", f"b={folder}"]) != 0
    assert "got the adapters a, b, expected one" in capsys.readouterr().err


def test_a_chat_changes_its_adapter(
    tiny_program: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [write_adapter(tmp_path / name, seed=len(name)).folder for name in ("law", "prose")]
    lines = "/adapter\n/adapter prose\n/adapter none\n/adapter other\n/show\n"
    monkeypatch.setattr("sys.stdin", StringIO(lines))
    command = ["chat", "-m", str(tiny_program())]
    for folder in folders:
        command += ["--adapter", str(folder)]
    assert main(command) == 0
    said = capsys.readouterr().err
    for line in ("adapter: law (law, prose)", "adapter: prose (law", "adapter: none (law"):
        assert line in said
    assert "there is no adapter other, expected none or one of: law, prose" in said
