"""The OpenAPI document of the whole application, from its routes and what they say of
themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edge_llm.server.documentation.errors import STATUSES, error_model
from edge_llm.server.documentation.operation import JSON, KEY

BEARER: dict[str, list[str]] = {"bearer": []}
ANTHROPIC_KEY: dict[str, list[str]] = {"x-api-key": []}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def openapi_document(app: FastAPI, *, key: bool) -> dict[str, Any]:
    """Return the document of ``app``; ``key`` says whether the server asks for one."""
    document = get_openapi(
        title="edge-llm",
        version=app.version,
        summary="A local model behind the HTTP APIs that its clients know",
        routes=app.routes,
    )
    schemas: dict[str, Any] = {}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _describe(operation, path, key=key)
    _lift(document["paths"], schemas)
    document["components"] = {"schemas": dict(sorted(schemas.items())), "securitySchemes": SCHEMES}
    return document


def _describe(operation: dict[str, Any], path: str, *, key: bool) -> None:
    """Put in place what the route says of itself; what FastAPI guessed goes."""
    described = operation.pop(KEY)
    del operation["responses"]
    operation["summary"] = described["summary"]
    operation["tags"] = described["tags"]
    body = described.get("body")
    if body is not None:
        operation["requestBody"] = {"required": True, "content": body}
    for parameter in operation.get("parameters", ()):
        if text := described["parameters"].get(parameter["name"]):
            parameter["description"] = text
    identified = {
        "x-request-id": {
            "description": "names the request in the log",
            "schema": {"type": "string"},
        }
    }
    operation["responses"] = {
        "200": {"description": "The reply.", "headers": identified, "content": described["replies"]}
    } | {
        status: {"description": text, "headers": identified, "content": _error(path)}
        for status, (text, of_bodies) in STATUSES.items()
        if body is not None or not of_bodies
    }
    asks = key and not described["open"]
    if not asks:
        del operation["responses"]["401"]
        operation["security"] = []
    else:
        also = [ANTHROPIC_KEY] if path.startswith("/v1/messages") else []
        operation["security"] = [BEARER, *also]


def _error(path: str) -> dict[str, Any]:
    return {JSON: {"schema": error_model(path).model_json_schema(mode="serialization")}}


def _lift(paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move all schemas of models to ``schemas`` and leave references."""
    for holder, name in list(_models(paths)):
        root = dict(holder[name])
        parts = root.pop("$defs", {})
        if "$ref" in root:  # it refers to itself
            title = root["$ref"].rpartition("/")[2]
        else:
            title = root["title"]
            parts = {**parts, title: root}
        names = _free_names(parts, title, schemas)
        for part, schema in parts.items():
            schemas[names[part]] = _renamed(schema, names)
        holder[name] = {"$ref": f"#/components/schemas/{names[title]}"}


def _models(node: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where a schema of a model is, in a tree of the document."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("schema", "contentSchema") and _is_model(value):
                yield node, name
            else:
                yield from _models(value)
    elif isinstance(node, list):
        for value in node:
            yield from _models(value)


def _is_model(schema: dict[str, Any]) -> bool:
    return "$defs" in schema or "properties" in schema


def _free_names(parts: dict[str, Any], root: str, schemas: dict[str, Any]) -> dict[str, str]:
    """Return a name for each part. Two dialects may call different things the same: the later one
    has the name of its root before it."""
    names = {part: part for part in parts}
    while True:
        taken = [
            part
            for part, schema in parts.items()
            if names[part] in schemas and schemas[names[part]] != _renamed(schema, names)
        ]
        if not taken:
            return names
        for part in taken:
            names[part] = f"{root}{names[part]}"


def _renamed(node: Any, names: dict[str, str]) -> Any:
    """Return a schema whose references go to the components, by their names there."""
    if isinstance(node, dict):
        return {
            key: f"#/components/schemas/{names[value.rpartition('/')[2]]}"
            if key == "$ref" and isinstance(value, str)
            else _renamed(value, names)
            for key, value in node.items()
        }
    return [_renamed(value, names) for value in node] if isinstance(node, list) else node
