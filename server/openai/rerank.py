"""``POST /v1/rerank``, in the shape that Jina and Cohere gave it."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_llm.api.rerank import RerankCall
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import translate
from edge_llm.server.gate.exchange import CLIENT_GONE
from edge_llm.server.generation import ClientGoneError
from edge_llm.server.openai.replies import Rerank
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import ignored_header
from edge_llm.server.requests.sampling import Integer
from edge_llm.server.service import Service
from edge_llm.server.vectors import rerank

MAX_DOCUMENTS = 2048


def _document(value: Any) -> Any:
    return {"text": value} if isinstance(value, str) else value


class Document(BaseModel):
    """A document; other keys have no meaning here."""

    model_config = ConfigDict(strict=True, extra="allow")

    text: str


class RerankRequest(BaseModel):
    """``POST /v1/rerank``. ``instruction`` is an extension."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    query: str
    documents: Annotated[
        list[
            Annotated[Document, BeforeValidator(_document, json_schema_input_type=str | Document)]
        ],
        Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True),
    ]
    top_n: Annotated[Integer, Field(ge=1)] | None = None
    return_documents: bool | None = None
    instruction: str | None = None


def rerank_router(service: Service, options: ServerOptions) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/rerank",
        **documented("Order documents by relevance", "vectors", body=RerankRequest, reply=Rerank),
    )
    async def rerank_documents(http: Request) -> Response:
        request, ignored = await read_request(RerankRequest, http, options)
        model = await service.model(request.model)
        call = RerankCall(
            query=request.query,
            documents=[document.text for document in request.documents],
            instruction=request.instruction or None,
        )
        try:
            ranked = await rerank(service, model, call, http)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
        except Exception as exc:
            raise translate(exc, "documents") from exc
        order = sorted(range(len(ranked.scores)), key=lambda index: -ranked.scores[index])
        results = [
            {"index": index, "relevance_score": ranked.scores[index]}
            | ({"document": {"text": call.documents[index]}} if request.return_documents else {})
            for index in order[: request.top_n]
        ]
        reply = {
            "id": f"rerank-{uuid.uuid4().hex}",
            "model": model.name,
            "results": results,
            "usage": {"prompt_tokens": ranked.tokens, "total_tokens": ranked.tokens},
        }
        return JSONResponse(reply, headers=ignored_header(ignored))

    return router
