"""``POST /v1/embeddings``."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_llm.api.embeddings import EmbedCall, InputType
from edge_llm.runner.executor import Float32
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import invalid, translate
from edge_llm.server.gate.exchange import CLIENT_GONE
from edge_llm.server.generation import ClientGoneError
from edge_llm.server.openai.replies import Embeddings
from edge_llm.server.openai.schemas import Prompts
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import ignored_header
from edge_llm.server.requests.sampling import Integer
from edge_llm.server.service import Service
from edge_llm.server.vectors import embed

MAX_INPUTS = 2048


def _absent(value: Any) -> Any:
    return value or None if isinstance(value, str) else value


class EmbeddingsRequest(BaseModel):
    """``POST /v1/embeddings``. ``pooling``, ``normalize`` and ``input_type`` are extensions."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    input: Prompts
    encoding_format: Annotated[Literal["float", "base64"] | None, BeforeValidator(_absent)] = None
    dimensions: Annotated[Integer, Field(ge=1)] | None = None
    pooling: Literal["last", "mean"] | None = None
    normalize: bool | None = None
    input_type: InputType | None = None


def embeddings_router(service: Service, options: ServerOptions) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/embeddings",
        **documented("Make vectors of texts", "vectors", body=EmbeddingsRequest, reply=Embeddings),
    )
    async def embeddings(http: Request) -> Response:
        request, ignored = await read_request(EmbeddingsRequest, http, options)
        if len(request.input) > MAX_INPUTS:
            raise invalid(
                f"Invalid 'input': expected at most {MAX_INPUTS} entries.",
                "input",
                "array_above_max_length",
            )
        model = await service.model(request.model)
        single = len(request.input) == 1
        call = EmbedCall(
            texts=request.input[0] if single else request.input,
            pooling=request.pooling,
            normalize=request.normalize is not False,
            dimensions=request.dimensions,
            input_type=request.input_type,
        )
        try:
            embedded = await embed(service, model, call, http)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
        except Exception as exc:
            raise translate(exc, "input") from exc
        reply = {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _encoded(vector, request.encoding_format),
                }
                for index, vector in enumerate(embedded.vectors)
            ],
            "model": model.name,
            "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        }
        return JSONResponse(reply, headers=ignored_header(ignored))

    return router


def _encoded(vector: Float32, encoding: str | None) -> str | list[float]:
    """Return a vector as numbers, or as the base64 of little-endian float32."""
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
