"""The token ids of a conversation, in which nobody can type a control token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.template import ChatTemplate, Message
from edge_llm.tokenizers.tokenizer import Tokenizer

# Hieroglyphs: letters that have no case, are printable (Python's repr of a text, which some
# templates write, escapes what is not) and are left alone by every normalization.
_STAND_INS = range(0x13000, 0x1342F)


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Message],
    /,
    tools: Sequence[Message] | None = None,
    add_generation_prompt: bool = True,
    **kwargs: Any,
) -> list[int]:
    """The token ids of a rendered conversation.

    The ids are those of ``transformers``, but for special-token text that is part of the
    conversation and not of the template: it stays plain text, so that nobody can end a turn or
    begin one by typing it. BOS is there if the template writes it.

    Raises:
        TemplateError: see `ChatTemplate.render`.
        TokenizerError: text that is not Unicode.
    """
    given = {"messages": messages, "tools": tools, "kwargs": kwargs}
    mask = _Mask(tokenizer.special_texts, given, template.source)
    masked = mask.hide(given)
    text = template.render(
        masked["messages"], masked["tools"], add_generation_prompt, **masked["kwargs"]
    )
    if not mask.used:
        return tokenizer.encode(text, add_bos=False, specials=True)
    # What stands between two special tokens of the template is encoded on its own in any case,
    # so a stretch with hidden text can be encoded again without touching its neighbours.
    ids: list[int] = []
    stretch: list[int] = []
    start = 0

    def close(end: int) -> None:
        piece = text[start:end]
        plain = mask.show(piece)
        ids.extend(
            stretch
            if plain == piece
            else tokenizer.encode(plain, add_bos=False, continues=start > 0)
        )

    for span in tokenizer.spans(text):
        if tokenizer.is_special(span.id):
            close(span.start)
            ids.append(span.id)
            stretch, start = [], span.end
        else:
            stretch.append(span.id)
    close(len(text))
    return ids


class _Mask:
    """Hides special-token text by swapping its first character for one that is found nowhere else,
    which templates carry through like any other letter.

    Raises:
        TemplateError: the conversation contains every character that could stand in.
    """

    def __init__(self, specials: Mapping[str, int], given: Any, source: str) -> None:
        # Longest first, as the tokenizer matches.
        ordered = sorted(filter(None, specials), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        strings = list(_strings(given))
        heads = sorted({match[0][0] for text in strings for match in self._find(text)})
        self.used = bool(heads)
        free: Iterator[str] = iter(())
        if heads:
            taken = set(source).union(*strings, *specials)
            escapes = [text.lower() for text in (*strings, source) if "\\u" in text]
            free = (
                character
                for point in _STAND_INS
                if (character := chr(point)) not in taken
                and not any(_escaped(character) in text for text in escapes)
            )
        self._stand_in = dict(zip(heads, free, strict=False))
        if len(self._stand_in) < len(heads):
            raise TemplateError("the messages leave no character free to stand in for a special")
        shown: dict[str, str] = {}
        for head, hidden in self._stand_in.items():
            # Templates may write JSON in ASCII.
            shown |= {hidden: head, _escaped(hidden): _escaped(head)}
        self._shown = shown
        self._hidden = re.compile("|".join(map(re.escape, shown)) or r"(?!)")

    def _find(self, text: str) -> list[re.Match[str]]:
        """Every occurrence, overlapping ones too."""
        found = []
        match = self._pattern.search(text)
        while match is not None:
            found.append(match)
            match = self._pattern.search(text, match.start() + 1)
        return found

    def hide(self, value: Any) -> Any:
        """The same structure with every string masked."""
        if not self.used:
            return value
        if isinstance(value, str):
            for match in self._find(value):
                at = match.start()
                value = value[:at] + self._stand_in[match[0][0]] + value[at + 1 :]
            return value
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def show(self, text: str) -> str:
        """The original of a masked text."""
        return self._hidden.sub(lambda match: self._shown[match[0]], text)


def _escaped(character: str) -> str:
    """The character as ASCII JSON writes it."""
    return json.dumps(character)[1:-1]


def _strings(value: Any) -> list[str]:
    """Every string in a JSON value, keys too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _strings(item)]
    return []
