"""``POST /v1/completions``: the legacy route, in its own shape."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from edge_llm.server.body import read_json
from edge_llm.server.errors import invalid, translate
from edge_llm.server.generation import Delta
from edge_llm.server.options import ServerOptions
from edge_llm.server.replies import Answer, finite, sampling_jobs, token_name, top_of
from edge_llm.server.schemas import MAX_CHOICES, CompletionRequest
from edge_llm.server.service import Service
from edge_llm.server.validation import check_stream_options, validate
from edge_llm.tokenizers.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16  # of the legacy API


def completions_router(service: Service, options: ServerOptions) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/completions", response_model=None)
    async def completions(http: Request) -> Response:
        body = await read_json(http, options.max_body)
        request, ignored = validate(CompletionRequest, body, strict=options.strict)
        _check(request)
        model = service.model(request.model)
        try:
            prompts = await asyncio.to_thread(_encode, model.tokenizer, request.prompt)
            jobs = sampling_jobs(
                model,
                request,
                prompts,
                max_tokens=request.max_tokens or DEFAULT_MAX_TOKENS,
                top_logprobs=request.logprobs,
            )
        except Exception as exc:
            raise translate(exc, "prompt") from exc
        n = request.n or 1
        echoes = [
            _text(model.tokenizer, prompt) if request.echo else "" for prompt in request.prompt
        ]
        shape = CompletionShape(
            model.tokenizer,
            [echo for echo in echoes for _ in range(n)],
            logprobs=request.logprobs,
        )
        return await Answer(service, model, request, jobs, shape, ignored).respond(http)

    return router


class CompletionShape:
    """Choices as text; see `replies.Shape`. ``echoes``: what comes before each choice's text.
    ``logprobs``: how many alternatives, None: none at all."""

    prefix = "cmpl"
    whole = "text_completion"
    part = "text_completion"
    prompt_field = "prompt"

    def __init__(
        self, tokenizer: Tokenizer, echoes: Sequence[str], *, logprobs: int | None
    ) -> None:
        self._tokenizer = tokenizer
        self._echoes = echoes
        self._logprobs = logprobs
        self._offsets = [_Offset(len(echo)) for echo in echoes]

    def opening(self, choice: int) -> dict[str, Any] | None:
        echo = self._echoes[choice]
        return _choice(choice, echo, None, None) if echo else None

    def grown(self, delta: Delta) -> dict[str, Any] | None:
        logprobs = self._legacy_logprobs(delta.choice, [delta])
        if not (delta.text or delta.finish_reason or (logprobs and logprobs["tokens"])):
            return None
        return _choice(delta.choice, delta.text, logprobs, delta.finish_reason)

    def collected(self, choice: int, deltas: Sequence[Delta]) -> dict[str, Any]:
        text = self._echoes[choice] + "".join(delta.text for delta in deltas)
        logprobs = self._legacy_logprobs(choice, deltas)
        return _choice(choice, text, logprobs, deltas[-1].finish_reason)

    def _legacy_logprobs(self, choice: int, deltas: Sequence[Delta]) -> dict[str, Any] | None:
        if self._logprobs is None:
            return None
        tokens: list[str] = []
        token_logprobs: list[float] = []
        tops: list[dict[str, float]] = []
        offsets: list[int] = []
        for delta in deltas:
            if delta.token is None or delta.logprobs is None:
                continue
            name, data = token_name(self._tokenizer, delta.token)
            logprob = finite(delta.logprobs.logprob)
            tokens.append(name)
            token_logprobs.append(logprob)
            top = {
                token_name(self._tokenizer, other)[0]: value
                for other, value in top_of(delta.logprobs)
            }
            tops.append(top | {name: logprob})
            offsets.append(self._offsets[choice].advance(data))
        return {
            "tokens": tokens,
            "token_logprobs": token_logprobs,
            "top_logprobs": tops if self._logprobs else None,
            "text_offset": offsets,
        }


class _Offset:
    """Where each token begins in the text, in characters, across tokens that split one."""

    def __init__(self, start: int) -> None:
        self._characters = start
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def advance(self, data: bytes) -> int:
        """The offset of the token with these bytes, which follows those before."""
        start = self._characters
        self._characters += len(self._decoder.decode(data))
        return start


def _choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _check(request: CompletionRequest) -> None:
    check_stream_options(request)
    choices = len(request.prompt) * (request.n or 1)
    if choices > MAX_CHOICES:
        raise invalid(
            f"Invalid 'n': the prompts ask for {choices} choices together, at most {MAX_CHOICES} "
            "are allowed.",
            "n",
            "integer_above_max_value",
        )
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise invalid("'best_of' is not supported beyond 'n'.", "best_of", "unsupported_value")
    if request.echo and request.logprobs is not None:
        raise invalid(
            "'logprobs' of an echoed prompt are not supported.", "logprobs", "unsupported_value"
        )


def _encode(tokenizer: Tokenizer, prompts: Sequence[str | list[int]]) -> list[list[int]]:
    return [tokenizer.encode(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]


def _text(tokenizer: Tokenizer, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
