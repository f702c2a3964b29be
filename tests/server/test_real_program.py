"""The server over a real engine and a tiny random program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import waiting

import edge_llm

PROMPTS = ["one", "a longer question, please", "x" * 70, "three"]


@pytest.fixture(scope="module")
def program(tiny_program: Any) -> Path:
    path: Path = tiny_program()
    return path


@pytest.fixture
def llm(program: Path) -> Iterator[edge_llm.LLM]:
    with edge_llm.load(program, threads=1) as loaded:
        yield loaded


@pytest.fixture
def http(llm: edge_llm.LLM, serve_live: Any) -> Iterator[httpx.Client]:
    with serve_live(of=llm) as server, waiting.client(base_url=server.url) as client:
        yield client


def chat(http: httpx.Client, llm: edge_llm.LLM, text: str, **change: Any) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": llm.name, "messages": messages, "temperature": 0, "max_tokens": 24} | change
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response


def streamed(http: httpx.Client, llm: edge_llm.LLM, text: str) -> str:
    events = chat(http, llm, text, stream=True).text.split("\n\n")
    assert events[-2] == "data: [DONE]"
    chunks = [json.loads(event[6:]) for event in events[:-2]]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)


def test_concurrent_greedy_streams_equal_solo_ones(http: Any, llm: Any) -> None:
    solo = [streamed(http, llm, prompt) for prompt in PROMPTS]
    assert len(set(solo)) > 1
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda prompt: streamed(http, llm, prompt), PROMPTS))
    assert together == solo
    whole = [chat(http, llm, prompt).json()["choices"][0]["message"] for prompt in PROMPTS]
    assert [message["content"] for message in whole] == solo


def test_the_seed_decides(http: Any, llm: Any) -> None:
    def ask(**change: Any) -> list[str]:
        choices = chat(http, llm, "x", temperature=1, **change).json()["choices"]
        return [choice["message"]["content"] for choice in choices]

    three = ask(seed=7, n=3)
    assert len(set(three)) == 3
    assert ask(seed=7) == three[:1]
    assert ask(seed=8) == three[1:2]


def test_logprobs_and_cached_tokens(http: Any, llm: Any) -> None:
    prompt = "y" * 150
    first, second = (
        chat(http, llm, prompt, logprobs=True, top_logprobs=2).json() for _ in range(2)
    )
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert first["choices"] == second["choices"]
    entry = first["choices"][0]["logprobs"]["content"][0]
    assert entry["logprob"] == entry["top_logprobs"][0]["logprob"]  # greedy


def complete(http: Any, llm: Any, **body: Any) -> dict[str, Any]:
    response = http.post("/v1/completions", json={"model": llm.name, "temperature": 0} | body)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def test_what_the_cache_had_of_repeated_prompts_and_of_choices(http: Any, llm: Any) -> None:
    def cached(**body: Any) -> tuple[int, int, str]:
        reply = complete(http, llm, max_tokens=2, ignore_eos=True, **body)
        tokens = reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert reply["timings"]["cached_tokens"] == tokens
        return reply["usage"]["prompt_tokens"], tokens, reply["timings"]["cache"]

    first, other = [1] * 100, [2] * 65  # a page is 64: the second of two waits for it
    assert cached(prompt=first, n=3) == (100, 0, "empty")  # what its choices share is no hit
    assert cached(prompt=first, n=3) == (100, 99, "hit")
    assert cached(prompt=[other, other]) == (130, 64, "no shared prefix, hit")
    assert cached(prompt=first[:80] + other) == (145, 80, "partial")
    assert cached(prompt=[1]) == (1, 0, "not used")


def test_an_echoed_prompt_has_the_log_probabilities_it_was_sampled_with(
    http: Any, llm: Any
) -> None:
    prompt = [1, 2, 3]
    first = complete(
        http, llm, prompt=prompt, max_tokens=80, ignore_eos=True, echo=True, logprobs=3
    )["choices"][0]["logprobs"]
    ids = llm.generate(prompt, llm.default_params(temperature=0, max_tokens=80, ignore_eos=True))
    again = complete(
        http, llm, prompt=[*prompt, *ids.token_ids], max_tokens=0, echo=True, logprobs=3
    )
    logprobs = again["choices"][0]["logprobs"]
    for key in ("tokens", "token_logprobs", "top_logprobs"):
        assert logprobs[key] == first[key]
    assert len(logprobs["tokens"]) == len(logprobs["text_offset"]) == 83
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert again["usage"]["completion_tokens"] == 0
    assert again["timings"]["cache"] == "not used"
    assert again["timings"]["prompt_ms"] > 0


def test_the_context_limit(http: Any, llm: Any) -> None:
    body = {"model": llm.name, "prompt": "z" * 2 * llm.context}
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["n_ctx"] == llm.context


@pytest.mark.parametrize("change", [{"prompt": [5, 987654]}, {"logit_bias": {"987654": 1}}])
def test_an_id_that_is_no_token(http: Any, llm: Any, change: dict[str, Any]) -> None:
    response = http.post("/v1/completions", json={"model": llm.name, "prompt": "x"} | change)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == next(iter(change))
    # what is no token says nothing of a prompt
    assert ("at position 1 of the prompt is 987654," in error["message"]) == ("prompt" in change)


def test_a_hang_up_frees_the_engine(http: Any, llm: Any) -> None:
    body = {
        "model": llm.name,
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
        "ignore_eos": True,
        "n": 3,
    }
    with http.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())
    waiting.wait_until(lambda: not (llm.stats().running or llm.stats().waiting))


def test_the_process(program: Path) -> None:
    """`serve` as a process: one line of JSON once it answers, and a clean end on SIGTERM."""
    code = (
        "import sys; from pathlib import Path; from edge_llm.server.options import ServerOptions; "
        "from edge_llm.server.run import serve; "
        "from edge_llm.runner.config import RunnerConfig; "
        "from edge_llm.server.models.programs import ServedProgram; "
        "config = RunnerConfig(threads=1, context=64); "
        "serve([ServedProgram(Path(sys.argv[1]), config)], ServerOptions(port=0)); "
        "assert 'torch' not in sys.modules; print('ended')"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, str(program)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        text=True,
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())
            with waiting.client(base_url=address["url"]) as client:
                assert client.get("/health").json() == {"status": "ok"}
                (model,) = client.get("/v1/models").json()["data"]
                assert model["context_length"] == 64
                # a client that keeps its connection open does not hold the server up
                process.send_signal(signal.SIGTERM)
                rest, _ = process.communicate()
        finally:
            watchdog.cancel()
            process.kill()
    assert rest == "ended\n"
    assert process.returncode == 0


def test_answers_have_the_form_that_was_asked_for(http: Any, llm: Any) -> None:
    schema = {
        "type": "object",
        "properties": {
            "b": {"type": "string", "maxLength": 3},
            "a": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["b", "a"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    form = {"response_format": wanted, "temperature": 1, "seed": 3, "max_tokens": 200, "n": 3}
    whole = [
        choice["message"]["content"] for choice in chat(http, llm, "x", **form).json()["choices"]
    ]
    for text in whole:
        assert list(json.loads(text)) == ["b", "a"]
    events = chat(http, llm, "x", stream=True, **form).text.split("\n\n")[:-2]
    parts = [json.loads(event[6:])["choices"][0] for event in events]
    for index, text in enumerate(whole):
        deltas = (part["delta"].get("content") or "" for part in parts if part["index"] == index)
        assert "".join(deltas) == text
    body = {"prompt": ["x", [1, 2]], "n": 2, "guided_choice": ["red", "blue"], "temperature": 1}
    for choice in complete(http, llm, **body)["choices"]:
        assert choice["text"] in ("red", "blue")
        assert choice["finish_reason"] == "stop"


def test_calls_are_made_where_they_must_be(tiny_program: Any, serve_live: Any) -> None:
    """The tools are told in text by a template of bytes, which takes room."""
    with (
        edge_llm.load(tiny_program(max_position_embeddings=1024), threads=1) as llm,
        serve_live(of=llm) as server,
        waiting.client(base_url=server.url) as http,
    ):
        _calls(http, llm)


def _calls(http: Any, llm: Any) -> None:
    def tool(name: str) -> dict[str, Any]:
        kind = {"type": "integer", "minimum": 0, "maximum": 9}
        schema = {"type": "object", "properties": {"n": kind}, "required": ["n"]}
        schema["additionalProperties"] = False
        return {"type": "function", "function": {"name": name, "parameters": schema}}

    asked = {"tools": [tool("first"), tool("second")], "max_tokens": 400, "temperature": 1}
    named = {"type": "function", "function": {"name": "second"}}
    for choice, names in (("required", {"first", "second"}), (named, {"second"})):
        reply = chat(
            http, llm, "x", **asked, tool_choice=choice, parallel_tool_calls=False, seed=1
        ).json()["choices"][0]
        assert reply["finish_reason"] == "tool_calls"
        (call,) = reply["message"]["tool_calls"]
        assert call["function"]["name"] in names
        assert json.loads(call["function"]["arguments"])["n"] in range(10)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response_format": {"type": "json_object", "schema": {"type": "x"}}}, "response_format"),
        ({"regex": "(?=a)b"}, "regex"),
        ({"grammar": "start: missing"}, "grammar"),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f"}},
                    {"type": "function", "function": {"name": "g", "parameters": {"type": "x"}}},
                ]
            },
            "tools[1]",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused(http: Any, llm: Any, change: Any, param: str) -> None:
    body = {"messages": [{"role": "user", "content": "x"}]} | change
    response = http.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (
        400,
        param,
        "unsupported_value",
    )
    if "tools" not in change:
        response = http.post("/v1/completions", json={"prompt": "x"} | change)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param


def test_texts_to_ids_and_back(http: Any, llm: Any) -> None:
    ids = http.post("/tokenize", json={"prompt": "<|im_start|>hé"}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": ids}).json() == {"prompt": "<|im_start|>hé"}
    messages = [{"role": "user", "content": "x"}]
    written = http.post("/tokenize", json={"messages": messages}).json()
    assert written["tokens"] == llm.encode_chat(messages)
    assert written["max_model_len"] == llm.context
