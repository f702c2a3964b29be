from __future__ import annotations

from array import array

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edge_llm.runner.pages import ROOT, PagePool, extend_chain

SIZE = 4


def chain_of(tokens: list[int]) -> list[bytes]:
    chain: list[bytes] = []
    extend_chain(chain, array("i", tokens), SIZE)
    return chain


def fill(pool: PagePool, tokens: list[int], pages: list[int]) -> None:
    chain = chain_of(tokens)
    for index, page in enumerate(pages):
        part = array("i", tokens[index * SIZE : (index + 1) * SIZE])
        digest = chain[index] if len(part) == SIZE else None
        pool.record(page, chain[index - 1] if index else ROOT, part, digest)


def store(pool: PagePool, tokens: list[int]) -> list[int]:
    """Fills fresh pages with ``tokens`` and lets go of them."""
    pages = pool.allocate(pool.pages_for(len(tokens)))
    assert pages is not None
    fill(pool, tokens, pages)
    pool.release(pages)
    return pages


def match(pool: PagePool, tokens: list[int], limit: int | None = None):
    limit = len(tokens) - 1 if limit is None else limit
    return pool.match(array("i", tokens), chain_of(tokens), limit)


def test_a_stored_prompt_is_found_to_the_token() -> None:
    pool = PagePool(8, SIZE)
    pages = store(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    found = match(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    assert (found.pages, found.source, found.copied) == (tuple(pages[:2]), pages[2], 2)
    assert found.tokens == 10
    other = match(pool, [1, 2, 3, 4, 5, 6, 70, 8, 9])
    assert (other.pages, other.source, other.tokens) == ((pages[0],), pages[1], 6)


def test_the_limit_keeps_the_last_token_out() -> None:
    pool = PagePool(8, SIZE)
    pages = store(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    found = match(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    assert (found.pages, found.source, found.tokens) == ((pages[0],), pages[1], 7)


def test_equal_pages_after_other_tokens_are_no_hit() -> None:
    pool = PagePool(8, SIZE)
    store(pool, [9, 9, 9, 9, 5, 6, 7, 8])
    assert match(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9]).tokens == 0


def test_the_least_recently_used_pages_go_first_and_the_deep_end_before_the_beginning() -> None:
    pool = PagePool(4, SIZE)
    store(pool, [1, 1, 1, 1, 2, 2, 2, 2])
    store(pool, [3, 3, 3, 3, 4, 4, 4, 4])
    found = match(pool, [1, 1, 1, 1, 2, 2, 2, 2, 5])
    pool.share(found.pages)  # used again: the other prompt is now the older one
    pool.release(list(found.pages))
    taken = pool.allocate(1)
    assert taken is not None
    assert match(pool, [3, 3, 3, 3, 4, 4, 4, 4, 5]).tokens == 4
    assert match(pool, [1, 1, 1, 1, 2, 2, 2, 2, 5]).tokens == 8


def test_a_shared_page_is_free_only_after_its_last_holder() -> None:
    pool = PagePool(2, SIZE)
    pages = pool.allocate(2)
    assert pages is not None
    fill(pool, [1, 2, 3, 4, 5, 6, 7, 8], pages)
    pool.share((pages[0],))
    pool.release(pages)
    assert pool.available == 1
    assert pool.allocate(2) is None
    pool.release([pages[0]])
    assert pool.available == 2


def test_releasing_twice_is_caught() -> None:
    pool = PagePool(2, SIZE)
    pages = pool.allocate(1)
    assert pages is not None
    pool.release(pages)
    with pytest.raises(AssertionError, match="more often"):
        pool.release(pages)


def test_a_second_copy_of_a_page_is_not_kept() -> None:
    pool = PagePool(4, SIZE)
    store(pool, [1, 2, 3, 4])
    store(pool, [1, 2, 3, 4])
    assert (pool.cached, pool.available) == (1, 4)


def test_it_says_what_it_had_of_a_prompt_and_why_not_more() -> None:
    pool = PagePool(4, SIZE)
    first = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert match(pool, [1]).use == "not used"
    assert match(pool, first).use == "empty"
    store(pool, first)
    assert match(pool, first).use == "hit"
    assert match(pool, [*first, 10]).use == "hit"
    assert match(pool, [*first, 10, 11]).use == "partial"
    assert match(pool, [2, 2]).use == "no shared prefix"
    store(pool, [2, 2, 2, 2, 3, 3, 3, 3, 4])  # takes two pages of the first, the deep end
    found = match(pool, first)
    assert (found.tokens, found.use) == (4, "evicted")
    assert match(pool, [1, 2, 3, 4, 6, 6, 6, 6, 9]).use == "partial"  # was never there
    store(pool, [5] * 13)
    assert (match(pool, first).tokens, match(pool, first).use) == (0, "evicted")
    store(pool, first)  # there again
    assert match(pool, first).use == "hit"


def test_only_as_many_evicted_pages_as_there_are_pages_are_remembered() -> None:
    pool = PagePool(2, SIZE)
    for token in range(5):
        store(pool, [token] * 4)
    uses = [match(pool, [token] * 5).use for token in range(5)]
    assert uses == ["no shared prefix", "evicted", "evicted", "hit", "hit"]


class PoolMachine(RuleBasedStateMachine):
    """Random holders against a model that knows what is in every page."""

    holders = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(6, SIZE)
        self.content: dict[int, list[int]] = {}  # page -> the whole prefix up to its last token
        self.held: list[list[int]] = []

    @rule(target=holders, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=14))
    def admit(self, tokens: list[int]) -> list[int]:
        found = match(self.pool, tokens)
        assert found.tokens <= len(tokens) - 1
        for index, page in enumerate(found.pages):
            assert self.content[page] == tokens[: (index + 1) * SIZE]
        if found.copied:
            start = len(found.pages) * SIZE
            assert self.content[found.source][: start + found.copied] == tokens[: found.tokens]
            assert found.tokens == start + found.copied
        before = self.pool.available
        unused = self.pool.unused_among(found.pages)
        self.pool.share(found.pages)
        assert self.pool.available == before - unused
        fresh = self.pool.allocate(self.pool.pages_for(len(tokens)) - len(found.pages))
        if fresh is None:
            self.pool.release(list(found.pages))
            assert self.pool.available == before
            return []
        in_use = {page for pages in self.held for page in pages}
        assert not in_use & set(fresh), "a held page was given away"
        pages = [*found.pages, *fresh]
        fill(self.pool, tokens, pages)
        for index, page in enumerate(pages):
            self.content[page] = tokens[: (index + 1) * SIZE]
        self.held.append(pages)
        return pages

    @rule(pages=consumes(holders))
    def leave(self, pages: list[int]) -> None:
        if pages:
            self.held.remove(pages)
            self.pool.release(pages)

    @invariant()
    def nothing_leaks(self) -> None:
        in_use = {page for pages in self.held for page in pages}
        assert self.pool.available == self.pool.count - len(in_use)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPool = PoolMachine.TestCase
