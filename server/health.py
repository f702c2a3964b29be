"""``GET /health``."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from edge_llm.server.documentation.operation import documented
from edge_llm.server.service import Service


class Health(BaseModel):
    """The server takes requests."""

    status: Literal["ok"]


def health_router(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/health",
        **documented("Whether requests are taken", "server", reply=Health, open_to_all=True),
    )
    async def health() -> dict[str, Any]:
        service.check()
        return {"status": "ok"}

    return router
