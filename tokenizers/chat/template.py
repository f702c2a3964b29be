"""Chat templates: conversations to the text of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from jinja2.exceptions import TemplateError as JinjaError

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.chat.bounds import MAX_CHARACTERS
from edge_llm.tokenizers.chat.conversation import plain, plain_list, with_reasoning, with_tools
from edge_llm.tokenizers.chat.sandbox import (
    MAX_MESSAGE_CHARACTERS,
    MAX_SECONDS,
    Environment,
    TemplateTimeoutError,
    TextLengthError,
    ToolPlace,
    render_bounded,
    run_within,
)
from edge_llm.tokenizers.length import TextLength

Message = Mapping[str, Any]
_T = TypeVar("_T")


class ChatTemplate:
    """A checkpoint's chat template. Renders as ``transformers.apply_chat_template`` does.

    Args:
        source: the jinja2 text.
        bos, eos: the text of those tokens, for templates that write them.
        seconds: how long one rendering may take.
        now: gives the date and time that the template is told.

    Raises:
        TemplateError: it does not compile.
    """

    def __init__(
        self,
        source: str,
        *,
        bos: str | None,
        eos: str | None,
        seconds: float = MAX_SECONDS,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self._seconds = seconds
        named = {"bos_token": bos, "eos_token": eos}
        self._tokens = {name: text for name, text in named.items() if text}
        environment = Environment(now)
        self._template, self._facts = self._guarded(
            "compile", lambda: (environment.compile_bounded(source), environment.look_at(source))
        )

    @property
    def names(self) -> frozenset[str]:
        """The keys and attributes that the template looks up by name."""
        return self._facts.names

    @property
    def sought(self) -> frozenset[str]:
        """The texts that the template looks for in others: compares with, splits at, replaces."""
        return self._facts.sought

    @property
    def takes_tools(self) -> bool:
        """Tell whether the template has a place for tools."""
        return self._facts.tools is not ToolPlace.NONE

    def render(
        self,
        messages: Sequence[Message],
        /,
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """Return the prompt of a conversation.

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
        return self._render(
            [with_reasoning(message) for message in plain_list("messages", messages)],
            None if tools is None else plain_list("tools", tools),
            add_generation_prompt,
            {name: plain(value) for name, value in kwargs.items()},
            MAX_CHARACTERS,
        )

    def render_within(
        self,
        length: TextLength,
        token_limit: int | None,
        messages: list[dict[Any, Any]],
        tools: list[Any] | None,
        add_generation_prompt: bool,
        variables: Mapping[str, Any],
    ) -> str:
        """Return `render` of values that `conversation.py` has made, stopped where the prompt is
        too long to be encoded, or has more than ``token_limit`` tokens in any case.

        Raises:
            ContextLengthError, TokenizerError: it is too long.
            TemplateError: see `render`.
        """
        most = min(MAX_CHARACTERS, length.most_characters(token_limit))
        try:
            return self._render(messages, tools, add_generation_prompt, variables, most)
        except TemplateError as exc:
            if isinstance(exc.__cause__, TextLengthError):
                length.check_characters(exc.__cause__.characters, token_limit)
            raise

    def _render(
        self,
        messages: list[dict[Any, Any]],
        tools: list[Any] | None,
        add_generation_prompt: bool,
        variables: Mapping[str, Any],
        most: int,
    ) -> str:
        place = self._facts.tools
        if tools and place is ToolPlace.SYSTEM_MESSAGE:
            messages = with_tools(messages, tools)
        elif tools and place is ToolPlace.XML_TOOLS:
            variables = {"xml_tools": tools, **variables}
        elif tools and place is ToolPlace.NONE:
            raise TemplateError("the chat template has no place for tools")
        context = {
            "documents": None,
            **self._tokens,
            **variables,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": bool(add_generation_prompt),
        }
        return self._guarded("render", lambda: render_bounded(self._template, context, most))

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
