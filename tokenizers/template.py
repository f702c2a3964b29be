"""Conversations to prompts: chat templates, and their token ids."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from jinja2.exceptions import TemplateError as JinjaError

from edge_llm.errors import TemplateError
from edge_llm.tokenizers.sandbox import (
    MAX_MESSAGE_CHARACTERS,
    MAX_SECONDS,
    Environment,
    TemplateTimeoutError,
    ToolPlace,
    render_bounded,
    run_within,
)
from edge_llm.tokenizers.tokenizer import Tokenizer

Message = Mapping[str, Any]
_T = TypeVar("_T")

# Three names of one thing; templates read the first, some the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")
# Hieroglyphs: letters that have no case, are printable (Python's repr of a text, which some
# templates write, escapes what is not) and are left alone by every normalization.
_STAND_INS = range(0x13000, 0x1342F)


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
