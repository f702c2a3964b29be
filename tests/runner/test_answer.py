"""One answer by hand: what a parser sees, which tokens a piece has, and how stop strings scan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_llm.runner.engine.events import FinishEvent, LogitsEvent, TokenEvent
from edge_llm.runner.engine.statistics import RequestClock
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.answer import Answer, Completion, Piece, joined
from edge_llm.runner.generation.stops import StopScanner, StopStrings

THINK, ANSWER, HALF = 300, 301, 302
SPECIAL = {THINK: "<think>", ANSWER: "</think>"}


class Letters:
    """One token a character, but HALF, which is only the beginning of one."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, token_id: int) -> str:
        if token_id in SPECIAL:
            return ""
        if token_id == HALF:
            self._held = "?"
            return ""
        return self.finish() + chr(token_id)

    def special(self, token_id: int) -> str | None:
        return SPECIAL.get(token_id)

    def finish(self) -> str:
        held, self._held = self._held, ""
        return held


class Thoughts:
    """Hides what is between two control tokens, and marks them."""

    def __init__(self) -> None:
        self.hidden = ""
        self._thinking = False

    def text(self, text: str) -> str:
        if self._thinking:
            self.hidden += text
            return ""
        return text

    def special(self, token_id: int, text: str) -> str:
        self.hidden += text
        self._thinking = token_id == THINK
        return ""

    def finish(self) -> str:
        return "."


def answer(tokens: list[int], stop: tuple[str, ...] = (), parser: Any = None) -> list[Piece]:
    made = Answer(2, Letters(), parser, StopScanner(StopStrings(stop)))
    stats = RequestClock(0.0).statistics(5, 0, "empty", 99)
    events = [TokenEvent(token, TokenLogprobs(-token, ())) for token in tokens]
    pieces = [made.take(event) for event in [*events, FinishEvent("length", stats)]]
    return [piece for piece in pieces if piece is not None]


def whole(tokens: list[int], stop: tuple[str, ...] = (), parser: Any = None) -> Completion:
    return joined(answer(tokens, stop, parser))


def ids(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_control_tokens_reach_the_parser_before_they_are_hidden() -> None:
    parser = Thoughts()
    tokens = [*ids("a"), THINK, *ids("why"), ANSWER, *ids("so")]
    assert whole(tokens, parser=parser).text == "aso."
    assert parser.hidden == "<think>why</think>"
    assert whole(tokens).text == "awhyso"


def test_half_a_character_stays_before_the_control_token_that_cuts_it() -> None:
    parser = Thoughts()
    assert whole([THINK, *ids("why"), HALF, ANSWER, *ids("so")], parser=parser).text == "so."
    assert parser.hidden == "<think>why?</think>"


def test_stop_strings_are_looked_for_in_what_is_shown() -> None:
    tokens = [THINK, *ids("stop"), ANSWER, *ids("so stop here")]
    said = whole(tokens, ("stop",), Thoughts())
    assert (said.text, said.finish_reason) == ("so ", "stop")


@given(st.text("abc", max_size=20), st.lists(st.text("abc", min_size=1, max_size=3), max_size=3))
def test_tokens_and_log_probabilities_end_where_the_text_ends(text: str, stop: list[str]) -> None:
    pieces = answer(ids(text), tuple(stop))
    said = joined(pieces)
    assert [chr(token) for token in said.token_ids] == list(said.text)
    assert [scores.logprob for scores in said.logprobs or ()] == [-t for t in said.token_ids]
    read = 0
    for piece in pieces:  # never before their text
        read += len(piece.text)
        assert sum(len(p.token_ids) for p in pieces[: pieces.index(piece) + 1]) <= read
    assert {piece.choice for piece in pieces} == {2}
    assert said.stats.completion_tokens >= len(said.token_ids)


def test_figures_count_what_was_sampled_until_the_stop() -> None:
    said = whole(ids("Hello, world"), (", w",))
    assert (said.text, said.stats.completion_tokens) == ("Hello", len("Hello, w"))
    assert whole([THINK, ANSWER]).token_ids == (THINK, ANSWER)  # no text, and yet said


def test_other_events_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="LogitsEvent"):
        Answer(0, Letters(), None, StopScanner(StopStrings(()))).take(LogitsEvent(0, None))  # type: ignore[arg-type]


class Counted(dict[str, int]):
    """Edges that count how often they are looked at."""

    looks = 0

    def get(self, *arguments: Any) -> Any:
        Counted.looks += 1
        return super().get(*arguments)


def test_scanning_takes_time_linear_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stops = StopStrings(["a" * length + "b" for length in range(1, 300)])
    monkeypatch.setattr(stops, "_edges", [Counted(edges) for edges in stops._edges])
    scanner = StopScanner(stops)
    text = ("a" * 500 + "c") * 20
    assert "".join(map(scanner.push, text)) + scanner.finish() == text
    assert Counted.looks <= 2 * len(text)
