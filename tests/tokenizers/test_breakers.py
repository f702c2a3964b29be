"""Which tokens break a repetition: found by their text, in vocabularies of real models too."""

from __future__ import annotations

import numpy as np
import pytest

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer


def found(tokenizer: Tokenizer, *texts: str) -> set[int]:
    ids = tokenizer.breakers.ids(texts)
    assert ids.dtype == np.int32
    return set(ids.tolist())


def having(tokenizer: Tokenizer, text: str) -> set[int]:
    return {i for i in range(tokenizer.size) if text.encode() in tokenizer.token_bytes(i)}


@pytest.mark.parametrize("text", ["\n", ":", '"', "a", "th", "the", " ", "é"])
def test_a_breaker_is_every_token_that_has_its_text(byte_tokenizer: Tokenizer, text: str) -> None:
    expected = having(byte_tokenizer, text)
    if not expected:
        expected = {byte_tokenizer.encode(f"a{text}", add_bos=False)[-1]}
    assert found(byte_tokenizer, text) == expected


def test_several_are_found_together(byte_tokenizer: Tokenizer) -> None:
    assert found(byte_tokenizer) == set()
    a, b = found(byte_tokenizer, "a"), found(byte_tokenizer, ":")
    assert found(byte_tokenizer, "a", ":", "a") == a | b


def test_a_text_that_no_token_has_breaks_where_it_ends(byte_tokenizer: Tokenizer) -> None:
    text = "q~w:"
    assert found(byte_tokenizer, text) == {byte_tokenizer.encode(text, add_bos=False)[-1]}


def test_a_text_that_is_none_is_a_typed_error(byte_tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="surrogate"):
        found(byte_tokenizer, "a", "\udcff")


@pytest.mark.parametrize("name", ["llama3", "qwen3"])
def test_breakers_of_real_vocabularies(request: pytest.FixtureRequest, name: str) -> None:
    document = from_directory(request.getfixturevalue(f"{name}_tokenizer_dir"))
    tokenizer = Tokenizer(document.json, document.facts)
    for text in ("\n", ":", '"', "*", "ing", "<|im_end|>", "é"):
        if expected := having(tokenizer, text):
            assert found(tokenizer, text) == expected
    one = tokenizer.encode("a:\n", add_bos=False)[-1]
    assert one in found(tokenizer, "\n")
