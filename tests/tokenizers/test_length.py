"""A text's length is bounded before it is encoded, also by the tokens that there is room for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_llm.errors import ContextLengthError, TokenizerError
from edge_llm.tokenizers import length
from edge_llm.tokenizers.readers.convert import from_gguf
from edge_llm.tokenizers.tokenizer import Tokenizer


@pytest.fixture
def document(byte_metadata: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(from_gguf(byte_metadata).json)
    return parsed


def load(document: dict[str, Any], byte_metadata: dict[str, Any], **changes: Any) -> Tokenizer:
    facts = replace(from_gguf(byte_metadata).facts, add_bos=False)
    return Tokenizer(json.dumps(document | changes).encode(), facts)


def refuse_to_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the test fail where the library is asked to encode."""
    monkeypatch.setattr(Tokenizer, "_encode", lambda *_: pytest.fail("was encoded"))


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a"]])
def test_what_is_no_text_is_refused(byte_tokenizer: Tokenizer, text: Any) -> None:
    with pytest.raises(TokenizerError, match="expected str"):
        byte_tokenizer.encode(text)


def test_the_bytes_of_a_token(byte_tokenizer: Tokenizer) -> None:
    assert byte_tokenizer.length.bytes_per_token == len("<|im_start|>")
    assert byte_tokenizer.length.least_tokens(25) == 3


def test_too_many_bytes_for_the_tokens(
    byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert byte_tokenizer.encode("a" * 120, token_limit=10) == [ord("a")] * 120
    refuse_to_encode(monkeypatch)
    for text in ("a" * 121, "é" * 61):
        with pytest.raises(ContextLengthError) as caught:
            byte_tokenizer.encode(text, token_limit=10)
        assert (caught.value.context, caught.value.prompt_tokens) == (10, 11)
        assert caught.value.at_least


def test_any_text_is_bounded(byte_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_encode(monkeypatch)
    for text in ("a" * (length.MAX_TEXT_BYTES + 1), "é" * (length.MAX_TEXT_BYTES // 2 + 1)):
        with pytest.raises(TokenizerError, match="can be encoded at once"):
            byte_tokenizer.encode(text)
        with pytest.raises(TokenizerError, match="can be encoded at once"):
            byte_tokenizer.encode_marked(text)


def test_the_bound_is_lower_where_text_grows(
    document: dict[str, Any], byte_metadata: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}] * 6}
    tokenizer = load(document, byte_metadata, normalizer=steps)
    refuse_to_encode(monkeypatch)
    with pytest.raises(TokenizerError, match=f"at most {length.MAX_GROWN_BYTES // 2**7} can be"):
        tokenizer.encode("a" * 2**20)


@pytest.mark.parametrize(
    ("changes", "bytes_per_token"),
    [
        ({"normalizer": {"type": "NFC"}}, 3.5 * 12),
        ({"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}}, float("inf")),
        ({"normalizer": {"type": "Replace", "pattern": {"String": "aaa"}, "content": "b"}}, 36),
        (
            {"normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}},
            float("inf"),
        ),
        ({"pre_tokenizer": {"type": "Whitespace"}}, float("inf")),
    ],
)
def test_steps_that_shorten_text(
    document: dict[str, Any],
    byte_metadata: dict[str, Any],
    changes: dict[str, Any],
    bytes_per_token: float,
) -> None:
    tokenizer = load(document, byte_metadata, **changes)
    assert tokenizer.length.bytes_per_token == bytes_per_token
    if bytes_per_token == float("inf"):
        tokenizer.encode("a" * 10_000, token_limit=1)


def test_spaces_that_a_token_takes_in(
    document: dict[str, Any], byte_metadata: dict[str, Any]
) -> None:
    for token in document["added_tokens"]:
        token["rstrip"] = True
    tokenizer = load(document, byte_metadata)
    text = "<think>" + " " * 10_000
    assert tokenizer.encode(text, token_limit=1) == [261]
    with pytest.raises(ContextLengthError):
        tokenizer.encode("a" * 1000, token_limit=1)


@given(text=st.text(max_size=200), limit=st.integers(0, 30))
def test_no_text_that_fits_is_refused(text: str, limit: int) -> None:
    tokenizer = WHOLE
    ids = tokenizer.encode(text, add_bos=False)
    if len(ids) <= limit:
        assert tokenizer.encode(text, add_bos=False, token_limit=limit) == ids


def _whole() -> Tokenizer:
    """Return a tokenizer of bytes, of which NFC is composed first."""
    from edge_llm.program.documents import TokenizerFacts
    from edge_llm.tokenizers.bytelevel import BYTE_OF

    alphabet = sorted(BYTE_OF, key=lambda character: BYTE_OF[character])
    document = from_gguf(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "qwen2",
            "tokenizer.ggml.tokens": alphabet,
            "tokenizer.ggml.token_type": [1] * 256,
            "tokenizer.ggml.merges": [],
        }
    )
    facts = TokenizerFacts(size=256, bos_id=None, eos_id=None, add_bos=False)
    return Tokenizer(document.json, facts)


WHOLE = _whole()
