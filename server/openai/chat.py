"""``POST /v1/chat/completions``."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from edge_llm.errors import RequestError
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import invalid
from edge_llm.server.openai.chat_call import asked_for
from edge_llm.server.openai.chat_writer import ChatWriter
from edge_llm.server.openai.choices import Choices
from edge_llm.server.openai.messages import check_messages
from edge_llm.server.openai.replies import ChatCompletion, ChatCompletionChunk
from edge_llm.server.openai.schemas import ChatRequest
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import Prepared, Reply
from edge_llm.server.requests.params import sampling_params
from edge_llm.server.requests.validation import check_sampling
from edge_llm.server.service import Service


def chat_router(service: Service, options: ServerOptions) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/chat/completions",
        **documented(
            "Answer a conversation",
            "chat",
            body=ChatRequest,
            reply=ChatCompletion,
            stream=ChatCompletionChunk,
        ),
    )
    async def chat_completions(http: Request) -> Response:
        request, ignored = await read_request(ChatRequest, http, options)
        _check(request)
        model = await service.model(request.model)
        n = request.n or 1

        def prepare() -> Prepared:
            asked = asked_for(request)
            top = (request.top_logprobs or 0) if request.logprobs else None
            params = sampling_params(model, request, top_logprobs=top)
            try:
                jobs = model.chat_jobs(asked.call, params, n)
            except RequestError as exc:
                raise asked.refusal(exc, model, params) from exc
            writer = ChatWriter(
                model.tokenizer, logprobs=bool(request.logprobs), legacy=asked.legacy
            )
            return Prepared(jobs, Choices(writer, request, model, n), n)

        return await Reply(
            service=service,
            model=model,
            choices=n,
            stream=bool(request.stream),
            prompt_field="messages",
            prepare=prepare,
            ignored=ignored,
        ).respond(http)

    return router


def _check(request: ChatRequest) -> None:
    check_sampling(request, least_tokens=1)
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    check_messages(request.messages)
