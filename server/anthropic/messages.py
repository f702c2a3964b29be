"""``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_llm.runner.sampling import SamplingParams
from edge_llm.server.anthropic.blocks import MessageShape
from edge_llm.server.anthropic.conversation import chat_call
from edge_llm.server.anthropic.replies import MessageEvent, MessageReply, TokenCount
from edge_llm.server.anthropic.schemas import CountRequest, MessagesRequest
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import invalid, request_id_of, translate
from edge_llm.server.gate.exchange import CLIENT_GONE
from edge_llm.server.generation import ClientGoneError
from edge_llm.server.models.model import Model
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import Prepared, Reply, ignored_header
from edge_llm.server.service import Service
from edge_llm.server.vectors import Encode, served


def messages_router(service: Service, options: ServerOptions) -> APIRouter:
    """Return the routes of Anthropic's API."""
    router = APIRouter()

    @router.post(
        "/v1/messages",
        **documented(
            "Answer a conversation",
            "anthropic",
            body=MessagesRequest,
            reply=MessageReply,
            stream=MessageEvent,
        ),
    )
    async def messages(http: Request) -> Response:
        request, ignored = await read_request(MessagesRequest, http, options)
        _check(request)
        model = await service.model(request.model)

        def prepare() -> Prepared:
            jobs = model.chat_jobs(chat_call(request, model.about), _params(model, request), 1)
            hidden = request.thinking is not None and request.thinking.display == "omitted"
            shape = MessageShape(
                model=model.name,
                prompt_tokens=len(jobs[0].prompt_ids),
                request_id=request_id_of(http.scope),
                show_thinking=not hidden,
            )
            return Prepared(jobs, shape)

        return await Reply(
            service=service,
            model=model,
            choices=1,
            stream=bool(request.stream),
            prompt_field="messages",
            prepare=prepare,
            ignored=ignored,
        ).respond(http)

    @router.post(
        "/v1/messages/count_tokens",
        **documented(
            "Count the tokens of a conversation", "anthropic", body=CountRequest, reply=TokenCount
        ),
    )
    async def count_tokens(http: Request) -> Response:
        request, ignored = await read_request(CountRequest, http, options)
        model = await service.model(request.model)

        async def count(encode: Encode) -> int:
            params = model.default_params()
            (job,) = await encode(
                lambda: model.chat_jobs(
                    replace(chat_call(request, model.about), cut=False), params, 1
                )
            )
            return len(job.prompt_ids)

        try:
            tokens = await served(service, model, count, http)
        except ClientGoneError:
            return Response(status_code=CLIENT_GONE)
        except Exception as exc:
            raise translate(exc, "messages") from exc
        return JSONResponse({"input_tokens": tokens}, headers=ignored_header(ignored))

    return router


def _params(model: Model, request: MessagesRequest) -> SamplingParams:
    given: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "stop": request.stop_sequences,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
    }
    return model.default_params(
        **{name: value for name, value in given.items() if value is not None}
    )


def _check(request: MessagesRequest) -> None:
    thinking = request.thinking
    budget = thinking.budget_tokens if thinking is not None else None
    if budget is not None and budget >= request.max_tokens:
        raise invalid(
            "Invalid 'max_tokens': expected more than 'thinking.budget_tokens'.",
            "max_tokens",
            "invalid_value",
        )
