"""The screens of the verbs in terminals of two sizes. Those that stay the same are kept in
captures/; ``WRITE_CAPTURES=1 pytest …`` writes them again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.cli.main import VERBS

pytest.importorskip("pexpect", reason="needs pseudo-terminals")
from pty_screen import PtyScreen

SIZES = [(24, 80), (40, 120)]
CAPTURES = Path(__file__).parent / "captures"

Terminal = Callable[..., PtyScreen]


def widest(screen: PtyScreen) -> int:
    """Return the length of the longest line that was written, before the terminal cut it."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.written)
    return max(map(len, re.split(r"[\r\n]", text)))


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_fits(
    verb: str, rows: int, columns: int, terminal: Terminal
) -> None:
    with terminal("help", verb, rows=rows, columns=columns) as screen:
        assert screen.until_end() == 0
        assert f"edge-llm {verb}" in screen.text
        assert widest(screen) <= columns


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize(
    ("name", "words", "status"),
    [
        ("help", [], 0),
        ("ls", ["ls"], 0),
        ("wrong-verb", ["insepct"], 2),
        ("wrong-option", ["run", "--temprature", "0.5", "hi"], 2),
        ("wrong-choice", ["export", "--quant", "8da4", "-m", "x"], 2),
        ("wrong-value", ["run", "--max-tokens", "some", "hi"], 2),
        ("wrong-program", ["verify", "tiny-8da8w"], 1),
        ("wrong-setting", ["config", "contxt", "512"], 1),
        ("no-prompt", ["run"], 1),
        ("verify", ["verify", "tiny-8da4w"], 0),
    ],
)
def test_captures(
    name: str, words: list[str], status: int, rows: int, columns: int, terminal: Terminal
) -> None:
    with terminal(*words, rows=rows, columns=columns) as screen:
        assert screen.until_end() == status
        shown = "\n".join(screen.scrollback).rstrip() + "\n"
    kept = CAPTURES / f"{name}-{columns}x{rows}.txt"
    if os.environ.get("WRITE_CAPTURES"):
        kept.write_text(shown, encoding="utf-8")
    assert shown == kept.read_text(encoding="utf-8")


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inspect"], "parameters in"),
        (["inspect", "tiny-8da4w", "--weights"], "model.embed_tokens.weight"),
        (["plan", "tiny-8da4w"], "each token"),
        (["plan", "llama3.2-1b", "--device", "all"], "DEVICE"),
        (["bench", "--prompt-tokens", "16", "--decode-tokens", "4", "--repeat", "1"], "tiny"),
        (["eval", "--text", "text.txt", "--window", "16", "--windows", "2"], "perplexity"),
        (["config"], "huge_pages"),
        (["ls", "--all"], "llama3.2-1b"),
    ],
)
def test_what_verbs_show_fits(
    words: list[str], said: str, rows: int, columns: int, terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    with terminal(*words, rows=rows, columns=columns) as screen:
        assert screen.until_end() == 0
        assert any(said in line for line in screen.scrollback), screen.text
        assert widest(screen) <= columns


def test_a_pipe_gets_plain_text(terminal: Terminal) -> None:
    with terminal("bench", "--prompt-tokens", "16", "--repeat", "1", behind="2>&1 | cat") as screen:
        assert screen.until_end() == 0
        assert "\x1b" not in screen.written


@pytest.mark.parametrize("verbose", [False, True])
def test_an_export_shows_its_stages_and_leaves_its_result(
    verbose: bool, terminal: Terminal, tiny_checkpoint: Callable[..., Path]
) -> None:
    words = ["export", "-m", str(tiny_checkpoint("llama")), "-o", "x.edge", "--quant", "8da8w"]
    with terminal(*words, *(["-v"] if verbose else [])) as screen:
        assert screen.until_end() == 0
        assert re.search(r"read .*pack ", screen.text, re.DOTALL)
        left = [line for line in screen.scrollback if line]
    *report, result, path = left
    assert path == "x.edge"
    assert re.fullmatch(r"x\.edge: .* kB, .* bits per weight, made in \d+ s", result)
    assert " ".join(report).count("verify: ") == 1
    assert any(line.startswith("seconds: ") for line in report) is verbose


def test_an_answer_to_what_is_piped_in(terminal: Terminal) -> None:
    words = ["run", "--raw", "--max-tokens", "3", "--ignore-eos"]
    with terminal(*words, before="echo hello |") as screen:
        assert screen.until_end() == 0
        assert "3 tokens" in screen.text


def test_a_recipe_is_told_in_words(
    terminal: Terminal, tiny_checkpoint: Callable[..., Path]
) -> None:
    words = ["export", "-m", str(tiny_checkpoint("llama")), "-o", "x.edge", "--quant", "8da8w"]
    with terminal(*words) as screen:
        assert screen.until_end() == 0
    with terminal("inspect", "x.edge") as screen:
        assert screen.until_end() == 0
        shown = " ".join(screen.text.split())
    assert re.search(r"gate \(max kl \d[^{}]*\)", shown)
    assert "verify" not in shown  # the file does not know whether it was compared
