"""``POST /v1/responses``, and the responses that are stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from edge_llm.errors import RequestError
from edge_llm.runner.generation.answer import Piece
from edge_llm.server.body import read_request
from edge_llm.server.documentation.operation import documented
from edge_llm.server.errors import ApiError, invalid
from edge_llm.server.openai.choices import finite, token_name, top_of
from edge_llm.server.openai.responses.call import call_of, check, conversation_of, cuts, refusal
from edge_llm.server.openai.responses.conversation import Item
from edge_llm.server.openai.responses.output import Output
from edge_llm.server.openai.responses.replies import (
    DeletedResponse,
    ItemList,
    ResponseEvent,
    ResponseObject,
)
from edge_llm.server.openai.responses.schemas import (
    ENCRYPTED_REASONING,
    LOGPROBS,
    REFUSED,
    ResponsesRequest,
)
from edge_llm.server.openai.responses.shape import ResponseShape, head_of
from edge_llm.server.openai.responses.store import ResponseStore, Stored, size_of
from edge_llm.server.options import ServerOptions
from edge_llm.server.reply import Prepared, Reply
from edge_llm.server.requests.params import sampling_params
from edge_llm.server.service import Service
from edge_llm.tokenizers.tokenizer import Tokenizer

MAX_LISTED = 100


def responses_router(service: Service, options: ServerOptions, store: ResponseStore) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/responses",
        **documented(
            "Answer a conversation of items",
            "responses",
            body=ResponsesRequest,
            reply=ResponseObject,
            stream=ResponseEvent,
        ),
    )
    async def create_response(http: Request) -> Response:
        request, ignored = await read_request(ResponsesRequest, http, options, unsupported=REFUSED)
        check(request)
        model = await service.model(request.model)
        cut = cuts(request, model)

        def prepare() -> Prepared:
            conversation = conversation_of(request, store, options.instance)
            input_size = _sizes({"input": conversation})
            include = request.include or ()
            scored = LOGPROBS in include or bool(request.top_logprobs)
            params = sampling_params(
                model,
                request,
                max_tokens=request.max_output_tokens,
                top_logprobs=(request.top_logprobs or 0) if scored else None,
            )
            head = head_of(request, params, model.name, cuts=cut, instance=options.instance)
            _sizes(head)
            call = call_of(request, conversation, cut=cut)
            try:
                jobs = model.chat_jobs(call, params, 1)
            except RequestError as exc:
                raise refusal(exc, request) from exc
            output = Output(
                partial(_logprobs, model.tokenizer),
                summary=head["reasoning"]["summary"] is not None,
                encrypted=ENCRYPTED_REASONING in include,
                instance=options.instance,
            )

            def keep(response: dict[str, Any]) -> None:
                if request.store is not False:
                    store.put(Stored(response, conversation, input_size))

            return Prepared(jobs, ResponseShape(head, output, keep))

        return await Reply(
            service=service,
            model=model,
            choices=1,
            stream=bool(request.stream),
            prompt_field="input",
            prepare=prepare,
            ignored=ignored,
        ).respond(http)

    _stored_routes(router, store)
    return router


def _stored_routes(router: APIRouter, store: ResponseStore) -> None:
    about = {"response_id": "the id of a stored response"}

    def stored(response_id: str) -> Stored:
        found = store.get(response_id)
        if found is None:
            raise _not_found()
        return found

    @router.get(
        "/responses/{response_id}",
        **documented("A stored response", "responses", reply=ResponseObject, parameters=about),
    )
    async def get_response(response_id: str, http: Request) -> dict[str, Any]:
        if http.query_params.get("stream") == "true":
            raise invalid(
                "Stored responses cannot be streamed again.", "stream", "unsupported_value"
            )
        return stored(response_id).response

    @router.delete(
        "/responses/{response_id}",
        **documented("Forget a response", "responses", reply=DeletedResponse, parameters=about),
    )
    async def delete_response(response_id: str) -> dict[str, Any]:
        if not store.delete(response_id):
            raise _not_found()
        return {"id": response_id, "object": "response", "deleted": True}

    @router.get(
        "/responses/{response_id}/input_items",
        **documented(
            "The items that a response answers, of its earlier turns too",
            "responses",
            reply=ItemList,
            parameters=about,
        ),
    )
    async def list_input_items(response_id: str, http: Request) -> dict[str, Any]:
        query = http.query_params
        limit, order = query.get("limit", "20"), query.get("order", "desc")
        if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_LISTED:
            raise invalid(f"Invalid 'limit': expected 1 to {MAX_LISTED}.", "limit", "invalid_value")
        if order not in ("asc", "desc"):
            raise invalid("Invalid 'order': expected asc or desc.", "order", "invalid_value")
        items = stored(response_id).input
        return _page(items if order == "asc" else items[::-1], query.get("after"), int(limit))


def _page(items: tuple[Item, ...], after: str | None, limit: int) -> dict[str, Any]:
    if after is not None:
        at = next((i for i, item in enumerate(items) if item["id"] == after), None)
        if at is None:
            raise invalid("Invalid 'after': expected the id of an item.", "after", "invalid_value")
        items = items[at + 1 :]
    page = items[:limit]
    return {
        "object": "list",
        "data": list(page),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > limit,
    }


def _sizes(fields: Mapping[str, Any]) -> int:
    """Return the bytes of what a response repeats of a request.

    Raises:
        ApiError: 400: a field has what cannot be repeated.
    """
    size = 0
    for name, value in fields.items():
        try:
            size += size_of(value)
        except UnicodeEncodeError as exc:
            raise invalid(
                f"Invalid '{name}': expected Unicode text, without lone surrogates.",
                name,
                "invalid_value",
            ) from exc
    return size


def _not_found() -> ApiError:
    return ApiError(
        404, "No such response is stored here (any more).", param="response_id", code="not_found"
    )


def _logprobs(tokenizer: Tokenizer, piece: Piece) -> list[dict[str, Any]]:
    """Return the log-probabilities of a piece's tokens."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text, data = token_name(tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(data)}

    return [
        entry(token, finite(scores.logprob))
        | {"top_logprobs": [entry(other, logprob) for other, logprob in top_of(scores)]}
        for token, scores in piece.scored()
    ]
