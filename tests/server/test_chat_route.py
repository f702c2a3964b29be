from __future__ import annotations

import json
from typing import Any

import pytest

from edge_llm.errors import GenerationError

CHAT = {"model": "fake-model", "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"


def ask(client: Any, **change: Any) -> dict[str, Any]:
    response = client.post(PATH, json=CHAT | change)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def stream(client: Any, **change: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The chunks of a streamed reply, and the raw events."""
    response = client.post(PATH, json=CHAT | {"stream": True} | change)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    events = response.text.removesuffix("\n\n").split("\n\n")
    data = [event.removeprefix("data: ") for event in events if event.startswith("data: {")]
    return [json.loads(item) for item in data], events


def text_of(chunks: list[dict[str, Any]], choice: int = 0) -> str:
    return "".join(
        c["delta"].get("content") or ""
        for chunk in chunks
        for c in chunk["choices"]
        if c["index"] == choice
    )


def test_the_whole_reply(client: Any) -> None:
    body = ask(client)
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert body["model"] == "fake-model"
    assert isinstance(body["created"], int)
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, world", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    prompt = len("user:hi\n")
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 12,
        "total_tokens": prompt + 12,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert body["timings"]["completion_tokens"] == 12
    assert body["timings"]["decode_tokens_per_second"] == pytest.approx(110)
    assert body["timings"]["time_to_first_token_ms"] == pytest.approx(11)


def test_an_answer_begins_without_the_space_of_its_spelling(client: Any, model: Any) -> None:
    model.answer = " b"
    assert ask(client)["choices"][0]["message"]["content"] == "b"
    assert text_of(stream(client)[0]) == "b"


def test_the_streamed_reply(client: Any) -> None:
    chunks, events = stream(client)
    assert events[-1] == "data: [DONE]"
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "fake-model", "chat.completion.chunk")
    }
    first = chunks[0]["choices"][0]
    assert first["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert text_of(chunks) == "Hello, world"
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + [
        "stop"
    ]
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert chunks[-1]["timings"]["completion_tokens"] == 12
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own(client: Any) -> None:
    chunks, _ = stream(client, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("answer", "stop", "expected"),
    [
        ("Hello, world", None, "Hello, world"),
        ("", None, ""),
        ("über 中文 \U0001f600!", None, "über 中文 \U0001f600!"),
        ("one\u2028two\nthree\r", None, "one\u2028two\nthree\r"),
        ([72, 256, 105], None, "Hi"),
        ([0xE4, 0xB8], None, "\ufffd"),
        ("Hello, world", ", ", "Hello"),
        ("Hello, world", ["xyz", "worlds", "wor"], "Hello, "),
        ("Hello, wor", "world", "Hello, wor"),
    ],
)
def test_streamed_and_whole_text_agree(
    client: Any, model: Any, answer: Any, stop: Any, expected: str
) -> None:
    model.answer = answer
    whole = ask(client, stop=stop)
    chunks, _ = stream(client, stop=stop)
    assert whole["choices"][0]["message"]["content"] == expected
    assert text_of(chunks) == expected
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_stop_string_ends_the_request(client: Any, model: Any) -> None:
    model.answer = "stop here" + "x" * 5000
    body = ask(client, stop=" here")
    assert body["usage"]["completion_tokens"] == len("stop here")
    (request,) = model.requests
    assert request.cancelled.is_set()
    assert request.ended.wait(60)


def test_length(client: Any) -> None:
    for limit in ({"max_tokens": 5}, {"max_completion_tokens": 5}):
        body = ask(client, **limit)
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["choices"][0]["message"]["content"] == "Hello"


def test_what_is_not_given_comes_from_the_program(client: Any, model: Any) -> None:
    ask(client)
    ask(
        client,
        temperature=0,
        top_p=0.5,
        top_k=3,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"72": -100, "1": 2.5},
        seed=11,
        ignore_eos=True,
        max_tokens=99,
    )
    bare, full = (request.params for request in model.requests)
    assert (bare.temperature, bare.top_k, bare.top_p, bare.seed) == (0.5, 7, 1.0, None)
    assert (bare.max_tokens, bare.top_logprobs, bare.ignore_eos) == (None, None, False)
    assert (full.temperature, full.top_k, full.top_p, full.min_p) == (0, 3, 0.5, 0.1)
    assert (full.repetition_penalty, full.presence_penalty) == (1.1, 0.5)
    assert full.frequency_penalty == -0.5
    assert full.logit_bias == {72: -100.0, 1: 2.5}
    assert (full.seed, full.ignore_eos, full.max_tokens) == (11, True, 99)


def test_messages_reach_the_template(client: Any, model: Any) -> None:
    messages = [
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "refusal": None, "tool_calls": []},
        {"role": "user", "content": "c", "name": "bob"},
    ]
    ask(client, messages=messages)
    expected = "system:be short\nuser:ab\nassistant:\nuser:c\n"
    assert bytes(model.requests[0].prompt).decode() == expected


def test_choices(client: Any, model: Any) -> None:
    body = ask(client, n=3, seed=5)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["prompt_tokens"] == len("user:hi\n")
    assert body["usage"]["completion_tokens"] == 36
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 3
    assert sorted(request.params.seed for request in model.requests) == [5, 6, 7]
    chunks, events = stream(client, n=3)
    assert events[-1] == "data: [DONE]"
    for index in range(3):
        assert text_of(chunks, index) == "Hello, world"
    roles = [c["choices"][0]["index"] for c in chunks if "role" in c["choices"][0]["delta"]]
    assert roles == [0, 1, 2]
    assert ["timings" in chunk for chunk in chunks].count(True) == 1


def test_logprobs(client: Any, model: Any) -> None:
    model.answer = "é!"
    whole = ask(client, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]
    assert whole["refusal"] is None
    assert [entry["token"] for entry in whole["content"]] == ["bytes:\\xc3", "bytes:\\xa9", "!"]
    assert [entry["bytes"] for entry in whole["content"]] == [[0xC3], [0xA9], [33]]
    assert whole["content"][2] == {
        "token": "!",
        "logprob": -0.125,
        "bytes": [33],
        "top_logprobs": [
            {"token": "A", "logprob": -0.25, "bytes": [65]},
            {"token": "!", "logprob": -9999.0, "bytes": [33]},
        ],
    }
    chunks, _ = stream(client, logprobs=True, top_logprobs=2)
    streamed = [
        entry
        for chunk in chunks
        if chunk["choices"][0]["logprobs"]
        for entry in chunk["choices"][0]["logprobs"]["content"]
    ]
    assert streamed == whole["content"]
    alone = ask(client, logprobs=True)["choices"][0]["logprobs"]
    assert alone["content"][0]["top_logprobs"] == []


def test_a_failure_after_the_stream_began(client: Any, model: Any) -> None:
    model.error = GenerationError("the logits are not finite")
    chunks, events = stream(client)
    assert text_of(chunks) == "Hello, world"
    name, data = events[-1].split("\n")
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))["error"]
    assert (error["type"], error["param"], error["code"]) == ("server_error", None, None)
    assert "not finite" in error["message"]


def test_a_failure_before_the_reply(client: Any, model: Any) -> None:
    model.error = GenerationError("the logits are not finite")
    response = client.post(PATH, json=CHAT)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"


def test_one_failed_choice_ends_the_others(client: Any, model: Any, service: Any) -> None:
    model.error = GenerationError("the logits are not finite")
    assert client.post(PATH, json=CHAT | {"n": 4}).status_code == 500
    assert all(request.cancelled.is_set() for request in model.requests)
    assert service.requests == 0


def test_variables_of_the_template(client: Any, model: Any) -> None:
    variables = {"enable_thinking": False, "custom_tools": [{"name": "f"}], "self": 1, "http": None}
    ask(client, chat_template_kwargs=variables)
    assert model.calls[-1].template_variables == variables
    for nothing in ({}, None):
        ask(client, chat_template_kwargs=nothing)
        assert model.calls[-1].template_variables == {}


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ([], "invalid_type", "expected an object"),
        ("enable_thinking", "invalid_type", "expected an object"),
        ({"messages": []}, "invalid_value", "keys other than 'messages'"),
        ({"tools": []}, "invalid_value", "keys other than 'tools'"),
        ({"add_generation_prompt": False}, "invalid_value", "other than 'add_generation_prompt'"),
        ({str(key): 1 for key in range(65)}, "invalid_value", "at most 64 entries"),
    ],
)
def test_variables_that_are_refused(client: Any, variables: Any, code: str, said: str) -> None:
    response = client.post(PATH, json=CHAT | {"chat_template_kwargs": variables})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (
        400,
        "chat_template_kwargs",
        code,
    )
    assert said in error["message"]


@pytest.mark.parametrize("whole", [False, True])
def test_options_of_the_text(client: Any, model: Any, whole: bool) -> None:
    def text(**change: Any) -> str:
        if whole:
            content: str = ask(client, **change)["choices"][0]["message"]["content"]
            return content
        return text_of(stream(client, **change)[0])

    model.answer = [*b"Hi", 256, *b", you"]
    assert text(stop=", ") == "Hi"
    assert text(stop=", ", include_stop_str_in_output=True) == "Hi, "
    assert text(skip_special_tokens=False) == "Hi<special>, you"
    assert text(skip_special_tokens=False, stop="<special>") == "Hi"


def test_timings_say_that_max_tokens_was_clipped(client: Any, model: Any) -> None:
    answered = model.clipped = 5
    reply = client.post(PATH, json=CHAT | {"max_tokens": 400}).json()
    assert reply["timings"]["max_tokens_clipped"] == answered
    model.clipped = None
    assert "max_tokens_clipped" not in client.post(PATH, json=CHAT).json()["timings"]
