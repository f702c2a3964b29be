"""Token ids to text, piece by piece, as they are generated."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from edge_llm.tokenizers.tokenizer import Tokenizer


class TextDecoder:
    """The text that every id settles; half a character waits for its end.

    Args:
        after: the ids of a text that this one goes on from, so that its first space is kept.
    """

    def __init__(self, tokenizer: Tokenizer, *, after: Iterable[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._first = all(map(tokenizer.is_special, after))

    def push(self, token_id: int) -> str:
        """Return the text that the next id settles; may be empty, and is for special ids."""
        if self._tokenizer.is_special(token_id):
            return ""
        data = self._tokenizer.token_bytes(token_id)
        if self._first and data:
            self._first, data = False, self._tokenizer.first_bytes(token_id)
        return self._decoder.decode(data)

    def special(self, token_id: int) -> str | None:
        """Return how a special id is written, None for other ids."""
        if not self._tokenizer.is_special(token_id):
            return None
        return self._tokenizer.token_bytes(token_id).decode(errors="replace")

    def finish(self) -> str:
        """Return U+FFFD for half a character at the end."""
        return self._decoder.decode(b"", final=True)
