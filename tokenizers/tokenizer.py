"""Text to ids and back, from a Hugging Face ``tokenizer.json``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import tokenizers as hf

from edge_llm.errors import TokenizerError
from edge_llm.program.documents import TokenizerFacts
from edge_llm.tokenizers.bytelevel import token_to_bytes


class Span(NamedTuple):
    """A token and the characters ``text[start:end]`` that it covers."""

    id: int
    start: int
    end: int


class Tokenizer:
    """A byte-level BPE tokenizer. All methods may be called from several threads.

    Args:
        data: the bytes of a Hugging Face ``tokenizer.json``.
        facts: what the file does not tell by itself (see ``TokenizerFacts``).

    Raises:
        TokenizerError: not such a file, or a kind of tokenizer that is not byte-level.
    """

    def __init__(self, data: bytes, facts: TokenizerFacts) -> None:
        self.facts = facts
        self._hf = parse(data)
        check_decoder(self._hf)
        self._added = self._hf.get_added_tokens_decoder()
        self._special_ids = frozenset(i for i, token in self._added.items() if token.special)
        self._bytes: dict[int, bytes] = {}
        # Whether special-token text is matched is a switch of the library's object, not an
        # argument, so setting it and encoding are one step.
        self._switch = threading.Lock()

    @property
    def size(self) -> int:
        """One past the largest id that has a token."""
        return self.facts.size

    @property
    def special_texts(self) -> Mapping[str, int]:
        """The text and the id of every special token."""
        return {self._added[i].content: i for i in sorted(self._special_ids)}

    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control token, which never gives text."""
        return token_id in self._special_ids

    def token_text(self, token_id: int | None) -> str | None:
        """The token as the vocabulary writes it; ``None`` for an id without a token."""
        if token_id is None or token_id < 0:
            return None
        return self._hf.id_to_token(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of a token, which may be part of a character. Special tokens give
        their text; an id without a token gives nothing."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._find_bytes(token_id)
        return known

    def _find_bytes(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:  # stored as text, not in the byte alphabet
            return added.content.encode()
        token = self.token_text(token_id)
        return b"" if token is None else token_to_bytes(token)

    def encode(
        self, text: str, *, add_bos: bool | None = None, specials: bool = False
    ) -> list[int]:
        """The ids of a text.

        Args:
            add_bos: prepend the BOS id; by default as the checkpoint does for raw text.
            specials: read special-token text as that token; otherwise it is plain text, as
                anything is that a user typed.

        Raises:
            TokenizerError: text that is not Unicode (lone surrogates), or ``add_bos`` without
                a BOS token.
        """
        ids: list[int] = self._encode(text, specials).ids
        if self.facts.add_bos if add_bos is None else add_bos:
            if self.facts.bos_id is None:
                raise TokenizerError("add_bos was asked for, but the tokenizer has no BOS token")
            ids.insert(0, self.facts.bos_id)
        return ids

    def spans(self, text: str) -> list[Span]:
        """``encode`` with special tokens read and no BOS, and what each id covers."""
        encoding = self._encode(text, True)
        return [
            Span(i, start, end)
            for i, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]

    def _encode(self, text: str, specials: bool) -> hf.Encoding:
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise TokenizerError(
                f"text is not valid Unicode: lone surrogate at character {exc.start}"
            ) from exc
        with self._switch:
            self._hf.encode_special_tokens = not specials
            return self._hf.encode(text, add_special_tokens=False)

    def decode(self, ids: Iterable[int], skip_specials: bool = True) -> str:
        """The text of some ids. Bytes that are not UTF-8 become U+FFFD."""
        return b"".join(
            self.token_bytes(i) for i in ids if not (skip_specials and i in self._special_ids)
        ).decode(errors="replace")


def parse(data: bytes) -> hf.Tokenizer:
    """The library's object for a ``tokenizer.json``, set to neither truncate nor pad.

    Raises:
        TokenizerError: the library cannot read it.
    """
    try:
        tokenizer = hf.Tokenizer.from_buffer(data)
    except Exception as exc:  # the library raises bare Exception
        raise TokenizerError(f"not a readable tokenizer.json: {exc}") from exc
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_decoder(tokenizer: hf.Tokenizer) -> None:
    """
    Raises:
        TokenizerError: tokens are not written in the byte-level alphabet.
    """
    decoder = tokenizer.decoder
    kind = None if decoder is None else json.loads(decoder.__getstate__())["type"]
    if kind != "ByteLevel":
        raise TokenizerError(
            f"tokenizers with a {kind} decoder are not supported; expected ByteLevel"
        )
