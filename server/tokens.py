"""``POST /tokenize`` and ``/detokenize``, and ``GET /tokenizer_info``."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_llm.api.chat import ChatCall
from edge_llm.api.prompts import encode_prompt
from edge_llm.runner.sampling import INT32_MAX
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import invalid, translate
from edge_llm.server.gate.exchange import CLIENT_GONE
from edge_llm.server.generation import ClientGoneError
from edge_llm.server.models.model import Model
from edge_llm.server.openai.messages import Messages, check_messages, told
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import ignored_header
from edge_llm.server.requests.sampling import Integer, bounded_variables
from edge_llm.server.requests.tools import Tools, calling
from edge_llm.server.service import Service
from edge_llm.server.vectors import Encode, served
from edge_llm.tokenizers.tokenizer import Tokenizer

MAX_TOKENS = 2**20


class TokenizeRequest(BaseModel):
    """A text, or a conversation as the chat template writes it."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: Annotated[
        bool | None, Field(description="BOS before a text where the model wants one; the default")
    ] = None
    tools: Tools | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: Annotated[dict[str, Any], BeforeValidator(bounded_variables)] | None = (
        None
    )
    return_token_strs: bool | None = None


class TokenizeReply(BaseModel):
    """Token ids, and how many fit the model."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: Annotated[list[str] | None, Field(description="where asked for")] = None


class DetokenizeRequest(BaseModel):
    """Token ids."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    tokens: Annotated[
        list[Annotated[Integer, Field(ge=0, le=INT32_MAX)]],
        Field(max_length=MAX_TOKENS, fail_fast=True),
    ]


class DetokenizeReply(BaseModel):
    """The text of token ids, control tokens as they are written."""

    prompt: str


class TokenizerInfo(BaseModel):
    """What clients know a tokenizer by that encode through ``/tokenize``: how the tokens are
    written that begin and end a text (null where there is none), and the chat template."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


def tokens_router(service: Service, options: ServerOptions) -> APIRouter:
    """Return the routes between texts and token ids."""
    router = APIRouter()

    @router.post(
        "/tokenize",
        **documented(
            "Token ids of a text or a conversation",
            "tokens",
            body=TokenizeRequest,
            reply=TokenizeReply,
        ),
    )
    async def tokenize(http: Request) -> Response:
        request, ignored = await read_request(TokenizeRequest, http, options)
        _check(request)
        model = await service.model(request.model)

        async def work(encode: Encode) -> dict[str, Any]:
            return await encode(lambda: _tokenized(model, request))

        field = "messages" if request.prompt is None else "prompt"
        return await _replied(served(service, model, work, http), field, ignored)

    @router.post(
        "/detokenize",
        **documented(
            "The text of token ids", "tokens", body=DetokenizeRequest, reply=DetokenizeReply
        ),
    )
    async def detokenize(http: Request) -> Response:
        request, ignored = await read_request(DetokenizeRequest, http, options)
        model = await service.model(request.model)
        size = model.tokenizer.facts.size
        for index, token in enumerate(request.tokens):
            if token >= size:
                param = f"tokens[{index}]"
                raise invalid(f"Invalid '{param}': expected a token id.", param, "invalid_value")

        async def work(encode: Encode) -> dict[str, Any]:
            text = await encode(lambda: model.tokenizer.decode(request.tokens, skip_specials=False))
            return {"prompt": text}

        return await _replied(served(service, model, work, http), "tokens", ignored)

    @router.get(
        "/tokenizer_info",
        **documented("The marks of a tokenizer", "tokens", reply=TokenizerInfo),
    )
    async def tokenizer_info(model: str | None = None) -> dict[str, Any]:
        found = await service.model(model)
        facts = found.tokenizer.facts
        return {
            "bos_token": _written(found.tokenizer, facts.bos_id),
            "eos_token": _written(found.tokenizer, facts.eos_id),
            "pad_token": None,
            "chat_template": found.about.chat_template,
        }

    return router


def _written(tokenizer: Tokenizer, token: int | None) -> str | None:
    return None if token is None else tokenizer.decode([token], skip_specials=False)


async def _replied(
    work: Coroutine[Any, Any, dict[str, Any]], field: str, ignored: Sequence[str]
) -> Response:
    try:
        return JSONResponse(await work, headers=ignored_header(ignored))
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    except Exception as exc:
        raise translate(exc, field) from exc


def _check(request: TokenizeRequest) -> None:
    if request.prompt is None and request.messages is None:
        raise invalid(
            "Missing required parameter: 'prompt'.", "prompt", "missing_required_parameter"
        )
    if request.messages is not None:
        if request.prompt is not None:
            raise invalid("'messages' cannot be given together with 'prompt'.", "messages")
        check_messages(request.messages)


def _tokenized(model: Model, request: TokenizeRequest) -> dict[str, Any]:
    ids = _ids(model, request)
    found = {"tokens": ids, "count": len(ids), "max_model_len": model.context}
    if request.return_token_strs:
        names = (model.tokenizer.token_bytes(token) for token in ids)
        found["token_strs"] = [name.decode(errors="replace") for name in names]
    return found


def _ids(model: Model, request: TokenizeRequest) -> list[int]:
    if request.prompt is not None:
        if request.add_special_tokens is False:
            return model.tokenizer.encode(request.prompt, add_bos=False, specials=True)
        return encode_prompt(model.tokenizer, request.prompt, INT32_MAX)
    call = ChatCall(
        messages=told(request.messages or ()),
        tools=calling(request.tools, None).tools,
        add_generation_prompt=request.add_generation_prompt is not False,
        continue_final_message=bool(request.continue_final_message),
        template_variables=request.chat_template_kwargs or {},
        cut=False,
    )
    [job] = model.chat_jobs(call, model.default_params())
    return list(job.prompt_ids)
