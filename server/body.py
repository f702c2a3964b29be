"""From the bytes of a request to what it asks for, within limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from edge_llm.server.errors import ApiError, invalid
from edge_llm.server.options import ServerOptions
from edge_llm.server.requests.unsupported import UNSUPPORTED
from edge_llm.server.requests.validation import validate

Kind = TypeVar("Kind", bound=BaseModel)

MAX_DEPTH = 64
# Arrays and objects, those in texts too: some millions take seconds, in which nothing else runs. No
# context has room for a text with so many brackets.
MAX_CONTAINERS = 500_000
# Bytes from which on a body is parsed and validated on a thread: others run meanwhile, as far as
# the parser lets them.
LONG_BODY = 2**17


async def read_request(
    kind: type[Kind],
    http: Request,
    options: ServerOptions,
    *,
    unsupported: Mapping[str, tuple[Any, ...]] = UNSUPPORTED,
) -> tuple[Kind, list[str]]:
    """Read, parse and validate the body. Return the request, and the names of the fields in it that
    were ignored; those in ``unsupported`` may have the values there alone.

    Raises:
        ApiError: 415 not ``application/json``, 413 too long, 400 not a JSON object, too deep, or a
            field that is not right.
    """
    media = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise ApiError(415, "Send the request as 'Content-Type: application/json'.")
    data = await _read(http, options.max_body)

    def work() -> tuple[Kind, list[str]]:
        return validate(kind, _parsed(data), strict=options.strict, unsupported=unsupported)

    return work() if len(data) < LONG_BODY else await asyncio.to_thread(work)


def _parsed(data: bytes) -> dict[str, Any]:
    """Return the JSON object. NaN and infinities come through as floats: `validate` names the field
    that they are in."""
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise invalid("The body of the request has too many arrays and objects.")
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError as exc:
        raise invalid("The body of the request is not UTF-8.") from exc
    except RecursionError as exc:
        raise invalid("The body of the request is nested too deeply.") from exc
    except ValueError as exc:
        raise invalid("The body of the request is not valid JSON.") from exc
    if not isinstance(value, dict):
        raise invalid("The body of the request is not a JSON object.")
    if _deeper_than(value, MAX_DEPTH):
        raise invalid("The body of the request is nested too deeply.")
    return value


async def _read(request: Request, max_body: int) -> bytes:
    too_long = ApiError(413, f"The body of the request is longer than {max_body} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_body:
        raise too_long
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > max_body:
            raise too_long
    return bytes(data)


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
