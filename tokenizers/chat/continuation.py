"""Going on with an answer that has begun: the prompt ends where the last message does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_llm.errors import RequestError, TemplateError


def check_continued(messages: Sequence[Mapping[Any, Any]]) -> None:
    """Check that the last of some messages can be continued.

    Raises:
        RequestError: it is none of the assistant, calls tools, or has neither content nor
            reasoning that is a text.
    """
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant":
        raise RequestError(
            "the message to be continued must be the last one, of the role 'assistant'",
            param="messages",
        )
    if last.get("tool_calls"):
        raise RequestError("a message with tool calls cannot be continued", param="messages")
    if not isinstance(last.get(_continued_part(last)), str):
        raise RequestError(
            "the message to be continued has no content that is a text", param="messages"
        )


def with_end_marked(messages: list[dict[Any, Any]], mark: str) -> list[dict[Any, Any]]:
    """Return the messages with ``mark`` behind what the last one says: its content, or its
    reasoning where there is no content yet."""
    *before, last = messages
    if _continued_part(last) == "content":
        return [*before, {**last, "content": last["content"] + mark}]
    thoughts = last["reasoning_content"] + mark
    return [*before, {**last, "content": "", "reasoning_content": thoughts, "thinking": thoughts}]


def cut_at_mark(text: str, mark: str) -> str:
    """Return the text before ``mark``.

    Raises:
        TemplateError: the template has not written the end of the last message.
    """
    head, found, _ = text.rpartition(mark)
    if not found:
        raise TemplateError("the chat template leaves out the message that is to be continued")
    return head


def _continued_part(message: Mapping[Any, Any]) -> str:
    thinks = bool(message.get("reasoning_content")) and not message.get("content")
    return "reasoning_content" if thinks else "content"
