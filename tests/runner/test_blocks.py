from __future__ import annotations

from array import array

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edge_llm.runner.engine.blocks import extend_chain
from edge_llm.runner.engine.pool import NO_BLOCK, BlockPool, Prefix

SIZE = 4
STEP = 8  # tokens of a step

Tables = list[list[int]]


def make(*blocks: int, windows: tuple[int, ...] = (0,)) -> BlockPool:
    return BlockPool(blocks, windows, SIZE, STEP)


def chain_of(tokens: list[int]) -> list[bytes]:
    chain: list[bytes] = []
    extend_chain(chain, array("i", tokens), SIZE)
    return chain


def fill(pool: BlockPool, tables: Tables, tokens: list[int], first: int = 0) -> None:
    """Commits ``tokens`` from ``first`` on, a step at a time."""
    chain: list[bytes] = []
    for begin in range(first, len(tokens), STEP):
        end = min(begin + STEP, len(tokens))
        assert pool.grow(tables, end)
        pool.record(tables, chain, array("i", tokens), begin, end)


def store(pool: BlockPool, tokens: list[int]) -> Tables:
    """Fills fresh blocks with ``tokens`` and lets go of them; returns their tables."""
    tables = pool.empty_tables()
    fill(pool, tables, tokens)
    held = [list(table) for table in tables]
    pool.cut(tables, 0)
    return held


def match(pool: BlockPool, tokens: list[int], limit: int | None = None) -> Prefix:
    limit = len(tokens) - 1 if limit is None else limit
    return pool.match(array("i", tokens), chain_of(tokens), limit)


def test_a_stored_prompt_is_found_to_the_token() -> None:
    pool = make(8)
    (blocks,) = store(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    found = match(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    assert (found.tables, found.sources, found.tokens) == ([blocks[:2]], [blocks[2]], 10)
    other = match(pool, [1, 2, 3, 4, 5, 6, 70, 8, 9])
    assert (other.tables, other.sources, other.tokens) == ([blocks[:1]], [blocks[1]], 6)


def test_the_limit_keeps_the_last_token_out() -> None:
    pool = make(8)
    (blocks,) = store(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    found = match(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    assert (found.tables, found.sources, found.tokens) == ([blocks[:1]], [blocks[1]], 7)


def test_equal_blocks_after_other_tokens_are_no_hit() -> None:
    pool = make(8)
    store(pool, [9, 9, 9, 9, 5, 6, 7, 8])
    assert match(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9]).tokens == 0


def test_the_least_recently_used_blocks_go_first_and_the_deep_end_before_the_beginning() -> None:
    pool = make(4)
    store(pool, [1, 1, 1, 1, 2, 2, 2, 2])
    store(pool, [3, 3, 3, 3, 4, 4, 4, 4])
    tables = pool.share(match(pool, [1, 1, 1, 1, 2, 2, 2, 2, 5]))
    pool.cut(tables, 0)  # used again: the other prompt is now the older one
    assert pool.grow(pool.empty_tables(), 1)
    assert match(pool, [3, 3, 3, 3, 4, 4, 4, 4, 5]).tokens == 4
    assert match(pool, [1, 1, 1, 1, 2, 2, 2, 2, 5]).tokens == 8


def test_a_shared_block_is_free_only_after_its_last_holder() -> None:
    pool = make(2)
    tables = pool.empty_tables()
    fill(pool, tables, [1, 2, 3, 4, 5, 6, 7, 8])
    other = pool.share(match(pool, [1, 2, 3, 4], 4))
    pool.cut(tables, 0)
    assert pool.available == 1
    assert not pool.grow(pool.empty_tables(), 8)
    pool.cut(other, 0)
    assert pool.available == 2


def test_releasing_twice_is_caught() -> None:
    pool = make(2)
    tables = pool.empty_tables()
    assert pool.grow(tables, 1)
    held = [list(table) for table in tables]
    pool.cut(tables, 0)
    with pytest.raises(AssertionError, match="more often"):
        pool.cut(held, 0)


def test_a_second_copy_of_a_block_is_not_kept() -> None:
    pool = make(4)
    store(pool, [1, 2, 3, 4])
    store(pool, [1, 2, 3, 4])
    assert (pool.cached, pool.available) == (1, 4)


def test_it_says_what_it_had_of_a_prompt_and_why_not_more() -> None:
    pool = make(4)
    first = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert match(pool, [1]).use == "not used"
    assert match(pool, first).use == "empty"
    store(pool, first)
    assert match(pool, first).use == "hit"
    assert match(pool, [*first, 10]).use == "hit"
    assert match(pool, [*first, 10, 11]).use == "partial"
    assert match(pool, [2, 2]).use == "no shared prefix"
    store(pool, [2, 2, 2, 2, 3, 3, 3, 3, 4])  # takes two blocks of the first, the deep end
    found = match(pool, first)
    assert (found.tokens, found.use) == (4, "evicted")
    assert match(pool, [1, 2, 3, 4, 6, 6, 6, 6, 9]).use == "partial"  # was never there
    store(pool, [5] * 13)
    assert (match(pool, first).tokens, match(pool, first).use) == (0, "evicted")
    store(pool, first)  # there again
    assert match(pool, first).use == "hit"


def test_only_as_many_evicted_blocks_as_there_are_blocks_are_remembered() -> None:
    pool = make(2)
    for token in range(5):
        store(pool, [token] * 4)
    uses = [match(pool, [token] * 5).use for token in range(5)]
    assert uses == ["no shared prefix", "evicted", "evicted", "hit", "hit"]


# ---- windows ----


def test_blocks_behind_a_window_are_given_back_and_still_found() -> None:
    pool = make(16, 16, windows=(0, 5))
    tables = pool.empty_tables()
    tokens = list(range(20))
    fill(pool, tables, tokens)
    whole, sliding = tables
    assert NO_BLOCK not in whole
    assert sliding[:4] == [NO_BLOCK] * 4  # position 20 looks back to 16
    assert pool.groups[1].available == 15
    found = match(pool, [*range(9), 99, 99])  # nobody needed the room
    assert found.tokens == 9
    assert found.tables[1][0] == NO_BLOCK  # position 9 looks back to 5
    assert found.tables[1][1] != NO_BLOCK


def test_a_long_sequence_holds_no_more_than_its_window_and_a_step() -> None:
    pool = make(64, 4, windows=(0, 6))  # 6 - 1 + 8 positions, wherever they begin in a block
    tables = pool.empty_tables()
    fill(pool, tables, list(range(200)))
    assert pool.groups[1].count - pool.groups[1].available <= 4
    assert pool.capacity == 64 * SIZE
    assert make(64, 3, windows=(0, 6)).capacity == 3 * SIZE


def test_a_prompt_resumes_where_all_groups_can() -> None:
    pool = make(16, 6, windows=(0, 4))
    tokens = list(range(24))
    store(pool, tokens)
    assert match(pool, [*tokens, 99]).tokens == 24  # the last window is there
    taken = pool.empty_tables()
    assert pool.grow(taken, 12)  # three blocks of six: the oldest of the windowed group
    found = match(pool, [*tokens, 99])
    assert found.tokens == 24
    early = match(pool, [*tokens[:9], 99, 99])
    assert (early.tokens, early.use) == (0, "evicted")  # its window is gone
    assert match(pool, [*tokens[:22], 99, 99]).tokens == 22
    pool.cut(taken, 0)


def test_a_copy_without_room_leaves_what_is_shared_whole() -> None:
    pool = make(4)
    store(pool, list(range(10)))
    held = pool.empty_tables()
    assert pool.grow(held, 4)
    found = match(pool, [*range(10), 99])
    tables = pool.share(found)
    assert pool.copy(found, tables) is None
    assert (len(tables[0]) * SIZE, found.whole) == (8, 8)
    pool.cut(tables, 0)
    pool.cut(held, 0)
    assert pool.available == 4


class PoolMachine(RuleBasedStateMachine):
    """Random holders against a model that knows what is in every block of every group."""

    holders = Bundle("holders")
    windows = (0, 5)

    def __init__(self) -> None:
        super().__init__()
        self.pool = make(6, 5, windows=self.windows)
        self.content: dict[tuple[int, int], list[int]] = {}  # the whole prefix up to its end
        self.held: list[Tables] = []

    @rule(target=holders, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=14))
    def admit(self, tokens: list[int]) -> Tables | None:
        found = match(self.pool, tokens)
        assert found.tokens <= len(tokens) - 1
        self.check(found, tokens)
        before = self.pool.available
        tables = self.pool.share(found)
        if found.sources:
            copies = self.pool.copy(found, tables)
            if copies is None:
                self.pool.cut(tables, 0)
                assert self.pool.available == before
                return None
            for group, source, target in copies:
                self.content[group, target] = self.content[group, source]
        begin = found.tokens
        chain: list[bytes] = []
        for end in (*range(begin + STEP, len(tokens), STEP), len(tokens)):
            if not self.pool.grow(tables, end):
                self.pool.cut(tables, 0)
                return None
            for group, table in enumerate(tables):
                for index in range(begin // SIZE, len(table)):
                    assert not self.is_held(group, table[index]), "a held block was given away"
                    self.content[group, table[index]] = tokens[: min(end, (index + 1) * SIZE)]
            self.pool.record(tables, chain, array("i", tokens), begin, end)
            begin = end
        self.held.append(tables)
        return tables

    def check(self, found: Prefix, tokens: list[int]) -> None:
        """The blocks that every window needs are there, and hold the right tokens."""
        for group, (table, window) in enumerate(zip(found.tables, self.windows, strict=True)):
            first = max(found.tokens - window + 1, 0) // SIZE if window else 0
            for index, block in enumerate(table):
                assert block != NO_BLOCK or index < first
                if block != NO_BLOCK:
                    assert self.content[group, block] == tokens[: (index + 1) * SIZE]
            if found.sources:
                source = self.content[group, found.sources[group]]
                assert source[: found.tokens] == tokens[: found.tokens]
                assert found.tokens > len(table) * SIZE
            else:
                assert found.tokens == len(table) * SIZE

    def is_held(self, group: int, block: int) -> bool:
        return any(block in tables[group] for tables in self.held)

    @rule(tables=consumes(holders))
    def leave(self, tables: Tables | None) -> None:
        if tables is not None:
            self.held.remove(tables)
            self.pool.cut(tables, 0)

    @invariant()
    def nothing_leaks(self) -> None:
        for number, group in enumerate(self.pool.groups):
            in_use = {block for tables in self.held for block in tables[number]} - {NO_BLOCK}
            assert group.available == group.count - len(in_use)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPool = PoolMachine.TestCase
