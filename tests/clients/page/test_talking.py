"""Talking: what is sent, how the answer comes, and what can be done with it."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from playwright.sync_api import Route, expect

WEATHER = json.dumps(
    [
        {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        }
    ]
)


def test_an_answer_is_shown_as_it_comes(chat: Any) -> None:
    chat.send("count to 3000")
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    expect(chat.text).to_contain_text("1 2 3 4")
    partial = chat.text.inner_text()
    chat.complete()
    assert chat.text.inner_text() == " ".join(map(str, range(1, 3001)))
    assert len(partial) <= len(chat.text.inner_text())
    expect(chat.page.locator("#spoken")).to_have_text("The answer is complete.")


def test_an_answer_is_stopped(chat: Any) -> None:
    chat.send("count to 20000")
    expect(chat.text).to_contain_text("1 2 3 4")
    chat.press("Stop")
    expect(chat.answer.get_by_role("note")).to_have_text("Stopped.")
    assert not chat.text.inner_text().endswith("20000")
    expect(chat.page.get_by_role("button", name="Continue")).to_be_visible()
    chat.send("count to 20001")
    expect(chat.answers).to_have_count(2)
    expect(chat.text).to_contain_text("1 2 3 4")
    chat.page.keyboard.press("Escape")
    expect(chat.answer.get_by_role("note")).to_have_text("Stopped.")
    chat.ask("hello")  # and it goes on
    expect(chat.text).to_have_text("Hello! I am here to help.")


def test_a_message_is_edited_and_both_branches_stay(chat: Any) -> None:
    chat.say("first")
    chat.say("second")
    chat.said.first.get_by_role("button", name="Edit").click()
    area = chat.page.get_by_role("textbox", name="Edit the message")
    expect(area).to_have_value("Say:\nfirst")
    area.fill("Say:\nchanged")
    area.press("Enter")
    expect(chat.answers).to_have_count(1)
    expect(chat.text).to_have_text("changed")
    expect(chat.said).to_contain_text("2/2")
    chat.press("The version before")
    expect(chat.answers).to_have_count(2)
    expect(chat.text).to_have_text("second")
    expect(chat.said.first).to_contain_text("1/2")
    chat.press("The next version")
    expect(chat.text).to_have_text("changed")


def test_an_edit_can_be_left(chat: Any) -> None:
    chat.say("first")
    chat.prompt.press("ArrowUp")
    area = chat.page.get_by_role("textbox", name="Edit the message")
    area.fill("something else")
    area.press("Escape")
    expect(area).to_have_count(0)
    expect(chat.said.locator(".bubble")).to_have_text("Say:\nfirst")


def test_an_answer_is_made_again(chat: Any) -> None:
    chat.say("first")
    chat.press("Answer again")
    expect(chat.answer).to_contain_text("2/2")
    chat.complete()
    expect(chat.text).to_have_text("first")
    assert chat.said.count() == 1


def test_thinking_is_folded(chat: Any) -> None:
    chat.ask("step by step, please")
    thinking = chat.answer.locator("details.thinking")
    expect(thinking).to_contain_text("Thought")
    expect(thinking.locator("summary")).to_contain_text("tokens")
    expect(thinking.get_by_text("Let me see.")).to_be_hidden()
    expect(chat.text).to_have_text("Hello! I am here to help.")
    thinking.locator("summary").click()
    expect(thinking.get_by_text("Let me see.")).to_be_visible()


def test_what_is_unfolded_stays_so(chat: Any) -> None:
    chat.ask("step by step")
    chat.answer.locator(".thinking summary").click()
    chat.answer.locator(".stats summary").click()
    chat.ask("hello")
    first = chat.answers.first
    expect(first.get_by_text("Let me see.")).to_be_visible()
    expect(first.get_by_text("First token after")).to_be_visible()
    assert chat.page.get_by_text("First token after").count() == 2
    expect(chat.answer.get_by_text("First token after")).to_be_hidden()


def test_thinking_is_turned_off(chat: Any) -> None:
    chat.set(thinking="off")
    with chat.page.expect_request("**/chat/completions") as asked:
        chat.ask("hello")
    assert asked.value.post_data_json["enable_thinking"] is False


def test_calls_are_shown_and_answered(chat: Any) -> None:
    chat.set(tools=WEATHER)
    chat.ask("What is the weather in Bonn and in Ulm?")
    calls = chat.answer.locator(".call")
    expect(calls).to_have_count(2)
    expect(calls.first).to_contain_text("get_weather")
    expect(calls.first.locator("pre")).to_have_text('{\n  "city": "Bonn"\n}')
    for area, result in zip(chat.answer.get_by_role("textbox").all(), "ab", strict=True):
        area.fill(result)
    chat.press("Send the result")
    expect(chat.text).to_have_text("The result is a, b.")
    expect(chat.page.locator(".message.tool").last).to_contain_text("Result of get_weather")
    assert chat.page.get_by_role("button", name="Send the result").count() == 0


def test_tools_that_are_none_are_not_taken(chat: Any) -> None:
    chat.set(tools="{}")
    problem = chat.page.locator("[name=tools]").evaluate("area => area.validationMessage")
    assert "list" in problem
    expect(chat.page.get_by_role("dialog")).to_be_visible()


def test_settings_are_sent(chat: Any) -> None:
    field = chat.page.locator("[name=temperature]")
    chat.press("Settings")
    expect(field).to_have_attribute("placeholder", "1")  # the authors'
    chat.page.keyboard.press("Escape")
    chat.set(system="Be kind.", temperature="0.25", top_p="0.5", max_tokens="100", seed="7")
    with chat.page.expect_request("**/chat/completions") as asked:
        chat.ask("hello")
    body = asked.value.post_data_json
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hello"},
    ]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["seed"]) == (
        0.25, 0.5, 100, 7,
    )  # fmt: skip
    assert body["stream"] is True
    chat.press("New chat")  # begins with them
    chat.press("Settings")
    expect(field).to_have_value("0.25")


def test_a_cut_answer_goes_on(chat: Any) -> None:
    chat.set(max_tokens="3")
    chat.say("one two three four five")
    expect(chat.text).to_have_text("one two three")
    expect(chat.answer.get_by_role("note")).to_have_text("Cut at the longest answer.")
    chat.set(max_tokens="")
    chat.press("Continue")
    expect(chat.text).to_have_text("one two three four five")
    expect(chat.answer.get_by_role("note")).to_have_count(0)


def test_figures_are_shown(chat: Any) -> None:
    chat.ask("hello")
    stats = chat.answer.locator(".stats")
    expect(stats.locator("summary")).to_contain_text("tokens/s")
    chat.ask("hello again")
    stats.locator("summary").click()
    expect(stats).to_contain_text("of it in the cache")
    expect(stats).to_contain_text("First token after")
    expect(stats.locator("summary")).not_to_contain_text("prompt 0 % cached")
    expect(chat.page.locator("#context")).to_contain_text("of 32,768 tokens")


def test_an_error_is_shown_and_tried_again(chat: Any) -> None:
    chat.set(max_tokens="5")
    chat.page.route("**/chat/completions", lambda route: route.abort())
    chat.ask("hello")
    expect(chat.answer.get_by_role("alert")).to_have_text("The server cannot be reached.")
    chat.page.unroute("**/chat/completions")
    chat.press("Try again")
    expect(chat.text).to_contain_text("Hello")
    chat.ask("word " * 40_000)
    expect(chat.answer.get_by_role("alert")).to_contain_text("maximum context length")


def test_another_model_is_served_meanwhile(open_chat: Any, browser: Any) -> None:
    context = browser.new_context()
    old = {"data": [{"id": "old", "context_length": 100}]}
    context.route("**/v1/models", lambda route: route.fulfill(json=old), times=1)
    chat = open_chat(context=context)
    expect(chat.page.get_by_role("heading", name="old")).to_be_visible()
    chat.ask("hello")
    expect(chat.answer.get_by_role("alert")).to_contain_text("The model 'old' does not exist here")
    expect(chat.page.locator("#model")).to_have_value("scripted")
    chat.press("Try again")
    expect(chat.text).to_have_text("Hello! I am here to help.")
    context.close()


def test_a_stream_that_breaks_is_no_answer(chat: Any) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "Half an"}, "finish_reason": None}]}
    failed = {"error": {"message": "It broke.", "type": "server_error", "code": None}}
    begun = f"data: {json.dumps(chunk)}\n\n"
    for rest, told in (
        ("", "The connection broke before the answer was complete."),
        (f"event: error\ndata: {json.dumps(failed)}\n\n", "It broke."),
    ):
        reply = {"body": begun + rest, "content_type": "text/event-stream"}
        chat.page.route("**/chat/completions", partial(Route.fulfill, **reply))
        chat.ask("hello")
        expect(chat.answer.get_by_role("alert")).to_have_text(told)
        expect(chat.text).to_have_text("Half an")
        chat.page.unroute("**/chat/completions")


def test_keys(chat: Any) -> None:
    chat.prompt.fill("a")
    chat.prompt.press("Shift+Enter")
    chat.prompt.press_sequentially("b")
    assert chat.prompt.input_value() == "a\nb"
    chat.prompt.press("Enter")
    expect(chat.said.locator(".bubble")).to_have_text("a\nb")
    chat.complete()
    chat.page.locator("#log").click()
    chat.page.keyboard.press("/")
    expect(chat.prompt).to_be_focused()
    chat.page.keyboard.press("Control+Shift+O")
    expect(chat.said).to_have_count(0)


def test_a_long_message_is_folded(chat: Any) -> None:
    chat.ask("line\n" * 40)
    bubble = chat.said.locator(".bubble")
    low = bubble.bounding_box()["height"]
    chat.press("Show all")
    assert bubble.bounding_box()["height"] > 2 * low


def test_two_conversations_answer_at_once(chat: Any) -> None:
    chat.send("count to 20000")
    expect(chat.text).to_contain_text("1 2 3 4")
    chat.press("New chat")
    chat.ask("hello")
    expect(chat.text).to_have_text("Hello! I am here to help.")
    chat.page.get_by_role("button", name="count to 20000").click()
    chat.press("Stop")
    expect(chat.answer.get_by_role("note")).to_have_text("Stopped.")


def test_an_edit_ends_the_answer_that_is_being_made(chat: Any) -> None:
    chat.say("first")
    chat.send("count to 20000")
    expect(chat.text).to_contain_text("1 2 3 4")
    chat.said.first.get_by_role("button", name="Edit").click()
    area = chat.page.get_by_role("textbox", name="Edit the message")
    area.fill("count to 20001")
    area.press("Enter")
    expect(chat.said).to_have_count(1)
    expect(chat.text).to_contain_text("1 2 3 4")
    expect(chat.page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    chat.press("Stop")  # the new one can be
    expect(chat.answer.get_by_role("note")).to_have_text("Stopped.")
    chat.press("The version before")
    expect(chat.answer.get_by_role("note")).to_have_text("Stopped.")


def test_it_waits_for_a_model_that_loads(open_chat: Any, browser: Any) -> None:
    context = browser.new_context()
    loading = {"error": {"message": "The model is loading.", "code": None}}
    context.route("**/v1/models", lambda route: route.fulfill(status=503, json=loading), times=3)
    chat = open_chat(context=context)
    expect(chat.page.locator("#banner")).to_have_text("The model is loading…")
    expect(chat.page.get_by_role("heading", name="scripted")).to_be_visible()
    expect(chat.page.locator("#banner")).to_be_hidden()
    context.close()


def test_without_a_server(open_chat: Any, browser: Any) -> None:
    context = browser.new_context()
    context.route("**/v1/models", lambda route: route.abort(), times=1)
    chat = open_chat(context=context)
    expect(chat.page.locator("#banner")).to_contain_text("The server cannot be reached.")
    chat.prompt.fill("hello")
    expect(chat.page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    chat.press("Try again")
    chat.ask("hello")
    context.close()


def test_a_real_model(open_chat: Any, real: Any) -> None:
    chat = open_chat(real.url)
    chat.set(max_tokens="20", temperature="0")
    chat.ask("What is the capital of France? Answer in English.")
    expect(chat.text).to_contain_text("Paris")
    expect(chat.answer.locator(".stats")).to_contain_text("tokens/s")
    assert chat.page.locator("[name=thinking]").is_visible() is False
