"""`run` is asked the words of the command line joined with what is piped in."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_llm.api import LLM
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
