"""``POST /v1/completions``: the legacy route, in its own shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from edge_llm.runner.executor import TokenLogprobs
from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.sampling import MAX_CHOICES
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import invalid
from edge_llm.server.openai.choices import Choices, finite, token_name, top_of
from edge_llm.server.openai.replies import Completion, CompletionChunk
from edge_llm.server.openai.schemas import CompletionRequest
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import Prepared, Reply
from edge_llm.server.requests.params import sampling_params
from edge_llm.server.requests.structured import form_of, guided
from edge_llm.server.requests.validation import check_sampling
from edge_llm.server.service import Service
from edge_llm.tokenizers.stream import TextDecoder
from edge_llm.tokenizers.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16  # of the legacy API


def completions_router(service: Service, options: ServerOptions) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/completions",
        **documented(
            "Continue texts",
            "completions",
            body=CompletionRequest,
            reply=Completion,
            stream=CompletionChunk,
        ),
    )
    async def completions(http: Request) -> Response:
        request, ignored = await read_request(CompletionRequest, http, options)
        _check(request)
        model = await service.model(request.model)
        n = request.n or 1
        choices = len(request.prompt) * n

        def prepare() -> Prepared:
            form = form_of(request)
            params = sampling_params(
                model,
                request,
                max_tokens=request.sampling().get("max_tokens", DEFAULT_MAX_TOKENS),
                top_logprobs=request.logprobs,
                prompt_logprobs=request.logprobs if request.echo else None,
            )
            jobs = model.prompt_jobs(request.prompt, params, n)
            if form is not None:
                jobs = guided(model, jobs, form)
            echoes = [
                Echo(
                    job.prompt_ids,
                    request.prompt[i // n] if job.report is None else list(job.prompt_ids),
                    shown=bool(request.echo),
                )
                for i, job in enumerate(jobs)
            ]
            writer = CompletionWriter(
                model.tokenizer,
                echoes,
                logprobs=request.logprobs,
                specials=not jobs[0].params.skip_special_tokens,
            )
            return Prepared(jobs, Choices(writer, request, model, choices), n)

        return await Reply(
            service=service,
            model=model,
            choices=choices,
            stream=bool(request.stream),
            prompt_field="prompt",
            prepare=prepare,
            ignored=ignored,
        ).respond(http)

    return router


@dataclass(frozen=True, slots=True)
class Echo:
    """The prompt before a choice's text: its ids, what the request has of it, and whether it is to
    be shown."""

    ids: Sequence[int]
    prompt: str | list[int]
    shown: bool

    def text(self, tokenizer: Tokenizer) -> str:
        """Return what is shown."""
        if not self.shown:
            return ""
        return self.prompt if isinstance(self.prompt, str) else tokenizer.decode(self.prompt)

    def offsets(self, tokenizer: Tokenizer) -> Iterable[int]:
        """Yield where each token begins in what is shown: control tokens have text where the prompt
        was written, but for a BOS that was not."""
        written = isinstance(self.prompt, str)
        offset = _Offset(tokenizer, 0, (), specials=written)
        ids = iter(self.ids)
        bos = tokenizer.facts.bos_id
        if isinstance(self.prompt, str) and bos is not None and next(iter(self.ids), None) == bos:
            added = not self.prompt.startswith(tokenizer.token_bytes(bos).decode())
            if added and next(ids, None) is not None:
                yield 0
        yield from map(offset.advance, ids)


class CompletionWriter:
    """Writes choices as text; see `ChoiceWriter`. ``echoes`` come before each choice's text, with
    its own log-probabilities. ``logprobs``: how many alternatives, None: none at all. ``specials``:
    control tokens of the answer are shown."""

    prefix = "cmpl"
    whole = "text_completion"
    part = "text_completion"

    def __init__(
        self,
        tokenizer: Tokenizer,
        echoes: Sequence[Echo],
        *,
        logprobs: int | None,
        specials: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._echoes = echoes
        self._texts = [echo.text(tokenizer) for echo in echoes]
        self._logprobs = logprobs
        self._offsets = [
            _Offset(tokenizer, len(text), echo.ids, specials=specials)
            for echo, text in zip(echoes, self._texts, strict=True)
        ]

    def opening(self, choice: int) -> dict[str, Any] | None:
        echo = self._texts[choice]
        # With log-probabilities it comes when they do.
        return _choice(choice, echo, None, None) if echo and self._logprobs is None else None

    def grown(self, piece: Piece) -> Iterable[dict[str, Any]]:
        logprobs = self._legacy_logprobs(piece.choice, [piece])
        if piece.prompt_logprobs is not None:
            yield _choice(piece.choice, self._texts[piece.choice], logprobs, None)
        elif piece.text or piece.finish_reason or (logprobs and logprobs["tokens"]):
            yield _choice(piece.choice, piece.text, logprobs, piece.finish_reason)

    def collected(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any]:
        text = self._texts[choice] + "".join(piece.text for piece in pieces)
        logprobs = self._legacy_logprobs(choice, pieces)
        return _choice(choice, text, logprobs, pieces[-1].finish_reason)

    def _legacy_logprobs(self, choice: int, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if self._logprobs is None:
            return None
        tokens: list[str] = []
        token_logprobs: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        offsets: list[int] = []
        for token, logprobs, offset in self._scored(choice, pieces):
            name, _ = token_name(self._tokenizer, token)
            tokens.append(name)
            offsets.append(offset)
            if logprobs is None:  # the first token of a prompt: it follows nothing
                token_logprobs.append(None)
                tops.append(None)
                continue
            logprob = finite(logprobs.logprob)
            token_logprobs.append(logprob)
            top = {
                token_name(self._tokenizer, other)[0]: value for other, value in top_of(logprobs)
            }
            tops.append(top | {name: logprob})
        return {
            "tokens": tokens,
            "token_logprobs": token_logprobs,
            "top_logprobs": tops if self._logprobs else None,
            "text_offset": offsets,
        }

    def _scored(
        self, choice: int, pieces: Sequence[Piece]
    ) -> Iterable[tuple[int, TokenLogprobs | None, int]]:
        """Yield the tokens of prompt and answer, their log-probabilities, and where they begin."""
        for piece in pieces:
            if piece.prompt_logprobs is not None:
                echo = self._echoes[choice]
                yield from zip(
                    echo.ids, piece.prompt_logprobs, echo.offsets(self._tokenizer), strict=True
                )
            for token, scores in piece.scored():
                yield token, scores, self._offsets[choice].advance(token)


class _Offset:
    """Tells where each token begins in the text, in characters, also where one is split.
    Control tokens have a text where ``specials`` are shown."""

    def __init__(
        self, tokenizer: Tokenizer, start: int, after: Sequence[int], *, specials: bool
    ) -> None:
        self._characters = start
        self._specials = specials
        self._text = TextDecoder(tokenizer, after=after)

    def advance(self, token: int) -> int:
        """Return the offset of a token which follows those before."""
        start = self._characters
        special = self._text.special(token) if self._specials else None
        self._characters += len(self._text.push(token) if special is None else special)
        return start


def _choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _check(request: CompletionRequest) -> None:
    check_sampling(request, least_tokens=0 if request.echo else 1)
    choices = len(request.prompt) * (request.n or 1)
    if choices > MAX_CHOICES:
        raise invalid(
            f"Invalid 'n': the prompts ask for {choices} choices together, at most {MAX_CHOICES} "
            "are allowed.",
            "n",
            "integer_above_max_value",
        )
