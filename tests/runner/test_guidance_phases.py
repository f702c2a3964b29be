"""Phases: free text and thinking up to a marker, however it is spelled, and grammars behind it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from edge_llm.runner.engine.constraints import Constraint, Mask
from edge_llm.runner.engine.events import FinishEvent, TokenEvent
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.markers import Markers, cut_within_character
from edge_llm.runner.guidance.phases import Thinking, Triggered
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.runner.sampling import SamplingParams

WORDS = ["a", "b", "c", "<", "</", "</T", "</T>", "T>", ">{", ">1", ">12", "<T>", "a</T>1", "x</"]
WORDS += ["\n", "\n\n", ">\n\n", "1", "2", "12", "é"]
TOKENS = [*(word.encode() for word in WORDS), b"\xc3", b"\xa9"]
TOKENS += [bytes([c]) for c in (*range(40, 92), *b"{}") if bytes([c]) not in TOKENS]
CLOSE, TOOL, OPEN, END = range(len(TOKENS), len(TOKENS) + 4)
TOKENS += [b"</think>", b"<tool>", b"<think>", b"<end>"]
SIZE = 97  # the toy executor's


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(
        TOKENS,
        [CLOSE, TOOL, OPEN],
        [END],
        lambda data: [TOKENS.index(bytes([b])) for b in data],
        SIZE,
    )


@pytest.fixture(scope="module")
def guide(vocabulary: Vocabulary) -> Guide:
    return Guide(lambda: vocabulary)


def token(text: str) -> int:
    return TOKENS.index(text.encode())


def ids_of(mask: Mask) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


def allowed(constraint: Constraint) -> set[int]:
    return ids_of(constraint.masks([])[0])


def text_of(ids: Sequence[int]) -> bytes:
    return b"".join(TOKENS[token] for token in ids)


def walk(constraint: Constraint, seed: int, most: int = 60, odd: Sequence[int] = ()) -> list[int]:
    """Return tokens chosen at random of those allowed, ``odd`` ones more often."""
    source = random.Random(seed)
    chosen: list[int] = []
    while not constraint.finished and len(chosen) < most:
        choices = sorted(allowed(constraint))
        chosen.append(source.choice([*choices, *(5 * [t for t in odd if t in choices])]))
        constraint.accept(chosen[-1:])
    return chosen


def test_a_marker_is_found_however_it_is_spelled(vocabulary: Vocabulary) -> None:
    markers = Markers(vocabulary, [b"</T>", b"12"])
    source = random.Random(5)
    odd = [token(word) for word in ("<", "/", "T", ">", "</", "</T", "T>", ">1", "1", "2", "x</")]
    found = 0
    for _ in range(3000):
        tail: bytes | None = b""
        said = b""
        for _ in range(12):
            chosen = source.choice(odd)
            rests = dict(markers.rests(tail))
            step = markers.step(tail, chosen)
            said += TOKENS[chosen]
            match = re.search(rb"</T>|12", said)
            assert (match is not None) == (step.rest is not None)
            if match is not None:
                assert said[match.end() :] == step.rest
                assert rests.get(chosen, b"") == step.rest
                found += 1
                break
            assert chosen not in rests
            tail = step.tail
    assert found > 500


def test_a_cut_character_is_seen() -> None:
    text = "aé€🦙b".encode()
    for end in range(1, len(text) + 1):
        try:
            text[:end].decode()
            cut = False
        except UnicodeDecodeError:
            cut = True
        assert cut_within_character(text[:end][-3:]) == cut


def digits(guide: Guide) -> Callable[[], Any]:
    return lambda: guide.constraint(Grammar.regex("1?2[}]"))


def test_a_text_triggers_a_grammar(guide: Guide, vocabulary: Vocabulary) -> None:
    odd = [token(word) for word in ("<", "/", "T", ">", "</", "</T", "T>", ">1", ">12", ">{")]
    calls = 0
    for seed in range(200):
        held = Triggered(vocabulary, [b"</T>"], digits(guide))
        text = text_of(walk(held, seed, odd=odd))
        for call in text.split(b"</T>")[1:]:
            assert re.match(rb"1?2\}|1?2?$|1?2?\Z", call), text
            calls += bool(re.match(rb"1?2\}", call))
    assert calls > 50


def test_a_token_whose_rest_the_grammar_refuses_is_not_allowed(
    guide: Guide, vocabulary: Vocabulary
) -> None:
    held = Triggered(vocabulary, [b"</T>"], digits(guide))
    assert allowed(held) >= {token("</T>"), token("a</T>1"), token(">{"), END, TOOL}
    held.accept([token("</T")])
    assert allowed(held) >= {token(">"), token(">1"), token(">12"), token("a")}
    assert token(">{") not in allowed(held)
    assert token(">\n\n") not in allowed(held)
    held.accept([token(">1")])
    assert allowed(held) == {token("2")}
    held.accept([token("2"), token("}")])
    assert END in allowed(held)
    assert not held.finished


def test_a_control_token_triggers_once(guide: Guide, vocabulary: Vocabulary) -> None:
    held = Triggered(vocabulary, [TOOL], digits(guide), once=True)
    held.accept([token("a"), TOOL])
    assert allowed(held) == {token("1"), token("2"), token("12")}
    held.accept([token("12"), token("}")])
    assert held.finished


def test_a_trigger_at_the_start_counts_there_alone(guide: Guide, vocabulary: Vocabulary) -> None:
    for before in ([], [token("\n\n")], [token("\n"), token("<")]):
        held = Triggered(vocabulary, [b"<T>"], digits(guide), at_start=True)
        held.accept(before)
        held.accept([token("T>") if token("<") in before else token("<T>")])
        assert token("a") not in allowed(held)
    held = Triggered(vocabulary, [b"<T>", TOOL], digits(guide), at_start=True)
    held.accept([token("a"), token("<T>"), TOOL])
    assert token("a") in allowed(held)


def test_thinking_goes_over_to_the_grammar(guide: Guide, vocabulary: Vocabulary) -> None:
    held = Thinking(vocabulary, CLOSE, then=digits(guide)(), gap=b"\n\n")
    assert allowed(held).isdisjoint({END, TOOL, OPEN})
    assert CLOSE in allowed(held)
    held.accept([token("a"), token("b"), CLOSE])
    assert list(held.forced()) == [token("\n")] * 2
    held.accept(held.forced())
    assert allowed(held) == {token("1"), token("2"), token("12")}
    held.accept([token("2"), token("}")])
    assert held.finished


@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("close", [CLOSE, b"</T>"])
def test_a_budget_closes_the_block(
    guide: Guide, vocabulary: Vocabulary, budget: int, close: int | bytes
) -> None:
    ends = 0
    for seed in range(60):
        held = Thinking(vocabulary, close, budget=budget, then=digits(guide)())
        ids = walk(held, seed)
        mark = TOKENS[CLOSE] if close == CLOSE else b"</T>"
        thought, marked, answer = text_of(ids).partition(mark)
        assert marked
        assert re.fullmatch(rb"1?2\}", answer.lstrip())
        ends += len(thought) >= budget
        if close == CLOSE:
            assert ids.index(CLOSE) <= budget + 4
    assert ends


def test_a_block_is_not_closed_within_a_character(guide: Guide, vocabulary: Vocabulary) -> None:
    held = Thinking(vocabulary, CLOSE, budget=1, then=digits(guide)())
    held.accept([TOKENS.index(b"\xc3")])
    assert held.forced() == ()
    held.accept([TOKENS.index(b"\xa9")])
    assert held.forced() == (CLOSE,)


def test_a_block_may_be_left_out_where_the_prompt_has_not_opened_it(
    guide: Guide, vocabulary: Vocabulary
) -> None:
    held = Thinking(vocabulary, CLOSE, then=digits(guide)(), opening=[OPEN, token("\n")])
    assert allowed(held) == {OPEN, token("1"), token("2"), token("12")}
    held.accept([token("12")])
    assert allowed(held) == {token("}")}
    held = Thinking(vocabulary, CLOSE, budget=2, then=digits(guide)(), opening=[OPEN, token("\n")])
    held.accept([OPEN])
    assert allowed(held) == {token("\n")}
    held.accept([token("\n"), token("a"), token("b")])
    assert allowed(held) == {CLOSE}


def test_thinking_before_free_text_and_calls(guide: Guide, vocabulary: Vocabulary) -> None:
    free = Thinking(vocabulary, CLOSE, budget=2)
    assert END in allowed(free)
    free.accept([token("a"), token("b"), CLOSE, token("a")])
    assert allowed(free) >= {END, TOOL, token("a")}
    assert not free.finished
    then = Triggered(vocabulary, [TOOL], digits(guide), once=True)
    held = Thinking(vocabulary, b"</T>", then=then)
    held.accept([token("a"), token("</T"), token(">{"), TOOL, token("2"), token("}")])
    assert held.finished


def makers(guide: Guide, vocabulary: Vocabulary) -> list[Callable[[], Constraint]]:
    return [
        lambda: Triggered(vocabulary, [b"</T>", TOOL], digits(guide)),
        lambda: Triggered(vocabulary, [b"<T>"], digits(guide), at_start=True, once=True),
        lambda: Thinking(vocabulary, b"</T>", budget=5, then=digits(guide)(), gap=b"\n"),
        lambda: Thinking(vocabulary, CLOSE, budget=4, then=digits(guide)(), opening=[OPEN]),
        lambda: Thinking(
            vocabulary, CLOSE, budget=9, then=Triggered(vocabulary, [b"</T>"], digits(guide))
        ),
    ]


@pytest.mark.parametrize("which", range(5))
def test_masks_along_a_path_are_those_of_its_steps(
    guide: Guide, vocabulary: Vocabulary, which: int
) -> None:
    make = makers(guide, vocabulary)[which]
    source = random.Random(which)
    odd = [token(word) for word in ("<", "</", "</T", "T", ">", ">1", "1", "2", "}")]
    for seed in range(80):
        path = walk(make(), seed, most=25, odd=odd)
        held, stepped = make(), make()
        place = 0
        while place < len(path):
            proposed = path[place : place + source.randrange(1, 9)]
            masks = held.masks([*proposed, SIZE - 1])
            assert 1 <= len(masks) <= len(proposed) + 1
            count = min(len(masks), len(proposed))
            for mask, chosen in zip(masks, proposed, strict=False):
                assert ids_of(mask) == allowed(stepped)
                stepped.accept([chosen])
            assert ids_of(held.masks([])[0]) == ids_of(masks[0])
            held.accept(proposed[:count])
            assert held.finished == stepped.finished
            place += count


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("speculation", ["off", "ngram", "auto"])
def test_drafts_change_nothing(
    bench: Callable[..., Any],
    guide: Guide,
    vocabulary: Vocabulary,
    which: int,
    speculation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answers(speculation: str) -> list[Any]:
        heard: list[list[Any]] = [[] for _ in range(10)]
        busy = bench(stop_ids=(END,), pages=300)
        for seed, events in enumerate(heard):
            params = SamplingParams(seed=seed, max_tokens=50, speculation=speculation)
            held = makers(guide, vocabulary)[which]()
            busy.engine.submit([5, 6, 5, 6], params, events.append, constraint=held)
        busy.run()
        for events in heard:
            assert isinstance(events[-1], FinishEvent), events[-1]
        return [
            ([e.id for e in events if isinstance(e, TokenEvent)], events[-1].reason)
            for events in heard
        ]

    drafted = answers(speculation)
    for kind in ("matcher.GrammarConstraint", "phases.Thinking", "phases.Triggered"):
        monkeypatch.setattr(f"edge_llm.runner.guidance.{kind}.forced", lambda self: ())
    assert drafted == answers("off")
