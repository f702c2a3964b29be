"""What a parser has to say about the last characters, gathered while it reads them."""

from __future__ import annotations

from edge_llm.parsed import Parsed, ToolCallDelta


class Gathered:
    """Collects content, thinking and calls, without the white space around blocks and calls.

    White space at the end of what is shown is kept back while a call may follow it; behind a call
    or a thinking block it is left out, and so it is at both ends of what was thought.
    """

    def __init__(self, *, calls: bool, content: bool = True) -> None:
        """Without ``calls`` none follows what is said; without ``content`` that is dropped."""
        self._may_call = calls
        self._may_say = content
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._deltas: list[ToolCallDelta] = []
        self._arguments: list[str] = []  # of the call that was begun last
        self._space = ""  # kept back, of the content or of the thinking
        self._bare = False  # nothing but white space since a block or a call
        self._index = -1
        self.thinking = False

    @property
    def aside(self) -> bool:
        """Whether nothing was said since the last block or call."""
        return self.thinking or self._bare

    def say(self, text: str) -> None:
        """Add content."""
        if not self._may_say:
            return
        text = self._trimmed(text)
        if not self._may_call:
            text, self._space = text + self._space, ""
        self._content.append(text)

    def think(self, text: str) -> None:
        """Add thinking."""
        self._reasoning.append(self._trimmed(text))

    def enter(self) -> None:
        """Begin a thinking block."""
        self.thinking = self._bare = True
        self._space = ""

    def leave(self) -> None:
        """End a thinking block."""
        self.thinking, self._bare = False, True
        self._space = ""

    def call(self, name: str) -> None:
        """Begin a call."""
        self._space, self._bare = "", True
        self._settle()
        self._index += 1
        self._deltas.append(ToolCallDelta(self._index, name))

    def arguments(self, text: str) -> None:
        """Add text of the arguments of the call that was begun last."""
        if text:
            self._arguments.append(text)

    def end(self) -> None:
        """Add the white space that nothing followed."""
        if not self.thinking and self._may_say:
            self._content.append(self._space)
        self._space = ""

    def parsed(self) -> Parsed:
        """Return what was added since the last time."""
        self._settle()
        parsed = Parsed("".join(self._content), "".join(self._reasoning), tuple(self._deltas))
        self._content, self._reasoning, self._deltas = [], [], []
        return parsed

    def _settle(self) -> None:
        if self._arguments:
            text = "".join(self._arguments)
            self._deltas.append(ToolCallDelta(self._index, None, text))
            self._arguments = []

    def _trimmed(self, text: str) -> str:
        """Return the text behind what was kept back, without what is to be kept back of it."""
        if self._bare:
            text = text.lstrip()
        if not text:
            return ""
        self._bare = False
        text = self._space + text
        shown = text.rstrip()
        self._space = text[len(shown) :]
        return shown
