"""`run` is asked the words of the command line joined with what is piped in."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.api import LLM
from edge_llm.cli import run
from edge_llm.cli.main import main


@pytest.fixture
def asked(
    tmp_path: Path, tiny_program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The prompts that programs of a store of two were asked, each after the program's file."""
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "programs"
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        (folder / f"{name}.edge").write_bytes(tiny_program("fp32").read_bytes())
    monkeypatch.setenv("EDGE_LLM_DEFAULT", "one")
    monkeypatch.chdir(tmp_path)
    prompts: list[str] = []
    chat = LLM.chat

    def recorded(self: LLM, messages: list[dict[str, str]], *args: Any, **kwargs: Any) -> Any:
        prompts.append(messages[-1]["content"])
        return chat(self, messages, *args, **kwargs)

    monkeypatch.setattr(LLM, "chat", recorded)
    return prompts


def test_it_says_that_it_waits_for_standard_input(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "_PATIENCE_SECONDS", 0.0)
    reading, writing = os.pipe()
    noted = threading.Event()
    said = run.say

    def recorded(message: str = "") -> None:
        said(message)
        noted.set()

    def feed() -> None:  # only once it has said that it waits
        noted.wait(60)
        os.write(writing, b"a report")
        os.close(writing)

    monkeypatch.setattr(run, "say", recorded)
    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reading, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["run", "Summarise this", "--max-tokens", "1"]) == 0
    feeder.join()
    assert asked == ["Summarise this\n\na report"]
    assert "from standard input; `</dev/null` gives it none" in capsys.readouterr().err


def test_it_is_silent_about_standard_input_that_has_ended(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(os.devnull, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["run", "hi", "--max-tokens", "1"]) == 0
    assert asked == ["hi"]
    assert "standard input" not in capsys.readouterr().err


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


@pytest.mark.parametrize(
    ("words", "piped", "prompt"),
    [
        (["Summarise this"], b"a report\n", "Summarise this\n\na report"),
        ([], b"hello\n", "hello"),
        (["-"], b"hello\r\n", "hello"),
        ([], b"\xef\xbb\xbfhello\n\n", "hello\n"),
        (["hi"], b"", "hi"),
        (["hi"], b"\n", "hi"),
        (["two"], b"hello", "hello"),
        (["two", "hi"], b"", "hi"),
        (["two", "hi"], b"there", "hi\n\nthere"),
        (["-m", "two", "one"], b"", "one"),
        (["-m", "two"], b"three", "three"),
    ],
)
def test_prompts(
    words: list[str],
    piped: bytes,
    prompt: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe(monkeypatch, piped)
    assert main(["run", *words, "--max-tokens", "1"]) == 0
    assert asked == [prompt]
    answering = "two" if "two" in words else "one"
    assert capsys.readouterr().err.startswith(f"{answering} (fp32, 256 tokens): ")


@pytest.mark.parametrize(
    ("words", "piped", "said"),
    [
        ([], b"", "what was piped in is empty"),
        (["-"], b" \n", "what was piped in is empty"),
        ([""], b"", "there is no prompt"),
        ([], b"caf\xe9", "standard input is not UTF-8 text: byte 0xe9 at 3"),
        (["why", "is", "the", "sky", "blue"], b"", "got 5 words for the prompt"),
        (["-m", "two", "why", "not"], b"", "got 2 words for the prompt"),
        (["nothing.edge", "hi"], b"", "nothing.edge"),
        (["hi"], b"a" * 2**24, "standard input has more than 8388608 bytes"),
        (["hi", "--schema", "{"], b"", "--schema is not JSON"),
        (["hi", "--schema", '{"a":' * 10000], b"", "--schema is not JSON"),
        (["hi", "--schema", ""], b"", "--schema is empty, expected a file or a JSON object"),
        (["hi", "--schema", "no.json"], b"", "cannot read the schema no.json: No such file"),
        (["hi", "--schema", "/dev/null"], b"", "/dev/null is not JSON"),
    ],
)
def test_what_cannot_be_asked(
    words: list[str],
    piped: bytes,
    said: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe(monkeypatch, piped)
    assert main(["run", *words]) == 1
    assert said in capsys.readouterr().err
    assert asked == []
