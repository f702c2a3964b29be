"""A parser of answers that tests script: control characters part thinking, text and calls."""

from __future__ import annotations

from edge_llm.parsed import Parsed, ToolCallDelta

THINK, ANSWER, CALL, ARGUMENTS, END = "\x01", "\x02", "\x03", "\x04", "\x05"


def thought(text: str) -> str:
    """Return how a thinking block is scripted."""
    return f"{THINK}{text}{ANSWER}"


def called(name: str, arguments: str) -> str:
    """Return how a call is scripted."""
    return f"{CALL}{name}{ARGUMENTS}{arguments}{END}"


class ScriptedParser:
    """See `edge_llm.parsed.Parser`."""

    def __init__(self) -> None:
        self.reasoning = False
        self._place = ANSWER
        self._name = ""
        self._calls = -1

    @property
    def aside(self) -> bool:
        return self._place != ANSWER

    def text(self, text: str) -> Parsed:
        parsed = Parsed()
        for character in text:
            parsed += self._character(character)
        return parsed

    def _character(self, character: str) -> Parsed:
        match character:
            case "\x01" | "\x02" | "\x05":
                self._place = ANSWER if character == END else character
                self.reasoning = character == THINK
                return Parsed()
            case "\x03":
                self._place, self._name = CALL, ""
                self._calls += 1
                return Parsed()
            case "\x04":
                self._place = ARGUMENTS
                return Parsed(tool_calls=(ToolCallDelta(self._calls, self._name),))
        if self._place == THINK:
            return Parsed(reasoning=character)
        if self._place == CALL:
            self._name += character
            return Parsed()
        if self._place == ARGUMENTS:
            return Parsed(tool_calls=(ToolCallDelta(self._calls, arguments=character),))
        return Parsed(character)

    def special(self, token_id: int, text: str) -> Parsed:
        return Parsed()

    def finish(self) -> Parsed:
        return Parsed()
