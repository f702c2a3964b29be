"""A recorded session of a coding client over ``/v1/responses``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixtures_marked import Marked

SESSION = json.loads((Path(__file__).parent / "sessions" / "coding_responses.json").read_text())


def kept(item: dict[str, Any]) -> dict[str, Any]:
    """What such a client sends back of an item: no ids but those of calls, and of what was thought
    the sealed form."""
    unsent = {"id", "status"} | ({"content"} if item["type"] == "reasoning" else set())
    return {name: value for name, value in item.items() if name not in unsent}


def test_a_coding_session(client: Any, model: Any) -> None:
    model.parser = Marked
    history: list[dict[str, Any]] = []
    for turn in SESSION["turns"]:
        for item in turn["input"]:
            if item["type"] == "function_call_output":
                item["call_id"] = history[-1]["call_id"]
        history += turn["input"]
        model.answer = turn["says"]
        reply = client.post("/v1/responses", json=SESSION["request"] | {"input": history})
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-edge-llm-ignored"] == "client_metadata"
        told = [
            json.loads(line.removeprefix("data: "))
            for line in reply.text.splitlines()
            if line.startswith("data: ")
        ]
        assert told[-1]["type"] == "response.completed"
        items = [e["item"] for e in told if e["type"] == "response.output_item.done"]
        for item, expected in zip(items, turn["output"], strict=True):
            assert expected.items() <= item.items()
        history += [kept(item) for item in items]
    last = [(m["role"], m["content"], m.get("reasoning_content")) for m in model.calls[-1].messages]
    assert last == [
        (
            "system",
            "You are a coding agent in a terminal. Use the tools; be precise.\n\n"
            "Commands run in a sandbox without network.",
            None,
        ),
        (
            "user",
            "<environment_context>\n  <cwd>/home/me/project</cwd>\n</environment_context>",
            None,
        ),
        ("user", "What does README.md say?", None),
        ("assistant", None, None),
        ("tool", SESSION["turns"][1]["input"][0]["output"], None),
        ("assistant", "It says: A small project.", None),
        ("user", "The capital of France? Think step by step.", None),
        ("assistant", "Paris", "Let me see."),
        ("user", "Thanks.", None),
    ]
