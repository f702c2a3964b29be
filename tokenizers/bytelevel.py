"""The byte-level alphabet of GPT-2: every byte is written as one printable character.

Bytes that are printable in Latin-1 stand for themselves; the other 68 are moved, in order, to
U+0100 and up, so that a vocabulary is plain text. A space is ``Ġ``.
"""

from __future__ import annotations

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_MOVED = (byte for byte in range(256) if byte not in _PRINTABLE)

BYTE_OF: dict[str, int] = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + index): byte for index, byte in enumerate(_MOVED)
}
# Latin-1 gives every byte the character of its number, which this then moves.
_CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}


def token_to_bytes(token: str) -> bytes:
    """Return the bytes that a vocabulary entry stands for. An entry with a character outside the
    alphabet cannot come from bytes; it stands for its own text."""
    try:
        return bytes(map(BYTE_OF.__getitem__, token))
    except KeyError:
        return token.encode()


def bytes_to_token(data: bytes) -> str:
    """Return how a vocabulary writes some bytes."""
    return data.decode("latin-1").translate(_CHARACTER_OF)
