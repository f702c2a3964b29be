from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

PATH = "/v1/completions"


def ask(client: Any, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json={"model": "fake-model"} | body)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def stream(client: Any, **body: Any) -> list[dict[str, Any]]:
    response = client.post(PATH, json={"model": "fake-model", "stream": True} | body)
    assert response.status_code == 200, response.text
    assert response.text.endswith("data: [DONE]\n\n")
    events = response.text.split("\n\n")
    return [json.loads(event[6:]) for event in events if event.startswith("data: {")]


def test_the_legacy_shape(client: Any) -> None:
    body = ask(client, prompt="Once")
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [
        {"index": 0, "text": "Hello, world", "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ab", [[97, 98]]),
        (["ab", "c"], [[97, 98], [99]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
    ],
)
def test_prompts(client: Any, model: Any, prompt: Any, expected: list[list[int]]) -> None:
    body = ask(client, prompt=prompt, n=2)
    assert sorted(request.prompt for request in model.requests) == sorted(expected * 2)
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(expected)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, expected))
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 3 * len(expected)
    assert body["timings"]["cached_tokens"] == 3 * len(expected)


def test_the_timings_say_what_the_cache_had(client: Any) -> None:
    assert ask(client, prompt="ab", n=2)["timings"]["cache"] == "partial"
    assert ask(client, prompt="a")["timings"]["cache"] == "not used"
    several = ask(client, prompt=["ab", "c", "de"])["timings"]
    assert several["cache"] == "partial, not used"


def test_sixteen_tokens_unless_told(client: Any, model: Any) -> None:
    model.answer = "x" * 50
    body = ask(client, prompt="a")
    assert body["choices"][0]["text"] == "x" * 16
    assert body["choices"][0]["finish_reason"] == "length"
    assert len(ask(client, prompt="a", max_tokens=20)["choices"][0]["text"]) == 20


@pytest.mark.parametrize(("prompt", "text"), [([97], " b"), ([256], "b"), ([256, 97], " b")])
def test_a_text_that_goes_on_keeps_its_first_space(
    client: Any, model: Any, prompt: list[int], text: str
) -> None:
    """Where the prompt has none but special tokens, the text begins there."""
    model.answer = " b"
    [choice] = ask(client, prompt=prompt, logprobs=0)["choices"]
    assert choice["text"] == text
    assert choice["logprobs"]["text_offset"] == [0, len(text) - 1]


def test_echo(client: Any) -> None:
    body = ask(client, prompt="Say: ", echo=True)
    assert body["choices"][0]["text"] == "Say: Hello, world"
    body = ask(client, prompt=[[97, 98], [99]], echo=True, n=2)
    texts = [choice["text"] for choice in body["choices"]]
    assert texts == ["abHello, world"] * 2 + ["cHello, world"] * 2
    chunks = stream(client, prompt=["a", "b"], echo=True)
    for index, expected in enumerate(("aHello, world", "bHello, world")):
        choices = [chunk["choices"][0] for chunk in chunks]
        assert "".join(c["text"] for c in choices if c["index"] == index) == expected


def test_streamed_and_whole_text_agree(client: Any, model: Any) -> None:
    model.answer = "über \U0001f600 END and more"
    whole = ask(client, prompt="a", stop=["END"], max_tokens=99)["choices"][0]
    chunks = stream(client, prompt="a", stop=["END"], max_tokens=99)
    assert whole["text"] == "über \U0001f600 "
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["text"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"] == "stop"


def test_usage_of_a_stream(client: Any) -> None:
    chunks = stream(client, prompt="abc", stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["prompt_tokens"] == 3
    assert {chunk["usage"] is None for chunk in chunks[:-1]} == {True}


def test_legacy_logprobs(client: Any, model: Any) -> None:
    model.answer = "aé!"
    whole = ask(client, prompt="p", logprobs=2)["choices"][0]["logprobs"]
    assert whole == {
        "tokens": ["a", "bytes:\\xc3", "bytes:\\xa9", "!"],
        "token_logprobs": [-0.125] * 4,
        "top_logprobs": [
            {"A": -0.25, "a": -0.125},
            {"A": -0.25, "bytes:\\xc3": -0.125},
            {"A": -0.25, "bytes:\\xa9": -0.125},
            {"A": -0.25, "!": -0.125},
        ],
        "text_offset": [0, 1, 1, 2],
    }
    parts = [chunk["choices"][0]["logprobs"] for chunk in stream(client, prompt="p", logprobs=2)]
    for key, values in whole.items():
        assert [value for part in parts for value in part[key]] == values
    alone = ask(client, prompt="p", logprobs=0)["choices"][0]["logprobs"]
    assert alone["token_logprobs"] == [-0.125] * 4
    assert alone["top_logprobs"] is None


def test_echo_with_logprobs_tells_those_of_the_prompt(client: Any, model: Any) -> None:
    model.answer = "a"
    body = {"prompt": ["é!", "b"], "echo": True, "logprobs": 2}
    choices = ask(client, **body)["choices"]
    assert [choice["text"] for choice in choices] == ["é!a", "ba"]
    assert choices[0]["logprobs"] == {
        "tokens": ["bytes:\\xc3", "bytes:\\xa9", "!", "a"],
        "token_logprobs": [None, -0.125, -0.125, -0.125],
        "top_logprobs": [
            None,
            {"A": -0.25, "bytes:\\xa9": -0.125},
            {"A": -0.25, "!": -0.125},
            {"A": -0.25, "a": -0.125},
        ],
        "text_offset": [0, 0, 1, 2],
    }
    assert choices[1]["logprobs"]["tokens"] == ["b", "a"]
    assert choices[1]["logprobs"]["text_offset"] == [0, 1]
    chunks = [chunk["choices"][0] for chunk in stream(client, **body)]
    for index, choice in enumerate(choices):
        mine = [chunk for chunk in chunks if chunk["index"] == index]
        assert "".join(chunk["text"] for chunk in mine) == choice["text"]
        for key, values in choice["logprobs"].items():
            assert [value for chunk in mine for value in chunk["logprobs"][key]] == values
    alone = ask(client, **(body | {"logprobs": 0}))["choices"][0]["logprobs"]
    assert alone["token_logprobs"] == [None, -0.125, -0.125, -0.125]
    assert alone["top_logprobs"] is None


def test_no_tokens_after_an_echo(client: Any) -> None:
    body = {"prompt": "ab", "echo": True, "max_tokens": 0}
    reply = ask(client, **body, logprobs=1, n=2)
    for choice in reply["choices"]:
        assert (choice["text"], choice["finish_reason"]) == ("ab", "length")
        assert choice["logprobs"]["token_logprobs"] == [None, -0.125]
    assert reply["usage"]["completion_tokens"] == 0
    plain = ask(client, **body)["choices"][0]
    assert (plain["text"], plain["logprobs"]) == ("ab", None)
    assert ask(client, **(body | {"prompt": [1] * 512}))["choices"][0]["finish_reason"] == "length"
    chunks = [chunk["choices"][0] for chunk in stream(client, **body, logprobs=1)]
    assert "".join(chunk["text"] for chunk in chunks) == "ab"
    assert [chunk["finish_reason"] for chunk in chunks] == [None, "length"]


def test_special_tokens_take_no_room_in_the_text(client: Any, model: Any) -> None:
    model.answer = [256, 97]
    body = ask(client, prompt=[256, 98, 99], echo=True, logprobs=0)["choices"][0]
    assert body["text"] == "bca"
    assert body["logprobs"]["tokens"] == ["<special>", "b", "c", "<special>", "a"]
    assert body["logprobs"]["text_offset"] == [0, 0, 1, 2, 2]


def test_a_text_may_have_control_tokens(client: Any, model: Any) -> None:
    model.answer = [256, 97]
    body = {"prompt": ["a<special>b", [97, 256, 98]], "echo": True, "logprobs": 0}
    written, ids = ask(client, **body)["choices"]
    assert [request.prompt for request in model.requests] == [[97, 256, 98]] * 2
    assert (written["text"], ids["text"]) == ("a<special>ba", "aba")
    assert written["logprobs"]["text_offset"] == [0, 1, 10, 11, 11]
    assert ids["logprobs"]["text_offset"] == [0, 1, 1, 2, 2]
    shown = ask(client, **(body | {"skip_special_tokens": False, "prompt": "<special>"}))
    assert shown["choices"][0]["text"] == "<special><special>a"
    assert shown["choices"][0]["logprobs"]["text_offset"] == [0, 9, 18]


def test_a_bos_that_nobody_wrote_has_no_text(
    client: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model.tokenizer, "facts", replace(model.tokenizer.facts, bos_id=256, add_bos=True)
    )
    plain = model.tokenizer.encode
    monkeypatch.setattr(model.tokenizer, "encode", lambda text, **how: [256, *plain(text, **how)])
    for prompt, offsets in (("ab", [0, 0, 1]), ("<special>b", [0, 9])):
        body = ask(client, prompt=prompt, echo=True, logprobs=0, max_tokens=0)
        choice = body["choices"][0]
        assert (choice["text"], choice["logprobs"]["text_offset"]) == (prompt, offsets)


def test_the_timings_count_drafts(client: Any) -> None:
    timings = ask(client, prompt=["a", "b"])["timings"]
    assert (timings["drafted_tokens"], timings["accepted_tokens"]) == (10, 6)


def test_best_of_may_equal_n(client: Any) -> None:
    assert len(ask(client, prompt="p", best_of=2, n=2, suffix=None)["choices"]) == 2
