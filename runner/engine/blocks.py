"""Blocks of one state group: who holds which, and which cached ones can serve a new prompt.

A block holds what the states of a group keep of ``block_size`` consecutive positions of one
sequence. What is in it depends on the tokens up to its end, and on the sequence's adapter, only,
so a block is named by a hash chain over the token ids of its sequence, which begins with the digest
of its adapter, or `ROOT`: a prompt that starts with the same tokens shares the full
blocks, and copies the beginning of the first block that it shares in part. Blocks that nobody holds
keep their content until they are needed for something else; the least recently used go first.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

Tokens: TypeAlias = "array[int]"  # typecode "i"

ROOT = b""


def extend_chain(chain: list[bytes], tokens: Tokens, block_size: int, root: bytes = ROOT) -> None:
    """Append to ``chain`` the digests of the full blocks of ``tokens`` that it lacks. A digest
    covers its block, all blocks before it, and ``root``."""
    for block in range(len(chain), len(tokens) // block_size):
        parent = chain[-1] if chain else root
        part = tokens[block * block_size : (block + 1) * block_size]
        chain.append(_digest(parent, part))


def _digest(parent: bytes, tokens: Tokens) -> bytes:
    return blake2b(parent + tokens.tobytes(), digest_size=32).digest()


def window_blocks(window: int, step_tokens: int, block_size: int) -> int:
    """Return the most blocks that a sequence holds at a time in a group whose states look back
    ``window`` positions: those of the window and of a step, wherever they begin in a block."""
    return -(-(window - 1 + step_tokens - 1) // block_size) + 1


@dataclass(slots=True)
class _Block:
    references: int = 0
    parent: bytes = ROOT
    tokens: Tokens = field(default_factory=lambda: array("i"))  # what was computed so far
    digest: bytes | None = None  # set on the one full block that answers for these tokens


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a block: ``tokens`` behind the blocks that end with ``parent``, and its own
    ``digest`` if it is full."""

    parent: bytes
    tokens: Tokens
    digest: bytes | None

    @classmethod
    def of(cls, parent: bytes, tokens: Tokens, block_size: int) -> Content:
        """Return the content of a block of so many positions."""
        full = len(tokens) == block_size
        return cls(parent, tokens, _digest(parent, tokens) if full else None)


class GroupBlocks:
    """Owns ``count`` block ids. Not thread-safe; knows nothing of what blocks look like inside."""

    def __init__(self, count: int, block_size: int) -> None:
        self.block_size = block_size
        self._blocks = [_Block() for _ in range(count)]
        self._free = list(range(count - 1, -1, -1))
        self._unused: OrderedDict[int, None] = OrderedDict()  # cached, held by nobody; oldest first
        self._by_digest: dict[bytes, int] = {}
        self._children: dict[bytes, set[int]] = {}  # parent digest -> blocks with content
        self._evicted: OrderedDict[bytes, None] = OrderedDict()  # digests, as many as blocks

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return len(self._blocks)

    @property
    def available(self) -> int:
        """Blocks that can be allocated now: free ones, and cached ones that nobody holds."""
        return len(self._free) + len(self._unused)

    @property
    def cached(self) -> int:
        """Blocks that nobody holds but whose content can still be found."""
        return len(self._unused)

    @property
    def empty(self) -> bool:
        """True if no block has any content."""
        return not self._children

    def find(self, digest: bytes) -> int | None:
        """Return the full block that ends with ``digest``, None if it is not cached."""
        return self._by_digest.get(digest)

    def find_part(self, parent: bytes, tokens: Tokens) -> tuple[int, int]:
        """Return the block after ``parent`` that begins with most of ``tokens``, and with how many
        of them; (-1, 0) if there is none."""
        source, common = -1, 0
        for block in self._children.get(parent, ()):
            size = _common_prefix(self._blocks[block].tokens, tokens)
            if size > common:
                source, common = block, size
        return source, common

    def was_evicted(self, digest: bytes) -> bool:
        """Return True if the block that ends with ``digest`` had to make room."""
        return digest in self._evicted and digest not in self._by_digest

    def unused_among(self, blocks: list[int]) -> int:
        """Return how many of ``blocks`` nobody holds: sharing them takes that much from
        ``available``."""
        return sum(self._blocks[block].references == 0 for block in blocks)

    def share(self, blocks: list[int]) -> None:
        """Take one more reference to each block."""
        for block in blocks:
            self._blocks[block].references += 1
            self._unused.pop(block, None)

    def allocate(self, count: int) -> list[int] | None:
        """Return ``count`` empty blocks with one reference each, None if there are not that
        many."""
        if count > self.available:
            return None
        taken: list[int] = []
        for _ in range(count):
            if not self._free:
                oldest, _ = self._unused.popitem(last=False)
                self._evict(oldest)
                self._free.append(oldest)
            block = self._free.pop()
            self._blocks[block].references = 1
            taken.append(block)
        return taken

    def release(self, blocks: list[int]) -> None:
        """Give back one reference to each block, the last first: the deep end of a chain is of no
        use without its beginning, so it is the first to be evicted."""
        for block in reversed(blocks):
            entry = self._blocks[block]
            if entry.references <= 0:
                raise AssertionError(f"block {block} was released more often than taken")
            entry.references -= 1
            if entry.references:
                continue
            full = len(entry.tokens) == self.block_size
            if entry.tokens and (entry.digest is not None or not full):
                self._unused[block] = None
            else:  # empty, or a second copy of what another block answers for
                self._forget(block)
                self._free.append(block)

    def record(self, block: int, parent: bytes, tokens: Tokens, digest: bytes | None) -> None:
        """Note that ``block`` now holds ``tokens`` after the blocks that end with ``parent``;
        ``digest`` is its own once it is full."""
        entry = self._blocks[block]
        if not entry.tokens:
            entry.parent = parent
            self._children.setdefault(parent, set()).add(block)
        entry.tokens = tokens
        if digest is not None and digest not in self._by_digest:
            entry.digest = digest
            self._by_digest[digest] = block

    def contents(self) -> list[tuple[int, Content]]:
        """Return the cached blocks that nobody holds, those that would be evicted first first."""
        entries = ((block, self._blocks[block]) for block in self._unused)
        return [(block, Content(e.parent, e.tokens, e.digest)) for block, e in entries]

    def restore(self, content: Content) -> int | None:
        """Return a block that is taken to hold ``content`` from now on, cached and held by nobody;
        None if there is no empty one, or another has the same."""
        known = content.digest is not None and content.digest in self._by_digest
        if known or not self._free:
            return None
        block = self._free.pop()
        self._blocks[block].references = 1
        self.record(block, content.parent, content.tokens, content.digest)
        self.release([block])
        return block

    def _evict(self, block: int) -> None:
        digest = self._blocks[block].digest
        self._forget(block)
        if digest is not None:
            self._evicted[digest] = None
            if len(self._evicted) > self.count:
                self._evicted.popitem(last=False)

    def _forget(self, block: int) -> None:
        entry = self._blocks[block]
        if entry.tokens:
            siblings = self._children[entry.parent]
            siblings.discard(block)
            if not siblings:
                del self._children[entry.parent]
        if entry.digest is not None:
            del self._by_digest[entry.digest]
        self._blocks[block] = _Block()


def _common_prefix(first: Tokens, second: Tokens) -> int:
    size = min(len(first), len(second))
    if first[:size] == second[:size]:
        return size
    return next(i for i in range(size) if first[i] != second[i])
