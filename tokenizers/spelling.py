"""Spellings of text in a vocabulary, read from the decoder of a ``tokenizer.json``.

Known are the byte-level alphabet, and SentencePiece's spelling: ``▁`` for a space, ``<0x0A>`` for
a byte, and a first space that belongs to the spelling and not to the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tokenizers as hf

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.bytelevel import token_to_bytes

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class Spelling:
    """A way to spell text.

    Attributes:
        bytes_of: the bytes of a token of the vocabulary.
        added_bytes_of: those of an added token.
        first: the bytes of a token that begins a text, from its bytes.
        byte_for_byte: a token has as many bytes as the text that it is made from.
    """

    bytes_of: Callable[[str], bytes]
    added_bytes_of: Callable[[str], bytes]
    first: Callable[[bytes], bytes]
    byte_for_byte: bool = False


def spelling_of(tokenizer: hf.Tokenizer) -> Spelling:
    """Return the spelling that a decoder tells.

    Raises:
        TokenizerError: a decoder that is neither byte-level nor SentencePiece's.
    """
    decoder = tokenizer.decoder
    state = None if decoder is None else json.loads(decoder.__getstate__())
    steps = [] if state is None else _steps(state)
    match [(step["type"], step) for step in steps]:
        case [("ByteLevel", _)]:
            return Spelling(token_to_bytes, str.encode, bytes, byte_for_byte=True)
        case [("Metaspace", step)]:
            spell = _spell(step["replacement"], with_bytes=False)
            # The library drops every space of the first token, not only the one before it.
            strips = step["prepend_scheme"] != "never"
            return Spelling(spell, spell, _without_spaces if strips else bytes)
        case [("Replace", step), ("ByteFallback", _), ("Fuse", _), *rest] if (
            step["content"] == " " and "String" in step["pattern"] and _is_strip(rest)
        ):
            spell = _spell(step["pattern"]["String"], with_bytes=True)
            return Spelling(spell, spell, _without_first_space if rest else bytes)
    kinds = "+".join(step["type"] for step in steps) or None
    raise TokenizerError(
        f"tokenizers with a {kinds} decoder are not supported; expected ByteLevel, Metaspace, "
        "or Replace+ByteFallback+Fuse with or without a Strip of one space"
    )


def _steps(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the decoder as a flat list."""
    if state["type"] != "Sequence":
        return [state]
    return [step for inner in state["decoders"] for step in _steps(inner)]


def _is_strip(rest: list[tuple[str, dict[str, Any]]]) -> bool:
    """Return whether what follows is nothing, or cuts one space off the beginning."""
    wanted = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return not rest or [step for _, step in rest] == [wanted]


def _spell(space: str, *, with_bytes: bool) -> Callable[[str], bytes]:
    def spell(token: str) -> bytes:
        byte = _BYTE.fullmatch(token) if with_bytes else None
        return bytes([int(byte[1], 16)]) if byte else token.replace(space, " ").encode()

    return spell


def _without_first_space(data: bytes) -> bytes:
    return data.removeprefix(b" ")


def _without_spaces(data: bytes) -> bytes:
    return data.replace(b" ", b"")
