"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edge_llm.server.documentation.operation import documented
from edge_llm.server.openai.replies import ModelList, ModelObject
from edge_llm.server.service import Model, Service


def models_router(service: Service) -> APIRouter:
    router = APIRouter()

    def describe(model: Model) -> dict[str, Any]:
        about = model.about
        return {
            "id": model.name,
            "object": "model",
            "created": service.created,
            "owned_by": "edge-llm",
            "context_length": model.context,
            "capabilities": {
                "chat": about.chat_template is not None,
                "tools": about.tools,
                "thinking": about.thinking,
                "thinking_switch": about.thinking_switch,
                "efforts": list(about.efforts),
                "embedding": about.vectors,
            },
            "recommended": dict(about.recommended),
        }

    @router.get("/models", **documented("The served model", "models", reply=ModelList))
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [describe(service.model())]}

    @router.get(
        "/models/{name:path}",
        **documented(
            "A model by one of its names",
            "models",
            reply=ModelObject,
            parameters={"name": "a name of the served model"},
        ),
    )
    async def get_model(name: str) -> dict[str, Any]:
        return describe(service.model(name))

    return router
