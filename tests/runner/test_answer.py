"""One answer by hand: what a parser sees, which tokens a piece has, and how stop strings scan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_llm.parsed import Parsed, ToolCall, ToolCallDelta
from edge_llm.runner.engine.events import FinishEvent, FinishReason, LogitsEvent, TokenEvent
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
    """Takes what is between two control tokens for reasoning; a bar begins a call of its own."""

    def __init__(self) -> None:
        self.reasoning = False
        self._calls = -1

    @property
    def aside(self) -> bool:
        return self.reasoning or self._calls >= 0

    def text(self, text: str) -> Parsed:
        if self.reasoning:
            return Parsed(reasoning=text)
        if text == "|":
            self._calls += 1
            return Parsed(tool_calls=(ToolCallDelta(self._calls, "name"),))
        if self._calls >= 0:
            return Parsed(tool_calls=(ToolCallDelta(self._calls, arguments=text),))
        return Parsed(text)

    def special(self, token_id: int, text: str) -> Parsed:
        self.reasoning = token_id == THINK
        return Parsed()

    def finish(self) -> Parsed:
        return Parsed(".")


def answer(
    tokens: list[int],
    stop: tuple[str, ...] = (),
    parser: Any = None,
    reason: FinishReason = "length",
    min_tokens: int = 0,
) -> list[Piece]:
    made = Answer(2, Letters(), parser, StopScanner(StopStrings(stop)), min_tokens)
    stats = RequestClock(0.0).statistics(5, 0, "empty", 99)
    events = [TokenEvent(token, TokenLogprobs(-token, ())) for token in tokens]
    pieces = [made.take(event) for event in [*events, FinishEvent(reason, stats)]]
    return [piece for piece in pieces if piece is not None]


def whole(tokens: list[int], stop: tuple[str, ...] = (), parser: Any = None) -> Completion:
    return joined(answer(tokens, stop, parser))


def ids(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_a_parser_sees_control_tokens_and_takes_the_answer_apart() -> None:
    tokens = [*ids("a"), THINK, *ids("why"), ANSWER, *ids("so")]
    completion = whole(tokens, parser=Thoughts())
    assert (completion.text, completion.reasoning) == ("aso.", "why")
    assert completion.stats.reasoning_tokens == 4  # with the token that ends it
    assert completion.token_ids == tuple(tokens)
    assert whole(tokens).text == "awhyso"


def test_log_probabilities_are_of_the_content_where_an_answer_has_more() -> None:
    tokens = [*ids("a"), THINK, *ids("why"), ANSWER, *ids("so|x")]
    pieces = answer(tokens, parser=Thoughts())
    assert [token for piece in pieces for token, _ in piece.scored()] == ids("aso")
    assert [token for piece in pieces for token in piece.token_ids] == tokens
    plain = answer(ids("also"))
    assert [token for piece in plain for token, _ in piece.scored()] == ids("also")


def test_calls_are_told_in_parts_and_are_why_an_answer_ended() -> None:
    pieces = answer(ids("a|x1|2"), parser=Thoughts(), reason="stop")
    deltas = [delta for piece in pieces for delta in piece.tool_calls]
    assert deltas == [
        ToolCallDelta(0, "name"),
        ToolCallDelta(0, arguments="x"),
        ToolCallDelta(0, arguments="1"),
        ToolCallDelta(1, "name"),
        ToolCallDelta(1, arguments="2"),
    ]
    assert joined(pieces).tool_calls == (ToolCall("name", "x1"), ToolCall("name", "2"))
    assert pieces[-1].finish_reason == "tool_calls"
    assert answer(ids("a|x"), parser=Thoughts())[-1].finish_reason == "length"
    assert answer(ids("a"), parser=Thoughts(), reason="stop")[-1].finish_reason == "stop"


def test_stop_strings_act_on_content_alone_and_nothing_follows_one() -> None:
    tokens = [THINK, *ids("so"), ANSWER, *ids("also|x")]
    completion = whole(tokens, ("so",), Thoughts())
    assert (completion.text, completion.reasoning) == ("al", "so")
    assert (completion.tool_calls, completion.finish_reason) == ((), "stop")


@pytest.mark.parametrize("reason", ["stop", "length", "cancelled"])
def test_a_stop_string_ends_an_answer_whatever_the_engine_came_to(reason: FinishReason) -> None:
    class ThenContent(Thoughts):
        def text(self, text: str) -> Parsed:
            return Parsed(text) if text == "." else super().text(text)

    pieces = answer(ids("|x."), (".",), ThenContent(), reason)
    assert (pieces[-1].finish_reason, pieces[-1].stop) == ("stop", ".")
    assert joined(pieces).tool_calls == (ToolCall("name", "x"),)


def test_the_last_piece_names_the_stop_string() -> None:
    stops = ("top", "stop", "x")
    *parts, last = answer(ids("a stop b"), stops)
    assert last.stop == "stop"  # the longest of those that end there
    assert all(piece.stop is None for piece in parts)
    assert answer(ids("a"), stops)[-1].stop is None


def test_half_a_character_stays_before_the_control_token_that_cuts_it() -> None:
    completion = whole([THINK, *ids("why"), HALF, ANSWER, *ids("so")], parser=Thoughts())
    assert (completion.reasoning, completion.text) == ("why?", "so.")


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


class Words:
    """One token a word of the list."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def push(self, token_id: int) -> str:
        return self._words[token_id]

    def special(self, token_id: int) -> str | None:
        return None

    def finish(self) -> str:
        return ""


@given(
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=9),
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=3),
    st.booleans(),
)
def test_no_token_is_told_whose_text_is_not(
    words: list[str], stop: list[str], included: bool
) -> None:
    """In a stream as in the whole: the last token of what was told has its beginning told."""
    scanner = StopScanner(StopStrings(stop), included=included)
    made = Answer(0, Words(words), None, scanner)
    stats = RequestClock(0.0).statistics(5, 0, "empty", 99)
    events = [TokenEvent(i, TokenLogprobs(-i, ())) for i in range(len(words))]
    text, told = "", []
    for event in [*events, FinishEvent("length", stats)]:
        piece = made.take(event)
        if piece is None:
            continue
        text += piece.text
        told += piece.token_ids
        assert [scores.logprob for scores in piece.logprobs or ()] == [-i for i in piece.token_ids]
        assert told == list(range(len(told)))
        joint = "".join(words[: len(told)])
        assert joint.startswith(text)
        assert not told or len(joint) - len(words[told[-1]]) < len(text)
    assert scanner.stopped or text == "".join(words)


@pytest.mark.parametrize(
    ("least", "text"),
    [(0, "a"), (3, "a--b"), (4, "a--b"), (5, "a--b--c"), (6, "a--b--c"), (9, None)],
)
def test_no_stop_string_acts_before_min_tokens(least: int, text: str | None) -> None:
    """One that such a token begins is none."""
    pieces = answer(ids("a--b--c--"), ("--",), min_tokens=least)
    said = joined(pieces)
    assert said.text == ("a--b--c--" if text is None else text)
    assert said.finish_reason == ("length" if text is None else "stop")
    assert [chr(token) for token in said.token_ids] == list(said.text)
    assert [piece.text for piece in pieces[:least]] == list("a--b--c--"[:least])


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
