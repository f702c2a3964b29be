"""``/v1/responses`` in events, and the official client's use of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pydantic
import pytest
from openai.types.responses import ResponseStreamEvent

from edge_llm.errors import GenerationError
from edge_llm.parsed import Parsed, ToolCallDelta
from edge_llm.runner.guidance.grammar import Grammar

PATH = "/v1/responses"
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


class Script:
    """Parses an answer of which each character stands for a part."""

    reasoning = False
    aside = False

    def __init__(self, parts: dict[str, Parsed]) -> None:
        self._parts = parts

    def text(self, text: str) -> Parsed:
        whole = Parsed()
        for character in text:
            whole += self._parts[character]
        return whole

    def special(self, token_id: int, text: str) -> Parsed:
        return Parsed()

    def finish(self) -> Parsed:
        return Parsed()


def script(model: Any, *parts: Parsed) -> None:
    """Let a model answer with some parts."""
    letters = "abcdefghijklmnop"[: len(parts)]
    model.answer = letters
    model.parser = lambda: Script(dict(zip(letters, parts, strict=True)))


def said(text: str) -> Parsed:
    return Parsed(text)


def thought(text: str) -> Parsed:
    return Parsed(reasoning=text)


def called(index: int, name: str | None = None, arguments: str = "") -> Parsed:
    return Parsed(tool_calls=(ToolCallDelta(index, name, arguments),))


EVERYTHING = [
    thought("let me"),
    thought(" see"),
    said("Well"),
    said(", "),
    called(0, "weather"),
    called(0, None, '{"city"'),
    called(0, None, ':"Bonn"}'),
    called(1, "weather", "{}"),
]


def events(client: Any, **body: Any) -> list[dict[str, Any]]:
    response = client.post(PATH, json={"input": "hi", "stream": True} | body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    parts = response.text.removesuffix("\n\n").split("\n\n")
    told = []
    for part in parts:
        name, data = part.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    return told


def test_a_message(client: Any, model: Any) -> None:
    script(model, said("Hel"), said("lo"))
    told = events(client)
    assert [event["type"] for event in told] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert told[0]["response"]["status"] == "in_progress"
    assert told[0]["response"]["output"] == []
    assert told[2]["item"]["content"] == []
    places = {(e["item_id"], e["output_index"], e["content_index"]) for e in told[3:8]}
    assert places == {(told[2]["item"]["id"], 0, 0)}
    assert [event["delta"] for event in told[4:6]] == ["Hel", "lo"]
    assert told[6]["text"] == told[7]["part"]["text"] == "Hello"
    assert told[8]["item"] == told[9]["response"]["output"][0]
    assert told[8]["item"]["status"] == "completed"
    assert told[9]["response"]["usage"]["output_tokens"] == 2
    assert told[9]["response"]["id"] == told[0]["response"]["id"]


def test_thinking_text_and_calls(client: Any, model: Any) -> None:
    script(model, *EVERYTHING)
    told = events(client, tools=[TOOL])
    kinds = [(event["type"].removeprefix("response."), event.get("output_index")) for event in told]
    assert kinds == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("content_part.added", 0),
        ("reasoning_text.delta", 0),
        ("reasoning_text.delta", 0),
        ("reasoning_text.done", 0),
        ("content_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("output_item.added", 3),
        ("function_call_arguments.delta", 3),
        ("function_call_arguments.done", 3),
        ("output_item.done", 3),
        ("completed", None),
    ]
    added = next(e["item"] for e in told if e.get("output_index") == 2)
    assert (added["name"], added["arguments"], added["status"]) == ("weather", "", "in_progress")
    done = told[20]["item"]
    assert done == {**added, "arguments": '{"city":"Bonn"}', "status": "completed"}
    assert told[19]["arguments"] == done["arguments"]
    items = [e["item"] for e in told if e["type"] == "response.output_item.done"]
    assert told[-1]["response"]["output"] == items


def test_a_summary_of_the_thinking(client: Any, model: Any) -> None:
    script(model, thought("hm"), said("Hello"))
    told = events(client, reasoning={"summary": "detailed"})
    kinds = [event["type"].removeprefix("response.") for event in told[2:8]]
    assert kinds == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert told[7]["item"]["summary"] == [{"type": "summary_text", "text": "hm"}]


def test_streamed_and_whole_replies_agree(client: Any, model: Any) -> None:
    script(model, *EVERYTHING)
    whole = client.post(PATH, json={"input": "hi", "tools": [TOOL]}).json()
    streamed = events(client, tools=[TOOL])[-1]["response"]

    def without_ids(response: dict[str, Any]) -> Any:
        unlike = {"id", "call_id", "created_at", "completed_at"}
        return json.loads(
            json.dumps(response),
            object_hook=lambda item: {k: v for k, v in item.items() if k not in unlike},
        )

    assert without_ids(streamed) == without_ids(whole)


def test_a_cut_answer(client: Any, model: Any) -> None:
    script(model, *EVERYTHING)
    last = events(client, max_output_tokens=6)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    call = last["response"]["output"][-1]
    assert (call["arguments"], call["status"]) == ('{"city"', "incomplete")


def test_logprobs_come_with_the_text(client: Any, model: Any) -> None:
    model.answer = "ab"
    told = events(client, include=["message.output_text.logprobs"])
    deltas = [e for e in told if e["type"] == "response.output_text.delta"]
    assert [[entry["token"] for entry in e["logprobs"]] for e in deltas] == [["a"], ["b"]]
    done = next(e for e in told if e["type"] == "response.output_text.done")
    assert done["logprobs"] == [entry for e in deltas for entry in e["logprobs"]]


def test_a_failure_after_the_stream_began(client: Any, model: Any) -> None:
    model.error = GenerationError("the logits are not finite")
    told = events(client)
    failed, error = told[-2:]
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["code"] == "server_error"
    assert "not finite" in failed["response"]["error"]["message"]
    assert (error["type"], error["code"], error["param"]) == ("error", None, None)
    assert "not finite" in error["message"]
    assert error["error"]["type"] == "server_error"
    assert client.get(f"{PATH}/{failed['response']['id']}").status_code == 404


def test_what_was_streamed_is_stored(client: Any) -> None:
    response = events(client)[-1]["response"]
    assert client.get(f"{PATH}/{response['id']}").json() == response


def test_each_event_is_as_the_official_types_say(client: Any, model: Any) -> None:
    event_type = pydantic.TypeAdapter(ResponseStreamEvent)
    script(model, *EVERYTHING)
    for summary in (None, "auto"):
        for event in events(client, tools=[TOOL], reasoning={"summary": summary}):
            event_type.validate_python(event)


# --- the official client -------------------------------------------------------------------------


@pytest.fixture
def official(serve_live: Any) -> Iterator[openai.OpenAI]:
    with (
        serve_live() as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


def test_official_create(official: openai.OpenAI, model: Any) -> None:
    response = official.responses.create(model="fake-model", input="hi", instructions="be kind")
    assert response.output_text == "Hello, world"
    assert response.usage is not None
    assert response.usage.output_tokens == 12
    again = official.responses.retrieve(response.id)
    assert again.output_text == "Hello, world"
    items = list(official.responses.input_items.list(response.id))
    assert [item.type for item in items] == ["message"]
    following = official.responses.create(input="more", previous_response_id=response.id)
    assert following.previous_response_id == response.id
    official.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        official.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError, match="not stored"):
        official.responses.create(input="more", previous_response_id=response.id)


def test_official_stream(official: openai.OpenAI, model: Any) -> None:
    script(model, *EVERYTHING)
    with official.responses.create(input="hi", tools=[TOOL], stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"
    with official.responses.stream(model="fake-model", input="hi", tools=[TOOL]) as helper:
        text = "".join(e.delta for e in helper if e.type == "response.output_text.delta")
        final = helper.get_final_response()
    assert text == final.output_text == "Well, "
    calls = [item for item in final.output if item.type == "function_call"]
    assert [call.arguments for call in calls] == ['{"city":"Bonn"}', "{}"]


def test_official_stream_that_fails(official: openai.OpenAI, model: Any) -> None:
    model.error = GenerationError("the logits are not finite")
    seen: list[str] = []
    with (
        official.responses.create(input="hi", stream=True) as stream,
        pytest.raises(openai.APIError, match="not finite"),
    ):
        seen.extend(event.type for event in stream)
    assert seen[-1] == "response.failed"


class City(pydantic.BaseModel):
    name: str
    people: int


def test_official_parse(official: openai.OpenAI, model: Any) -> None:
    model.answer = '{"name": "Bonn", "people": 330000}'
    response = official.responses.parse(model="fake-model", input="a city", text_format=City)
    assert response.output_parsed == City(name="Bonn", people=330000)
    schema = response.to_dict()["text"]["format"]["schema"]  # type: ignore[index]
    assert model.calls[-1].grammar == Grammar.json_schema(schema)


def test_official_tool_loop(official: openai.OpenAI, model: Any) -> None:
    script(model, thought("hm"), called(0, "weather", '{"city": "Bonn"}'))
    conversation: list[Any] = [{"role": "user", "content": "the weather in Bonn?"}]
    first = official.responses.create(input=conversation, tools=[TOOL], store=False)
    conversation += first.output
    (call,) = [item for item in first.output if item.type == "function_call"]
    conversation.append(
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    )
    script(model, said("It is sunny."))
    second = official.responses.create(input=conversation, tools=[TOOL], store=False)
    assert second.output_text == "It is sunny."
    roles = [message["role"] for message in model.calls[-1].messages]
    assert roles == ["user", "assistant", "tool"]
    assert model.calls[-1].messages[1]["reasoning_content"] == "hm"
