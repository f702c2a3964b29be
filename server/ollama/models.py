"""``GET /api/tags``, ``/api/ps``, ``/api/version`` and ``POST /api/show``."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_llm import __version__
from edge_llm.api.about import ModelAbout, ModelFacts
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.models.offer import Choice, Offer
from edge_llm.server.ollama.lines import timestamp
from edge_llm.server.ollama.names import choice_of, tagged
from edge_llm.server.ollama.replies import Processes, Shown, Tags, Version
from edge_llm.server.ollama.schemas import ShowRequest
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import ignored_header
from edge_llm.server.service import Service

# The version of Ollama's API whose routes and fields these are: clients look whether it is new
# enough for what they want to use.
API_VERSION = "0.12.11"
# Of a model that stays as long as memory allows, or that has requests.
NEVER = "9999-12-31T23:59:59Z"


def models_router(service: Service, options: ServerOptions) -> APIRouter:
    """Return the routes of Ollama's API that tell about the model."""
    router = APIRouter()

    @router.get("/api/version", **documented("The version of the API", "ollama", reply=Version))
    async def version() -> dict[str, Any]:
        return {"version": API_VERSION, "edge_llm": __version__}

    @router.get("/api/tags", **documented("The served models", "ollama", reply=Tags))
    async def tags() -> dict[str, Any]:
        known = await service.shelf.known(service.offered())
        return {
            "models": [
                _entry(choice, facts) | {"modified_at": _modified(facts.about)}
                for choice, facts in known
            ]
        }

    @router.get("/api/ps", **documented("The loaded models", "ollama", reply=Processes))
    async def ps() -> dict[str, Any]:
        there = [
            choice
            for choice in service.offered()
            if choice.adapter is None and choice.offer.state != "unloaded"
        ]
        known = await service.shelf.known(there)
        return {
            "models": [
                _entry(choice, facts) | _held(choice.offer, facts) for choice, facts in known
            ]
        }

    @router.post(
        "/api/show",
        **documented("What is known of a model", "ollama", body=ShowRequest, reply=Shown),
    )
    async def show(http: Request) -> Response:
        request, ignored = await read_request(ShowRequest, http, options)
        choice = choice_of(service, request.model or request.name)
        facts = await service.shelf.facts(choice)
        return JSONResponse(_shown(choice, facts), headers=ignored_header(ignored))

    return router


def _entry(choice: Choice, facts: ModelFacts) -> dict[str, Any]:
    about = facts.about
    return {
        "name": tagged(choice.name),
        "model": tagged(choice.name),
        "size": about.file_bytes,
        "digest": facts.digest,
        "details": _details(choice, about),
    }


def _details(choice: Choice, about: ModelAbout) -> dict[str, Any]:
    return {
        "parent_model": "" if choice.adapter is None else tagged(choice.offer.name),
        "format": "edge",
        "family": about.family,
        "families": [about.family],
        "parameter_size": _short(about.parameters),
        "quantization_level": about.quantization,
    }


def _held(offer: Offer, facts: ModelFacts) -> dict[str, Any]:
    return {
        "size": offer.bytes,
        "expires_at": _expiry(offer),
        "state": offer.state,
        "size_vram": 0,
        "context_length": facts.context,
    }


def _expiry(offer: Offer) -> str:
    if offer.expires is None:
        return NEVER
    left = offer.expires.when() - asyncio.get_running_loop().time()
    return timestamp(datetime.now(UTC) + timedelta(seconds=left))


def _shown(choice: Choice, facts: ModelFacts) -> dict[str, Any]:
    about = facts.about
    parameters = {**about.recommended, "num_ctx": facts.context}
    can = {
        "completion": about.answers,
        "tools": about.tools,
        "thinking": about.thinking,
        "embedding": about.vectors,
    }
    return {
        "parameters": "\n".join(f"{name} {value}" for name, value in parameters.items()),
        "template": about.chat_template or "",
        "details": _details(choice, about),
        "model_info": {
            "general.architecture": about.family,
            "general.parameter_count": about.parameters,
            f"{about.family}.block_count": about.layers,
            f"{about.family}.context_length": facts.context,
            f"{about.family}.embedding_length": about.width,
            f"{about.family}.vocab_size": about.vocab,
        },
        "capabilities": [name for name, able in can.items() if able],
        "modified_at": _modified(about),
    }


def _modified(about: ModelAbout) -> str:
    return timestamp(datetime.fromtimestamp(about.modified, UTC))


def _short(count: int) -> str:
    """Return a number of parameters as people write it: 135M, 1.2B."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            short = count / size
            return f"{short:.0f}{letter}" if short >= 100 else f"{short:.3g}{letter}"
    return str(count)
