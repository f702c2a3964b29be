"""Token ids by the text that they have: which ids break a repetition for the sampler's DRY."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_llm.tokenizers.tokenizer import Tokenizer

# [ceil(vocab / 32)] uint32; bit i of the whole says that id i is in it.
Mask: TypeAlias = NDArray[np.uint32]

_KEPT = 16  # masks


class Breakers:
    """Finds tokens by their text, in time that depends on the vocabulary and not on how many there
    are. From any thread.

    Args:
        tokenizer: gives the tokenizer, when it is needed.
        vocab: ids of the model.
    """

    def __init__(self, tokenizer: Callable[[], Tokenizer], vocab: int) -> None:
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._cached = lru_cache(_KEPT)(self._mask)

    def mask(self, texts: Sequence[str]) -> Mask:
        """Return the ids that break: all tokens that have one of ``texts`` in theirs; for a text
        that no token has whole, the last token that it is written with, as where DRY comes from.

        Raises:
            TokenizerError: a text is not Unicode (lone surrogates).
        """
        return self._cached(tuple(texts))

    def _mask(self, texts: tuple[str, ...]) -> Mask:
        tokenizer = self._tokenizer()
        bits = np.zeros(-(-self._vocab // 32) * 32, np.uint8)
        for text in texts:
            # Behind a letter: a space that only the beginning of a text gets is none of it.
            *_, last = tokenizer.encode(f"a{text}", add_bos=False)
            found = self._having(text.encode())
            bits[found if len(found) else [last]] = 1
        return np.packbits(bits, bitorder="little").view(np.uint32)

    @cached_property
    def _texts(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """The bytes of all tokens one after another, and the id that each byte is of."""
        tokenizer = self._tokenizer()
        parts = [tokenizer.token_bytes(i) for i in range(min(tokenizer.size, self._vocab))]
        owners = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
        return np.frombuffer(b"".join(parts), np.uint8), owners

    def _having(self, text: bytes) -> NDArray[np.int32]:
        """Return the ids of the tokens that have ``text`` in theirs."""
        data, owners = self._texts
        last = len(data) - len(text)
        if last < 0:
            return owners[:0]
        starts = np.flatnonzero(data[: last + 1] == text[0])
        for offset, byte in enumerate(text[1:], 1):
            starts = starts[data[starts + offset] == byte]
        starts = starts[owners[starts] == owners[starts + len(text) - 1]]
        return np.unique(owners[starts])
