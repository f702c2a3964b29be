"""Text to ids and back, from a Hugging Face ``tokenizer.json``."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import tokenizers as hf
from tokenizers.pre_tokenizers import Metaspace

from edge_llm.errors import ContextLengthError, TokenizerError
from edge_llm.program.documents import TokenizerFacts
from edge_llm.program.file import Program
from edge_llm.tokenizers.breakers import Breakers
from edge_llm.tokenizers.growth import check_growth
from edge_llm.tokenizers.length import TextLength
from edge_llm.tokenizers.pieces import PIECE, Cutter, checkpoint
from edge_llm.tokenizers.spelling import spelling_of
from edge_llm.tokenizers.tables.merger import Merged, Merger

# From so many characters on the library is asked in the way that lets other threads run meanwhile.
_BUSY = 2**12


class Mark(NamedTuple):
    """A control token: ``ids[at]``, read from the characters ``text[start:end]``."""

    at: int
    start: int
    end: int


class Tokenizer:
    """A byte-level or SentencePiece BPE tokenizer. All methods may be called from several threads.

    Args:
        data: the bytes of a Hugging Face ``tokenizer.json``.
        facts: what the file does not tell by itself (see ``TokenizerFacts``).
        merger: the tables that ``data`` is the skeleton of, if it is one.

    Raises:
        TokenizerError: not such a file, or a kind of tokenizer that is not supported.
    """

    def __init__(self, data: bytes, facts: TokenizerFacts, merger: Merger | None = None) -> None:
        self.facts = facts
        self._hf, growth = _read(data)
        # BOS is in the facts, and spans are to cover all of a token's text.
        self._hf.post_processor = None
        self._merger = merger
        self._spelling = spelling_of(self._hf)
        self._added = self._hf.get_added_tokens_decoder()
        if merger is not None:
            self._added = {merger.id_of(unit): token for unit, token in self._added.items()}
        self._special_ids = frozenset(i for i, token in self._added.items() if token.special)
        self._bytes: dict[int, bytes] = {}
        self.length = TextLength(json.loads(data), growth, self._longest)
        # Whether special-token text is matched is a switch of the library's object, not an
        # argument, so setting it and encoding are one step.
        self._switch = threading.Lock()
        self._cut = self._hf.pre_tokenizer
        self._cut_within = _without_prefix(self._cut)
        self._cutter: Cutter | None = None

    @cached_property
    def breakers(self) -> Breakers:
        """Finds tokens by their text."""
        return Breakers(self)

    @property
    def size(self) -> int:
        """One past the largest id that has a token."""
        return self.facts.size

    @property
    def added_texts(self) -> frozenset[str]:
        """The texts of all added tokens, special or not."""
        return frozenset(token.content for token in self._added.values())

    @property
    def added_ids(self) -> Mapping[str, int]:
        """The id of every added token, by its text."""
        return {token.content: i for i, token in self._added.items()}

    @property
    def special_texts(self) -> Mapping[str, int]:
        """The text and the id of every special token."""
        return {self._added[i].content: i for i in sorted(self._special_ids)}

    def is_special(self, token_id: int) -> bool:
        """Return whether the id is a control token, which never gives text."""
        return token_id in self._special_ids

    def token_text(self, token_id: int | None) -> str | None:
        """Return the token as the vocabulary writes it; ``None`` for an id without a token."""
        if token_id is None or token_id < 0:
            return None
        if self._merger is not None:
            return self._merger.text(token_id)
        return self._hf.id_to_token(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 bytes of a token, which may be part of a character. Special tokens give
        their text; an id without a token gives nothing."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._find_bytes(token_id)
        return known

    def _find_bytes(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        if added is not None:
            return self._spelling.added_bytes_of(added.content)
        token = self.token_text(token_id)
        return b"" if token is None else self._spelling.bytes_of(token)

    def _longest(self) -> int:
        """Return the most bytes of text that a token of the vocabulary stands for."""
        if self._merger is not None:
            lengths = self._merger.lengths()
        else:
            texts = (self._hf.id_to_token(i) or "" for i in range(self.size))
            lengths = np.array([len(text.encode()) for text in texts], np.int64)
        if not self._spelling.byte_for_byte:  # the spelling is what text is before it is merged
            return int(lengths.max())
        longest = 0
        for token_id in np.argsort(-lengths, kind="stable").tolist():
            if lengths[token_id] <= longest:
                break
            longest = max(longest, len(self.token_bytes(token_id)))
        return longest

    def first_bytes(self, token_id: int) -> bytes:
        """Return `token_bytes` of a token that begins a text, without a space that only its
        spelling has."""
        return self._spelling.first(self.token_bytes(token_id))

    def encode(
        self,
        text: str,
        *,
        add_bos: bool | None = None,
        specials: bool = False,
        continues: bool = False,
        token_limit: int | None = None,
    ) -> list[int]:
        """Return the ids of a text.

        Args:
            add_bos: prepend the BOS id; by default as the checkpoint does for raw text.
            specials: read special-token text as that token; otherwise it is plain text, as
                anything is that a user typed.
            continues: the text comes after a special token of the same prompt, so that a space
                which only the beginning of a prompt gets is left out.
            token_limit: refuse a text that makes more tokens, before it is encoded or after a
                part of it; one that is not refused may still have more.

        Raises:
            ContextLengthError: the text cannot be encoded in ``token_limit`` tokens.
            TokenizerError: text that is not Unicode (lone surrogates) or too long
                (`length.py`), or ``add_bos`` without a BOS token.
        """
        self.length.check(text, token_limit)
        ids: list[int] = []
        for piece in self._pieces(text):
            _go_on(ids, token_limit)
            ids += self._ids(piece, specials, continues)
            continues = True
        if self.facts.add_bos if add_bos is None else add_bos:
            if self.facts.bos_id is None:
                raise TokenizerError("add_bos was asked for, but the tokenizer has no BOS token")
            ids.insert(0, self.facts.bos_id)
        return ids

    def encode_marked(
        self, text: str, token_limit: int | None = None
    ) -> tuple[list[int], list[Mark]]:
        """Return ``encode`` with special tokens read and no BOS, and where those tokens are.

        Raises:
            ContextLengthError, TokenizerError: as `encode`.
        """
        self.length.check(text, token_limit)
        ids: list[int] = []
        marks: list[Mark] = []
        begin = 0
        for piece in self._pieces(text):
            _go_on(ids, token_limit)
            more, found = self._marked(piece, begin > 0)
            marks += [Mark(at + len(ids), start + begin, end + begin) for at, start, end in found]
            ids += more
            begin += len(piece)
        return ids, marks

    def _marked(self, text: str, continues: bool) -> tuple[list[int], list[Mark]]:
        encoding = self._encode(text, True, continues)
        if self._merger is None:
            ids, ends = encoding.ids, None
        else:
            ids, ends = _merged(self._merger, encoding)
        marks = []
        for index, token_id in enumerate(ids):
            if token_id in self._special_ids:
                unit = index if ends is None else ends[index] - 1
                start, end = encoding.token_to_chars(unit) or (0, 0)
                marks.append(Mark(index, start, end))
        return ids, marks

    def with_specials(self, texts: frozenset[str]) -> Tokenizer:
        """Return this tokenizer with more special tokens: those added tokens that have one of the
        texts, read only where a text has them letter by letter, as all special tokens then are."""
        with self._switch:
            self._hf.pre_tokenizer = self._cut
            document = json.loads(self._hf.to_str())
        texts |= self.special_texts.keys()
        for token in document["added_tokens"]:
            if token["content"] in texts:
                token |= {"special": True, "normalized": False}
        return Tokenizer(json.dumps(document).encode(), self.facts, self._merger)

    @property
    def has_normalized_specials(self) -> bool:
        """Tell whether other texts than its own become a special token, once they are
        normalized."""
        return any(token.special and token.normalized for token in self._added.values())

    def _pieces(self, text: str) -> Iterator[str]:
        """Yield the parts of a text whose ids one after another are those of the whole."""
        if len(text) <= PIECE:
            return iter((text,))
        if self._cutter is None:
            with self._switch:
                document = json.loads(self._hf.to_str())
            self._cutter = Cutter(
                document["added_tokens"],
                lambda part, continues: self._ids(part, False, continues),
                None if self._cut is None else self._count_words,
                lambda: map(self._find_bytes, range(self.size)),
            )
        return self._cutter.pieces(text, PIECE)

    def _count_words(self, text: str) -> int:
        normalizer = self._hf.normalizer
        text = text if normalizer is None else normalizer.normalize_str(text)
        assert self._cut is not None
        return len(self._cut.pre_tokenize_str(text))

    def _ids(self, text: str, specials: bool, continues: bool) -> list[int]:
        encoding = self._encode(text, specials, continues)
        return encoding.ids if self._merger is None else _merged(self._merger, encoding).ids

    def _encode(self, text: str, specials: bool, continues: bool) -> hf.Encoding:
        with self._switch:
            self._hf.encode_special_tokens = not specials
            if self._cut_within is not None:
                self._hf.pre_tokenizer = self._cut_within if continues else self._cut
            with library_errors("the tokenizer cannot encode the text"):
                if len(text) < _BUSY:
                    return self._hf.encode(text, add_special_tokens=False)
                return self._hf.encode_batch([text], add_special_tokens=False)[0]

    def decode(
        self, ids: Iterable[int], skip_specials: bool = True, *, continues: bool = False
    ) -> str:
        """Return the text of some ids. Bytes that are not UTF-8 become U+FFFD; those beside them
        stay, where the library spoils the whole run of SentencePiece's byte tokens.

        Args:
            continues: the text goes on from another one, so its first space is kept.
        """
        parts = []
        first = not continues
        for token_id in ids:
            if skip_specials and token_id in self._special_ids:
                continue
            data = self.token_bytes(token_id)
            if first and data:
                first, data = False, self.first_bytes(token_id)
            parts.append(data)
        return b"".join(parts).decode(errors="replace")


def _go_on(ids: list[int], token_limit: int | None) -> None:
    """Raise if the ids of the first pieces of a text are too many already, or nobody waits for
    them any more."""
    if token_limit is not None and len(ids) > token_limit:
        raise ContextLengthError(token_limit, len(ids), at_least=True)
    checkpoint()


def tokenizer_of(program: Program) -> Tokenizer:
    """Return the tokenizer of a program file: by its tables, which load fast, else by its JSON.

    Raises:
        TokenizerError: the tokenizer cannot be used.
        NativeError: there are tables, but no native core to use them.
    """
    facts, tables = program.documents.tokenizer, program.tokenizer_tables
    if not tables:
        return Tokenizer(program.tokenizer_json, facts)
    merger = Merger(tables, facts.size)
    return Tokenizer(merger.skeleton, facts, merger)


def _merged(merger: Merger, encoding: hf.Encoding) -> Merged:
    words = cast("list[int]", encoding.word_ids)  # what belongs to no word a post-processor adds
    return merger.merge(encoding.ids, words)


def parse(data: bytes) -> hf.Tokenizer:
    """Return the library's object for a ``tokenizer.json``, set to neither truncate nor pad.

    Raises:
        TokenizerError: the library cannot read it, or it could make text too long.
    """
    return _read(data)[0]


def _read(data: bytes) -> tuple[hf.Tokenizer, float]:
    """Return `parse`, and how much longer it may make text (`growth.py`)."""
    growth = check_growth(data)
    with library_errors("not a readable tokenizer.json"):
        tokenizer = hf.Tokenizer.from_buffer(data)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, growth


@contextmanager
def library_errors(complaint: str) -> Generator[None]:
    """Translate what the library raises: bare ``Exception``, and for some damaged tokenizers a
    panic, which is no ``Exception`` at all and can only be told by its name.

    Raises:
        TokenizerError: ``complaint``, with the library's reason.
    """
    try:
        yield
    except BaseException as exc:
        if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
            raise TokenizerError(f"{complaint}: {exc}") from exc
        raise


def _without_prefix(
    cut: hf.pre_tokenizers.PreTokenizer | None,
) -> hf.pre_tokenizers.PreTokenizer | None:
    """Return the same pre-tokenizer for text that is not the beginning; ``None`` where it makes no
    difference."""
    if isinstance(cut, Metaspace) and cut.prepend_scheme == "first":
        return Metaspace(replacement=cut.replacement, prepend_scheme="never", split=cut.split)
    return None
