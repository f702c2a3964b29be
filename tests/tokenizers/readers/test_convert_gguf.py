"""GGUF metadata -> tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from edge_llm.errors import TokenizerError
from edge_llm.llm.checkpoints.gguf.file import read_gguf_file
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.bytelevel import BYTE_OF
from edge_llm.tokenizers.readers.convert import TokenizerDocument, from_gguf
from edge_llm.tokenizers.tokenizer import Tokenizer


def build(document: TokenizerDocument) -> Tokenizer:
    return Tokenizer(document.json, document.facts)


def test_facts_and_template(byte_metadata: dict[str, Any]) -> None:
    document = from_gguf(byte_metadata)
    assert document.facts == TokenizerFacts(size=262, bos_id=259, eos_id=260, add_bos=False)
    assert document.chat_template == "{{ messages }}"


def test_merges_specials_and_added_tokens(byte_metadata: dict[str, Any]) -> None:
    tokenizer = build(from_gguf(byte_metadata))
    assert tokenizer.encode("hello") == [258, ord("o")]
    assert [i for i in range(262) if tokenizer.is_special(i)] == [259, 260]
    assert tokenizer.encode("<think>") == [261]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": "bert"}, r"'bert' \(WordPiece\) is not supported"),
        ({"model": "t5"}, r"'t5' \(SentencePiece Unigram\) is not supported"),
        ({"model": None}, "None is not supported"),
        ({"pre": "bloom"}, "'bloom' is not supported"),
        ({"tokens": None}, "tokens is missing"),
        ({"tokens": []}, "0 tokens and 262 types"),
        ({"tokens": ["x"] * 262}, "holds 'x' twice"),
        ({"token_type": ["a"]}, "token_type is missing or not a list of int"),
        ({"merges": ["ab"]}, "expected two tokens, got 'ab'"),
        ({"merges": ["zz zz"]}, "merges do not fit the vocabulary"),
        ({"bos_token_id": 262}, "bos_token_id is 262, which has no token"),
        ({"eos_token_id": -1}, "eos_token_id is -1, which has no token"),
        ({"bos_token_id": 2**40}, "bos_token_id is 1099511627776, which has no token"),
    ],
)
def test_damaged_metadata(
    byte_metadata: dict[str, Any], changes: dict[str, Any], complaint: str
) -> None:
    byte_metadata |= {f"tokenizer.ggml.{name}": value for name, value in changes.items()}
    with pytest.raises(TokenizerError, match=complaint):
        from_gguf(byte_metadata)


def test_filled_up_vocabulary_ends_at_the_last_token(byte_metadata: dict[str, Any]) -> None:
    byte_metadata["tokenizer.ggml.tokens"] += ["[PAD262]", "[PAD263]", "unused"]
    byte_metadata["tokenizer.ggml.token_type"] += [4, 4, 5]
    assert from_gguf(byte_metadata).facts.size == 262


@pytest.mark.parametrize(("pre", "adds"), [("llama-bpe", True), ("qwen2", False)])
def test_bos_by_kind_unless_the_file_says(
    byte_metadata: dict[str, Any], pre: str, adds: bool
) -> None:
    byte_metadata["tokenizer.ggml.pre"] = pre
    assert from_gguf(byte_metadata).facts.add_bos is adds
    byte_metadata["tokenizer.ggml.add_bos_token"] = not adds
    assert from_gguf(byte_metadata).facts.add_bos is not adds


# What each rule cuts "a12345 ½!?\n\n b" into, by its published pattern.
@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["a", "12345", " ½", "!?", "\n\n", " b"]),
        ("smollm", ["a", "1", "2", "3", "4", "5", " ", "½", "!?", "\n\n", " b"]),
        ("llama-bpe", ["a", "123", "45", " ", "½", "!?\n\n", " b"]),
        ("qwen2", ["a", "1", "2", "3", "4", "5", " ", "½", "!?\n\n", " b"]),
        ("default", ["a", "123", "45", " ", "½", "!?", "\n\n", " b"]),
    ],
)
def test_splitting_rules(byte_metadata: dict[str, Any], pre: str, pieces: list[str]) -> None:
    byte_metadata["tokenizer.ggml.pre"] = pre
    tokenizer = tokenizers.Tokenizer.from_buffer(from_gguf(byte_metadata).json)
    text = "a12345 ½!?\n\n b"
    assert tokenizer.pre_tokenizer is not None
    cut = tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in cut] == pieces


VECTORS = {
    "command-r": "slow",
    "deepseek-coder": "",
    "deepseek-llm": "slow",
    "falcon": "slow",
    "gpt-2": "",
    "llama-bpe": "",
    "llama-spm": "",
    "phi-3": "",
    "qwen2": "",
    "qwen35": "slow",
    "refact": "slow",
    "starcoder": "slow",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if kind else ()) for n, kind in VECTORS.items()],
)
def test_llama_cpp_vectors(ggml_vocab_dir: Path, name: str) -> None:
    file = ggml_vocab_dir / f"ggml-vocab-{name}.gguf"
    tokenizer = build(from_gguf(read_gguf_file(file).metadata))
    with file.with_suffix(".gguf.inp").open(encoding="utf-8", newline="") as stream:
        texts = stream.read().split("\n__ggml_vocab_test__\n")
    lines = file.with_suffix(".gguf.out").read_text().split("\n")
    assert len(texts) == len(lines) > 40
    for text, line in zip(texts, lines, strict=True):
        ids = [int(word) for word in line.split()]
        assert tokenizer.encode(text, add_bos=False) == ids, repr(text)


@pytest.fixture(scope="module")
def smollm2_metadata(smollm2_gguf: Path) -> Mapping[str, Any]:
    return read_gguf_file(smollm2_gguf).metadata


@pytest.fixture(scope="module")
def smollm2(smollm2_metadata: Mapping[str, Any]) -> Tokenizer:
    return build(from_gguf(smollm2_metadata))


def test_smollm2_facts(smollm2: Tokenizer) -> None:
    assert smollm2.facts == TokenizerFacts(size=49152, bos_id=1, eos_id=2, add_bos=False)
    assert sorted(smollm2.special_texts.values()) == list(range(17))


def test_smollm2_known_continuation(smollm2: Tokenizer) -> None:
    assert smollm2.decode([7042, 30, 198, 198]) == " Paris.\n\n"
    assert smollm2.encode(" Paris.\n\n")[:2] == [7042, 30]


@pytest.mark.parametrize(
    "text", [" ½", "x½", "1 ½ 2", "2²", "٣٤٨", "in 1984, 12.5%", "Ⅷ ④", " 日本 3本"]
)
def test_smollm2_as_merged_by_hand(
    smollm2_metadata: Mapping[str, Any], smollm2: Tokenizer, text: str
) -> None:
    assert smollm2.encode(text) == merge_by_hand(smollm2_metadata, text)


def test_smollm2_prose_comes_back(smollm2: Tokenizer, botchan_text: Path) -> None:
    text = botchan_text.read_text(encoding="utf-8")
    ids = smollm2.encode(text)
    assert smollm2.decode(ids) == text
    assert len(text) / len(ids) > 3.5


def merge_by_hand(metadata: Mapping[str, Any], text: str) -> list[int]:
    """BPE of a text whose words are letters, numbers or punctuation with at most one space in
    between: every numeric character alone, a space joins the letters or punctuation after it."""
    character_of = {byte: character for character, byte in BYTE_OF.items()}
    ranks = {tuple(m.split(" ")): i for i, m in enumerate(metadata["tokenizer.ggml.merges"])}
    ids = {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])}

    def kind(character: str) -> str:
        return "number" if character.isnumeric() else "letter" if character.isalpha() else "other"

    words: list[str] = []
    for character in text:
        last = words[-1] if words else ""
        joins = (
            bool(last)
            and character != " "
            and kind(character) != "number"
            and (last == " " or (kind(last[-1]) == kind(character) and last[-1] != " "))
        )
        words[len(words) - joins :] = [(last if joins else "") + character]
    result = []
    for word in words:
        parts = [character_of[byte] for byte in word.encode()]
        while pairs := [
            (ranks[pair], at)
            for at in range(len(parts) - 1)
            if (pair := (parts[at], parts[at + 1])) in ranks
        ]:
            _, at = min(pairs)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        result += [ids[part] for part in parts]
    return result


def test_templates_that_are_not_used_are_said(byte_metadata: dict[str, Any]) -> None:
    byte_metadata["tokenizer.chat_template.tool_use"] = "{{ tools }}"
    document = from_gguf(byte_metadata)
    assert document.chat_template == "{{ messages }}"
    assert document.notes == (
        "chat template: the one for all chats is used; others are not: 'tool_use'",
    )


def test_sentencepiece_with_merges(gemma3_tokenizer_dir: Path) -> None:
    """Gemma 4's files hold tokens, types and merges, but no scores that say what is joined; the
    vocabulary here is Gemma 3's."""
    path = gemma3_tokenizer_dir / "tokenizer.json"
    theirs = tokenizers.Tokenizer.from_file(str(path))
    document = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["id"] for token in document["added_tokens"] if token["special"]}
    added = {token["id"] for token in document["added_tokens"]}
    names = {f"<0x{byte:02X}>" for byte in range(256)}

    def kind(number: int, token: str) -> int:
        if token == "<unk>":
            return 2
        return 3 if number in special else 4 if number in added else 6 if token in names else 1

    merges = (
        pair if isinstance(pair, str) else " ".join(pair) for pair in document["model"]["merges"]
    )
    metadata = {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [kind(i, token) for i, token in enumerate(tokens)],
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
    }
    assert from_gguf(metadata).facts.add_bos
    tokenizer = build(from_gguf(metadata | {"tokenizer.ggml.add_bos_token": False}))
    for text in (
        "The  quick\n\n\nfox, 1234",
        " ʘ\t\x07",
        "Hé 你好 🦊\n",
    ):
        assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(
            theirs.encode(text, add_special_tokens=False).ids, skip_special_tokens=False
        )
