"""``edge-llm bench --profile``: text, JSON and a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_llm.cli.main import main

SHORT = ("--prompt-tokens", "40", "--depth", "0,70", "--threads", "2", "--repeat", "1")


def bench(tiny_program: Any, *options: str) -> int:
    return main(["bench", "-m", str(tiny_program("8da4w")), *SHORT, *options])


def test_text(tiny_program: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tiny_program, "--profile") == 0
    text = capsys.readouterr().out
    for head in ("prefill of 40 tokens after 70: ", "decode of one token after 0: "):
        assert text.count(head) == 1
    rows = [line.split()[0] for line in text.splitlines() if line]
    assert {"linear", "rope+attention", "waiting", "all", "layer", "outside"} <= set(rows)


def test_files(tiny_program: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, trace = tmp_path / "profile.json", tmp_path / "trace.json"
    assert bench(tiny_program, "--json", "--profile-json", str(file), "--trace", str(trace)) == 0
    document = json.loads(file.read_text())
    assert json.loads(capsys.readouterr().out) == document
    kinds = [(p["kind"], p["tokens"], p["depth"]) for p in document["profiles"]]
    assert kinds == [("prefill", 40, 0), ("decode", 1, 0), ("prefill", 40, 70), ("decode", 1, 70)]
    for profile in document["profiles"]:
        for table in ("operators", "layers", "rows"):
            total = sum(row["seconds"] + row["waited"] for row in profile[table])
            assert total + profile["edges"] == pytest.approx(profile["seconds"])
        assert profile["ceilings"]["bytes_per_second"] > 0
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert {(event["pid"], event["tid"]) for event in spans} == {
        (process, worker) for process in (1, 2, 3, 4) for worker in (0, 1)
    }
    assert all(event["dur"] >= 0 and event["ts"] >= 0 for event in spans)


def test_a_file_that_cannot_be_written(
    tiny_program: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(tiny_program, "--trace", str(tmp_path / "none" / "t.json")) == 1
    assert "cannot write" in capsys.readouterr().err
