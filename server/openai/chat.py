"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from edge_llm.api.chat import ChatCall
from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.answer import Piece
from edge_llm.server.body import read_json
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import invalid
from edge_llm.server.openai.choices import Choices, finite, token_name, top_of
from edge_llm.server.openai.replies import ChatCompletion, ChatCompletionChunk
from edge_llm.server.openai.schemas import ChatMessage, ChatRequest
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import Prepared, Reply
from edge_llm.server.requests.params import sampling_params
from edge_llm.server.requests.validation import check_sampling, validate
from edge_llm.server.service import Service
from edge_llm.tokenizers.tokenizer import Tokenizer


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
        body = await read_json(http, options.max_body)
        request, ignored = validate(ChatRequest, body, strict=options.strict)
        _check(request)
        model = service.model(request.model)
        n = request.n or 1

        def prepare() -> Prepared:
            call = ChatCall(
                messages=[_message(message) for message in request.messages],
                template_variables=request.chat_template_kwargs or {},
            )
            top = (request.top_logprobs or 0) if request.logprobs else None
            params = sampling_params(model, request, top_logprobs=top)
            jobs = model.chat_jobs(call, params, n)
            writer = ChatWriter(model.tokenizer, logprobs=bool(request.logprobs))
            return Prepared(jobs, Choices(writer, request, model.name, n), n)

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


class ChatWriter:
    """Writes choices as chat messages; see `ChoiceWriter`."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    part = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs

    def opening(self, choice: int) -> dict[str, Any] | None:
        return _chunk_choice(choice, {"role": "assistant", "content": "", "refusal": None}, None)

    def grown(self, piece: Piece) -> dict[str, Any] | None:
        logprobs = self._content_logprobs([piece])
        if not (piece.text or piece.finish_reason or (logprobs and logprobs["content"])):
            return None
        content = {"content": piece.text} if piece.text or not piece.finish_reason else {}
        return _chunk_choice(piece.choice, content, piece.finish_reason, logprobs)

    def collected(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        return {
            "index": choice,
            "message": {
                "role": "assistant",
                "content": "".join(piece.text for piece in pieces),
                "refusal": None,
            },
            "logprobs": self._content_logprobs(pieces),
            "finish_reason": pieces[-1].finish_reason,
        }

    def _content_logprobs(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        content = [
            self._entry(token, scores)
            for piece in pieces
            for token, scores in zip(piece.token_ids, piece.logprobs or (), strict=False)
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprobs: TokenLogprobs) -> dict[str, Any]:
        top = [self._token(other, logprob) for other, logprob in top_of(logprobs)]
        return {**self._token(token, finite(logprobs.logprob)), "top_logprobs": top}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text, data = token_name(self._tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(data)}


def _chunk_choice(
    index: int,
    delta: dict[str, Any],
    finish_reason: str | None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _check(request: ChatRequest) -> None:
    check_sampling(request, least_tokens=1)
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    for index, message in enumerate(request.messages):
        if message.content is None and message.role != "assistant":
            param = f"messages[{index}].content"
            raise invalid(
                f"Invalid type for '{param}': expected a string or an array.",
                param,
                "invalid_type",
            )


def _message(message: ChatMessage) -> dict[str, str]:
    # "developer" is the newer name of "system", which templates know.
    role = "system" if message.role == "developer" else message.role
    name = {} if message.name is None else {"name": message.name}
    return {"role": role, "content": message.text, **name}
