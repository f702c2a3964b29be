"""``GET /``, the web chat, and the files that it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge_llm.server.documentation.operation import documented
from edge_llm.server.page.files import FOLDER, INDEX, TYPES, Asset, assets, wants_page

# The page loads what this server has under its own name and nothing else, runs no script and no
# style that stands in a document, and cannot turn a text into one: what a model writes stays text.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "content-security-policy": POLICY,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        # It is asked each time whether a file has changed, so that a page is never of two versions.
        "cache-control": "no-cache",
    }
)


def page_router() -> APIRouter:
    """Return the routes of the web chat. They need no key: the page asks for it, and sends it with
    what it asks the others."""
    router = APIRouter()

    @router.get("/", **documented("The web chat", "page", reply="text/html", open_to_all=True))
    async def page(http: Request) -> Response:
        """The page is for browsers, which accept text/html; for others there is nothing here."""
        if not wants_page(http.headers):
            raise HTTPException(404)
        return _sent(assets()[INDEX], http, {"vary": "Accept"})

    @router.get(
        FOLDER + "{name}",
        **documented(
            "A file of the web chat",
            "page",
            reply=tuple(TYPES.values()),
            open_to_all=True,
            parameters={"name": "the name of the file"},
        ),
    )
    async def file(name: str, http: Request) -> Response:
        found = assets().get(name)
        if found is None or name == INDEX:
            raise HTTPException(404)
        return _sent(found, http, {})

    return router


def _sent(asset: Asset, http: Request, more: Mapping[str, str]) -> Response:
    headers = {**HEADERS, **more, "etag": asset.etag}
    known = http.headers.get("if-none-match", "")
    if asset.etag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
