"""Tokens beside a vocabulary: control tokens, and those that a checkpoint's own files list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tokenizers as hf

from edge_llm.errors import TokenizerError

MAX_SIZE = 2**24  # ids of a tokenizer; the largest known ones have about 2**18


class Built(NamedTuple):
    """A tokenizer made from a file that is no ``tokenizer.json``, what the file calls its first
    and last token, and whether its kind puts the first before raw text."""

    tokenizer: hf.Tokenizer
    bos: str | None
    eos: str | None
    adds_bos: bool


def control_token(text: str) -> hf.AddedToken:
    """Return a token that plain text never gives."""
    return hf.AddedToken(text, special=True, normalized=False)


def place(vocabulary: dict[str, int], added: Mapping[int, hf.AddedToken]) -> None:
    """Give every added token its id in the vocabulary; the library numbers them by it.

    Raises:
        TokenizerError: the text has another id, or the id another text, or it is no id.
    """
    texts = {token_id: text for text, token_id in vocabulary.items()}
    for token_id, token in added.items():
        text = token.content
        if not 0 <= token_id < MAX_SIZE:
            raise TokenizerError(
                f"added token {text!r} has the id {token_id}, expected 0 to {MAX_SIZE - 1}"
            )
        if texts.get(token_id, text) != text or vocabulary.get(text, token_id) != token_id:
            raise TokenizerError(
                f"added token {text!r} cannot have the id {token_id}: "
                f"that is {texts.get(token_id)!r}, and the text has {vocabulary.get(text)}"
            )
        texts[token_id] = text
        vocabulary[text] = token_id
