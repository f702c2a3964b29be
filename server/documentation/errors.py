"""The bodies of errors, for the OpenAPI document; `edge_llm.server.errors` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class ErrorDetail(BaseModel):
    """What went wrong: ``param`` is the field at fault, ``code`` a name for the reason."""

    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """An error in OpenAI's shape."""

    error: ErrorDetail


class AnthropicErrorDetail(BaseModel):
    """What went wrong; ``details`` is there where there are any."""

    type: str
    message: str
    details: dict[str, Any] | None = None


class AnthropicErrorReply(BaseModel):
    """An error in Anthropic's shape."""

    model_config = ConfigDict(extra="allow")

    type: Literal["error"]
    error: AnthropicErrorDetail


class OllamaErrorReply(BaseModel):
    """An error in Ollama's shape."""

    error: str


def error_model(path: str) -> type[BaseModel]:
    """Return the model of an error body in the dialect of a route."""
    if path.startswith("/api/"):
        return OllamaErrorReply
    return AnthropicErrorReply if path.startswith("/v1/messages") else ErrorReply


# By status, and whether it needs a body to happen.
STATUSES: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "400": ("The request can never succeed as it is.", True),
        "401": ("The API key is missing or wrong.", False),
        "403": ("This Host or Origin is not allowed.", False),
        "404": ("The model does not exist here.", False),
        "408": ("The request did not come in time.", True),
        "413": ("The body of the request is too long.", True),
        "415": ("The body of the request is not application/json.", True),
        "429": ("Too much is running and waiting; try again later.", True),
        "500": ("The server failed on the request.", False),
        "503": ("The model is loading, or the server is stopping.", False),
    }
)
