"""``GET /v1/models``, ``GET /v1/models/{id}`` and ``GET /health``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edge_llm.server.service import Model, Service


def models_router(service: Service) -> APIRouter:
    router = APIRouter()

    def describe(model: Model) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": service.created,
            "owned_by": "edge-llm",
            "context_length": model.context,
        }

    @router.get("/health", response_model=None)
    async def health() -> dict[str, Any]:
        service.model()
        return {"status": "ok"}

    @router.get("/v1/models", response_model=None)
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [describe(service.model())]}

    @router.get("/v1/models/{name:path}", response_model=None)
    async def get_model(name: str) -> dict[str, Any]:
        return describe(service.model(name))

    return router
