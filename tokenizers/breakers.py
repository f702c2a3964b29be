"""Token ids by the text that they have: which ids break a repetition for the sampler's DRY."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edge_llm.tokenizers.tokenizer import Tokenizer

Ids = NDArray[np.int32]

_KEPT = 16  # answers


class Breakers:
    """Finds tokens by their text, in time that depends on the vocabulary and not on how many there
    are; what was asked for lately is known. From any thread."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._cached = lru_cache(_KEPT)(self._find)

    def ids(self, texts: Sequence[str]) -> Ids:
        """Return the ids that break, [n] int32: all tokens that have one of ``texts`` in theirs;
        for a text that no token has whole, the last token that it is written with, as where DRY
        comes from.

        Raises:
            TokenizerError: a text is not Unicode (lone surrogates).
        """
        return self._cached(tuple(texts))

    def _find(self, texts: tuple[str, ...]) -> Ids:
        breaks = np.zeros(self._tokenizer.size, np.bool_)
        for text in texts:
            self._tokenizer.length.check(text)
            found = self._having(text.encode())
            if not len(found):
                # Behind a letter: a space that only the beginning of a text gets is none of it.
                found = np.array(self._tokenizer.encode(f"a{text}", add_bos=False)[-1:], np.int32)
            breaks[found] = True
        return np.flatnonzero(breaks).astype(np.int32)

    @cached_property
    def _texts(self) -> tuple[NDArray[np.uint8], Ids]:
        """The bytes of all tokens one after another, and the id that each byte is of."""
        parts = [self._tokenizer.token_bytes(i) for i in range(self._tokenizer.size)]
        owners = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        return np.frombuffer(b"".join(parts), np.uint8), owners

    def _having(self, text: bytes) -> Ids:
        """Return the ids of the tokens that have ``text`` in theirs; some may come twice."""
        data, owners = self._texts
        last = len(data) - len(text)
        if last < 0:
            return owners[:0]
        starts = np.flatnonzero(data[: last + 1] == text[0])
        for offset, byte in enumerate(text[1:], 1):
            starts = starts[data[starts + offset] == byte]
        begun: Ids = owners[starts]
        whole: Ids = begun[begun == owners[starts + len(text) - 1]]
        return whole
