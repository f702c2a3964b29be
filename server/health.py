"""``GET /health``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edge_llm.server.service import Service


def health_router(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/health", response_model=None)
    async def health() -> dict[str, Any]:
        service.model()
        return {"status": "ok"}

    return router
