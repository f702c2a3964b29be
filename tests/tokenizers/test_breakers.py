"""Which tokens break a repetition: found by their text, in vocabularies of real models too."""

from __future__ import annotations

import numpy as np
import pytest

from edge_llm.tokenizers.breakers import Breakers
from edge_llm.tokenizers.tokenizer import Tokenizer


def found(tokenizer: Tokenizer, *texts: str, vocab: int = 0) -> set[int]:
    vocab = vocab or tokenizer.size
    mask = Breakers(lambda: tokenizer, vocab).mask(texts)
    assert (mask.dtype, mask.shape) == (np.uint32, (-(-vocab // 32),))
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


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


def test_ids_beyond_the_tokenizer_break_nothing(byte_tokenizer: Tokenizer) -> None:
    size = byte_tokenizer.size
    assert found(byte_tokenizer, "a", vocab=size + 100) == having(byte_tokenizer, "a")
