"""The output of the verbs on the way."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.cli.console import Progress, fitted, human_bytes, table
from edge_llm.cli.main import main


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "term", "shown"),
    [(Terminal(), "xterm", True), (Terminal(), "dumb", False), (io.StringIO(), "xterm", False)],
)
def test_progress_is_for_terminals(
    stream: io.StringIO, term: str, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", term)
    progress = Progress()
    progress("download", 5_000_000, 98_400_000)
    progress("download", 98_400_000, 98_400_000)
    progress("pack", 1, 4)
    progress("pack", 4, 4)
    progress("verify", 0, 1)
    progress.close()
    text = stream.getvalue()
    assert ("98.4 of 98.4 MB" in text) is shown
    assert ("100%" in text) is shown
    assert ("verify" in text) is shown
    assert bool(text) is shown


def test_a_bar_without_colour_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress()
    progress("pack", 1, 4)
    progress.close()
    assert not re.search(r"\x1b\[[0-9;]*3\dm", stream.getvalue())


def test_table() -> None:
    rows = [("a", 1, 2.5), ("long", 100, None)]
    assert table(("NAME", "N", "X"), rows).splitlines() == [
        "NAME    N     X",
        "a       1  2.50",
        "long  100     -",
    ]


def test_human_bytes() -> None:
    assert [human_bytes(n) for n in (0, 999, 1000, 93_400_000, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "93.4 MB",
        "5000.0 GB",
    ]


def test_a_table_that_is_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    head = ("NAME", "NUMBER", "MORE", "TEXT")
    rows = [("a" * 20, 123456.0, 1, "word " * 10), ("b", 2.0, 2, "x")]
    wide = table(head, rows, optional=("MORE",))
    assert max(map(len, wide.splitlines())) > 60
    monkeypatch.setenv("COLUMNS", "60")
    narrow = table(head, rows, optional=("MORE",))
    assert max(map(len, narrow.splitlines())) <= 60
    assert "MORE" not in narrow
    assert "123456" in narrow
    assert narrow.count("word") == 10
    monkeypatch.setenv("COLUMNS", "200")
    assert table(head, rows, optional=("MORE",)) == wide


def test_text_is_folded_under_its_second_column(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "file      " + "a word " * 12
    assert fitted(text) == text
    monkeypatch.setenv("COLUMNS", "40")
    first, *rest = fitted(text).splitlines()
    assert first.startswith("file      a word")
    assert rest
    assert all(line.startswith(("          a", "          w")) for line in rest)


@pytest.mark.parametrize("columns", ["80", "120"])
def test_what_verbs_print_fits(
    columns: str,
    tiny_program: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", columns)
    folder = tmp_path / "home" / "programs"
    folder.mkdir(parents=True)
    name = "a-program-with-quite-a-long-name-8da4w"
    (folder / f"{name}.edge").write_bytes(tiny_program("8da4w").read_bytes())
    bench = ["--prompt-tokens", "16", "--decode-tokens", "4", "--repeat", "1"]
    for command in (
        ["inspect"],
        ["inspect", "--weights", "--plan"],
        ["verify"],
        ["plan", name],
        ["plan", "llama3.2-1b", "--device", "all"],
        ["bench", *bench],
        ["bench", "--profile", *bench],
        ["config"],
        ["ls"],
    ):
        assert main(command) == 0
        for line in capsys.readouterr().out.splitlines():
            assert len(line) <= int(columns), (command, line)
