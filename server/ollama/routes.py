"""All routes of Ollama's API."""

from __future__ import annotations

from fastapi import APIRouter

from edge_llm.server.ollama.embedding import embedding_router
from edge_llm.server.ollama.generating import generating_router
from edge_llm.server.ollama.models import models_router
from edge_llm.server.options import ServerOptions
from edge_llm.server.service import Service


def ollama_router(service: Service, options: ServerOptions) -> APIRouter:
    """Return the routes of Ollama's API."""
    router = APIRouter()
    for part in (generating_router, models_router, embedding_router):
        router.include_router(part(service, options))
    return router
