"""The blocks of all state groups of a program: one table a group for each sequence.

States with a window and states without one are in different groups, so that what lies behind a
window can be given back while the rest stays. A block behind its group's window, counted from the
accepted position, can be evicted; it is still found while nobody needs its room. A prompt resumes
where all groups can: with a window, only the last rows before that place have to be there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_llm.runner.engine.blocks import ROOT, GroupBlocks, Tokens, extend_chain, window_blocks
from edge_llm.runner.engine.statistics import CacheUse, GroupStatistics

NO_BLOCK = -1  # in a table: behind the window


@dataclass(frozen=True, slots=True)
class Prefix:
    """The part of a prompt that the cache has.

    Attributes:
        tokens: how many positions need not be computed.
        whole: how many if nothing is copied.
        tables: for each group the blocks that are shared whole.
        sources: for each group the block whose beginning is copied, if ``tokens`` ends inside one.
        use: why there are not more.
    """

    tokens: int
    whole: int
    tables: list[list[int]]
    sources: list[int]
    use: CacheUse


class BlockPool:
    """Owns the blocks of every group. Not thread-safe.

    A *table* is the list of one sequence's blocks in one group, by position; a sequence has one a
    group, all of one length."""

    def __init__(
        self, blocks: Sequence[int], windows: Sequence[int], block_size: int, step_tokens: int
    ) -> None:
        """Own so many ``blocks`` of each group, of ``block_size`` positions each, for states that
        look back so many positions as ``windows`` says (0: all), and for steps of up to
        ``step_tokens`` tokens."""
        self.block_size = block_size
        self.groups = tuple(GroupBlocks(count, block_size) for count in blocks)
        self._windows = tuple(windows)
        # The most blocks that a sequence of any length holds of each group; None: without bound.
        self._most_held = tuple(
            window_blocks(window, step_tokens, block_size) if window else None for window in windows
        )
        # The group that looks back furthest: what is there is what may be resumed at.
        reach = [window or math.inf for window in windows]
        self._furthest = self.groups[reach.index(max(reach))]

    @property
    def count(self) -> int:
        """How many blocks there are in all groups."""
        return sum(group.count for group in self.groups)

    @property
    def available(self) -> int:
        """Blocks of all groups that can be allocated now."""
        return sum(group.available for group in self.groups)

    @property
    def cached(self) -> int:
        """Blocks of all groups that nobody holds but whose content can still be found."""
        return sum(group.cached for group in self.groups)

    def statistics(self) -> tuple[GroupStatistics, ...]:
        """Return the figures of each group."""
        return tuple(GroupStatistics(g.count, g.available, g.cached) for g in self.groups)

    @property
    def capacity(self) -> int | None:
        """The positions that one sequence can have when it runs alone; None: without bound."""
        bounds = [
            group.count * self.block_size
            for group, most in zip(self.groups, self._most_held, strict=True)
            if most is None or group.count < most
        ]
        return min(bounds, default=None)

    def empty_tables(self) -> list[list[int]]:
        """Return the tables of a sequence that holds nothing."""
        return [[] for _ in self.groups]

    def blocks_for(self, tokens: int) -> int:
        """Return the length of a table for ``tokens`` positions."""
        return -(-tokens // self.block_size)

    def grow(self, tables: list[list[int]], tokens: int) -> bool:
        """Make room in ``tables`` for ``tokens`` positions; return False, with nothing changed, if
        it is not there."""
        missing = self.blocks_for(tokens) - len(tables[0])
        if missing <= 0:
            return True
        if any(group.available < missing for group in self.groups):
            return False
        for group, table in zip(self.groups, tables, strict=True):
            table += group.allocate(missing) or ()
        return True

    def cut(self, tables: list[list[int]], tokens: int) -> None:
        """Give back the blocks that hold none of the first ``tokens`` positions."""
        keep = self.blocks_for(tokens)
        for group, table in zip(self.groups, tables, strict=True):
            group.release([block for block in table[keep:] if block != NO_BLOCK])
            del table[keep:]

    def record(
        self,
        tables: list[list[int]],
        chain: list[bytes],
        tokens: Tokens,
        first: int,
        end: int,
        root: bytes = ROOT,
    ) -> None:
        """Note that the positions ``first`` to ``end`` of ``tables`` hold ``tokens``, for good,
        and give back what lies behind windows from ``end`` on."""
        size = self.block_size
        extend_chain(chain, tokens, size, root)
        for index in range(first // size, self.blocks_for(end)):
            last = (index + 1) * size
            parent = chain[index - 1] if index else root
            part = tokens[index * size : min(last, end)]
            digest = chain[index] if last <= end else None
            for number, group in enumerate(self.groups):
                group.record(tables[number][index], parent, part, digest)
        for group, table, window in zip(self.groups, tables, self._windows, strict=True):
            if window:
                self._slide(group, table, self._needed(end, window))

    def _slide(self, group: GroupBlocks, table: list[int], begin: int) -> None:
        """Give back the blocks before number ``begin``."""
        behind: list[int] = []
        while begin > 0 and table[begin - 1] != NO_BLOCK:
            begin -= 1
            behind.append(table[begin])
            table[begin] = NO_BLOCK
        group.release(behind)

    def _needed(self, tokens: int, window: int) -> int:
        """Return the number of the first block that position ``tokens`` looks at."""
        return max(tokens - window + 1, 0) // self.block_size if window else 0

    # ---- what a prompt finds ----

    def has(self, digest: bytes) -> bool:
        """Return True if the full block that ends with ``digest`` is cached, where any is kept."""
        return self._furthest.find(digest) is not None

    def match(self, tokens: Tokens, chain: list[bytes], limit: int, root: bytes = ROOT) -> Prefix:
        """Return the longest cached prefix of ``tokens[:limit]``, whose chain begins with ``root``.
        Takes no reference."""
        found = [
            [group.find(digest) for digest in chain[: limit // self.block_size]]
            for group in self.groups
        ]
        most = len(found[0])
        for blocks, window in zip(found, self._windows, strict=True):
            if not window and None in blocks:
                most = min(most, blocks.index(None))
        for full in range(most, -1, -1):
            start = full * self.block_size
            parent = chain[full - 1] if full else root
            rest = tokens[start : min(start + self.block_size, limit)]
            parts = [group.find_part(parent, rest) for group in self.groups]
            copied = min(common for _, common in parts)
            tables, whole = self._tables(found, full, start), start
            if tables is None and copied:
                tables, whole = self._tables(found, full, start + copied), 0
            if tables is not None:
                sources = [source for source, _ in parts] if copied else []
                use = self._use(chain, start + copied, limit)
                return Prefix(start + copied, whole, tables, sources, use)
        raise AssertionError("a prompt can always begin at its beginning")

    def _tables(
        self, found: list[list[int | None]], full: int, length: int
    ) -> list[list[int]] | None:
        """Return tables of ``full`` blocks to go on with at position ``length``; None if a group
        lacks one."""
        tables: list[list[int]] = []
        for blocks, window in zip(found, self._windows, strict=True):
            table = [NO_BLOCK] * min(self._needed(length, window), full)
            for block in blocks[len(table) : full]:
                if block is None:
                    return None
                table.append(block)
            tables.append(table)
        return tables

    def _use(self, chain: list[bytes], length: int, limit: int) -> CacheUse:
        if limit == 0:
            return "not used"
        if length == limit:
            return "hit"
        following = chain[length // self.block_size :][:1]
        if any(group.was_evicted(digest) for group in self.groups for digest in following):
            return "evicted"
        if length:
            return "partial"
        return "empty" if all(group.empty for group in self.groups) else "no shared prefix"

    def share(self, prefix: Prefix) -> list[list[int]]:
        """Take a reference to the whole blocks of ``prefix``; return them as tables."""
        for group, table in zip(self.groups, prefix.tables, strict=True):
            group.share([block for block in table if block != NO_BLOCK])
        return [list(table) for table in prefix.tables]

    def copy(self, prefix: Prefix, tables: list[list[int]]) -> list[tuple[int, int, int]] | None:
        """Append to ``tables`` a block for a copy of each source of ``prefix``.

        Returns:
            (group, source, target) of each copy; None if there is no room.
        """
        for group, source in zip(self.groups, prefix.sources, strict=True):
            group.share([source])  # so that it is not evicted to make room for its own copy
        room = self.grow(tables, prefix.tokens)
        for group, source in zip(self.groups, prefix.sources, strict=True):
            group.release([source])
        if not room:
            return None
        return [
            (number, source, table[-1])
            for number, (source, table) in enumerate(zip(prefix.sources, tables, strict=True))
        ]

    # ---- what is promised to whom ----

    def admits(self, prefix: Prefix, tokens: int, promised: list[list[int]]) -> bool:
        """Return True if a sequence that begins with ``prefix`` can have room for ``tokens``
        positions, beside what is promised to others (blocks of each group)."""
        for number, group in enumerate(self.groups):
            held = [block for block in prefix.tables[number] if block != NO_BLOCK]
            room = group.available - group.unused_among(held)
            room -= sum(blocks[number] for blocks in promised)
            if room < self._reserved(number, tokens) - len(held):
                return False
        return True

    def lacking(self, tables: list[list[int]], tokens: int) -> list[int]:
        """Return how many blocks of each group ``tables`` lack for ``tokens`` positions."""
        held = [
            len(table) - table.count(NO_BLOCK) if window else len(table)
            for table, window in zip(tables, self._windows, strict=True)
        ]
        return [max(self._reserved(number, tokens) - own, 0) for number, own in enumerate(held)]

    def _reserved(self, number: int, tokens: int) -> int:
        whole, most = self.blocks_for(tokens), self._most_held[number]
        return whole if most is None else min(whole, most)
