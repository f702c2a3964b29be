"""The messages of a chat in OpenAI's shape, as the chat template is to see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from edge_llm.server.errors import ApiError, invalid
from edge_llm.server.requests.kinds import Kinds
from edge_llm.tokenizers.chat.messages import Message

# Messages and parts of their contents: each takes some microseconds of the event loop.
MAX_PARTS = 2**15


class TextPart(BaseModel):
    """A part of a text."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["text"]
    text: str


class RefusalPart(BaseModel):
    """A refusal that an assistant has written."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["refusal"]
    refusal: str


# What other models can see and hear.
OTHER_PARTS = frozenset({"audio_url", "file", "image_url", "input_audio", "video_url"})
Part = Annotated[TextPart | RefusalPart, Kinds(OTHER_PARTS)]
Parts = Annotated[list[Part], Field(fail_fast=True)]


def _as_parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class CalledFunction(BaseModel):
    """A function that was called. Arguments are JSON text; what is malformed is told as it is."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str
    arguments: Any = None


class Called(BaseModel):
    """A call that an answer made."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str | None = None
    type: Literal["function"] | None = None
    index: int | None = None
    function: CalledFunction

    def told(self) -> dict[str, Any]:
        """Return it as templates read it."""
        function = {"name": self.function.name, "arguments": self.function.arguments}
        return {
            **({} if self.id is None else {"id": self.id}),
            "type": "function",
            "function": function,
        }


Calls = Annotated[
    list[Annotated[Called, Kinds(("custom",), default=lambda value: "function")]],
    Field(fail_fast=True),
]


class ChatMessage(BaseModel):
    """A message. Only an assistant's may have no content."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        Parts | None, BeforeValidator(_as_parts, json_schema_input_type=str | Parts | None)
    ] = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Calls | None = None
    function_call: CalledFunction | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return "".join(
            part.text if isinstance(part, TextPart) else part.refusal for part in self.content or ()
        )


def _bounded(value: Any) -> Any:
    if isinstance(value, list):
        contents = (item.get("content") for item in value if isinstance(item, dict))
        parts = sum(len(content) for content in contents if isinstance(content, list))
        if len(value) + parts > MAX_PARTS:
            raise PydanticCustomError("too_long", "too many", {"max_length": MAX_PARTS})
    return value


Messages = Annotated[
    list[ChatMessage],
    Field(min_length=1, max_length=MAX_PARTS, fail_fast=True),
    BeforeValidator(
        _bounded,
        json_schema_input_type=Annotated[
            list[ChatMessage], Field(min_length=1, max_length=MAX_PARTS)
        ],
    ),
]


def told(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return messages for a `ChatCall`."""
    return [_told(message) for message in messages]


def _told(message: ChatMessage) -> Message:
    # "developer" is the newer name of "system", "function" the older one of "tool"
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    calls = [call.told() for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls.append(Called(function=message.function_call).told())
    found: dict[str, Any] = {"role": role, "content": message.text}
    if calls and message.content is None:
        found["content"] = None  # which some templates look for
    for name in ("name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            found[name] = value
    if (thoughts := message.reasoning_content or message.reasoning) is not None:
        found["reasoning_content"] = thoughts
    if calls:
        found["tool_calls"] = calls
    return found


def check_messages(messages: Sequence[ChatMessage]) -> None:
    """Check what the fields of a message mean together.

    Raises:
        ApiError: 400: a message without content that needs one, or calls of somebody else than the
            assistant.
    """
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message.content is None:
            _check_empty(message, f"{where}.content")
        for name in ("tool_calls", "function_call"):
            if getattr(message, name) and message.role != "assistant":
                raise invalid(
                    f"'{where}.{name}' is only allowed in messages of the assistant.",
                    f"{where}.{name}",
                )


def _check_empty(message: ChatMessage, param: str) -> None:
    given = "content" in message.model_fields_set
    if message.role in ("tool", "function") and given:
        return  # what a function returned may be nothing
    if message.role == "assistant" and (given or message.tool_calls or message.function_call):
        return
    raise _wrong_type(param) if given else _missing(param)


def _wrong_type(param: str) -> ApiError:
    return invalid(
        f"Invalid type for '{param}': expected a string or an array.", param, "invalid_type"
    )


def _missing(param: str) -> ApiError:
    return invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
