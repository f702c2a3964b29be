"""Browser pages of other origins: which may ask, and what their browsers want to read about it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.datastructures import Headers

METHODS = "GET, HEAD, POST, OPTIONS"
EXPOSED = "x-request-id, x-edge-llm-ignored, retry-after"
MAX_AGE = "600"  # seconds for which a browser need not ask again
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_NAMES = 64


class Origins:
    """The origins whose pages may ask: those allowed, and our own."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.lower().rstrip("/") for origin in allowed)

    def allows(self, headers: Headers) -> bool:
        """Return whether a request may come from where it says, which is nowhere for one that no
        browser sent. Its Host is one of ours."""
        origin = headers.get("origin")
        if origin is None:
            return True
        host = headers.get("host", "").lower()
        own = {f"{scheme}://{host}" for scheme in ("http", "https")}  # also behind a proxy
        return origin.lower() in self._allowed | own

    @staticmethod
    def reply_headers(headers: Headers) -> dict[str, str]:
        """Return what a reply to an allowed origin has to say."""
        origin = headers.get("origin")
        if origin is None:
            return {}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": EXPOSED,
        }

    @staticmethod
    def preflight_headers(headers: Headers) -> dict[str, str] | None:
        """Return what a browser that asks beforehand is told, None if this is no such question."""
        if "origin" not in headers or "access-control-request-method" not in headers:
            return None
        asked = headers.get("access-control-request-headers", "").split(",")
        names = [name for part in asked if _NAME.fullmatch(name := part.strip())]
        told = {
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": ", ".join(names[:_MAX_NAMES]) or "content-type",
            "access-control-max-age": MAX_AGE,
        }
        if headers.get("access-control-request-private-network") == "true":
            told["access-control-allow-private-network"] = "true"
        return told
