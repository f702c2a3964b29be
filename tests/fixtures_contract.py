"""Requests that were answered, and their replies, against the OpenAPI document."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator


class Contract:
    """Checks what a client sent and got, whenever it was answered with 200."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = document["components"]
        self._closed = _closed(document["components"])
        self._validator = cache(self._make_validator)
        self._routes = [
            (re.compile(re.sub(r"\{\w+\}", "[^?]+", path) + "$"), operations)
            for path, operations in sorted(
                document["paths"].items(), key=lambda item: -len(item[0])
            )
        ]

    def check(self, response: Any) -> None:
        """An httpx hook: fails where the document is not true."""
        request = response.request
        operation = self._operation(request.url.path, request.method.lower())
        if operation is None or response.status_code != 200:
            return
        response.read()
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            body = json.loads(request.read())
            self._valid(body, schema, f"the body of {request.url.path}", closed=False)
        kind = response.headers["content-type"].partition(";")[0]
        schema = operation["responses"]["200"]["content"][kind]["schema"]
        where = f"a reply of {request.url.path}"
        if kind == "application/json":
            self._valid(response.json(), schema, where, closed=True)
        elif "contentSchema" in schema:
            for part in _parts(response.text, kind):
                self._valid(part, schema["contentSchema"], where, closed=True)

    def _operation(self, path: str, method: str) -> Any:
        for pattern, operations in self._routes:
            if pattern.match(path):
                return operations.get(method)
        return None

    def _valid(self, value: Any, schema: dict[str, Any], where: str, *, closed: bool) -> None:
        for error in self._validator(json.dumps(schema), closed).iter_errors(value):
            raise AssertionError(f"{where}: {error.json_path}: {error.message}")

    def _make_validator(self, schema: str, closed: bool) -> Any:
        components = self._closed if closed else self._components
        return Draft202012Validator({**json.loads(schema), "components": components})


def _closed(node: Any) -> Any:
    """The schemas of replies, in which no key is that they do not name."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if "properties" in node and node.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _parts(text: str, kind: str) -> list[Any]:
    """The JSON objects of a stream, but for those that say it failed."""
    if kind == "application/x-ndjson":
        values = [json.loads(line) for line in text.splitlines()]
        return [value for value in values if "error" not in value]
    return [
        json.loads(event.partition("data: ")[2])
        for event in text.split("\n\n")
        if "data: {" in event and not event.startswith("event: error")
    ]
