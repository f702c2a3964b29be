"""SentencePiece model files: a protocol buffer, of which few fields matter.

Read by hand, so that a damaged file is an error like any other. Wire format: a field is a varint
``number << 3 | kind`` and its value; kind 0 is a varint, 1 eight bytes, 2 a varint length and that
many bytes, 5 four bytes. Field numbers: ``sentencepiece_model.proto``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

from edge_llm.errors import TokenizerError
from edge_llm.tokenizers.readers.sentencepiece import PIECE_TYPES, Pieces

MAX_BYTES = 2**25  # the largest known files have 2**22
MAX_PIECES = 2**20  # the largest known models have 2**18
_KINDS = {1: "Unigram", 3: "word", 4: "character"}
_BPE = 2
_FIELDS = 64  # numbers beyond that are not read
_NORMAL = 1

_Value = int | bytes


def read_pieces(data: bytes) -> Pieces:
    """Return the vocabulary of a ``tokenizer.model``.

    Raises:
        TokenizerError: a damaged file, or a kind of model that is not supported, by name.
    """
    if len(data) > MAX_BYTES:
        raise TokenizerError(f"SentencePiece model: more than {MAX_BYTES} bytes")
    texts: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, _Value] = {}
    normalizer: dict[int, _Value] = {}
    for number, value in _fields(data):
        if number == 1:
            piece = _message(value)
            texts.append(_text(piece.get(1, b"")))
            scores.append(_float(piece.get(2, b"\0\0\0\0")))
            types.append(_int(piece.get(3, _NORMAL)))
            if types[-1] not in PIECE_TYPES:
                raise TokenizerError(f"SentencePiece model: piece type {types[-1]} is not known")
            if len(texts) > MAX_PIECES:
                raise TokenizerError(f"SentencePiece model: more than {MAX_PIECES} pieces")
        elif number == 2:
            trainer |= _message(value)
        elif number == 3:
            normalizer |= _message(value)

    kind = _int(trainer.get(3, 1))
    if kind != _BPE:
        name = _KINDS.get(kind, f"type {kind}")
        raise TokenizerError(f"SentencePiece {name} models are not supported; expected BPE")
    for name, used in (
        ("normalization rules", bool(normalizer.get(2))),
        ("remove_extra_whitespaces", bool(_int(normalizer.get(4, 1)))),
        ("no escape_whitespaces", not _int(normalizer.get(5, 1))),
        ("treat_whitespace_as_suffix", bool(_int(trainer.get(24, 0)))),
    ):
        if used:
            raise TokenizerError(f"SentencePiece models with {name} are not supported")

    def named(number: int, default: int) -> str | None:
        """Return the piece of an id in the file; negative ids stand for none."""
        token_id = _int(trainer.get(number, default))
        return texts[token_id] if 0 <= token_id < len(texts) else None

    return Pieces(
        texts=texts,
        scores=scores,
        types=types,
        prefix_space=bool(_int(normalizer.get(3, 1))),
        bos=named(41, 1),
        eos=named(42, 2),
    )


def _message(value: _Value) -> dict[int, _Value]:
    """Return the last value of each field that may matter; what no one reads takes no memory."""
    return {number: inner for number, inner in _fields(_bytes(value)) if number < _FIELDS}


def _fields(data: bytes) -> Iterator[tuple[int, _Value]]:
    """Return number and value of every field; those of no fixed meaning come as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise TokenizerError(f"not a SentencePiece model: field {number} has the kind {kind}")
        if size > len(data) - at:
            raise TokenizerError(
                f"not a SentencePiece model: field {number} has {size} bytes, {len(data) - at} left"
            )
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return an integer of up to 64 bits, seven to the byte, low ones first, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise TokenizerError("not a SentencePiece model: an integer does not end")


def _int(value: _Value) -> int:
    if isinstance(value, bytes):
        raise TokenizerError("SentencePiece model: a number was expected, got bytes")
    return value - 2**64 if value >= 2**63 else value


def _bytes(value: _Value) -> bytes:
    if not isinstance(value, bytes):
        raise TokenizerError(f"SentencePiece model: bytes were expected, got {value}")
    return value


def _text(value: _Value) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as exc:
        raise TokenizerError(f"SentencePiece model: a piece is not UTF-8: {exc}") from exc


def _float(value: _Value) -> float:
    data = _bytes(value)
    score = struct.unpack("<f", data)[0] if len(data) == 4 else math.nan
    if not math.isfinite(score):
        raise TokenizerError(f"SentencePiece model: {data[:8]!r} is no score")
    return float(score)
