"""Conversations and the key are kept in the browser, conversations as files too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect


def test_a_conversation_outlives_a_reload(chat: Any) -> None:
    chat.ask("step by step")
    chat.say("**bold**")
    chat.page.reload()
    expect(chat.answers).to_have_count(2)
    expect(chat.text.locator("strong")).to_have_text("bold")
    expect(chat.answers.first.locator(".thinking")).to_contain_text("Thought")
    expect(chat.answer.locator(".stats")).to_contain_text("tokens/s")
    chat.ask("hello")  # and goes on
    expect(chat.answers).to_have_count(3)


def test_an_answer_that_a_reload_cut_is_told(chat: Any) -> None:
    chat.send("count to 20000")
    expect(chat.text).to_contain_text("1 2 3 4")
    chat.page.reload()
    expect(chat.answer.get_by_role("note")).to_contain_text("Interrupted")
    chat.press("Answer again")
    chat.press("Stop")
    expect(chat.answer).to_contain_text("2/2")


def test_the_list(chat: Any) -> None:
    chat.say("about apples")
    chat.press("New chat")
    chat.ask("hello there")
    items = chat.page.locator("#conversations .open")
    assert items.all_inner_texts() == ["hello there", "Say:"]
    chat.page.get_by_role("searchbox").fill("APPLES")
    assert items.all_inner_texts() == ["Say:"]
    chat.page.get_by_role("searchbox").fill("")
    items.last.click()
    expect(chat.text).to_have_text("about apples")
    active = chat.page.locator(".item:has([aria-current])")
    active.get_by_role("button", name="Rename").click()
    name = chat.page.get_by_role("textbox", name="Name of the conversation")
    name.fill("Fruit <b>")
    name.press("Enter")
    expect(items.filter(has_text="Fruit <b>")).to_have_count(1)
    active.get_by_role("button", name="Delete").click()
    expect(items).to_have_count(1)
    expect(chat.answers).to_have_count(0)
    chat.press("Undo")
    expect(items).to_have_count(2)
    expect(chat.text).to_have_text("about apples")


def test_what_is_deleted_during_an_answer_stays_so(chat: Any) -> None:
    chat.send("count to 20000")
    expect(chat.text).to_contain_text("1 2 3 4")
    chat.press("Delete")
    expect(chat.notice("is deleted")).to_be_visible()
    chat.ask("hello")
    chat.page.reload()
    items = chat.page.locator("#conversations .open")
    expect(items).to_have_count(1)
    expect(items).to_have_text("hello")


def test_out_and_in_again(chat: Any, tmp_path: Path) -> None:
    chat.ask("step by step")
    chat.press("Answer again")
    expect(chat.answer).to_contain_text("2/2")
    chat.complete()
    with chat.page.expect_download() as download:
        chat.press("Export all")
    file = tmp_path / "chats.json"
    download.value.save_as(file)
    document = json.loads(file.read_text(encoding="utf-8"))
    assert (document["format"], document["version"]) == ("edge-llm-conversations", 1)
    (conversation,) = document["conversations"]
    assert len(conversation["messages"]) == 3
    chat.press("Delete")
    expect(chat.answers).to_have_count(0)
    chat.page.locator("#file").set_input_files(file)
    expect(chat.notice("1 conversation imported.")).to_be_visible()
    expect(chat.answer).to_contain_text("2/2")
    expect(chat.text).to_have_text("Hello! I am here to help.")
    chat.page.locator("#file").set_input_files(file)  # once more: beside the first
    expect(chat.page.locator("#conversations .open")).to_have_count(2)


GOOD: dict[str, Any] = {
    "id": "a",
    "messages": {"m": {"parent": None, "role": "user", "content": "<img src=x onerror=alert(1)>"}},
    "leaf": "m",
}


@pytest.mark.parametrize(
    ("conversation", "told"),
    [
        ("nothing", "it has no messages"),
        ({**GOOD, "leaf": "n"}, "its end is missing"),
        ({**GOOD, "messages": {"m": {**GOOD["messages"]["m"], "parent": "m"}}}, "are no tree"),
        ({**GOOD, "messages": {"m": {**GOOD["messages"]["m"], "parent": "x"}}}, "are no tree"),
        ({**GOOD, "messages": {"m": {**GOOD["messages"]["m"], "role": "root"}}}, "no role"),
        ({**GOOD, "messages": {"m": {**GOOD["messages"]["m"], "content": 3}}}, "content is no"),
        ({**GOOD, "messages": {"__proto__": GOOD["messages"]["m"]}}, "none of ours"),
        ({**GOOD, "title": 7}, "title is no text"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(
    chat: Any, tmp_path: Path, conversation: Any, told: str
) -> None:
    file = tmp_path / "bad.json"
    document = {"format": "edge-llm-conversations", "version": 1, "conversations": [conversation]}
    file.write_text(json.dumps(document))
    chat.page.locator("#file").set_input_files(file)
    expect(chat.notice("Not imported")).to_contain_text(told)


def test_a_file_of_another_kind_is_refused(chat: Any, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    for text, told in (
        ("{", "not JSON"),
        ("[]", "no conversations of this page"),
        ('{"format": "edge-llm-conversations", "version": 2}', "version 2"),
    ):
        file.write_text(text)
        chat.page.locator("#file").set_input_files(file)
        expect(chat.notice(told)).to_be_visible()


def test_a_foreign_conversation_is_only_text(chat: Any, tmp_path: Path) -> None:
    file = tmp_path / "good.json"
    document = {"format": "edge-llm-conversations", "version": 1, "conversations": [GOOD]}
    file.write_text(json.dumps(document))
    chat.page.locator("#file").set_input_files(file)
    expect(chat.said.locator(".bubble")).to_have_text("<img src=x onerror=alert(1)>")


def test_room_is_bounded(chat: Any) -> None:
    """The oldest conversation goes, and that is told."""
    chat.ask("the oldest of all")
    chat.run(
        """async () => {
          const { Store, MOST } = await import("/page/store.js");
          const { newConversation, add } = await import("/page/tree.js");
          const store = await Store.open();
          for (let i = 1; i < MOST; i += 1) {
            const made = newConversation({});
            add(made, null, { role: "user", content: `number ${i}` });
            await store.put(made);
          }
        }"""
    )
    chat.page.reload()
    items = chat.page.locator("#conversations .open")
    expect(items).to_have_count(300)
    chat.press("New chat")
    chat.ask("one more")
    expect(items).to_have_count(300)
    expect(chat.notice("was the oldest and is deleted")).to_contain_text("the oldest of all")


def test_two_tabs_know_of_each_other(chat: Any, open_chat: Any) -> None:
    chat.ask("hello")
    other = open_chat(context=chat.page.context)
    other.page.locator("#conversations .open").click()
    expect(other.answers).to_have_count(1)
    chat.say("more")
    expect(other.answers).to_have_count(2)
    expect(other.text).to_have_text("more")


def test_a_browser_that_keeps_nothing(open_chat: Any, browser: Any) -> None:
    context = browser.new_context()
    context.add_init_script("indexedDB.open = () => { throw new Error('no') }")
    chat = open_chat(context=context)
    expect(chat.notice("This browser keeps nothing here")).to_be_visible()
    chat.ask("hello")
    expect(chat.text).to_contain_text("Hello")
    context.close()


def test_the_key_is_asked_for(open_chat: Any, keyed: Any) -> None:
    chat = open_chat(keyed.url)
    dialog = chat.page.get_by_role("dialog")
    expect(dialog).to_contain_text("asks for a key")
    field = dialog.get_by_label("Key", exact=True)
    field.fill("wrong")
    field.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("That was not the key.")
    field.fill(keyed.key)
    field.press("Enter")
    expect(chat.page.get_by_role("heading", name="scripted")).to_be_visible()
    chat.ask("hello")
    expect(chat.text).to_contain_text("Hello")
    chat.page.reload()  # the tab knows it
    expect(chat.text).to_contain_text("Hello")
    expect(dialog).to_have_count(0)
    assert chat.run("() => localStorage.getItem('edge-llm.key')") is None
    other = open_chat(keyed.url, context=chat.page.context)  # another tab does not
    expect(other.page.get_by_role("dialog")).to_be_visible()
    other.press("Cancel")
    expect(other.page.locator("#banner")).to_contain_text("The API key is missing or wrong")
    other.press("Try again")
    other.page.get_by_label("Keep it in this browser").check()
    other.page.get_by_label("Key", exact=True).fill(keyed.key)
    other.press("Continue")
    expect(other.page.get_by_role("heading", name="scripted")).to_be_visible()
    third = open_chat(keyed.url, context=chat.page.context)
    expect(third.page.get_by_role("heading", name="scripted")).to_be_visible()
