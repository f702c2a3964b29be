"""Thirty turns with edits and branches: what is computed again beside the least that could be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edge_llm

CONTEXT = 4096
TURNS = 30
BLOCK = 64  # positions, of keys and values


def conversation(answer: Any, source: random.Random) -> Iterator[tuple[list[int], str]]:
    """Yield prompts, each with what it is: the next turn of what was said, an edit of an earlier
    message that goes on from there, or another answer to the same. ``answer`` gives the tokens of
    an answer."""
    turns: list[tuple[list[int], list[int]]] = []  # messages, and their answers
    for number in range(TURNS):
        kind = "next" if number < 3 else source.choice(("next", "next", "edit", "again"))
        if kind == "edit":
            turns = turns[: source.randrange(len(turns))]
        elif kind == "again":
            message, _ = turns.pop()
        if kind != "again":
            message = [source.randrange(3, 200) for _ in range(source.randrange(20, 70))]
        prompt = [token for turn in turns for part in turn for token in part] + message
        yield prompt, kind
        turns.append((message, answer()))


def common(one: list[int], other: list[int]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def recomputed(path: Path) -> list[tuple[str, int, int]]:
    """Return of each turn its kind, the tokens that were computed, and the least that must be: what
    no earlier text begins with, and one token to go on from."""
    said: list[list[int]] = []
    rows = []
    last: list[list[int]] = [[]]
    with edge_llm.load(path, threads=2, max_sequences=1) as llm:
        for prompt, kind in conversation(lambda: last[0], random.Random(4)):
            answer = llm.generate(prompt, temperature=0, max_tokens=24, ignore_eos=True)
            known = max((common(prompt, text) for text in said), default=0)
            least = len(prompt) - min(known, len(prompt) - 1)
            rows.append((kind, len(prompt) - answer.stats.cached_tokens, least))
            last[0] = list(answer.token_ids)
            said.append([*prompt, *answer.token_ids[:-1]])  # the last one was never computed
    return rows


def test_a_dense_model_computes_what_is_new_alone(tiny_program: Any) -> None:
    rows = recomputed(tiny_program("8da4w", max_position_embeddings=CONTEXT))
    assert {kind for kind, *_ in rows} == {"next", "edit", "again"}
    assert [computed for _, computed, _ in rows] == [least for *_, least in rows]


def test_a_hybrid_goes_back_to_a_block_where_an_edit_begins(tiny_program: Any) -> None:
    rows = recomputed(tiny_program("8da4w", family="qwen3_5_text", max_position_embeddings=CONTEXT))
    for kind, computed, least in rows:
        assert computed - least <= (3 * BLOCK if kind == "edit" else 0), rows


@pytest.mark.parametrize("family", ["lfm2", "gemma3_text"])
def test_convolutions_and_windows(tiny_program: Any, family: str) -> None:
    rows = recomputed(tiny_program("8da4w", family=family, max_position_embeddings=CONTEXT))
    for kind, computed, least in rows:
        if kind != "edit":
            assert computed - least <= 1, rows
