"""``/v1/responses``: whole replies, what reaches the model, and what is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixtures_marked import Marked

from edge_llm.api.chat import NamedTool
from edge_llm.errors import RequestError
from edge_llm.parsed import Tool
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.server.cluster.prefixes import instance_of
from edge_llm.server.openai.responses.store import ResponseStore, Stored

PATH = "/v1/responses"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


def ask(client: Any, **body: Any) -> dict[str, Any]:
    response = client.post(PATH, json={"input": "hi"} | body)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def refused(client: Any, status: int = 400, **body: Any) -> tuple[str | None, str | None]:
    """Return the ``param`` and ``code`` of an error."""
    response = client.post(PATH, json={"input": "hi"} | body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    return error["param"], error["code"]


def messages(model: Any) -> list[dict[str, Any]]:
    """Return the messages of the last call."""
    return list(model.calls[-1].messages)


def test_ids_say_which_instance_has_what_they_name(make_client: Any) -> None:
    reply = ask(make_client(instance="0badcafe"), input=[{"role": "user", "content": "hi"}])
    ids = [reply["id"], *(item["id"] for item in reply["output"])]
    assert len(ids) == 2
    assert all(instance_of(found) == "0badcafe" for found in ids)


def test_the_whole_reply(client: Any) -> None:
    reply = ask(client, instructions="be short", metadata={"k": "v"}, max_output_tokens=64)
    (item,) = reply.pop("output")
    assert item.pop("id").startswith("msg_")
    part = {"type": "output_text", "text": "Hello, world", "annotations": [], "logprobs": []}
    assert item == {
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    assert reply["id"].startswith("resp_")
    assert reply["completed_at"] >= reply["created_at"] > 0
    assert {
        "object": "response",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": "be short",
        "max_output_tokens": 64,
        "metadata": {"k": "v"},
        "model": "fake-model",
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
    }.items() <= reply.items()
    prompt = len("system:be short\nuser:hi\n")
    assert reply["usage"] == {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + 12,
    }
    assert reply["timings"]["completion_tokens"] == 12


def test_an_answer_that_was_cut_is_incomplete(client: Any) -> None:
    reply = ask(client, max_output_tokens=5)
    assert (reply["status"], reply["completed_at"]) == ("incomplete", None)
    assert reply["incomplete_details"] == {"reason": "max_output_tokens"}
    assert reply["output"][0]["status"] == "incomplete"
    assert reply["output"][0]["content"][0]["text"] == "Hello"


def test_an_answer_without_text_is_an_empty_message(client: Any, model: Any) -> None:
    model.answer = ""
    (item,) = ask(client)["output"]
    assert [part["text"] for part in item["content"]] == [""]


def test_sampling(client: Any, model: Any) -> None:
    ask(client, temperature=0, top_p=0.5, seed=3, max_output_tokens=7, top_k=2)
    params = model.requests[-1].params
    assert (params.temperature, params.top_p, params.seed) == (0, 0.5, 3)
    assert (params.max_tokens, params.top_k, params.top_logprobs) == (7, 2, None)


def test_logprobs(client: Any, model: Any) -> None:
    model.answer = "é!"
    reply = ask(client, include=["message.output_text.logprobs"], top_logprobs=2)
    entries = reply["output"][0]["content"][0]["logprobs"]
    assert [entry["bytes"] for entry in entries] == [[0xC3], [0xA9], [33]]
    assert entries[2]["logprob"] == -0.125
    assert [top["token"] for top in entries[2]["top_logprobs"]] == ["A", "!"]
    (plain,) = ask(client)["output"][0]["content"]
    assert plain["logprobs"] == []


def test_thinking_is_an_item_before_the_message(client: Any, model: Any) -> None:
    model.parser, model.answer = Marked, "(hm, well)Hello"
    thought, said = ask(client)["output"]
    assert thought["id"].startswith("rs_")
    assert (thought["type"], thought["summary"]) == ("reasoning", [])
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm, well"}]
    assert said["content"][0]["text"] == "Hello"
    thought, _ = ask(client, reasoning={"effort": "low", "summary": "auto"})["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "hm, well"}]
    assert "content" not in thought
    thinking = model.calls[-1].thinking
    assert (thinking.effort, thinking.budget) == ("low", None)
    ask(client, thinking_budget=7)
    assert (model.calls[-1].thinking.effort, model.calls[-1].thinking.budget) == (None, 7)


def test_thinking_that_was_cut(client: Any, model: Any) -> None:
    model.parser, model.answer = Marked, "(hm, well)Hello"
    (thought,) = ask(client, max_output_tokens=4)["output"]
    assert (thought["type"], thought["status"]) == ("reasoning", "incomplete")


def test_calls_are_items(client: Any, model: Any) -> None:
    model.parser = Marked
    model.answer = '(hm)Let me see.[weather|{"city":"Bonn"}][weather|{"city":"Ulm"}]'
    reply = ask(client, tools=[WEATHER])
    kinds = [item["type"] for item in reply["output"]]
    assert kinds == ["reasoning", "message", "function_call", "function_call"]
    first, second = reply["output"][2:]
    assert (first["name"], first["arguments"]) == ("weather", '{"city":"Bonn"}')
    assert second["arguments"] == '{"city":"Ulm"}'
    assert first["call_id"].startswith("call_")
    assert first["id"].startswith("fc_")
    assert first["call_id"] != second["call_id"]
    assert first["status"] == "completed"
    assert reply["status"] == "completed"
    assert reply["tools"] == [WEATHER]
    call = model.calls[-1]
    assert call.tools == [Tool("weather", "the weather of a city", WEATHER["parameters"])]
    assert (call.tool_choice, call.parallel_tool_calls) == ("auto", True)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "weather"}, NamedTool("weather")),
    ],
)
def test_the_choice_of_tools(client: Any, model: Any, choice: Any, expected: Any) -> None:
    reply = ask(client, tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
    assert reply["tool_choice"] == choice
    assert reply["parallel_tool_calls"] is False
    assert model.calls[-1].tool_choice == expected
    assert model.calls[-1].parallel_tool_calls is False


def test_some_tools_are_allowed(client: Any, model: Any) -> None:
    tools = [{"type": "function", "name": name} for name in ("a", "b", "c")]
    some = [{"type": "function", "name": name} for name in ("a", "c")]
    ask(
        client,
        tools=tools,
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": some},
    )
    call = model.calls[-1]
    assert [tool.name for tool in call.tools] == ["a", "c"]
    assert call.tool_choice == "required"


def test_forms_of_text(client: Any, model: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    reply = ask(client, text={"format": form, "verbosity": "low"})
    assert reply["text"] == {"format": form, "verbosity": "low"}
    assert model.calls[-1].grammar == Grammar.json_schema(schema)
    ask(client, text={"format": {"type": "json_object"}})
    assert model.calls[-1].grammar == Grammar.json_object()
    ask(client, text={"format": {"type": "text"}})
    assert model.calls[-1].grammar is None


def test_items_become_messages(client: Any, model: Any) -> None:
    items = [
        {"role": "developer", "content": "speak German"},
        {"role": "user", "content": [{"type": "input_text", "text": "wea"}, text("ther?")]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [thought("hm")]},
        {"type": "message", "role": "assistant", "content": [{**text("see"), "type": OUTPUT}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{bad"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        {"type": "function_call_output", "call_id": "c2", "output": [text("ra"), text("in")]},
        {"role": "assistant", "content": "Sun and rain."},
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "thanks"},
    ]
    ask(client, input=items, instructions="be kind")

    def call(name: str, arguments: str) -> dict[str, Any]:
        function = {"name": "weather", "arguments": arguments}
        return {"id": name, "type": "function", "function": function}

    assert messages(model) == [
        {"role": "system", "content": "be kind\n\nspeak German"},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "reasoning_content": "hm",
            "content": "see",
            "tool_calls": [call("c1", "{bad"), call("c2", "{}")],
        },
        {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "sun"},
        {"role": "tool", "tool_call_id": "c2", "name": "weather", "content": "rain"},
        {"role": "assistant", "content": "Sun and rain."},
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "thanks"},
    ]


OUTPUT = "output_text"


def text(value: str) -> dict[str, Any]:
    return {"type": "input_text", "text": value}


def thought(value: str) -> dict[str, Any]:
    return {"type": "reasoning_text", "text": value}


def test_an_answer_that_has_begun_is_continued(client: Any, model: Any) -> None:
    items = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hel"}]
    ask(client, input=items, continue_final_message=True)
    assert model.calls[-1].continue_final_message is True
    assert messages(model)[-1] == {"role": "assistant", "content": "Hel"}


# --- several turns -------------------------------------------------------------------------------


def test_turns_by_items(client: Any, model: Any) -> None:
    model.parser, model.answer = Marked, "(hm)[weather|{}]"
    first = ask(client, tools=[WEATHER])
    call = first["output"][-1]
    model.answer = "Sunny."
    items = [
        {"role": "user", "content": "hi"},
        *first["output"],
        {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"},
    ]
    ask(client, tools=[WEATHER], input=items, store=False)
    _, asked, result = messages(model)
    assert asked["reasoning_content"] == "hm"
    assert asked["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}
    assert result["tool_call_id"] == asked["tool_calls"][0]["id"] == call["call_id"]


def test_turns_by_the_id_of_the_response_before(client: Any, model: Any) -> None:
    model.parser, model.answer = Marked, "[weather|{}]"
    first = ask(client, tools=[WEATHER], instructions="be kind")
    output = {
        "type": "function_call_output",
        "call_id": first["output"][0]["call_id"],
        "output": "sun",
    }
    model.answer = "Sunny."
    second = ask(client, previous_response_id=first["id"], input=[output])
    assert second["previous_response_id"] == first["id"]
    assert [message["role"] for message in messages(model)] == ["user", "assistant", "tool"]
    ask(client, previous_response_id=second["id"], input="thanks", instructions="be rude")
    roles = [message["role"] for message in messages(model)]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert messages(model)[0]["content"] == "be rude"
    assert messages(model)[4]["content"] == "Sunny."


def test_what_was_thought_comes_back_sealed(client: Any, model: Any) -> None:
    model.parser, model.answer = Marked, "(hm)Hello"
    first = ask(client, include=["reasoning.encrypted_content"], store=False)
    item = first["output"][0]
    kept = {name: item[name] for name in ("type", "id", "summary", "encrypted_content")}
    ask(client, input=[{"role": "user", "content": "a"}, kept, first["output"][1]])
    assert messages(model)[1] == {
        "role": "assistant",
        "reasoning_content": "hm",
        "content": "Hello",
    }
    kept["encrypted_content"] = "gAAAAABsomebody-elses"
    ask(client, input=[{"role": "user", "content": "a"}, kept, first["output"][1]])
    assert "reasoning_content" not in messages(model)[1]


def test_items_by_reference(client: Any, model: Any) -> None:
    first = ask(client)
    item = first["output"][0]["id"]
    ask(client, input=[{"role": "user", "content": "a"}, {"type": "item_reference", "id": item}])
    assert messages(model)[1] == {"role": "assistant", "content": "Hello, world"}
    ask(client, input=[{"role": "user", "content": "a"}, {"id": item}])
    assert len(messages(model)) == 2
    gone = [{"type": "item_reference", "id": "msg_gone"}]
    assert refused(client, input=gone) == ("input[0].id", "item_not_found")


def test_stored_responses(client: Any) -> None:
    first = ask(client)
    second = ask(client, previous_response_id=first["id"], input="more")
    assert client.get(f"{PATH}/{second['id']}").json() == second
    assert client.get(f"/responses/{second['id']}").json() == second
    items = client.get(f"{PATH}/{second['id']}/input_items").json()
    assert (items["object"], items["has_more"]) == ("list", False)
    roles = [(item["role"], item["content"][0]["text"]) for item in items["data"]]
    assert roles == [("user", "more"), ("assistant", "Hello, world"), ("user", "hi")]
    assert (items["first_id"], items["last_id"]) == (
        items["data"][0]["id"],
        items["data"][-1]["id"],
    )
    page = client.get(
        f"{PATH}/{second['id']}/input_items",
        params={"order": "asc", "limit": 1, "after": items["last_id"]},
    ).json()
    assert [item["id"] for item in page["data"]] == [items["data"][1]["id"]]
    assert page["has_more"] is True
    assert client.delete(f"{PATH}/{second['id']}").json()["deleted"] is True
    for method, path in (("GET", ""), ("GET", "/input_items"), ("DELETE", "")):
        response = client.request(method, f"{PATH}/{second['id']}{path}")
        assert response.status_code == 404
        assert response.json()["error"]["param"] == "response_id"
    for query in (
        {"limit": "0"},
        {"limit": "x"},
        {"limit": "00011111"},
        {"order": "up"},
        {"after": "x"},
    ):
        response = client.get(f"{PATH}/{first['id']}/input_items", params=query)
        assert (response.status_code, response.json()["error"]["param"]) == (400, next(iter(query)))
    response = client.get(f"{PATH}/{first['id']}", params={"stream": "true"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stream")


def test_what_is_not_to_be_stored_is_not(client: Any) -> None:
    reply = ask(client, store=False)
    assert reply["store"] is False
    assert client.get(f"{PATH}/{reply['id']}").status_code == 404
    assert refused(client, previous_response_id=reply["id"]) == (
        "previous_response_id",
        "previous_response_not_found",
    )


def response(name: str, size: int = 0) -> Stored:
    output = [{"id": f"msg_{name}", "type": "message", "text": "x" * size}]
    return Stored({"id": name, "output": output}, (), 0)


def test_the_store_keeps_what_was_used_last() -> None:
    store = ResponseStore(responses=2)
    for name in "ab":
        store.put(response(name))
    assert store.get("a") is not None
    store.put(response("c"))
    assert [store.get(name) is None for name in "abc"] == [False, True, False]
    assert store.item("msg_b") is None
    assert store.item("msg_c") is not None
    assert store.delete("c")
    assert not store.delete("c")
    assert len(store) == 1


def test_the_store_is_bounded_in_bytes() -> None:
    store = ResponseStore(size=1000)
    store.put(response("large", 2000))
    assert store.get("large") is None
    for name in "abc":
        store.put(response(name, 300))
    assert store.get("a") is None
    assert [store.get(name) is not None for name in "bc"] == [True, True]


# --- errors --------------------------------------------------------------------------------------

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"input": None}, "input", "invalid_type"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [3]}, "input[0]", "invalid_type"),
        ({"input": [USER] * 2**15 + [USER]}, "input", "array_above_max_length"),
        ({"input": [{**USER, "content": [{}] * 2**15}]}, "input", "array_above_max_length"),
        ({"tools": [WEATHER] * 1025}, "tools", "array_above_max_length"),
        ({"input": [{}]}, "input[0].type", "missing_required_parameter"),
        ({"input": [{"type": 3}]}, "input[0].type", "invalid_type"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "unsupported_value"),
        ({"input": [{"type": "no such"}]}, "input[0].type", "unsupported_value"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, "input", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": [{"role": "u", "content": ""}]}, "input[0].role", "invalid_value"),
        (
            {"input": [USER, {"role": "user", "content": [{"type": "input_image"}]}]},
            "input[1].content[0].type",
            "unsupported_value",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]},
            "input[0].call_id",
            "invalid_value",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "invalid_value"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name", "invalid_value"),
        ({"tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type", "unsupported_value"),
        ({"tool_choice": {"type": "function", "name": "a"}}, "tool_choice.name", "invalid_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "unsupported_value"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}},
            "text.format.schema",
            "unsupported_value",
        ),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"max_output_tokens": 2, "max_tokens": 2}, "max_output_tokens", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "integer_above_max_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type"),
        ({"metadata": {"a" * 65: ""}}, "metadata", "string_above_max_length"),
        ({"include": ["file_search_call.results"]}, "include[0]", "unsupported_value"),
        ({"truncation": "auto"}, "truncation", "unsupported_value"),
        ({"background": True}, "background", "unsupported_value"),
        ({"n": 2}, "n", "unsupported_value"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"context_management": [{}]}, "context_management", "unsupported_parameter"),
        ({"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"regex": "a"}, "regex", "unsupported_parameter"),
        ({"messages": []}, "messages", "unsupported_parameter"),
        ({"previous_response_id": "x"}, "previous_response_id", "previous_response_not_found"),
        ({"stream_options": {}}, "stream_options", None),
    ],
)
def test_refusals(client: Any, body: dict[str, Any], param: str, code: str | None) -> None:
    assert refused(client, **body) == (param, code)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "\ud800"}, "input"),
        ({"input": [{**USER, "color": "\ud800"}]}, "input"),
        ({"instructions": "\ud800"}, "instructions"),
        ({"tools": [{"type": "function", "name": "a", "parameters": {"a": "\ud800"}}]}, "tools"),
        ({"user": "\ud800"}, "user"),
    ],
)
def test_what_cannot_be_repeated(client: Any, model: Any, body: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        text = json.dumps({"input": "hi", "stream": stream} | body)
        reply = client.post(PATH, content=text, headers={"content-type": "application/json"})
        error = reply.json()["error"]
        assert (reply.status_code, error["param"], error["code"]) == (400, param, "invalid_value")


def test_what_is_refused_by_name(client: Any) -> None:
    response = client.post(PATH, json={"input": "a", "tools": [{"type": "web_search"}]})
    assert "'web_search' is not supported here" in response.json()["error"]["message"]
    response = client.post(PATH, json={"input": "a", "tools": [{"type": "secret words"}]})
    assert "secret" not in response.text


def test_errors_of_the_model(client: Any, model: Any) -> None:
    assert refused(client, model="other", status=404) == ("model", "model_not_found")
    assert refused(client, input="reject me") == ("input", None)
    assert refused(client, input="x" * 600) == ("input", "context_length_exceeded")
    error = client.post(PATH, json={"input": "x" * 600}).json()["error"]
    assert (error["n_ctx"], error["n_prompt_tokens"]) == (512, 606)


@pytest.mark.parametrize(
    ("param", "told", "code"),
    [
        ("text.format.schema", "text.format.schema", "unsupported_value"),
        ("tools[1].function.parameters", "tools[2]", "unsupported_value"),
        ("tools", "tools", "unsupported_value"),
        ("reasoning_effort", "reasoning.effort", None),
        ("messages", "input", None),
        ("top_k", "top_k", None),
    ],
)
def test_refusals_of_the_model(
    client: Any, model: Any, monkeypatch: Any, param: str, told: str, code: str | None
) -> None:
    def refuse(*arguments: Any) -> Any:
        raise RequestError("it cannot be", param=param)

    monkeypatch.setattr(model, "chat_jobs", refuse)
    tools = [{"type": "function", "name": name} for name in ("a", "b", "c")]
    allowed = [{"type": "function", "name": name} for name in ("a", "c")]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": allowed}
    assert refused(client, tools=tools, tool_choice=choice) == (told, code)


def test_unknown_parameters_are_named(client: Any) -> None:
    body = {"input": [{**USER, "color": 1}], "sparkle": True, "service_tier": "auto"}
    response = client.post(PATH, json=body)
    assert response.headers["x-edge-llm-ignored"] == "sparkle, input[0].color"


def test_the_document_has_the_forms_of_items(client: Any) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"FunctionCallOutput", "ItemReference", "JsonSchema", "ResponseObject"} <= set(schemas)
    assert {"type": "string"} in schemas["ResponsesRequest"]["properties"]["input"]["anyOf"]
