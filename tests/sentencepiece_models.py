"""SentencePiece model files, written field by field."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

Fields = Iterable[tuple[int, int | float | bytes]]
Piece = tuple[str, float, int]


def varint(value: int) -> bytes:
    """Seven bits to the byte, low ones first; negative numbers as 64 bits."""
    value %= 2**64
    data = b""
    while value >= 0x80:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def message(fields: Fields) -> bytes:
    """Integers as varints, floats as four bytes, bytes with their length."""
    data = b""
    for number, value in fields:
        if isinstance(value, bytes):
            data += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, float):
            data += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            data += varint(number << 3) + varint(value)
    return data


def model(
    pieces: Iterable[Piece],
    trainer: Mapping[int, int] | None = None,
    normalizer: Mapping[int, int | bytes] | None = None,
) -> bytes:
    """A BPE model with byte fallback that keeps all blanks and puts one before the text, but for
    what ``trainer`` and ``normalizer`` say by field number."""
    trainer = {3: 2, 35: 1} | dict(trainer or {})
    normalizer = {1: b"identity", 3: 1, 4: 0, 5: 1} | dict(normalizer or {})
    chunks = [
        message([(1, message([(1, text.encode()), (2, score), (3, kind)]))])
        for text, score, kind in pieces
    ]
    ends = [(2, message(trainer.items())), (3, message(normalizer.items()))]
    return b"".join(chunks) + message(ends)
