"""The tokenizer loads beside the weights, from tables where the file has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mixed_text import mixed_texts

import edge_llm
from edge_llm.errors import TokenizerError
from edge_llm.program.file import Program
from edge_llm.tokenizers import tokenizer as module
from edge_llm.tokenizers.tokenizer import Tokenizer


@pytest.fixture
def path(tiny_program: Any) -> Path:
    made: Path = tiny_program()
    return made


def test_tables_stand_for_the_document(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Program.open(path) as program:
        assert program.tokenizer_tables
        whole = Tokenizer(program.tokenizer_json, program.documents.tokenizer)
    monkeypatch.delattr(Program, "tokenizer_json")  # nobody reads it
    with edge_llm.load(path) as llm:
        for text in mixed_texts(50):
            assert llm.tokenizer.encode(text) == whole.encode(text)


def test_files_without_tables_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with edge_llm.load(path) as llm:
        ids = llm.tokenizer.encode("Once upon a time")
    monkeypatch.setattr(Program, "tokenizer_tables", {})
    with edge_llm.load(path) as llm:
        assert llm.tokenizer.encode("Once upon a time") == ids


def test_its_errors_are_those_of_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(program: Program) -> Tokenizer:
        raise TokenizerError("no such tokenizer")

    monkeypatch.setattr(module, "tokenizer_of", fail)
    with pytest.raises(TokenizerError, match="no such tokenizer"):
        edge_llm.load(path)
