"""KV pages: who holds which page, and which cached page can serve a new prompt.

A page holds the keys and values of ``page_tokens`` consecutive positions of one sequence. What is
in it depends on the tokens up to its end only, so a page is named by a hash chain over the token
ids of its sequence: a prompt that starts with the same tokens shares the full pages, and copies
the beginning of the first page that it shares in part. Pages that nobody holds keep their content
until they are needed for something else; the least recently used go first.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

from edge_llm.runner.statistics import CacheUse

Tokens: TypeAlias = "array[int]"  # typecode "i"

ROOT = b""


def extend_chain(chain: list[bytes], tokens: Tokens, page_tokens: int) -> None:
    """Appends to ``chain`` the digests of the full pages of ``tokens`` that it lacks. A digest
    covers its page and all pages before it."""
    for page in range(len(chain), len(tokens) // page_tokens):
        parent = chain[-1] if chain else ROOT
        part = tokens[page * page_tokens : (page + 1) * page_tokens]
        chain.append(blake2b(parent + part.tobytes(), digest_size=32).digest())


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the cache has of a prompt: ``pages`` that are shared whole, then the first ``copied``
    tokens of page ``source`` (-1: none). ``tokens`` counts all of them; ``use`` says why there are
    not more."""

    pages: tuple[int, ...] = ()
    source: int = -1
    copied: int = 0
    tokens: int = 0
    use: CacheUse = "not used"


@dataclass(slots=True)
class _Page:
    references: int = 0
    parent: bytes = ROOT
    tokens: Tokens = field(default_factory=lambda: array("i"))  # what was computed so far
    digest: bytes | None = None  # set on the one full page that answers for these tokens


class PagePool:
    """Owns ``count`` page ids. Not thread-safe; knows nothing of what pages look like inside."""

    def __init__(self, count: int, page_tokens: int) -> None:
        self.page_tokens = page_tokens
        self._pages = [_Page() for _ in range(count)]
        self._free = list(range(count - 1, -1, -1))
        self._unused: OrderedDict[int, None] = OrderedDict()  # cached, held by nobody; oldest first
        self._by_digest: dict[bytes, int] = {}
        self._children: dict[bytes, set[int]] = {}  # parent digest -> pages with content
        self._evicted: OrderedDict[bytes, None] = OrderedDict()  # digests, as many as pages

    @property
    def count(self) -> int:
        return len(self._pages)

    @property
    def available(self) -> int:
        """Pages that can be allocated now: free ones, and cached ones that nobody holds."""
        return len(self._free) + len(self._unused)

    @property
    def cached(self) -> int:
        """Pages that nobody holds but whose content can still be found."""
        return len(self._unused)

    def pages_for(self, tokens: int) -> int:
        """Pages that ``tokens`` positions take."""
        return -(-tokens // self.page_tokens)

    def has(self, digest: bytes) -> bool:
        """Whether the full page that ends with ``digest`` is cached."""
        return digest in self._by_digest

    def match(self, tokens: Tokens, chain: list[bytes], limit: int) -> Prefix:
        """The longest cached prefix of ``tokens[:limit]``. Takes no reference."""
        pages: list[int] = []
        for digest in chain[: limit // self.page_tokens]:
            page = self._by_digest.get(digest)
            if page is None:
                break
            pages.append(page)
        start = len(pages) * self.page_tokens
        rest = tokens[start : min(start + self.page_tokens, limit)]
        source, copied = -1, 0
        for page in self._children.get(chain[len(pages) - 1] if pages else ROOT, ()):
            common = _common_prefix(self._pages[page].tokens, rest)
            if common > copied:
                source, copied = page, common
        found = start + copied
        return Prefix(
            tuple(pages), source, copied, found, self._use(chain, len(pages), found, limit)
        )

    def _use(self, chain: list[bytes], pages: int, found: int, limit: int) -> CacheUse:
        if limit == 0:
            return "not used"
        if found == limit:
            return "hit"
        if pages < len(chain) and chain[pages] in self._evicted:
            return "evicted"
        if found:
            return "partial"
        return "no shared prefix" if self._children else "empty"

    def unused_among(self, pages: tuple[int, ...]) -> int:
        """How many of ``pages`` nobody holds: sharing them takes that much from ``available``."""
        return sum(self._pages[page].references == 0 for page in pages)

    def share(self, pages: tuple[int, ...]) -> None:
        """Takes one more reference to each page."""
        for page in pages:
            self._pages[page].references += 1
            self._unused.pop(page, None)

    def allocate(self, count: int) -> list[int] | None:
        """``count`` empty pages with one reference each, or None if there are not that many."""
        if count > self.available:
            return None
        taken: list[int] = []
        for _ in range(count):
            if not self._free:
                oldest, _ = self._unused.popitem(last=False)
                self._evict(oldest)
                self._free.append(oldest)
            page = self._free.pop()
            self._pages[page].references = 1
            taken.append(page)
        return taken

    def release(self, pages: list[int]) -> None:
        """Gives back one reference to each page, the last first: the deep end of a chain is of no
        use without its beginning, so it is the first to be evicted."""
        for page in reversed(pages):
            entry = self._pages[page]
            if entry.references <= 0:
                raise AssertionError(f"page {page} was released more often than taken")
            entry.references -= 1
            if entry.references:
                continue
            full = len(entry.tokens) == self.page_tokens
            if entry.tokens and (entry.digest is not None or not full):
                self._unused[page] = None
            else:  # empty, or a second copy of what another page answers for
                self._forget(page)
                self._free.append(page)

    def record(self, page: int, parent: bytes, tokens: Tokens, digest: bytes | None) -> None:
        """Notes that ``page`` now holds ``tokens`` after the pages that end with ``parent``;
        ``digest`` is its own once it is full."""
        entry = self._pages[page]
        if not entry.tokens:
            entry.parent = parent
            self._children.setdefault(parent, set()).add(page)
        entry.tokens = tokens
        if digest is not None and digest not in self._by_digest:
            entry.digest = digest
            self._by_digest[digest] = page

    def _evict(self, page: int) -> None:
        digest = self._pages[page].digest
        self._forget(page)
        if digest is not None:
            self._evicted[digest] = None
            if len(self._evicted) > self.count:
                self._evicted.popitem(last=False)

    def _forget(self, page: int) -> None:
        entry = self._pages[page]
        if entry.tokens:
            siblings = self._children[entry.parent]
            siblings.discard(page)
            if not siblings:
                del self._children[entry.parent]
        if entry.digest is not None:
            del self._by_digest[entry.digest]
        self._pages[page] = _Page()


def _common_prefix(first: Tokens, second: Tokens) -> int:
    size = min(len(first), len(second))
    if first[:size] == second[:size]:
        return size
    return next(i for i in range(size) if first[i] != second[i])
