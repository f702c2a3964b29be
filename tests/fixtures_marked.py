"""A parser for scripted answers: `(reasoning)`, `[name|arguments]` with pairs of brackets inside,
the rest is content."""

from __future__ import annotations

from edge_llm.parsed import Parsed, ToolCallDelta


class Marked:
    """Takes an answer apart, a character at a time."""

    def __init__(self) -> None:
        self.reasoning = False
        self._calls = -1
        self._name: str | None = None
        self._called = False
        self._depth = 0  # of brackets inside a call

    @property
    def aside(self) -> bool:
        return self.reasoning or self._called or self._name is not None

    def text(self, text: str) -> Parsed:
        parsed = Parsed()
        for character in text:
            parsed += self._one(character)
        return parsed

    def special(self, token_id: int, text: str) -> Parsed:
        return Parsed()

    def finish(self) -> Parsed:
        return Parsed()

    def _one(self, character: str) -> Parsed:
        if self._called:
            self._depth += {"[": 1, "]": -1}.get(character, 0)
            if self._depth < 0:
                self._called, self._depth = False, 0
                return Parsed()
            return Parsed(tool_calls=(ToolCallDelta(self._calls, None, character),))
        if self._name is not None:
            if character != "|":
                self._name += character
                return Parsed()
            name, self._name, self._called = self._name, None, True
            return Parsed(tool_calls=(ToolCallDelta(self._calls, name),))
        if character in "()":
            self.reasoning = character == "("
            return Parsed()
        if character == "[":
            self._calls += 1
            self._name = ""
            return Parsed()
        return Parsed(reasoning=character) if self.reasoning else Parsed(character)
