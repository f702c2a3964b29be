"""The replies of the Ollama routes, for the OpenAPI document; each route writes its own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from edge_llm.server.models.offer import State
from edge_llm.server.replies import LeftOut


class ReplyFunction(BaseModel):
    """A function that the model calls. Arguments that are no JSON object are under the key
    ``INVALID_JSON``."""

    index: int
    name: str
    arguments: dict[str, Any]


class ReplyCall(BaseModel):
    """A call, always whole."""

    id: str
    function: ReplyFunction


class ReplyMessage(BaseModel):
    """An answer, or a part of it. Keys without a value are left out."""

    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[ReplyCall] | None = None


class ScoredToken(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class Scored(ScoredToken):
    """A token of the answer, and the likeliest ones at its place."""

    top_logprobs: list[ScoredToken]


class Line(BaseModel):
    """A reply, or a line of one; what the last one alone has is left out of the others. Durations
    are in nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load"] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    context_policy: LeftOut | None = None
    logprobs: list[Scored] | None = None


class ChatLine(Line):
    """``/api/chat``."""

    message: ReplyMessage


class GenerateLine(Line):
    """``/api/generate``."""

    response: str
    thinking: str | None = None
    tool_calls: list[ReplyCall] | None = None


class Details(BaseModel):
    """What a model is, in a few words."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Listed(BaseModel):
    """A served model."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class Tags(BaseModel):
    """The served models."""

    models: list[Listed]


class Running(BaseModel):
    """A loaded model."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    state: State
    size_vram: int
    context_length: int


class Processes(BaseModel):
    """The loaded models."""

    models: list[Running]


class Shown(BaseModel):
    """What is known of a model."""

    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[Literal["completion", "tools", "thinking", "embedding"]]
    modified_at: str


class Version(BaseModel):
    """The version of Ollama's API that is spoken here, and our own."""

    version: str
    edge_llm: str = Field(description="the version of this server")


class Vectors(BaseModel):
    """``/api/embed``."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class Vector(BaseModel):
    """``/api/embeddings``."""

    embedding: list[float]
