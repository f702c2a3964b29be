"""The schemas of the Berkeley Function Calling Leaderboard as JSON Schema."""

from __future__ import annotations

from typing import Any

BFCL_TYPES = {
    "dict": "object", "hashmap": "object", "float": "number", "double": "number",
    "long": "integer", "tuple": "array", "arraylist": "array", "any": "string", "char": "string",
    "": "string",
}  # fmt: skip


def json_schema_of(parameters: Any) -> Any:
    """Return a schema with the types of JSON Schema, as those who run the leaderboard do."""
    if isinstance(parameters, list):
        return [json_schema_of(item) for item in parameters]
    if not isinstance(parameters, dict):
        return parameters
    schema = {}
    for key, value in parameters.items():
        if key == "type" and isinstance(value, str):
            schema[key] = BFCL_TYPES.get(value.lower(), value.lower())
        elif key == "properties":
            schema[key] = {name: json_schema_of(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            schema[key] = json_schema_of(value)
        else:
            schema[key] = value
    return schema
