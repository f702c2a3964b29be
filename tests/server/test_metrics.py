"""``GET /metrics``."""

from __future__ import annotations

from typing import Any

import pytest

CHAT = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}


def figures(client: Any) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_what_is_counted(client: Any) -> None:
    client.post("/v1/chat/completions", json=CHAT | {"n": 2})
    client.post("/v1/chat/completions", json=CHAT | {"n": 0})
    client.get("/v1/models/fake-model")
    client.get("/v1/models/another")
    client.get("/v1/nothing")
    client.request("BREW", "/health")
    told = figures(client)

    def requests(method: str, route: str, status: int) -> float:
        labels = f'method="{method}",route="{route}",status="{status}"'
        return told.get(f"edge_llm_requests_total{{{labels}}}", 0)

    assert requests("POST", "/v1/chat/completions", 200) == 1
    assert requests("POST", "/v1/chat/completions", 400) == 1
    assert requests("GET", "/models/{name:path}", 200) == 1
    assert requests("GET", "/models/{name:path}", 404) == 1
    assert requests("GET", "none", 404) == 1
    assert requests("other", "/health", 405) == 1
    assert told["edge_llm_completion_tokens_total"] == 24
    assert told["edge_llm_prompt_tokens_total"] == 2 * len("user:hi\n")
    assert told["edge_llm_cached_tokens_total"] == 6
    assert (told["edge_llm_drafted_tokens_total"], told["edge_llm_accepted_tokens_total"]) == (
        10,
        6,
    )
    assert told["edge_llm_time_to_first_token_seconds_count"] == 2
    assert told["edge_llm_inter_token_seconds_sum"] == pytest.approx(2 * 0.1 / 11)
    assert told["edge_llm_requests_active"] == told["edge_llm_choices_active"] == 0
    of = '{model="fake-model"}'
    assert told[f"edge_llm_model_loaded{of}"] == 1
    assert (told[f"edge_llm_sequences_running{of}"], told[f"edge_llm_sequences_waiting{of}"]) == (
        1,
        2,
    )
    assert (told[f"edge_llm_step_seconds_count{of}"], told[f"edge_llm_step_seconds_sum{of}"]) == (
        7,
        0.5,
    )
    blocks = {
        s: told[f'edge_llm_blocks{{group="0",model="fake-model",state="{s}"}}']
        for s in ("used", "cached", "free")
    }
    assert blocks == {"used": 10, "cached": 5, "free": 15}
    assert told[f"edge_llm_preemptions_total{of}"] == 0


def test_they_are_behind_the_key(make_client: Any) -> None:
    assert make_client(api_key="k").get("/metrics").status_code == 401
