"""``POST /api/chat`` and ``POST /api/generate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_llm.errors import ContextLengthError
from edge_llm.runner.generation.loop import Job
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import LINES, documented
from edge_llm.server.errors import invalid
from edge_llm.server.models.duration import keep_seconds
from edge_llm.server.models.model import Model
from edge_llm.server.ollama.conversation import chat_of, chat_of_prompt, grammar_of, params_of
from edge_llm.server.ollama.lines import Kind, LineShape, nothing
from edge_llm.server.ollama.names import choice_of, model_of
from edge_llm.server.ollama.replies import ChatLine, GenerateLine
from edge_llm.server.ollama.schemas import Asking, ChatRequest, GenerateRequest
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import Prepared, Reply, ignored_header
from edge_llm.server.service import Service


def generating_router(service: Service, options: ServerOptions) -> APIRouter:
    """Return the routes of Ollama's API that generate."""
    router = APIRouter()

    @router.post(
        "/api/chat",
        **documented(
            "Answer a conversation",
            "ollama",
            body=ChatRequest,
            reply=ChatLine,
            stream=ChatLine,
            stream_media=LINES,
        ),
    )
    async def chat(http: Request) -> Response:
        request, ignored = await read_request(ChatRequest, http, options)
        if not request.messages and _unloads(request):
            return await _unload(service, "chat", request, ignored)
        model = await model_of(service, request.model, request.keep_alive)
        ignored = _checked(request, model, ignored, strict=options.strict)
        if not request.messages:
            return _nothing("chat", model.name, "load", ignored)
        shape = _shape("chat", model, request)

        def prepare() -> Prepared:
            return Prepared(model.chat_jobs(chat_of(request), params_of(model, request), 1), shape)

        return await Reply(
            service=service,
            model=model,
            choices=1,
            stream=request.stream is not False,
            prompt_field="messages",
            prepare=prepare,
            ignored=ignored,
        ).respond(http)

    @router.post(
        "/api/generate",
        **documented(
            "Answer a prompt, or continue one",
            "ollama",
            body=GenerateRequest,
            reply=GenerateLine,
            stream=GenerateLine,
            stream_media=LINES,
        ),
    )
    async def generate(http: Request) -> Response:
        request, ignored = await read_request(GenerateRequest, http, options)
        _check_raw(request)
        if not request.prompt and _unloads(request):
            return await _unload(service, "generate", request, ignored)
        model = await model_of(service, request.model, request.keep_alive)
        ignored = _checked(request, model, ignored, strict=options.strict)
        if not request.prompt:
            return _nothing("generate", model.name, "load", ignored)
        shape = _shape("generate", model, request)

        def prepare() -> Prepared:
            return Prepared(_jobs(model, request), shape)

        return await Reply(
            service=service,
            model=model,
            choices=1,
            stream=request.stream is not False,
            prompt_field="prompt",
            prepare=prepare,
            ignored=ignored,
        ).respond(http)

    return router


def _jobs(model: Model, request: GenerateRequest) -> list[Job]:
    params = params_of(model, request)
    if not request.raw:
        return model.chat_jobs(chat_of_prompt(request), params, 1)
    jobs = model.prompt_jobs([request.prompt], params)
    for job in jobs:
        if request.truncate is False and job.report is not None:
            length = len(job.prompt_ids) + job.report.dropped_prompt_tokens
            raise ContextLengthError(model.context, length, param="prompt")
    grammar = grammar_of(request)
    return jobs if grammar is None else model.guided(jobs, grammar, "format")


def _unloads(request: Asking) -> bool:
    return request.keep_alive is not None and keep_seconds(request.keep_alive) == 0


async def _unload(
    service: Service, kind: Kind, request: Asking, ignored: Sequence[str]
) -> JSONResponse:
    choice = choice_of(service, request.model)
    if choice.offer.pinned:
        raise invalid(f"The model '{choice.name}' is pinned: it is never unloaded.", "keep_alive")
    await service.shelf.unload(choice.offer)
    return _nothing(kind, choice.name, "unload", ignored)


def _nothing(
    kind: Kind, name: str, done: Literal["load", "unload"], ignored: Sequence[str]
) -> JSONResponse:
    return JSONResponse(nothing(kind, name, done), headers=ignored_header(ignored))


def _shape(kind: Kind, model: Model, request: Asking) -> LineShape:
    return LineShape(
        kind, model=model.name, tokenizer=model.tokenizer, logprobs=bool(request.logprobs)
    )


def _checked(request: Asking, model: Model, ignored: list[str], *, strict: bool) -> list[str]:
    """Check what the fields mean together; return the names of those that are ignored."""
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    wanted = request.options.num_ctx if request.options is not None else None
    if wanted is None or wanted <= model.context:
        return ignored
    name = "options.num_ctx"
    if strict:
        raise invalid(
            f"Invalid '{name}': expected at most {model.context}, the context of the server.",
            name,
            "integer_above_max_value",
        )
    return [*ignored, name]


def _check_raw(request: GenerateRequest) -> None:
    if not request.raw:
        return
    for name in ("system", "think"):
        if getattr(request, name):
            raise invalid(f"'{name}' is not supported together with 'raw'.", name)
