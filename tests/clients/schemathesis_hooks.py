"""Requests that generate are kept short: the model would go on to the end of its context."""

from __future__ import annotations

from typing import Any

import schemathesis

LIMITS = {"completions": "max_tokens", "messages": "max_tokens", "responses": "max_output_tokens"}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Return a body with few tokens to generate, where it is one."""
    if not isinstance(body, dict):
        return body
    path = context.operation.path
    for part, limit in LIMITS.items():
        if part in path:
            body[limit] = 16
    if path in ("/api/chat", "/api/generate") and isinstance(body.get("options"), dict | None):
        body["options"] = {**(body.get("options") or {}), "num_predict": 16}
    if isinstance(body.get("n"), int):
        body["n"] = 1
    return body
