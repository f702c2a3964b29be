"""A tiny tokenizer: one token for each byte, a few merges and some added tokens."""

from __future__ import annotations

from typing import Any

import pytest

from edge_llm.tokenizers.bytelevel import BYTE_OF
from edge_llm.tokenizers.readers.convert import from_gguf
from edge_llm.tokenizers.tokenizer import Tokenizer

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


@pytest.fixture
def byte_metadata() -> dict[str, Any]:
    """GGUF metadata: ids 0..255 are the bytes; then "he", "ll", "hell"; then the specials
    <|im_start|> 259, <|im_end|> 260 and the plain added token <think> 261."""
    alphabet = sorted(BYTE_OF, key=lambda character: BYTE_OF[character])
    tokens = [*alphabet, "he", "ll", "hell", "<|im_start|>", "<|im_end|>", "<think>"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * 259 + [CONTROL, CONTROL, USER_DEFINED],
        "tokenizer.ggml.merges": ["h e", "l l", "he ll"],
        "tokenizer.ggml.bos_token_id": 259,
        "tokenizer.ggml.eos_token_id": 260,
        "tokenizer.chat_template": "{{ messages }}",
    }


@pytest.fixture
def byte_tokenizer(byte_metadata: dict[str, Any]) -> Tokenizer:
    """The tokenizer of ``byte_metadata``."""
    document = from_gguf(byte_metadata)
    return Tokenizer(document.json, document.facts)
