"""A model's vocabulary as grammars see it: the bytes of each token, and which are no text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_llm.errors import EdgeLLMError
from edge_llm.runner.engine.constraints import Mask, mask_of

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_REMEMBERED = 4096  # texts whose tokens are remembered


class TokenSource(Protocol):
    """A tokenizer, as far as a vocabulary needs it."""

    @property
    def size(self) -> int:
        """One past the largest id that has a token."""

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token, none for an id without one."""

    def is_special(self, token_id: int) -> bool:
        """Return whether the id is a control token."""

    def encode(self, text: str, *, add_bos: bool, continues: bool) -> list[int]:
        """Return the ids of a text that another one goes before, control tokens as plain text."""


class Vocabulary:
    """What all grammars of a model share. It may be used from any thread.

    Attributes:
        size: ids that a row of logits has.
        tokens: the bytes of each token that the tokenizer has.
        controls: tokens that are never part of a text.
        end_ids: tokens that end an answer.
        everything: the mask of all tokens that the tokenizer has, [ceil(size / 32)] uint32.
        text: likewise, of those that are text.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        controls: Collection[int],
        end_ids: Collection[int],
        encode: Callable[[bytes], list[int]],
        size: int | None = None,
    ) -> None:
        """Prepare a vocabulary; for 150,000 tokens that takes half a second and 60 MB.

        Args:
            encode: returns the ids of a text as the model was taught to write it; the text may
                be cut within a character, which it may answer with an error.
            size: ids that a row of logits has, where that is more than there are tokens.
        """
        self.tokens = list(tokens)
        self.size = len(self.tokens) if size is None else size
        self.end_ids = frozenset(end_ids)
        self.controls = frozenset(controls) | self.end_ids
        words = -(-self.size // 32)
        self.everything = _prefix_mask(min(len(self.tokens), self.size), words)
        self.text = self.everything & ~mask_of(self.controls, 32 * words)
        self.ends = mask_of(self.end_ids, 32 * words)
        for mask in (self.everything, self.text, self.ends):
            mask.flags.writeable = False
        self._encode = encode
        self._known: dict[bytes, list[int]] = {}
        self._all = b"\n".join(self.tokens)
        self._by_first: dict[int, list[int]] = {}
        for token, data in enumerate(self.tokens):
            if data and token not in self.controls:
                self._by_first.setdefault(data[0], []).append(token)
        self.library, self.words = self._build()

    @classmethod
    def of(
        cls,
        tokenizer: TokenSource,
        *,
        size: int,
        end_ids: Collection[int],
        controls: Iterable[int] = (),
    ) -> Vocabulary:
        """Return the vocabulary of a program whose rows of logits have ``size`` ids. ``controls``
        are added to the tokenizer's own special tokens."""
        ids = range(min(tokenizer.size, size))
        special = {token for token in ids if tokenizer.is_special(token)}
        return cls(
            [tokenizer.token_bytes(token) for token in ids],
            special.union(controls),
            end_ids,
            lambda data: tokenizer.encode(data.decode(), add_bos=False, continues=True),
            size,
        )

    def encode(self, data: bytes) -> list[int]:
        """Return tokens that spell ``data`` as the model would, or else as few as possible."""
        known = self._known.get(data)
        if known is None:
            known = self._find_tokens(data)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[data] = known
        return known

    def spell(self, data: bytes) -> list[int] | None:
        """Return tokens that spell ``data``, None if there are none."""
        ids = self.encode(data)
        return ids if self._spells(ids, data) else None

    def starting(self, prefix: bytes) -> list[int]:
        """Return the text tokens that begin with ``prefix``, which is not empty."""
        group = self._by_first.get(prefix[0], [])
        return [token for token in group if self.tokens[token].startswith(prefix)]

    def containing(self, part: bytes) -> list[int]:
        """Return the text tokens that have ``part`` in them."""
        if part not in self._all:
            return []
        return [
            token
            for token, data in enumerate(self.tokens)
            if part in data and token not in self.controls
        ]

    def _build(self) -> tuple[LLTokenizer, int]:
        """Return llguidance's tokenizer, and the 32-bit words of its masks."""
        from llguidance import LLTokenizer

        tokens = self.tokens + [b""] * (self.size - len(self.tokens))
        ends = sorted(self.end_ids)
        if not ends:  # it wants one: an id that no row of logits has
            ends = [len(tokens)]
            tokens = [*tokens, b"<end>"]
        facts = _Facts(tokens, sorted(self.controls.union(ends)), ends[0], self.encode)
        return LLTokenizer(facts, eos_token=ends), -(-len(tokens) // 32)  # type: ignore[arg-type]

    def _find_tokens(self, data: bytes) -> list[int]:
        try:
            ids = self._encode(data)
        except (ValueError, EdgeLLMError):  # cut within a character
            ids = []
        return ids if self._spells(ids, data) else self._longest_first(data)

    def _spells(self, ids: Sequence[int], data: bytes) -> bool:
        return self.controls.isdisjoint(ids) and data == b"".join(self.tokens[i] for i in ids)

    def _longest_first(self, data: bytes) -> list[int]:
        """Return tokens, each the longest that the rest begins with; what no token spells is left
        out."""
        ids: list[int] = []
        place = 0
        while place < len(data):
            fitting = [
                token
                for token in self.starting(data[place : place + 1])
                if data.startswith(self.tokens[token], place)
            ]
            if not fitting:
                place += 1
                continue
            ids.append(max(fitting, key=lambda token: len(self.tokens[token])))
            place += len(self.tokens[ids[-1]])
        return ids


class _Facts:
    """What llguidance asks of a tokenizer, under the names by which it asks."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self,
        tokens: list[bytes],
        controls: list[int],
        end_id: int,
        encode: Callable[[bytes], list[int]],
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = controls
        self.eos_token_id = end_id
        self._encode = encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text.encode() if isinstance(text, str) else text)


def _prefix_mask(count: int, words: int) -> Mask:
    bits = np.zeros(32 * words, np.uint8)
    bits[:count] = 1
    return np.packbits(bits, bitorder="little").view(np.uint32)
