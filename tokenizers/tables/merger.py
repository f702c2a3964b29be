"""Units of words to tokens, by the tables of a program file and the native core."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_llm import abi, native
from edge_llm.errors import TokenizerError

_SPACE = "▁".encode()
_LONG = 256  # units from which on cutting at spaces pays


class Merged(NamedTuple):
    """Token ids, and one past the last unit of each."""

    ids: list[int]
    ends: list[int]


class Merger:
    """Tables of a tokenizer (see `build.py`), read where they lie.

    Args:
        tensors: those of a program file, of the dtypes and dimensions that it has checked.
        size: one past the largest id that has a token.

    Raises:
        TokenizerError: tables that do not fit the size or each other.
        NativeError: the native core is missing.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], size: int) -> None:
        self.skeleton: bytes = tensors["tokenizer.skeleton"].tobytes()
        self._size = size
        self._units: NDArray[np.int32] = tensors["tokenizer.units"]
        self._offsets: NDArray[np.int32] = tensors["tokenizer.offsets"]
        self._texts: NDArray[np.uint8] = tensors["tokenizer.texts"]
        merges: NDArray[np.int32] = tensors["tokenizer.merges"]
        words: NDArray[np.int32] | None = tensors.get("tokenizer.words")
        _check_texts(self._texts, self._offsets, size)
        _check_ids("units", self._units, 0, size)
        _check_ids("merges", merges[:, [0, 1, 3]], -1, size)
        if ((merges[:, 0] ^ merges[:, 3]) < 0).any():
            raise TokenizerError("tokenizer.merges holds merges that give no token")
        if words is not None:
            _check_ids("words", words, -1, size)
        self._space = self._find_space()
        self._merge = native.library().edge_bpe_merge
        self._arrays = (merges, words)  # whose memory the core reads, as that of the others
        self._tables = abi.Bpe(
            unit_count=len(self._units),
            merge_rows=len(merges),
            word_rows=0 if words is None else len(words),
            units=self._units.ctypes.data,
            merges=merges.ctypes.data,
            words=None if words is None else words.ctypes.data,
            offsets=self._offsets.ctypes.data,
            texts=self._texts.ctypes.data,
        )

    def id_of(self, unit: int) -> int:
        """Return the token's id of an id of the skeleton.

        Raises:
            TokenizerError: the skeleton has more ids than the tables.
        """
        if unit >= len(self._units):
            raise TokenizerError(f"tokenizer.units has no id {unit}, which the skeleton has")
        return int(self._units[unit])

    def text(self, token_id: int) -> str | None:
        """Return the token as the vocabulary writes it; ``None`` for an id without a token."""
        if not 0 <= token_id < self._size:
            return None
        begin, end = self._offsets[token_id : token_id + 2].tolist()
        return self._texts[begin:end].tobytes().decode() if begin < end else None

    def lengths(self) -> NDArray[np.int32]:
        """Return the bytes of UTF-8 of each token as the vocabulary writes it, int32 [size]."""
        return np.diff(self._offsets)

    def merge(self, units: Sequence[int], words: Sequence[int]) -> Merged:
        """Merge each word: units that have the same number in ``words`` as their neighbours.

        Raises:
            NativeError: units that the tables do not have.
        """
        count = len(units)
        given = array("I", units), self._cut(units, words)
        found = array("i", bytes(4 * count)), array("i", bytes(4 * count))
        merged = ctypes.c_uint64()
        native.check(
            self._merge(
                ctypes.byref(self._tables),
                *(values.buffer_info()[0] for values in given),
                count,
                *(values.buffer_info()[0] for values in found),
                ctypes.byref(merged),
            )
        )
        return Merged(*(values[: merged.value].tolist() for values in found))

    def _cut(self, units: Sequence[int], words: Sequence[int]) -> array[int]:
        """Return numbers of words. SentencePiece's whole text is one; cut before its spaces the
        tokens are the same, and much sooner found."""
        if self._space is None or len(units) < _LONG:
            return array("I", words)
        spaces = np.array(units, np.uint32) == self._space
        begins = np.array(words, np.uint32)
        begins[1:] = (begins[1:] != begins[:-1]) | (spaces[1:] & ~spaces[:-1])
        return array("I", np.cumsum(begins, dtype=np.uint32).tobytes())

    def _find_space(self) -> int | None:
        """Return the unit of ``▁``, if no token has one after another character."""
        texts, length = self._texts, len(_SPACE)
        begins = self._offsets[self._units]
        alike = np.flatnonzero(self._offsets[self._units + 1] - begins == length)
        written = texts[begins[alike, None] + np.arange(length)]
        found = alike[(written == list(_SPACE)).all(1)]
        if not len(found):
            return None
        spaces = np.ones(len(texts) - length + 1, np.bool_)
        for place, byte in enumerate(_SPACE):
            spaces &= texts[place : place + len(spaces)] == byte
        inside = spaces.copy()
        inside[self._offsets[self._offsets < len(inside)]] = False
        at = np.flatnonzero(inside)
        return int(found[0]) if spaces[at - length].all() else None


def _check_texts(texts: NDArray[np.uint8], offsets: NDArray[np.int32], size: int) -> None:
    """Check the texts of the tokens.

    Raises:
        TokenizerError: offsets of another number of texts, or that cut characters.
    """
    try:
        texts.tobytes().decode()
    except UnicodeDecodeError as exc:
        raise TokenizerError(f"tokenizer.texts is not UTF-8: {exc.reason}") from exc
    whole = len(offsets) == size + 1 and offsets[0] == 0 and offsets[-1] == len(texts)
    if not whole or (offsets[1:] < offsets[:-1]).any():
        raise TokenizerError(f"tokenizer.offsets do not divide tokenizer.texts into {size} texts")
    if (texts[offsets[offsets < len(texts)]] & 0xC0 == 0x80).any():
        raise TokenizerError("tokenizer.offsets cut a character of tokenizer.texts")


def _check_ids(name: str, ids: NDArray[np.int32], lowest: int, size: int) -> None:
    """Check a table of ids.

    Raises:
        TokenizerError: ids without a place in the vocabulary.
    """
    least, most = int(ids.min()), int(ids.max())
    if least < lowest or most >= size:
        raise TokenizerError(
            f"tokenizer.{name} holds ids from {least} to {most}, expected {lowest} to {size - 1}"
        )
