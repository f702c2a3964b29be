"""How the page looks and is used on a desktop and a phone, in both colours; the pictures of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

DESKTOP = {"viewport": {"width": 1200, "height": 880}}
PHONE = {
    "viewport": {"width": 390, "height": 780},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 1.5,
}
GROUND = "() => getComputedStyle(document.body).backgroundColor"


def brightness(chat: Any) -> float:
    """Return the lightness of the page's ground, 0 to 1."""
    values = chat.run(GROUND).strip("rgb()").split(", ")
    return sum(map(int, values)) / 3 / 255


def test_dark_and_light(open_chat: Any) -> None:
    dark = open_chat(color_scheme="dark", **DESKTOP)
    assert brightness(dark) < 0.2
    light = open_chat(color_scheme="light", **DESKTOP)
    assert brightness(light) > 0.9
    light.press("Colours: system")
    light.press("Colours: light")
    assert brightness(light) < 0.2
    light.page.reload()
    assert brightness(light) < 0.2
    light.press("Colours: dark")
    assert brightness(light) > 0.9


def test_a_phone(open_chat: Any) -> None:
    chat = open_chat(**PHONE)
    sidebar = chat.page.locator("#sidebar")
    expect(sidebar).not_to_be_in_viewport()
    chat.prompt.press_sequentially("Say:")
    chat.prompt.press("Enter")  # a new line: glass has no Shift
    chat.prompt.press_sequentially("| a | b |\n|---|---|\n| " + "wide" * 40 + " | c |")
    chat.page.get_by_role("button", name="Send", exact=True).tap()
    chat.complete()
    expect(chat.answer.locator("table")).to_be_visible()
    widths = chat.run("() => [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    table = chat.answer.locator(".table")
    assert table.evaluate("element => element.scrollWidth > element.clientWidth")
    chat.page.get_by_role("button", name="Conversations", exact=True).tap()
    expect(sidebar).to_be_in_viewport()
    sidebar.get_by_role("button", name="New chat").tap()
    expect(sidebar).not_to_be_in_viewport()
    expect(chat.answers).to_have_count(0)
    chat.page.get_by_role("button", name="Settings").tap()
    box = chat.page.get_by_role("dialog").bounding_box()
    assert box["width"] <= 390
    small = chat.run(
        """() => [...document.querySelectorAll("input, textarea")]
          .filter((field) => field.type !== "checkbox")
          .filter((field) => parseFloat(getComputedStyle(field).fontSize) < 16).length"""
    )
    assert small == 0  # phones zoom into smaller fields


def test_code_is_copied(open_chat: Any) -> None:
    chat = open_chat(permissions=["clipboard-read", "clipboard-write"], **DESKTOP)
    chat.say("Look:\n\n```python\nprint('<b>')\n\n    more\n```\n")
    chat.press("Copy the code")
    expect(chat.answer.locator("figcaption [data-state=copied]")).to_be_visible()
    assert chat.run("() => navigator.clipboard.readText()") == "print('<b>')\n\n    more"
    chat.press("Copy the answer")
    expect(chat.answer.locator("footer [data-state=copied]")).to_be_visible()
    assert chat.run("() => navigator.clipboard.readText()").startswith("Look:\n\n```python")


def test_without_tls(open_chat: Any, browser: Any) -> None:
    """Such pages have neither a clipboard nor an id for the asking."""
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
        "Crypto.prototype.randomUUID = undefined;"
    )
    chat = open_chat(context=context)
    chat.say("```\nold ways\n```")
    chat.press("Copy the code")
    expect(chat.answer.locator("figcaption [data-state=copied]")).to_be_visible()
    chat.prompt.press("Control+V")
    expect(chat.prompt).to_have_value("old ways")
    context.close()


def test_it_follows_the_answer_until_one_scrolls(open_chat: Any) -> None:
    chat = open_chat(**DESKTOP)
    below = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    log = chat.page.locator("#log")
    chat.say("line\n\n" * 60)
    assert log.evaluate(below) < 5
    log.evaluate("log => { log.scrollTop = 0 }")
    expect(chat.page.get_by_role("button", name="To the end")).to_be_visible()
    chat.press("To the end")
    expect(chat.page.get_by_role("button", name="To the end")).to_be_hidden()
    assert log.evaluate(below) < 5


def test_everything_has_a_name(open_chat: Any) -> None:
    """For those who hear the page."""
    chat = open_chat(**DESKTOP)
    chat.ask("step by step")
    unnamed = chat.run(
        """() => [...document.querySelectorAll("button, input, select, textarea")]
          .filter((control) => !control.hidden && !control.labels?.length)
          .filter((control) => !control.ariaLabel && !control.textContent.trim())
          .map((control) => control.outerHTML)"""
    )
    assert unnamed == []


# --- the pictures of docs/web-chat.md: WRITE_CAPTURES=1 takes them ------------------------------

QUESTION = "How does Euclid's algorithm work? Show it in Python."
THOUGHT = "Euclid's algorithm: replace the larger number by the remainder until nothing is left."
ANSWER = '''\
Euclid's algorithm finds the **greatest common divisor** of two numbers: replace the larger one by
the *remainder* of the division, again and again, until nothing is left.

```python
def gcd(a: int, b: int) -> int:
    """Return the greatest common divisor."""
    while b:  # the remainder gets smaller each time
        a, b = b, a % b
    return a
```

For `gcd(1071, 462)` the steps are:

| a | b | a mod b |
|--:|--:|--:|
| 1071 | 462 | 147 |
| 462 | 147 | 21 |
| 147 | 21 | 0 |

1. Each step keeps the set of common divisors.
2. The remainder halves within two steps, so it takes at most about 2 log₂ b of them.
'''
TIMINGS = {
    "cached_tokens": 512,
    "cache": "partial",
    "queue_ms": 0.3,
    "prompt_ms": 61.0,
    "time_to_first_token_ms": 64.0,
    "decode_ms": 4360.0,
    "prompt_tokens_per_second": 393.0,
    "decode_tokens_per_second": 46.3,
    "decode_gb_per_second": 31.2,
}
USAGE = {
    "prompt_tokens": 536,
    "completion_tokens": 261,
    "total_tokens": 797,
    "prompt_tokens_details": {"cached_tokens": 512},
    "completion_tokens_details": {"reasoning_tokens": 23},
}


def stream() -> str:
    deltas = [{"reasoning_content": THOUGHT}, {"content": ANSWER.replace("by\nthe", "by the")}]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    chunks += [{"choices": [end], "timings": TIMINGS}, {"choices": [], "usage": USAGE}]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


MODEL = {
    "id": "qwen3-0.6b",
    "context_length": 8192,
    "capabilities": {"chat": True, "tools": True, "thinking": True, "thinking_switch": True},
    "recommended": {"temperature": 0.6, "top_p": 0.95},
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {"color_scheme": "light", **DESKTOP}),
        ("dark", {"color_scheme": "dark", **DESKTOP}),
        ("phone", {"color_scheme": "light", **PHONE}),
        ("settings", {"color_scheme": "dark", **PHONE}),
    ],
)
def test_pictures(
    open_chat: Any, captures: Path | None, browser: Any, name: str, options: Any
) -> None:
    context = browser.new_context(**options)
    context.route("**/v1/models", lambda route: route.fulfill(json={"data": [MODEL]}))
    context.route(
        "**/chat/completions",
        lambda route: route.fulfill(body=stream(), content_type="text/event-stream"),
    )
    chat = open_chat(context=context)
    for question in ("A limerick about a tiny model", "Plan a weekend in Bonn", QUESTION):
        if chat.answers.count():
            chat.page.keyboard.press("Control+Shift+O")
        chat.ask(question)
    expect(chat.answer.locator(".stats")).to_contain_text("46.3 tokens/s")
    expect(chat.answer.locator("table")).to_be_attached()
    if name == "phone":
        chat.page.locator("#log").evaluate("log => { log.scrollTop = 0 }")
    if name == "settings":
        chat.press("Settings")
        chat.page.locator("#settings-title").click()
    if captures is not None:
        chat.page.mouse.move(600, 400)
        chat.page.screenshot(path=captures / f"web-chat-{name}.png", animations="disabled")
    context.close()
