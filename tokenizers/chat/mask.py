"""Texts of control tokens in a conversation, hidden while a template writes the prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from typing import Any

from edge_llm.errors import TemplateError

# Hieroglyphs: letters that have no case, are printable (Python's repr of a text, which some
# templates write, escapes what is not) and are left alone by every normalization.
_STAND_INS = range(0x13000, 0x1342F)
_PAIR = re.compile(r"(?=(\\u[0-9a-f]{4}\\u[0-9a-f]{4}))")  # how ASCII JSON writes one of them


class Finder:
    """Finds where the texts of some tokens begin, in time that grows with the text alone."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._root: dict[str, Any] = {}
        for text in filter(None, texts):
            node = self._root
            for character in text:
                node = node.setdefault(character, {})
            node[""] = {}  # a text ends here
        heads = "".join(map(re.escape, self._root))
        self._heads = re.compile(f"[{heads}]" if heads else r"(?!)")

    def begins(self, text: str) -> list[int]:
        """Return the places of all first characters of such texts, overlapping ones too."""
        return [m.start() for m in self._heads.finditer(text) if self._is_at(text, m.start())]

    def _is_at(self, text: str, at: int) -> bool:
        node = self._root
        while "" not in node:
            following = node.get(text[at : at + 1] or "end")
            if following is None:
                return False
            node, at = following, at + 1
        return True


class Mask:
    """Hides texts of control tokens by swapping their first character for one that is found nowhere
    else, which templates carry through like any other letter.

    Args:
        finder: finds the texts to be hidden.
        answers: finds those to be hidden in what the assistant has said.
        given: everything of a conversation, JSON values.
        source: the template.
        names: keys by which the template looks things up; these stay as they are.

    Raises:
        TemplateError: the conversation contains every character that could stand in.
    """

    def __init__(
        self, finder: Finder, answers: Finder, given: Any, source: str, names: Set[str]
    ) -> None:
        self._finder, self._answers, self._names = finder, answers, names
        strings = list(_strings(given))
        heads = sorted({text[at] for text in strings for at in finder.begins(text)})
        self.used = bool(heads)
        self._free = _free_characters([*strings, source, *names])
        self._stand_in = dict(zip(heads, self._free, strict=False))
        if len(self._stand_in) < len(heads):
            raise TemplateError("the messages leave no character free to stand in for a special")
        shown: dict[str, str] = {}
        for head, hidden in self._stand_in.items():
            # Templates may write JSON in ASCII.
            shown |= {hidden: head, _escaped(hidden): _escaped(head)}
        self._shown = shown
        self._hidden = re.compile("|".join(map(re.escape, shown)) or r"(?!)")

    @cached_property
    def end(self) -> str:
        """The character that marks the end of a text: found nowhere else, and hiding nothing.

        Raises:
            TemplateError: there is none left.
        """
        mark = next(self._free, None)
        if mark is None:
            raise TemplateError("the messages leave no character free to mark an end")
        return mark

    def hide(self, value: Any) -> Any:
        """Return the same structure with every text masked."""
        return self._hide(value, self._finder) if self.used else value

    def hide_messages(self, messages: Sequence[Mapping[Any, Any]]) -> list[Any]:
        """Return the messages masked, those of the assistant by their own rule."""
        return [
            self._hide(m, self._answers if m.get("role") == "assistant" else self._finder)
            for m in messages
        ]

    def _hide(self, value: Any, finder: Finder) -> Any:
        if isinstance(value, str):
            return replace_at(value, finder.begins(value), self._stand_in.__getitem__)
        if isinstance(value, Mapping):
            return {
                key if key in self._names else self._hide(key, finder): self._hide(item, finder)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._hide(item, finder) for item in value]
        return value

    def show(self, text: str) -> str:
        """Return the original of a masked text."""
        return self._hidden.sub(lambda match: self._shown[match[0]], text)


def replace_at(text: str, places: Iterable[int], by: Callable[[str], str]) -> str:
    """Return a text with the characters at some ascending places replaced; each part of it is
    copied once, however many they are."""
    parts, end = [], 0
    for at in places:
        parts += [text[end:at], by(text[at])]
        end = at + 1
    return "".join([*parts, text[end:]]) if parts else text


def _free_characters(texts: Sequence[str]) -> Iterator[str]:
    """Yield the characters that no text has, nor the escape of."""
    taken = set().union(*texts)
    escapes = {pair for text in texts if "\\u" in text for pair in _PAIR.findall(text.lower())}
    for character in map(chr, _STAND_INS):
        if character not in taken and _escaped(character) not in escapes:
            yield character


def _escaped(character: str) -> str:
    """Return the character as ASCII JSON writes it."""
    return json.dumps(character)[1:-1]


def _strings(value: Any) -> Iterator[str]:
    """Yield every string in a JSON value, keys too."""
    rest = [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            rest.extend(item.keys())
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
