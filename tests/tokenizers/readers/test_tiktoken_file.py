"""tiktoken files: the documents that they give, and damage."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import TokenizerError
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.readers import tiktoken_file
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer


def line(token: bytes, rank: int) -> bytes:
    return base64.b64encode(token) + b" %d\n" % rank


BYTES = b"".join(line(bytes([byte]), byte) for byte in range(256))


def test_llama3_equals_the_published_tokenizer_json(
    tmp_path: Path, llama3_tiktoken: Path, llama3_tokenizer_dir: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(llama3_tiktoken.read_bytes())
    document = from_directory(tmp_path)
    facts = document.facts
    assert (facts.size, facts.bos_id, facts.eos_id, facts.add_bos) == (128256, 128000, 128001, True)
    ours = json.loads(document.json)
    theirs = json.loads((llama3_tokenizer_dir / "tokenizer.json").read_bytes())
    assert ours["added_tokens"] == theirs["added_tokens"]
    assert ours["pre_tokenizer"]["pretokenizers"][0] == theirs["pre_tokenizer"]["pretokenizers"][0]
    assert ours["model"]["merges"] == theirs["model"]["merges"]
    vocabulary = ours["model"]["vocab"]
    assert {token: vocabulary[token] for token in theirs["model"]["vocab"]} == (
        theirs["model"]["vocab"]
    )


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of the 256 bytes, which is made a known one."""
    known = replace(
        tiktoken_file._LAYOUTS[151_643],
        specials=("<first>", "<last>"),
        spares=("<spare>",),
        bos="<first>",
        eos="<last>",
    )
    monkeypatch.setitem(tiktoken_file._LAYOUTS, 256, known)
    (tmp_path / "small.tiktoken").write_bytes(BYTES)
    return tmp_path


def special_ids(folder: Path) -> dict[str, int]:
    document = from_directory(folder)
    return dict(Tokenizer(document.json, document.facts).special_texts)


def listing(folder: Path, tokens: dict[int, str], **more: Any) -> None:
    entries = {str(i): {"content": text, "special": True} for i, text in tokens.items()}
    config = {"added_tokens_decoder": entries, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_specials_of_the_layout(small: Path) -> None:
    assert special_ids(small) == {"<first>": 256, "<last>": 257, "<spare>": 258}
    assert from_directory(small).facts == TokenizerFacts(259, 256, 257, False)


def test_listed_tokens_take_their_places(small: Path) -> None:
    listing(small, {257: "<end>", 300: "<last>"})
    assert special_ids(small) == {"<first>": 256, "<end>": 257, "<last>": 300}
    assert from_directory(small).facts.eos_id == 300


def test_names_that_the_layout_has_no_more(small: Path) -> None:
    listing(small, {257: "<end>"})
    with pytest.raises(TokenizerError, match="eos_token '<last>' is not in the vocabulary"):
        from_directory(small)
    listing(small, {257: "<end>"}, eos_token="<end>")
    assert from_directory(small).facts.eos_id == 257


@pytest.mark.slow
def test_qwen(tmp_path: Path, qwen_tiktoken: Path, qwen2_5_tokenizer_dir: Path) -> None:
    (tmp_path / "qwen.tiktoken").write_bytes(qwen_tiktoken.read_bytes())
    facts = from_directory(tmp_path).facts
    assert (facts.size, facts.bos_id, facts.eos_id) == (151851, None, 151643)
    config = (qwen2_5_tokenizer_dir / "tokenizer_config.json").read_bytes()
    (tmp_path / "tokenizer_config.json").write_bytes(config)
    ours, theirs = from_directory(tmp_path), from_directory(qwen2_5_tokenizer_dir)
    assert (ours.facts, ours.chat_template) == (theirs.facts, theirs.chat_template)
    added: list[Any] = [json.loads(document.json)["added_tokens"] for document in (ours, theirs)]
    assert added[0] == added[1]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (BYTES, r"of 256 tokens is not known, expected 128,000 \(Llama 3\) or 151,643 \(Qwen\)"),
        (BYTES[:-9], "no token for the byte 0xff"),
        (BYTES + line(b"a", 256), "line 257: expected a new token in base64 and the rank 256"),
        (BYTES + line(b"ab", 300), "line 257"),
        (BYTES + b"YWI= x\n", "line 257"),
        (BYTES + b"YWI 256\n", "line 257"),
        (BYTES + b"YWI=\n", "line 257"),
        (BYTES + line(b"a" * 2000, 256), "line 257"),
        (BYTES + b" 256\n", "line 257"),
        (BYTES + b"\n" * 2**24, "at most 16777216"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, complaint: str) -> None:
    (tmp_path / "qwen.tiktoken").write_bytes(data)
    with pytest.raises(TokenizerError, match=complaint):
        from_directory(tmp_path)


def test_several_files(tmp_path: Path) -> None:
    (tmp_path / "a.tiktoken").write_bytes(BYTES)
    (tmp_path / "b.tiktoken").write_bytes(BYTES)
    with pytest.raises(TokenizerError, match=r"2 \*\.tiktoken files"):
        from_directory(tmp_path)
