"""What an answer consists of beside its text: thinking, and calls of tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A part of a tool call.

    Attributes:
        index: which call of the answer, from 0.
        name: in the first delta of a call alone.
        arguments: the next characters of the arguments' JSON text.
    """

    index: int
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser makes of the next characters."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


class Parser(Protocol):
    """Decides what one answer consists of. It sees all text and every control token, in order."""

    @property
    def reasoning(self) -> bool:
        """Tell whether the next characters belong to a thinking block."""

    def text(self, text: str) -> Parsed:
        """Return what the next characters settle."""

    def special(self, token_id: int, text: str) -> Parsed:
        """Return what a control token settles that is written ``text``."""

    def finish(self) -> Parsed:
        """Return what was held back, at the end of the answer."""
