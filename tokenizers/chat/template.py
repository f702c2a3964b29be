"""Chat templates: conversations to the text of a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from jinja2.exceptions import TemplateError as JinjaError

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.sandbox import (
    MAX_MESSAGE_CHARACTERS,
    MAX_SECONDS,
    Environment,
    TemplateTimeoutError,
    ToolPlace,
    render_bounded,
    run_within,
)

Message = Mapping[str, Any]
_T = TypeVar("_T")

# Three names of one thing; templates read the first, some the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A checkpoint's chat template. Renders as ``transformers.apply_chat_template`` does.

    Args:
        source: the jinja2 text.
        bos, eos: the text of those tokens, for templates that write them.
        seconds: how long one rendering may take.

    Raises:
        TemplateError: it does not compile.
    """

    def __init__(
        self, source: str, *, bos: str | None, eos: str | None, seconds: float = MAX_SECONDS
    ) -> None:
        self.source = source
        self._seconds = seconds
        named = {"bos_token": bos, "eos_token": eos}
        self._tokens = {name: text for name, text in named.items() if text}
        environment = Environment()
        self._template, self._tools = self._guarded(
            "compile", lambda: (environment.compile_bounded(source), environment.find_tools(source))
        )

    def render(
        self,
        messages: Sequence[Message],
        /,
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt of a conversation.

        Args:
            messages: JSON objects, with at least ``role`` and ``content``.
            tools: JSON schemas of functions that the model may call, put where the template
                looks for them: ``tools``, ``xml_tools``, or a key of the system message.
            add_generation_prompt: end with the head of the assistant's turn.
            kwargs: further variables of the template (``enable_thinking``, ``date_string``, …).

        Raises:
            TemplateError: the template rejects them, or takes too long, or they are not JSON, or
                there are tools and the template has no place for them.
        """
        plain = [_with_reasoning(_plain(message)) for message in messages]
        given = None if tools is None else _plain(tools)
        if given and self._tools is ToolPlace.SYSTEM_MESSAGE:
            plain = _tools_in_system_message(plain, given)
        elif given and self._tools is ToolPlace.XML_TOOLS:
            kwargs = {"xml_tools": given, **kwargs}
        elif given and self._tools is ToolPlace.NONE:
            raise TemplateError("the chat template has no place for tools")
        context = {
            "documents": None,
            **self._tokens,
            **{name: _plain(value) for name, value in kwargs.items()},
            "messages": plain,
            "tools": given,
            "add_generation_prompt": add_generation_prompt,
        }
        return self._guarded("render", lambda: render_bounded(self._template, context))

    def _guarded(self, verb: str, work: Callable[[], _T]) -> _T:
        try:
            return run_within(self._seconds, work)
        except (JinjaError, TemplateTimeoutError) as exc:
            detail = str(exc)
            cause: Exception = exc
        except Exception as exc:  # a template may do to its variables whatever Python can
            detail = f"{type(exc).__name__}: {exc}"
            cause = exc
        detail = detail[:MAX_MESSAGE_CHARACTERS]
        raise TemplateError(f"the chat template does not {verb}: {detail}") from cause


def _plain(value: Any) -> Any:
    """The value rebuilt from JSON types alone, so that a template can reach no methods but theirs.

    Raises:
        TemplateError: something else is in it.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):  # an enum member, for one
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise TemplateError(f"messages must be JSON values, got {type(value).__name__}")


def _tools_in_system_message(messages: list[Any], tools: list[Any]) -> list[Any]:
    """The messages with the tools as JSON text in the first system message (Phi-4-mini)."""
    functions = [
        tool.get("function", tool) if isinstance(tool, dict) else tool  # without OpenAI's wrapping
        for tool in tools
    ]
    text = json.dumps(functions, ensure_ascii=False)
    if messages and messages[0].get("role") == "system":
        return [{"tools": text, **messages[0]}, *messages[1:]]
    return [{"role": "system", "content": "", "tools": text}, *messages]


def _with_reasoning(message: Any) -> Any:
    """The message with its reasoning under the names that templates read."""
    if not isinstance(message, dict):
        raise TemplateError(f"a message must be an object, got {type(message).__name__}")
    given = [message[name] for name in _REASONING if message.get(name) is not None]
    return {"thinking": given[0], **message, "reasoning_content": given[0]} if given else message
