"""``POST /api/embed``, and the older ``POST /api/embeddings``."""

from __future__ import annotations

import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_llm.api.embeddings import EmbedCall
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import translate
from edge_llm.server.gate.exchange import CLIENT_GONE
from edge_llm.server.generation import ClientGoneError
from edge_llm.server.ollama.names import model_of
from edge_llm.server.ollama.replies import Vector, Vectors
from edge_llm.server.ollama.schemas import EmbeddingsRequest, EmbedRequest
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import ignored_header
from edge_llm.server.service import Service
from edge_llm.server.vectors import embed as embed_texts


def embedding_router(service: Service, options: ServerOptions) -> APIRouter:
    """Return the routes of Ollama's API that make vectors of texts."""
    router = APIRouter()

    @router.post(
        "/api/embed",
        **documented("Make vectors of texts", "ollama", body=EmbedRequest, reply=Vectors),
    )
    async def embed(http: Request) -> Response:
        started = time.perf_counter_ns()
        request, ignored = await read_request(EmbedRequest, http, options)
        model = await model_of(service, request.model, request.keep_alive)
        vectors, tokens = [], 0
        if request.input and request.input != [""]:  # else the model is to be loaded
            call = EmbedCall(texts=request.input, dimensions=request.dimensions)
            try:
                embedded = await embed_texts(service, model, call, http)
            except ClientGoneError:
                return Response(status_code=CLIENT_GONE)
            except Exception as exc:
                raise translate(exc, "input") from exc
            vectors, tokens = embedded.vectors.tolist(), embedded.tokens
        reply = {
            "model": model.name,
            "embeddings": vectors,
            "total_duration": time.perf_counter_ns() - started,
            "load_duration": 0,
            "prompt_eval_count": tokens,
        }
        return JSONResponse(reply, headers=ignored_header(ignored))

    @router.post(
        "/api/embeddings",
        **documented("Make the vector of a text", "ollama", body=EmbeddingsRequest, reply=Vector),
    )
    async def embeddings(http: Request) -> Response:
        request, ignored = await read_request(EmbeddingsRequest, http, options)
        model = await model_of(service, request.model, request.keep_alive)
        vector: list[float] = []
        if request.prompt:
            call = EmbedCall(texts=request.prompt, normalize=False)
            try:
                embedded = await embed_texts(service, model, call, http)
            except ClientGoneError:
                return Response(status_code=CLIENT_GONE)
            except Exception as exc:
                raise translate(exc, "prompt") from exc
            (vector,) = embedded.vectors.tolist()
        return JSONResponse({"embedding": vector}, headers=ignored_header(ignored))

    return router
