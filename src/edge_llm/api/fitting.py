"""Chats that are too long for the context, cut where a person would: between turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise, takewhile
from typing import Any

from edge_llm.errors import ContextLengthError
from edge_llm.runner.context import Context, ContextReport
from edge_llm.tokenizers.chat.messages import Message

# Returns the ids of a chat; raises ContextLengthError if there are more than the limit in any case.
Written = Callable[[Sequence[Message], int | None], list[int]]

_SYSTEM = ("system", "developer")
_FINE = 64  # the length of cut texts is right to one part of so many


def fitted(
    messages: Sequence[Message], written: Written, context: Context, max_tokens: int | None
) -> tuple[list[int], ContextReport | None]:
    """Return the ids of a chat, and what was left out of it (None: nothing). System messages at the
    beginning, and all from the last message of the user on, are kept; of the turns between, the
    oldest go first. Where that is not enough, the longest texts lose their middle.

    Raises:
        ContextLengthError: it is too long, and is to be refused or cannot be cut so far.
        Exception: what ``written`` raises.
    """
    if context.policy == "error":
        return written(messages, context.tokens), None
    whole = written(messages, None)
    if len(whole) + (max_tokens != 0) <= context.tokens:
        return whole, None

    def trial(some: Sequence[Message], most: int) -> list[int] | None:
        try:
            ids = written(some, most)
        except ContextLengthError:
            return None
        return ids if len(ids) <= most else None

    most = context.most(max_tokens)
    aim = len(whole) - context.excess(len(whole), max_tokens)
    head, turns, tail = _parts(messages)
    kept = [*head, *tail]
    dropped = len(turns)
    if (ids := trial(kept, aim)) is not None:
        too_few = 0
        while dropped - too_few > 1:
            middle = (too_few + dropped) // 2
            longer = trial([*head, *chain(*turns[middle:]), *tail], aim)
            if longer is None:
                too_few = middle
            else:
                dropped, ids = middle, longer
    else:
        ids = trial(kept, most) or _shortened(kept, lambda some: trial(some, most))
    if ids is None:
        raise ContextLengthError(context.tokens, len(whole), param="prompt")
    messages_dropped = sum(map(len, turns[:dropped]))
    return ids, ContextReport(context.policy, len(whole) - len(ids), messages_dropped)


def _parts(
    messages: Sequence[Message],
) -> tuple[Sequence[Message], list[Sequence[Message]], Sequence[Message]]:
    """Return what a chat begins with, its turns, each from one message of the user to the next, and
    what it ends with."""
    begin = len(list(takewhile(lambda message: message["role"] in _SYSTEM, messages)))
    users = [i for i in range(begin, len(messages)) if messages[i]["role"] == "user"]
    end = users[-1] if users else max(begin, len(messages) - 1)
    while end > begin and messages[end]["role"] == "tool":  # a result stays with its call
        end -= 1
    places = sorted({begin, *users, end})
    turns = [messages[a:b] for a, b in pairwise(places) if b <= end]
    return messages[:begin], turns, messages[end:]


def _shortened(
    messages: Sequence[Message], trial: Callable[[Sequence[Message]], list[int] | None]
) -> list[int] | None:
    """Return the ids of a chat none of whose texts is longer than so many characters: nearly the
    most that fit. None: they do not fit with no texts at all."""
    best = trial(_capped(messages, 0))
    fits, too_long = 0, max((len(text) for m in messages for text in _texts(m)), default=0)
    while best is not None and too_long - fits > max(1, too_long // _FINE):
        middle = (fits + too_long) // 2
        longer = trial(_capped(messages, middle))
        if longer is None:
            too_long = middle
        else:
            fits, best = middle, longer
    return best


def _texts(message: Message) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif content is not None:
        yield from (part if isinstance(part, str) else part["text"] for part in content)


def _capped(messages: Sequence[Message], most: int) -> list[Message]:
    return [_capped_message(message, most) for message in messages]


def _capped_message(message: Message, most: int) -> Message:
    content: Any = message.get("content")
    if isinstance(content, str):
        return {**message, "content": _without_middle(content, most)}
    if content is None:
        return message
    parts = [
        _without_middle(part, most)
        if isinstance(part, str)
        else {**part, "text": _without_middle(part["text"], most)}
        for part in content
    ]
    return {**message, "content": parts}


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most // 2
    return text[: most - end] + text[len(text) - end :]
