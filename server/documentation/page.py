"""The document as a page to read, without scripts and without anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
code, pre { font: 13px/1.4 ui-monospace, monospace }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #8884; padding: .2rem .6rem; text-align: left }
td, th { vertical-align: top }
summary { cursor: pointer; padding: .3rem 0 }
:root { color-scheme: light dark }
"""


def documentation_page(document: Mapping[str, Any]) -> str:
    """Return an HTML page of an OpenAPI document of ours: its routes, then its schemas."""
    title = escape(document["info"]["title"])
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{escape(document['info']['summary'])}.",
        "The same for programs: <a href=openapi.json>openapi.json</a>.</p>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(path, method, operation)
    parts.append("<h2>Objects</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts += _object(name, schema)
    return "\n".join(parts)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield "<details><summary>"
    yield f"<code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</summary>"
    if text := operation.get("description"):
        yield f"<p>{escape(text)}</p>"
    if body := operation.get("requestBody"):
        yield f"<p>Body: {_contents(body['content'])}</p>"
    yield "<table><tr><th>status<th>meaning<th>body"
    for status, response in operation["responses"].items():
        yield f"<tr><td>{escape(status)}<td>{escape(response['description'])}"
        yield f"<td>{_contents(response['content'])}"
    yield "</table></details>"


def _contents(content: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{escape(media)}: {_kind(described['schema'])}" for media, described in content.items()
    )


def _object(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"<details id={escape(name, quote=True)}><summary><code>{escape(name)}</code>"
    yield f"</summary><p>{escape(schema.get('description', ''))}</p>"
    yield "<table><tr><th>field<th>type<th>meaning"
    required = schema.get("required", ())
    for field, value in schema.get("properties", {}).items():
        needed = " (required)" if field in required else ""
        yield f"<tr><td><code>{escape(field)}</code>{needed}<td>{_kind(value)}"
        yield f"<td>{escape(value.get('description', ''))}"
    yield "</table></details>"


def _kind(schema: Any) -> str:
    """Return the type of a value in a few words, with a link where it is an object of ours."""
    if not isinstance(schema, Mapping) or not schema:
        return "anything"
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2], quote=True)
        return f"<a href=#{name}>{name}</a>"
    if "contentSchema" in schema:
        return f"each {_kind(schema['contentSchema'])}"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(map(_kind, schema[several])))
    for fixed in ("enum", "const"):
        if fixed in schema:
            values = schema[fixed] if fixed == "enum" else [schema[fixed]]
            return " or ".join(f"<code>{escape(repr(value))}</code>" for value in values)
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items'))}"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    bounds = f" {low} to {schema['maximum']}" if low is not None and "maximum" in schema else ""
    return escape(f"{schema.get('type', 'anything')}{bounds}")
