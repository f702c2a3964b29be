"""The session of a coding client that `tests/server/test_responses_session.py` replays too: here on
the whole server, by the transport of the official client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
from openai.types.responses import Response, ResponseStreamEvent

SESSION = json.loads(
    (Path(__file__).parents[1] / "server" / "sessions" / "coding_responses.json").read_text(
        encoding="utf-8"
    )
)


def test_a_coding_session(scripted: Any) -> None:
    client = openai.OpenAI(base_url=scripted.openai, api_key="unused", max_retries=0)
    history: list[dict[str, Any]] = []
    cached = []
    for turn in SESSION["turns"]:
        for item in turn["input"]:
            if item["type"] == "function_call_output":
                item["call_id"] = history[-1]["call_id"]
        history += turn["input"]
        stream = client.post(
            "/responses",
            body=SESSION["request"] | {"input": history},
            stream=True,
            stream_cls=openai.Stream[ResponseStreamEvent],
            cast_to=Response,
        )
        told = list(stream)
        assert told[-1].type == "response.completed"
        items = [e.item.to_dict() for e in told if e.type == "response.output_item.done"]
        for item, expected in zip(items, turn["output"], strict=True):
            assert expected.items() <= item.items()
        usage = told[-1].response.usage
        assert usage
        cached.append(usage.input_tokens_details.cached_tokens)
        history += [kept(item) for item in items]
    # What was said before is not computed again.
    assert cached[1] > 0


def kept(item: dict[str, Any]) -> dict[str, Any]:
    unsent = {"id", "status"} | ({"content"} if item["type"] == "reasoning" else set())
    return {name: value for name, value in item.items() if name not in unsent}
