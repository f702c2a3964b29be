"""``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from edge_llm.api.about import ModelFacts
from edge_llm.server.documentation.operation import documented
from edge_llm.server.models.offer import Choice
from edge_llm.server.openai.replies import ModelList, ModelObject
from edge_llm.server.service import Service


def models_router(service: Service) -> APIRouter:
    router = APIRouter()

    def describe(choice: Choice, facts: ModelFacts) -> dict[str, Any]:
        about, offer = facts.about, choice.offer
        return {
            "id": choice.name,
            "object": "model",
            "created": service.created,
            "owned_by": "edge-llm",
            "parent": None if choice.adapter is None else offer.name,
            "state": offer.state,
            "context_length": facts.context,
            "capabilities": {
                "chat": about.answers and about.chat_template is not None,
                "tools": about.tools,
                "thinking": about.thinking,
                "thinking_switch": about.thinking_switch,
                "efforts": list(about.efforts),
                "embedding": about.vectors,
            },
            "recommended": dict(about.recommended),
        }

    @router.get("/models", **documented("The served models", "models", reply=ModelList))
    async def list_models() -> dict[str, Any]:
        known = await service.shelf.known(service.offered())
        return {"object": "list", "data": [describe(*model) for model in known]}

    @router.get(
        "/models/{name:path}",
        **documented(
            "A model by one of its names",
            "models",
            reply=ModelObject,
            parameters={"name": "a name of a served model"},
        ),
    )
    async def get_model(name: str) -> dict[str, Any]:
        choice = service.shelf.find(name)
        return describe(choice, await service.shelf.facts(choice))

    return router
