"""The output of the verbs on the way."""

from __future__ import annotations

import io

import pytest

from edge_llm.cli.console import Progress, human_bytes, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("COLUMNS", "80")
        progress = Progress()
        progress("pack", 1, 4)
        progress("pack", 4, 4)
        progress("verify", 0, 1)
        progress.close()
        assert ("pack" in stream.getvalue()) is shown
        assert ("4.00/4.00" in stream.getvalue()) is shown
        assert ("verify" in stream.getvalue()) is shown


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
