"""Bounds on the length of a text, checked before it is encoded.

Encoding takes some 150 bytes of memory for each byte of text, more where a tokenizer makes text
longer. So a text has a bound of its own; and where a caller names how many tokens there is room
for, a text that cannot become so few is refused without being encoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from edge_llm.errors import ContextLengthError, TokenizerError
from edge_llm.tokenizers.growth import steps_of

MAX_TEXT_BYTES = 2**23  # about two million tokens of English
MAX_GROWN_BYTES = 2**26  # of a text as normalizer and pre-tokenizer may make it

# Bytes of text that can become one byte, by step; steps that are not here can drop text. The
# canonical forms are from Unicode's tables (iota's other letter with two marks becomes one of two
# bytes), lower case has the Kelvin sign.
_NORMALIZERS = {"ByteLevel": 1.0, "Lowercase": 3.0, "NFC": 3.5, "NFD": 3.0, "Prepend": 1.0}
_CUTTERS = {"ByteLevel", "Digits", "FixedLength", "Metaspace", "UnicodeScripts"}
_DROPPING_CUTTERS = {"Split", "Punctuation"}  # where their behaviour is "Removed"


class TextLength:
    """Bounds on how long a text may be, and on how few tokens it can make.

    Args:
        document: a parsed ``tokenizer.json``.
        growth: bytes that its normalizer and pre-tokenizer may make of one (`growth.py`).
        longest: gives the most bytes of text that one token stands for; called when needed.
    """

    def __init__(
        self, document: Mapping[str, Any], growth: float, longest: Callable[[], int]
    ) -> None:
        self._most = min(MAX_TEXT_BYTES, int(MAX_GROWN_BYTES / growth))
        self._shrink = _shrink(document)
        self._longest = longest
        added = document.get("added_tokens") or ()
        self._strips = any(token["lstrip"] or token["rstrip"] for token in added)
        self._per_token: float | None = None

    @property
    def bytes_per_token(self) -> float:
        """The bytes of text that one token can stand for at most; infinite where a step of the
        tokenizer drops text."""
        if self._per_token is None:
            dropping = math.isinf(self._shrink)
            self._per_token = math.inf if dropping else self._shrink * self._longest()
        return self._per_token

    def most_characters(self, token_limit: int | None) -> int:
        """Return the characters beyond which no text can be encoded, or has too many tokens."""
        if token_limit is None or self._strips or math.isinf(self.bytes_per_token):
            return self._most
        return min(self._most, int(max(0, token_limit) * self.bytes_per_token))

    def least_tokens(self, size: int) -> int:
        """Return how many tokens a text of ``size`` bytes makes at least."""
        return math.ceil(size / self.bytes_per_token)

    def check(self, text: str, token_limit: int | None = None) -> None:
        """Check a text that is to be encoded.

        Raises:
            ContextLengthError: it cannot be encoded in ``token_limit`` tokens.
            TokenizerError: it is no text, not Unicode (lone surrogates), or too long to be encoded
                at all.
        """
        if not isinstance(text, str):
            raise TokenizerError(f"the text is of type {type(text).__name__}, expected str")
        self.check_characters(len(text), token_limit)
        try:
            size = len(text.encode())
        except UnicodeEncodeError as exc:
            raise TokenizerError(
                f"text is not valid Unicode: lone surrogate at character {exc.start}"
            ) from exc
        if token_limit is not None and self._strips:  # which takes any number of spaces in
            self._check_tokens(len("".join(text.split()).encode()), token_limit)
        else:
            self.check_characters(size, token_limit)

    def check_characters(self, size: int, token_limit: int | None = None) -> None:
        """Check a text of which no more is known than that it has ``size`` bytes, or more.

        Raises:
            ContextLengthError, TokenizerError: see `check`.
        """
        if token_limit is not None and not self._strips:
            self._check_tokens(size, token_limit)
        if size > self._most:
            raise TokenizerError(
                f"the text has {size} bytes or more, at most {self._most} can be encoded at once"
            )

    def _check_tokens(self, size: int, token_limit: int) -> None:
        least = self.least_tokens(size)
        if least > token_limit:
            raise ContextLengthError(token_limit, least, at_least=True)


def _shrink(document: Mapping[str, Any]) -> float:
    """Return how many bytes of text can become one byte of what is looked up in the vocabulary."""
    model = document["model"]
    if model.get("type") != "BPE" or (
        # One token for everything unknown takes any number of bytes.
        model.get("unk_token") is not None
        and not (model.get("byte_fallback") and _has_bytes(model["vocab"]))
    ):
        return math.inf
    steps = map(_normalizer_shrink, steps_of(document.get("normalizer"), "normalizers"))
    cuts = map(_cutter_shrink, steps_of(document.get("pre_tokenizer"), "pretokenizers"))
    return math.prod(steps) * math.prod(cuts)


def _has_bytes(vocabulary: Mapping[str, int]) -> bool:
    return all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))


def _normalizer_shrink(step: Mapping[str, Any]) -> float:
    if step["type"] == "Replace":
        found, put = step["pattern"].get("String", ""), step["content"]
        # An expression can match any length.
        return max(1.0, len(found.encode()) / len(put.encode())) if found and put else math.inf
    return _NORMALIZERS.get(step["type"], math.inf)


def _cutter_shrink(step: Mapping[str, Any]) -> float:
    kept = step["type"] in _CUTTERS or (
        step["type"] in _DROPPING_CUTTERS and step.get("behavior") not in ("Removed", "removed")
    )
    return 1.0 if kept else math.inf
