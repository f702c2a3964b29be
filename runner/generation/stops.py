"""Stop strings: found in a text that grows piece by piece, in time linear in its length."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class StopStrings:
    """Stop strings prepared for scanning (Aho and Corasick, "Efficient string matching: an aid to
    bibliographic search", CACM 1975). State 0 is "nothing of a stop string was seen"; every other
    state stands for a beginning of one, the longest that the text ends with."""

    def __init__(self, strings: Iterable[str]) -> None:
        """Take ``strings``, none of them empty."""
        self._edges: list[dict[str, int]] = [{}]
        self._shorter = [0]  # where a text goes on that leaves the beginning
        self.depth = [0]  # characters of the beginning
        self.found = [0]  # characters of the longest stop string that it ends with, 0: none
        for string in strings:
            self._add(string)
        self._link()

    def advance(self, state: int, character: str) -> int:
        """Return the state after one more character."""
        while (target := self._edges[state].get(character)) is None:
            if state == 0:
                return 0
            state = self._shorter[state]
        return target

    def _add(self, string: str) -> None:
        state = 0
        for depth, character in enumerate(string, 1):
            target = self._edges[state].get(character)
            if target is None:
                target = self._edges[state][character] = len(self._edges)
                self._edges.append({})
                self._shorter.append(0)
                self.depth.append(depth)
                self.found.append(0)
            state = target
        self.found[state] = len(string)

    def _link(self) -> None:
        """Fill in, from short to long, what each beginning falls back to."""
        waiting = deque(self._edges[0].values())
        while waiting:
            state = waiting.popleft()
            for character, target in self._edges[state].items():
                shorter = self.advance(self._shorter[state], character)
                self._shorter[target] = shorter
                self.found[target] = self.found[target] or self.found[shorter]
                waiting.append(target)


class StopScanner:
    """One text that is scanned for stop strings.

    The pieces that `push` and `finish` return, joined, are the text, cut before the stop string
    that is complete first (the longest of those that end at the same character), or after it if it
    is ``included``. What may still become a stop string is held back. ``stop`` is the one that was
    found."""

    def __init__(self, stops: StopStrings, *, included: bool = False) -> None:
        self._stops = stops
        self._included = included
        self._state = 0
        self._held = ""
        self.stop: str | None = None

    @property
    def stopped(self) -> bool:
        """True once a stop string was seen."""
        return self.stop is not None

    def push(self, text: str) -> str:
        """Return what ``text`` settles; nothing after a stop string."""
        if self.stopped:
            return ""
        advance, found, state = self._stops.advance, self._stops.found, self._state
        for index, character in enumerate(text):
            state = advance(state, character)
            if length := found[state]:
                whole = self._held + text[: index + 1]
                self.stop = whole[-length:]
                self._held = ""
                return whole if self._included else whole[:-length]
        self._state = state
        whole = self._held + text
        keep = len(whole) - self._stops.depth[state]
        self._held = whole[keep:]
        return whole[:keep]

    def finish(self) -> str:
        """Return what was held back, at the end of a text without a stop string."""
        rest, self._held = self._held, ""
        return rest
