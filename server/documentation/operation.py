"""The description of one route, for the OpenAPI document.

Bodies are read and checked by our own code (limits, strict errors) and replies are written as they
are, so that FastAPI sees neither. A route says what they are, and pays nothing for it when it
serves:

    @router.post("/things", **documented("Make a thing", "things", body=ThingRequest, reply=Thing))
    async def things(http: Request) -> Response: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

JSON = "application/json"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
# Where an operation keeps its description until `document.py` puts it in place.
KEY = "x-edge-llm"


def documented(
    summary: str,
    tag: str,
    *,
    body: type[BaseModel] | None = None,
    reply: type[BaseModel] | str | tuple[str, ...] = JSON,
    stream: type[BaseModel] | None = None,
    stream_media: str = EVENTS,
    open_to_all: bool = False,
    parameters: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments with which a route is declared.

    Args:
        summary: the route in a few words; its docstring can say more.
        tag: the group of routes that it belongs to.
        body: the JSON object that it reads; its own schema, with a description of each field.
        reply: the JSON object of a whole reply, or the media types that a reply without one may
            have.
        stream: the JSON object in each event or line of a stream, where the route can stream.
        stream_media: the media type of the stream.
        open_to_all: no key is asked for.
        parameters: descriptions of those in the path.
    """
    medias = (reply,) if isinstance(reply, str) else reply
    if isinstance(medias, tuple):
        content = {
            media: {"schema": {"type": "object"} if media == JSON else _text()} for media in medias
        }
    else:
        content = _json(medias, False)
    if stream is not None:
        what = "server-sent events" if stream_media == EVENTS else "lines of JSON"
        content[stream_media] = {"schema": _text(f"A stream of {what}.", _schema(stream, False))}
    described: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "replies": content,
        "open": open_to_all,
        "parameters": dict(parameters or {}),
    }
    if body is not None:
        described["body"] = _json(body, True)
    return {"response_model": None, "openapi_extra": {KEY: described}}


def _json(model: type[BaseModel], read: bool) -> dict[str, Any]:
    return {JSON: {"schema": _schema(model, read)}}


@cache
def _schema(model: type[BaseModel], read: bool) -> dict[str, Any]:
    return model.model_json_schema(mode="validation" if read else "serialization")


def _text(description: str = "", item: dict[str, Any] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if description:
        schema["description"] = description
    if item is not None:
        schema |= {"contentMediaType": JSON, "contentSchema": item}
    return schema
