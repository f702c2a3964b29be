"""The ASGI application: routes, error bodies, and the gate before them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from edge_llm import __version__
from edge_llm.server.anthropic.messages import messages_router
from edge_llm.server.documentation.routes import documentation_router
from edge_llm.server.errors import (
    ApiError,
    api_error_response,
    bug_response,
    http_error_response,
)
from edge_llm.server.gate.gate import Gate
from edge_llm.server.health import health_router
from edge_llm.server.metrics import Metrics, metrics_router
from edge_llm.server.ollama.routes import ollama_router
from edge_llm.server.openai.chat import chat_router
from edge_llm.server.openai.completions import completions_router
from edge_llm.server.openai.embeddings import embeddings_router
from edge_llm.server.openai.models import models_router
from edge_llm.server.openai.rerank import rerank_router
from edge_llm.server.openai.responses.routes import responses_router
from edge_llm.server.openai.responses.store import ResponseStore
from edge_llm.server.options import ServerOptions
from edge_llm.server.page.routes import page_router
from edge_llm.server.service import Service
from edge_llm.server.tokens import tokens_router


def create_app(service: Service, options: ServerOptions) -> ASGIApp:
    """Return the application around ``service``, all dialects in it."""
    app = FastAPI(
        title="edge-llm",
        version=__version__,
        openapi_url=None,  # ours: FastAPI does not see the bodies
        redirect_slashes=False,
        exception_handlers={
            ApiError: api_error_response,
            HTTPException: http_error_response,
            Exception: bug_response,
        },
    )
    metrics = Metrics(service)
    service.on_answer = metrics.answered
    app.include_router(health_router(service))
    app.include_router(page_router())
    app.include_router(tokens_router(service, options))
    app.include_router(documentation_router(app, key=options.api_key is not None))
    app.include_router(messages_router(service, options))
    app.include_router(ollama_router(service, options))
    responses = ResponseStore()
    app.include_router(metrics_router(metrics))
    for prefix in ("/v1", ""):  # some clients are given the address without it
        app.include_router(models_router(service), prefix=prefix)
        app.include_router(chat_router(service, options), prefix=prefix)
        app.include_router(completions_router(service, options), prefix=prefix)
        app.include_router(embeddings_router(service, options), prefix=prefix)
        app.include_router(rerank_router(service, options), prefix=prefix)
        app.include_router(responses_router(service, options, responses), prefix=prefix)
    return Gate(app, options, metrics.ended)
