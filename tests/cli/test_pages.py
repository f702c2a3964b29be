"""``bench --html`` and ``eval --html``: pages of what was measured."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.cli.main import main

TinyProgram = Callable[..., Path]
BENCH = ("--prompt-tokens", "40", "--decode-tokens", "4", "--repeat", "2")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text <1>.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    return path


def titles(page: Path) -> list[str]:
    return re.findall("<h2[^>]*>(.*?)</h2>", page.read_text(encoding="utf-8"))


def facts(page: Path) -> dict[str, str]:
    return dict(
        re.findall("<dt>(.*?)</dt><dd>(?:<code>)?(.*?)(?:</code>)?</dd>", page.read_text("utf-8"))
    )


def test_bench(
    tiny_program: TinyProgram, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "bench page.html"
    command = ["bench", "-m", str(tiny_program("8da4w")), *BENCH, "--html", str(page), "--json"]
    assert main([*command, "--depth", "0,70", "--threads", "1,2"]) == 0
    printed = capsys.readouterr()
    assert f"wrote {page}" in printed.err
    rows = json.loads(printed.out)["rows"]
    assert all(len(row["seconds"]) == 2 for row in rows)
    assert titles(page) == [
        "Speed against the tokens in the cache",
        "Speed against threads",
        "A step&#x27;s time by operator",
        "Memory against context",
    ]
    said = facts(page)
    assert {"machine", "instruction set", "versions", "date", "threads", "command"} <= set(said)
    assert said["threads"] == "1, 2"
    assert said["command"].startswith("edge-llm bench -m ")
    assert "bench page.html&#x27;" in said["command"]  # as a shell takes it
    content = page.read_text("utf-8")
    assert "decode after 70, µs" in content
    for row in rows:
        value = row["tokens_per_second"]
        assert f">{value:,.0f}<" in content or f">{value:.4g}<" in content


def test_bench_chooses_depths_that_fit(
    tiny_program: TinyProgram, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    command = ["bench", str(tiny_program("8da4w")), *BENCH, "--threads", "1", "--json"]
    assert main([*command, "--html", str(page)]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["depth"] for row in rows} == {0}  # the context is 256
    assert "Speed against threads" not in titles(page)
    assert "--threads 1,2" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "{tmp}"], "which is a folder"),
        (["--html", "{tmp}/none/page.html"], "there is no folder"),
        (["--html", "{tmp}/page.html", "--profile"], "expected no other"),
    ],
)
def test_what_cannot_be_is_told_before_measuring(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.format(tmp=tmp_path) for option in options]
    assert main(["bench", "-m", "no-such-program", *given]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["bench", "eval"])
def test_without_matplotlib(
    verb: str, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_llm import extras

    find: Any = extras.find_spec
    monkeypatch.setattr(
        extras, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    more = ["--text", str(text)] if verb == "eval" else []
    page = text.parent / "p.html"
    assert main([verb, "-m", "no-such-program", "--html", str(page), *more]) == 1
    printed = capsys.readouterr().err
    assert f"{verb} --html needs matplotlib" in printed
    assert "hint: pip install" in printed
    assert not page.exists()


def test_eval_beside_a_reference(
    tiny_program: TinyProgram, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "eval.html"
    command = ["eval", str(tiny_program("8da4w")), "--beside", str(tiny_program("8da8w"))]
    command += ["--reference", str(tiny_program("fp32")), "--text", str(text)]
    command += ["--window", "64", "--windows", "3", "--json", "--html", str(page)]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    found = document["reference"]
    assert len(found["window_means"]) == 3
    assert sum(found["window_means"]) / 3 == pytest.approx(found["mean"]["value"])
    names = [tiny_program(scheme).stem for scheme in ("8da4w", "8da8w")]
    assert titles(page)[:2] == ["Quality against size", "Error by layer"]
    assert titles(page)[2].startswith("Weights: signal to noise by layer, ")
    assert titles(page)[-1] == "Window by window"
    content = page.read_text("utf-8")
    assert f"{found['mean']['value']:.4g}" in content
    assert facts(page)["text"].startswith("text &lt;1&gt;.txt: 3 windows of 64 tokens")
    for name in names:
        assert name in content


def test_eval_of_one_program(tiny_program: TinyProgram, text: Path, tmp_path: Path) -> None:
    page = tmp_path / "eval.html"
    command = ["eval", str(tiny_program("fp32")), "--text", str(text), "--window", "64"]
    assert main([*command, "--html", str(page)]) == 0
    assert titles(page) == ["Quality against size", "Window by window"]
    content = page.read_text("utf-8")
    assert "no weight of a layer was rounded" in content
    assert "needs --reference" in content


def test_layers_of_a_program_beside_itself_are_equal(tiny_program: TinyProgram) -> None:
    from edge_llm.errors import RequestError
    from edge_llm.program.file import Program
    from edge_llm.runner.evaluation.layers import layer_errors, layer_outputs

    with Program.open(tiny_program("8da4w")) as rough, Program.open(tiny_program("fp32")) as fine:
        ours, theirs = (layer_outputs(program, list(range(3, 40))) for program in (rough, fine))
        assert len(ours) == rough.documents.model.layers
        assert {value.shape for value in ours} == {(37, rough.documents.model.dim)}
        assert layer_errors(ours, ours) == [0.0] * len(ours)
        errors = layer_errors(ours, theirs)
        assert all(0 < error < 1 for error in errors)
        with pytest.raises(RequestError, match="expected the reference's"):
            layer_errors(ours[:1], theirs)
        with pytest.raises(RequestError, match="got 0"):
            layer_outputs(fine, [])
