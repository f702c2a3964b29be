"""SentencePiece models: hand-made files, what they give, and damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece_models import Piece, message, model
from transformers import LlamaTokenizer

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.readers import merges, sentencepiece_file
from edge_llm.tokenizers.readers.convert import from_directory, from_gguf
from edge_llm.tokenizers.readers.sentencepiece_file import read_pieces
from edge_llm.tokenizers.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
WORDS = ["▁", "h", "e", "l", "o", "he", "ll", "llo", "▁h", "▁he", "▁hello", "hello"]
HELLO, HELLO_WITHIN = 269, 270


def pieces(*more: Piece) -> list[Piece]:
    """Ids 0..2 are <unk>, <s>, </s>, then the bytes, then words, the first ones best."""
    control = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    spelled = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    return [*control, *spelled, *((w, -float(i), NORMAL) for i, w in enumerate(WORDS)), *more]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(model(pieces()))
    return tmp_path


def build(folder: Path) -> Tokenizer:
    document = from_directory(folder)
    return Tokenizer(document.json, document.facts)


def write_config(folder: Path, **fields: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def test_facts(folder: Path) -> None:
    facts = from_directory(folder).facts
    assert (facts.size, facts.bos_id, facts.eos_id, facts.add_bos) == (271, 1, 2, True)


def test_the_file_names_bos_and_eos(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(model(pieces(), trainer={41: -1, 42: 1}))
    facts = from_directory(folder).facts
    assert (facts.bos_id, facts.eos_id, facts.add_bos) == (None, 1, False)


def test_the_config_says_more(folder: Path) -> None:
    added = {"271": {"content": "<|end|>", "special": True}}
    write_config(folder, eos_token="<|end|>", add_bos_token=False, added_tokens_decoder=added)
    facts = from_directory(folder).facts
    assert (facts.size, facts.bos_id, facts.eos_id, facts.add_bos) == (272, 1, 271, False)


def test_added_tokens_file(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"<tool>": 300}')
    tokenizer = build(folder)
    assert tokenizer.size == 301
    assert 300 in tokenizer.encode("a<tool>")
    assert tokenizer.token_bytes(299) == b""


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ({"5": {"content": "<new>"}}, "'<new>' cannot have the id 5: that is '<0x02>'"),
        ({"-1": {"content": "<new>"}}, "the id -1, expected 0 to 16777215"),
        ({str(2**40): {"content": "<new>"}}, "the id 1099511627776, expected 0 to 16777215"),
        ({"400": {"content": "</s>"}}, "'</s>' cannot have the id 400: .* the text has 2"),
    ],
)
def test_listed_tokens_that_do_not_fit(folder: Path, listed: Any, complaint: str) -> None:
    write_config(folder, added_tokens_decoder=listed)
    with pytest.raises(TokenizerError, match=complaint):
        from_directory(folder)


def test_bytes_and_spaces(folder: Path) -> None:
    tokenizer = build(folder)
    assert tokenizer.token_bytes(3 + 0xE9) == b"\xe9"
    assert tokenizer.token_bytes(HELLO) == b" hello"
    assert tokenizer.encode("hello hello", add_bos=False) == [HELLO, HELLO]
    assert tokenizer.encode("é", add_bos=False) == [259, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode([HELLO, HELLO]) == "hello hello"
    assert tokenizer.decode([1, HELLO]) == "hello"
    assert tokenizer.decode([1, HELLO], skip_specials=False) == "<s> hello"
    assert tokenizer.decode([HELLO], continues=True) == " hello"


def test_special_text_is_plain_unless_asked(folder: Path) -> None:
    tokenizer = build(folder)
    plain = tokenizer.encode("hello</s>", add_bos=False)
    assert not any(map(tokenizer.is_special, plain))
    assert tokenizer.decode(plain) == "hello</s>"
    assert tokenizer.encode("hello</s>", add_bos=False, specials=True) == [HELLO, 2]
    byte_text = tokenizer.encode("<0x41>", add_bos=False)
    assert 3 + 0x41 not in byte_text
    assert tokenizer.decode(byte_text) == "<0x41>"


def test_places_of_control_tokens(folder: Path) -> None:
    ids, marks = build(folder).encode_marked("hello</s>é</s>")
    assert ids == [HELLO, 2, 259, 3 + 0xC3, 3 + 0xA9, 2]
    assert marks == [(1, 5, 9), (5, 10, 14)]


@pytest.mark.parametrize(
    ("config", "control", "ids"),
    [
        ({}, "<x>", [HELLO, 271, HELLO]),
        ({"legacy": True}, "<x>", [HELLO, 271, HELLO]),
        ({"legacy": False}, "<x>", [HELLO, 271, HELLO_WITHIN]),
        ({}, "[INST]", [HELLO, 271, HELLO_WITHIN]),
    ],
)
def test_space_after_a_special_token(
    folder: Path, config: dict[str, Any], control: str, ids: list[int]
) -> None:
    (folder / "tokenizer.model").write_bytes(model(pieces((control, 0.0, CONTROL))))
    write_config(folder, **config)
    tokenizer = build(folder)
    assert tokenizer.encode(f"hello{control}hello", add_bos=False, specials=True) == ids
    # The part after it, encoded by itself.
    assert tokenizer.encode("hello", add_bos=False, continues=True) == (
        [HELLO] if ids[-1] == HELLO and not config.get("legacy", True) else ids[-1:]
    )
    assert tokenizer.encode("hello", add_bos=False) == [HELLO]


def test_without_a_space_before_text(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(model(pieces(), normalizer={3: 0}))
    tokenizer = build(folder)
    assert tokenizer.encode("hello hello", add_bos=False) == [HELLO_WITHIN, HELLO]
    assert tokenizer.decode([HELLO]) == " hello"


@pytest.mark.parametrize("text", ["hello hello", " hello", "  é\n", "", " ", "a</s>hello <s> b"])
@pytest.mark.parametrize("legacy", [True, False])
def test_tokenizer_json_of_transformers(tmp_path: Path, text: str, legacy: bool) -> None:
    words = {word: i for i, word in enumerate(WORDS)}
    theirs = LlamaTokenizer(
        vocab={text: i for i, (text, _, _) in enumerate(pieces())},
        merges=merges.rebuild_merges(words),
        legacy=legacy,
    )
    theirs.save_pretrained(tmp_path)
    tokenizer = build(tmp_path)
    ids = theirs.encode(text, add_special_tokens=False)
    assert tokenizer.encode(text, add_bos=False, specials=True) == ids
    assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert tokenizer.decode(ids, skip_specials=False) == theirs.decode(ids)


def test_same_vocabulary_in_gguf(folder: Path) -> None:
    texts, scores, types = map(list, zip(*pieces(), strict=True))
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    assert from_gguf(metadata) == from_directory(folder)
    metadata["tokenizer.ggml.add_space_prefix"] = False
    metadata["tokenizer.ggml.add_bos_token"] = False
    document = from_gguf(metadata)
    tokenizer = Tokenizer(document.json, document.facts)
    assert tokenizer.encode("hello") == [HELLO_WITHIN]
    metadata["tokenizer.ggml.scores"] = scores[:-1]
    with pytest.raises(TokenizerError, match="271 tokens and 270 scores"):
        from_gguf(metadata)


def test_unused_pieces_are_never_made(folder: Path) -> None:
    unused = [(t, s, UNUSED if t == "▁hello" else k) for t, s, k in pieces()]
    (folder / "tokenizer.model").write_bytes(model(unused))
    assert HELLO not in build(folder).encode("hello")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "expected BPE"),
        (b"\x0a\xff\xff\xff\xff\x0f", "bytes, 0 left"),
        (b"\x0a" + b"\x80" * 12, "an integer does not end"),
        (b"\x0b", "has the kind 3"),
        (message([(1, 7)]), "bytes were expected, got 7"),
        (message([(1, message([(1, b"\xff")]))]), "not UTF-8"),
        (message([(1, message([(1, b"a"), (2, float("nan"))]))]), "is no score"),
        (message([(1, message([(1, b"a"), (3, 9)]))]), "piece type 9"),
        (message([(2, message([(3, b"BPE")]))]), "a number was expected"),
        (model(pieces(), trainer={3: 1}), "Unigram models are not supported"),
        (model(pieces(), trainer={3: 77}), "type 77 models are not supported"),
        (model(pieces(), trainer={24: 1}), "treat_whitespace_as_suffix"),
        (model(pieces(), normalizer={2: b"rules"}), "normalization rules"),
        (model(pieces(), normalizer={4: 1}), "remove_extra_whitespaces"),
        (model(pieces(), normalizer={5: 0}), "no escape_whitespaces"),
        (model(pieces(("hello", 0.0, NORMAL))), "holds 'hello' twice"),
        (model(pieces()[:100]), "has no piece '<0x61>'"),
        (model(pieces(("x" * 257, 0.0, NORMAL))), "the longest token has 257 characters"),
    ],
)
def test_damaged_files(folder: Path, data: bytes, complaint: str) -> None:
    (folder / "tokenizer.model").write_bytes(data)
    with pytest.raises(TokenizerError, match=complaint):
        from_directory(folder)


def test_more_ways_to_split_than_any_vocabulary_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merges, "MAX_MERGES", 1000)
    many = [("x" * n, 0.0, NORMAL) for n in range(1, 100)]
    (folder / "tokenizer.model").write_bytes(model(pieces(*many)))
    with pytest.raises(TokenizerError, match="more than 1000 pairs"):
        from_directory(folder)


def test_a_real_unigram_model_is_refused_by_name(folder: Path, unigram_model: Path) -> None:
    (folder / "tokenizer.model").write_bytes(unigram_model.read_bytes())
    with pytest.raises(TokenizerError, match="Unigram models are not supported"):
        from_directory(folder)


def test_too_large(folder: Path) -> None:
    with (folder / "tokenizer.model").open("r+b") as file:
        file.truncate(2**27 + 1)  # a hole
    with pytest.raises(TokenizerError, match="more than 134217728 bytes"):
        from_directory(folder)


def test_more_than_a_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencepiece_file, "MAX_BYTES", len(SOURCE))
    unread = message([(2, message([(number, 0) for number in range(100, 2000)]))])
    assert read_pieces(SOURCE).texts == [text for text, _, _ in pieces()]
    with pytest.raises(TokenizerError, match=f"more than {len(SOURCE)} bytes"):
        read_pieces(SOURCE + unread)


SOURCE = model(pieces())


@given(st.data())
def test_mutated_files_are_read_or_refused(data: st.DataObject) -> None:
    mutated = bytearray(SOURCE)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        read = read_pieces(bytes(mutated))
    except TokenizerError:
        return
    assert len(read.texts) == len(read.scores) == len(read.types) <= len(mutated)


def test_pieces_as_the_library_reads_them(mistral_tokenizer_dir: Path) -> None:
    data = (mistral_tokenizer_dir / "tokenizer.model.v1").read_bytes()
    theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
    ours = read_pieces(data)
    assert len(ours.texts) == theirs.get_piece_size()
    for i, (text, score, kind) in enumerate(zip(ours.texts, ours.scores, ours.types, strict=True)):
        assert (text, score) == (theirs.id_to_piece(i), theirs.get_score(i))
        assert (kind == BYTE) is theirs.is_byte(i)
        assert (kind == CONTROL) is theirs.is_control(i)
    assert (ours.bos, ours.eos) == ("<s>", "</s>")
