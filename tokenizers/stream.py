"""Token ids to text, piece by piece, as they are generated."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from edge_llm.errors import RequestError
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
        """The text that the next id settles; may be empty, and is for special ids."""
        if self._tokenizer.is_special(token_id):
            return ""
        data = self._tokenizer.token_bytes(token_id)
        if self._first and data:
            self._first, data = False, self._tokenizer.first_bytes(token_id)
        return self._decoder.decode(data)

    def finish(self) -> str:
        """U+FFFD for half a character at the end."""
        return self._decoder.decode(b"", final=True)


class TextStream:
    """Text that grows with every id.

    The pieces joined are ``Tokenizer.decode`` of all ids, cut before the stop string that is
    complete first (the longest of those that end at the same character). What could still become
    a stop string, or is half a character, is held back. Special ids give no text.

    Args:
        stop: strings that end the text; they are not part of it.
        after: the ids of a text that this one goes on from, so that its first space is kept.

    Raises:
        RequestError: an empty stop string.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, after: Iterable[int] = ()
    ) -> None:
        if not all(stop):
            raise RequestError("a stop string must not be empty", param="stop")
        self._stop = tuple(stop)
        self._decoder = TextDecoder(tokenizer, after=after)
        self._held = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """A stop string has been seen; nothing more will come."""
        return self._stopped

    def push(self, token_id: int) -> str:
        """The text that the next id settles; may be empty."""
        return self._take(self._decoder.push(token_id))

    def finish(self) -> str:
        """The rest, at the end of generation: half a character becomes U+FFFD."""
        text = self._take(self._decoder.finish())
        text, self._held = text + self._held, ""
        return text

    def _take(self, text: str) -> str:
        if self._stopped or not text:
            return ""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self._stopped = True
            self._held = ""
            return text[: min(found)[1]]
        keep = len(text) - self._open_length(text)
        self._held = text[keep:]
        return text[:keep]

    def _open_length(self, text: str) -> int:
        """The length of the longest end of ``text`` that a stop string begins with."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0
