"""Errors as clients know them: one place where each status is decided, and each dialect's body.

Clients retry 408, 409, 429 and 5xx, so what would fail again is a 4xx. Messages never repeat what
the request said, but for the name of a model that is not served, cut and in safe characters.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Scope

from edge_llm.errors import (
    CapacityError,
    ContextLengthError,
    EdgeLLMError,
    RequestError,
    TemplateError,
    TokenizerError,
)

INVALID_REQUEST = "invalid_request_error"
RETRY_SECONDS = "1"
_NAME = 64  # characters of a name that is repeated

_log = logging.getLogger(__name__)


class ApiError(Exception):
    """A reply that is an error. ``extra`` joins the error object, ``headers`` the reply's."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def response(self, scope: Scope) -> JSONResponse:
        """Return the reply to a request."""
        body = error_body(self, scope["path"], request_id_of(scope))
        return JSONResponse(body, self.status, self.headers)


def request_id_of(scope: Scope) -> str:
    """Return the id that the gate has given a request."""
    request_id: str = scope["state"]["request_id"]
    return request_id


def error_body(error: ApiError, path: str = "", request_id: str = "") -> dict[str, Any]:
    """Return the JSON body of an error in the dialect of a route: OpenAI's unless ``path`` says
    otherwise. Anthropic's has the id of the request."""
    if path.startswith("/api/"):  # Ollama
        return {"error": error.message}
    if path.startswith("/v1/messages"):  # Anthropic
        kind = _ANTHROPIC.get(error.status, "invalid_request_error")
        detail: dict[str, Any] = {"type": kind, "message": error.message}
        if error.extra:
            detail["details"] = error.extra
        return {"type": "error", "error": detail, "request_id": request_id}
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
            **error.extra,
        }
    }


# Anthropic's names by status; what is not here is an invalid_request_error.
_ANTHROPIC: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        408: "timeout_error",
        413: "request_too_large",
        429: "rate_limit_error",
        500: "api_error",
        503: "overloaded_error",
    }
)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error for a request that can never succeed as it is."""
    return ApiError(400, message, param=param, code=code)


def unavailable(message: str) -> ApiError:
    """Return the error while loading or stopping, which is worth another try."""
    return ApiError(503, message, kind="server_error", headers={"retry-after": RETRY_SECONDS})


def not_loaded(name: str, error: EdgeLLMError) -> ApiError:
    """Return the error for a model that is on offer, but whose program cannot be loaded."""
    _log.error("%s cannot be loaded: %s", name, error)
    return ApiError(
        500,
        f"The model '{name}' cannot be loaded: {error}",
        kind="server_error",
        code="model_not_loaded",
    )


def overloaded() -> ApiError:
    return ApiError(
        429,
        "Too many requests are running and waiting. Try again later.",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"retry-after": RETRY_SECONDS},
    )


def too_many_connections() -> ApiError:
    return ApiError(
        429,
        "Too many connections are open. Try again later.",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"retry-after": RETRY_SECONDS},
    )


def too_slow(message: str) -> ApiError:
    """Return the error for a client that does not send its request in time."""
    return ApiError(408, message)


def bug() -> ApiError:
    """Return the error for our own fault; the log has the details."""
    return ApiError(500, "The server failed on this request.", kind="server_error")


def unknown_model(asked: str, names: list[str]) -> ApiError:
    """Return the error for a model of another name than those that are served."""
    known = ", ".join(f"'{name}'" for name in names)
    shown = re.sub(r"[^A-Za-z0-9_.:/@-]", "?", asked[:_NAME])
    shown = f"{shown}..." if len(asked) > _NAME else shown
    return ApiError(
        404,
        f"The model '{shown}' does not exist here; served: {known}.",
        param="model",
        code="model_not_found",
    )


def translate(error: Exception, param: str) -> ApiError:
    """Return what a failure of the engine or the tokenizer is over HTTP; ``param`` is the field
    that holds the prompt."""
    match error:
        case ApiError():
            return error
        case ContextLengthError():
            return ApiError(
                400,
                str(error),
                param=param,
                code="context_length_exceeded",
                extra={"n_ctx": error.context, "n_prompt_tokens": error.prompt_tokens},
            )
        case RequestError():
            return invalid(_sentence(error), param if error.param == "prompt" else error.param)
        case TemplateError() | TokenizerError():
            return invalid(_sentence(error), param)
        case CapacityError():  # of this process for ever, not for now: a retry cannot help
            return invalid(_sentence(error), code="capacity_exceeded")
        case EdgeLLMError():
            _log.error("a request failed: %s", error)
            return ApiError(500, f"The request failed: {error}", kind="server_error")
        case _:
            _log.error("a request failed", exc_info=error)
            return bug()


async def api_error_response(request: Request, error: Exception) -> JSONResponse:
    """Handle ApiError, for FastAPI."""
    assert isinstance(error, ApiError)
    return error.response(request.scope)


async def http_error_response(request: Request, error: Exception) -> JSONResponse:
    """Handle what routing raises, for FastAPI: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    scope = request.scope
    if error.status_code == 404:
        return ApiError(
            404, "Unknown request URL; /docs lists those there are.", code="unknown_url"
        ).response(scope)
    if error.status_code == 405:
        return ApiError(
            405, "This method is not allowed on this URL.", headers=error.headers
        ).response(scope)
    return ApiError(error.status_code, "The request cannot be served.").response(scope)


async def bug_response(request: Request, error: Exception) -> JSONResponse:
    """Handle everything else, for FastAPI."""
    return bug().response(request.scope)


def _sentence(error: EdgeLLMError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)
