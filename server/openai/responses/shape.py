"""The reply of ``/v1/responses``: one object, whole or told in events."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.sampling import SamplingParams
from edge_llm.server.errors import ApiError, error_body
from edge_llm.server.openai.responses.output import Event, Output, Status
from edge_llm.server.openai.responses.schemas import ResponsesRequest
from edge_llm.server.reply import event
from edge_llm.server.tally import Tally

Keep = Callable[[dict[str, Any]], None]


class ResponseShape:
    """Writes an answer as a response; see `edge_llm.server.reply.Shape`.

    Args:
        head: what the response says before it is answered (`head_of`).
        keep: is given the response once it is whole, before the client hears of that.
    """

    media_type = "text/event-stream"

    def __init__(self, head: Mapping[str, Any], output: Output, keep: Keep) -> None:
        self._head = head
        self._output = output
        self._keep = keep
        self._sequence = 0
        self._finish_reason: str | None = None

    def begin(self) -> Iterable[bytes]:
        for name in ("created", "in_progress"):
            yield self._event({"type": f"response.{name}", "response": self._response()})

    def piece(self, piece: Piece, tally: Tally) -> Iterable[bytes]:
        return map(self._event, self._grow(piece))

    def end(self, tally: Tally) -> Iterable[bytes]:
        yield from map(self._event, self._output.finish(self._status))
        response = self._whole(tally)
        yield self._event({"type": f"response.{self._status}", "response": response})

    def failed(self, error: ApiError) -> bytes:
        code = "rate_limit_exceeded" if error.status == 429 else "server_error"
        failure = {"code": code, "message": error.message}
        response = self._response() | {"status": "failed", "error": failure}
        # The API has flat errors here; clients end a stream on a member ``error``, as elsewhere.
        told = {
            "type": "error",
            "code": error.code,
            "message": error.message,
            "param": error.param,
            **error_body(error),
        }
        return self._event({"type": "response.failed", "response": response}) + self._event(told)

    def collected(self, choices: Sequence[Sequence[Piece]], tally: Tally) -> dict[str, Any]:
        for piece in choices[0]:
            deque(self._grow(piece), maxlen=0)
        deque(self._output.finish(self._status), maxlen=0)
        return self._whole(tally)

    def _grow(self, piece: Piece) -> Iterator[Event]:
        self._finish_reason = piece.finish_reason or self._finish_reason
        return self._output.grow(piece)

    @property
    def _status(self) -> Status:
        return "incomplete" if self._finish_reason == "length" else "completed"

    def _response(self) -> dict[str, Any]:
        return {**self._head, "status": "in_progress", "output": self._output.items}

    def _whole(self, tally: Tally) -> dict[str, Any]:
        status = self._status
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        response = self._response() | {
            "status": status,
            "completed_at": int(time.time()) if status == "completed" else None,
            "incomplete_details": incomplete,
            "usage": usage_of(tally),
            "timings": tally.timings(),
            **tally.context(),
        }
        self._keep(response)
        return response

    def _event(self, data: Event) -> bytes:
        self._sequence += 1
        return event({**data, "sequence_number": self._sequence - 1}, data["type"])


def usage_of(tally: Tally) -> dict[str, Any]:
    """Return the usage by the names of this route."""
    usage = tally.usage()
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,  # nothing is charged for them
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {
            "reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"]
        },
        "total_tokens": usage["total_tokens"],
    }


def head_of(
    request: ResponsesRequest,
    params: SamplingParams,
    model: str,
    *,
    cuts: bool,
    instance: str = "",
) -> dict[str, Any]:
    """Return what a response says whatever its answer is: most of the request; ``cuts``: a
    conversation that is too long loses a part. Its id has 48 hexadecimal digits, the first of them
    ``instance``."""
    given = request.model_dump(
        include={"text", "tools", "tool_choice"}, by_alias=True, exclude_none=True
    )
    reasoning = request.reasoning
    text = {"format": {"type": "text"}} | given.get("text", {})
    return {
        "id": f"resp_{instance}{secrets.token_hex(24)}"[:53],
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": params.max_tokens,
        "metadata": request.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": (reasoning.summary or reasoning.generate_summary) if reasoning else None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": params.temperature,
        "text": text,
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": given.get("tools", []),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": "auto" if cuts else "disabled",
        "usage": None,
        "user": request.user,
    }
