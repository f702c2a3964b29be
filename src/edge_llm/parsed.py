"""The parts of a chat beside its text: tools, and what an answer consists of, as parsers tell it.

Parsers (`tokenizers/output/`) know how models write reasoning and calls; the generation loop hands
the parts on without knowing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. ``parameters`` is a JSON schema of the object that it
    takes; without one it takes no arguments."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call: the function's name, and the arguments as the text of a JSON object (or of
    what the model wrote instead of one)."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A part of a call.

    Attributes:
        index: which call of the answer, from 0.
        name: the function, in the first delta of a call alone.
        arguments: the next characters of the arguments' JSON text.
    """

    index: int
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The meaning of the next characters of an answer, in the order reasoning, content, calls."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()

    def __add__(self, later: Parsed) -> Parsed:
        """Return the parts of both, one after the other."""
        return Parsed(
            self.content + later.content,
            self.reasoning + later.reasoning,
            self.tool_calls + later.tool_calls,
        )


class Parser(Protocol):
    """Takes one answer apart. It sees all text and every control token, in order."""

    @property
    def reasoning(self) -> bool:
        """True while what comes next belongs to a thinking block."""

    @property
    def aside(self) -> bool:
        """True while what came last is no content: thinking, a call, or blanks behind them."""

    def text(self, text: str) -> Parsed:
        """Return what the next characters settle."""

    def special(self, token_id: int, text: str) -> Parsed:
        """Return what a control token settles that is written ``text``."""

    def finish(self) -> Parsed:
        """Return what was held back, at the end of the answer."""


def whole_calls(deltas: list[ToolCallDelta]) -> tuple[ToolCall, ...]:
    """Return the calls that some deltas make, by their indices."""
    names: dict[int, str] = {}
    arguments: dict[int, list[str]] = {}
    for delta in deltas:
        names.setdefault(delta.index, delta.name or "")
        arguments.setdefault(delta.index, []).append(delta.arguments)
    return tuple(ToolCall(names[index], "".join(arguments[index])) for index in sorted(names))
