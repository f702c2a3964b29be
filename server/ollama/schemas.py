"""The requests of the Ollama routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from edge_llm.runner.sampling import INT32_MAX, MAX_TOP_LOGPROBS
from edge_llm.server.models.duration import keep_seconds
from edge_llm.server.requests.sampling import MAX_TEXT, Integer, Sampling
from edge_llm.server.requests.tools import Function
from edge_llm.server.requests.values import JsonObject, Part, refused

MAX_STOP = 64
MAX_INPUTS = 2048


def _texts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Options(Sampling):
    """How to sample: Ollama's names, and all of ours."""

    num_predict: Annotated[
        Annotated[Integer, Field(ge=-2, le=INT32_MAX)] | None,
        Field(description="stop after this many tokens; 0 and below: at the end of the context"),
    ] = None
    num_ctx: Annotated[
        Annotated[Integer, Field(ge=1, le=INT32_MAX)] | None,
        Field(description="the context that is wanted; the server's own is not changed"),
    ] = None
    repeat_last_n: Annotated[
        Annotated[Integer, Field(ge=-1, le=INT32_MAX)] | None,
        Field(description="-1: the repeat penalty looks at all tokens; 0: at none"),
    ] = None
    stop: Annotated[
        Annotated[list[Annotated[str, Field(max_length=MAX_TEXT)]], Field(max_length=MAX_STOP)]
        | None,
        BeforeValidator(_texts, json_schema_input_type=str | list[str] | None),
    ] = None
    mirostat: Annotated[Any, refused(0)] = None
    tfs_z: Annotated[Any, refused(1)] = None
    # How a model is loaded, which is not for requests to say, and what belongs to refused options.
    embedding_only: Any = None
    f16_kv: Any = None
    logits_all: Any = None
    low_vram: Any = None
    main_gpu: Any = None
    mirostat_eta: Any = None
    mirostat_tau: Any = None
    num_batch: Any = None
    num_gpu: Any = None
    num_keep: Any = None
    num_thread: Any = None
    numa: Any = None
    use_mlock: Any = None
    use_mmap: Any = None
    vocab_only: Any = None


def _duration(value: float | str) -> float | str:
    keep_seconds(value)
    return value


KeepAlive = Annotated[
    Annotated[float, Field(strict=False)] | Annotated[str, Field(max_length=32)],
    AfterValidator(_duration),
    Field(
        description="for how long the model stays after its requests: seconds, or a text like "
        "5m; 0: not at all, negative: as long as memory allows"
    ),
]

Format = Annotated[
    Annotated[Literal["", "json"], Tag("<name>")] | Annotated[JsonObject, Tag("<schema>")],
    Discriminator(lambda value: "<schema>" if isinstance(value, dict) else "<name>"),
]
Think = Annotated[
    Annotated[bool, Tag("<switch>")] | Annotated[Literal["low", "medium", "high"], Tag("<level>")],
    Discriminator(lambda value: "<level>" if isinstance(value, str) else "<switch>"),
]


class Asking(Part):
    """The fields that the generating routes share."""

    model: str | None = None  # the served one
    stream: Annotated[bool | None, Field(description="true if left out")] = None
    options: Options | None = None
    format: Annotated[
        Format | None, Field(description="'json' or a JSON schema, which is enforced")
    ] = None
    think: Think | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Integer, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    keep_alive: KeepAlive | None = None
    truncate: Annotated[
        bool | None,
        Field(description="false: what is too long is refused, whatever the context policy is"),
    ] = None


class ToolParam(Part):
    """A tool."""

    type: Literal["function"] | None = None
    function: Function


class CalledFunction(Part):
    """A function that the model has called, with an object of arguments."""

    name: str
    arguments: JsonObject = Field(default_factory=dict)
    index: Any = None


class Call(Part):
    """A call of an earlier answer."""

    id: str | None = None
    type: Any = None
    function: CalledFunction


class Message(Part):
    """A message of the conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Annotated[Any, refused([])] = None
    tool_calls: Annotated[list[Call], Field(fail_fast=True)] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatRequest(Asking):
    """``POST /api/chat``. No messages: the model is loaded, which it is."""

    messages: Annotated[list[Message], Field(fail_fast=True)] | None = None
    tools: Annotated[list[ToolParam], Field(fail_fast=True)] | None = None


class GenerateRequest(Asking):
    """``POST /api/generate``. No prompt: the model is loaded, which it is."""

    prompt: str | None = None
    system: str | None = None
    raw: Annotated[bool | None, Field(description="the prompt is not put into a template")] = None
    images: Annotated[Any, refused([])] = None
    suffix: Annotated[Any, refused("")] = None
    template: Annotated[Any, refused("")] = None
    context: Annotated[Any, refused([])] = None


class ShowRequest(Part):
    """``POST /api/show``."""

    model: str | None = None  # the served one
    name: Annotated[str | None, Field(description="an older name of 'model'")] = None
    verbose: Any = None


class EmbedRequest(Part):
    """``POST /api/embed``."""

    model: str | None = None  # the served one
    input: Annotated[
        Annotated[list[str], Field(max_length=MAX_INPUTS, fail_fast=True)],
        BeforeValidator(_texts, json_schema_input_type=str | list[str]),
    ]
    dimensions: Annotated[Integer, Field(ge=1, le=INT32_MAX)] | None = None
    truncate: Annotated[
        Any, Field(description="accepted; texts longer than the context are refused")
    ] = None
    options: JsonObject | None = None
    keep_alive: KeepAlive | None = None


class EmbeddingsRequest(Part):
    """``POST /api/embeddings``, the older route."""

    model: str | None = None  # the served one
    prompt: str | None = None
    options: JsonObject | None = None
    keep_alive: KeepAlive | None = None
