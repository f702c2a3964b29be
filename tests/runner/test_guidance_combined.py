"""Constraints made of others: either, and behind a head."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_llm.runner.engine.constraints import Constraint
from edge_llm.runner.guidance.combined import Either, Headed
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.vocabulary import Vocabulary

END = 256


@pytest.fixture(scope="module")
def guide() -> Guide:
    """Of bytes, one token each, and an end."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"<end>"]
    return Guide(lambda: Vocabulary(tokens, [END], [END], list))


def allowed(constraint: Constraint, path: bytes = b"") -> list[set[str]]:
    """Return what may come at each place along a path; "" is the end."""
    found = []
    for mask in constraint.masks(list(path)):
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
        found.append({"" if i == END else chr(i) for i in np.flatnonzero(bits)})
    return found


def either(guide: Guide, first: str, second: str) -> Either:
    return Either(
        guide.vocabulary, *(guide.constraint(Grammar.regex(text)) for text in (first, second))
    )


def test_either_allows_what_one_of_both_does(guide: Guide) -> None:
    constraint = either(guide, "abc", "axy?")
    assert allowed(constraint) == [{"a"}]
    assert allowed(constraint, b"ab") == [{"a"}, {"b", "x"}, {"c"}]
    assert allowed(constraint, b"axz") == [{"a"}, {"b", "x"}, {"y", ""}]
    constraint.accept(list(b"a"))
    assert allowed(constraint) == [{"b", "x"}]
    constraint.accept(list(b"x"))
    assert allowed(constraint) == [{"y", ""}]
    assert not constraint.finished
    constraint.accept(list(b"y"))
    assert constraint.finished


def test_either_may_end_where_one_has_finished(guide: Guide) -> None:
    constraint = either(guide, "ab", "abc")
    constraint.accept(list(b"ab"))
    assert not constraint.finished
    assert allowed(constraint) == [{"c", ""}]
    constraint.accept(list(b"c"))
    assert constraint.finished


def test_a_draft_is_followed_to_where_either_may_end(guide: Guide) -> None:
    """What may come there is known once it is accepted: the same, with and without a draft."""
    constraint = either(guide, "ab", "abc")
    assert allowed(constraint, b"abc") == [{"a"}, {"b"}]
    constraint.accept(list(b"ab"))
    assert allowed(constraint, b"c") == [{"c", ""}]


def test_either_takes_text(guide: Guide) -> None:
    constraint = either(guide, "abc", "axy")
    assert constraint.allows(b"ax")
    assert not constraint.allows(b"ay")
    constraint.feed(b"ax")
    assert allowed(constraint) == [{"y"}]


def test_a_head_is_always_written(guide: Guide) -> None:
    def headed() -> Headed:
        content = guide.constraint(Grammar.regex("a|b"))
        return Headed(guide.vocabulary, list(b"<>"), content)

    constraint = headed()
    assert constraint.forced() == tuple(b"<>")
    assert allowed(constraint) == [{"<"}]
    assert allowed(constraint, b"<>a") == [{"<"}, {">"}]
    assert allowed(constraint, b"x") == [{"<"}]
    assert not constraint.allows(b"a")
    # However the tokens come, the same is left.
    for cut in range(4):
        constraint = headed()
        for part in (b"<>a"[:cut], b"<>a"[cut:]):
            if part:
                constraint.accept(list(part))
        assert constraint.finished
    constraint = headed()
    for token in itertools.chain(b"<>"):
        constraint.accept([token])
    assert allowed(constraint) == [{"a", "b"}]
