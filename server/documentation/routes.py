"""``GET /openapi.json`` and ``GET /docs``."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse, JSONResponse, Response

from edge_llm.server.documentation.document import openapi_document
from edge_llm.server.documentation.operation import documented
from edge_llm.server.documentation.page import documentation_page


def documentation_router(app: FastAPI, *, key: bool) -> APIRouter:
    """Return the routes that describe all routes of ``app``; ``key`` says whether one is asked
    for."""
    router = APIRouter()

    @cache
    def document() -> dict[str, Any]:
        return openapi_document(app, key=key)

    @router.get("/openapi.json", **documented("This document", "server"))
    async def openapi_json() -> Response:
        return JSONResponse(document())

    @router.get("/docs", **documented("This document, to read", "server", reply="text/html"))
    async def docs() -> Response:
        return HTMLResponse(documentation_page(document()))

    return router
