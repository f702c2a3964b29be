"""The web chat in a browser: Debian's Chromium, without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SECONDS = 30  # a machine may be busy; nothing here is about speed
# What the server means to answer with an error shows up in the console too.
EXPECTED = ("Failed to load resource",)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    expect.set_options(timeout=SECONDS * 1000)
    sandbox = [] if os.getuid() else ["--no-sandbox"]  # root has none
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@dataclass
class Chat:
    """The page, and what people do with it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    @property
    def prompt(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def answers(self) -> Locator:
        return self.page.locator(".message.assistant")

    @property
    def answer(self) -> Locator:
        """The last one."""
        return self.answers.last

    @property
    def text(self) -> Locator:
        """The text of the last answer, without its thinking."""
        return self.answer.locator(".body > .prose")

    @property
    def said(self) -> Locator:
        return self.page.locator(".message.user")

    def send(self, text: str) -> None:
        """Send a message; do not wait for the answer."""
        self.prompt.fill(text)
        self.page.get_by_role("button", name="Send", exact=True).click()

    def complete(self) -> None:
        """Wait until the last answer is complete."""
        expect(self.answer).to_have_attribute("aria-busy", "false")

    def ask(self, text: str) -> None:
        """Send a message and wait for the answer."""
        before = self.answers.count()
        self.send(text)
        expect(self.answers).to_have_count(before + 1)
        self.complete()

    def say(self, answer: str) -> None:
        """Have the model say something."""
        self.ask(f"Say:\n{answer}")

    def press(self, name: str) -> None:
        """Press a button of the page, by its name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def set(self, **settings: str) -> None:
        """Change settings, by the names of their fields."""
        self.press("Settings")
        dialog = self.page.get_by_role("dialog")
        for name, value in settings.items():
            control = dialog.locator(f"[name={name}]")
            if name == "tools":
                dialog.locator("#tools-row").evaluate("row => { row.open = true }")
            if name == "thinking":
                control.select_option(value)
            else:
                control.fill(value)
        dialog.get_by_role("button", name="Save").click()

    def notice(self, text: str) -> Locator:
        return self.page.locator(".notice", has_text=text)

    def run(self, code: str, argument: Any = None) -> Any:
        """Run a function in the page, as the browser's tools do: its policy does not bind them."""
        return self.page.evaluate(code, argument)


OpenChat = Callable[..., Chat]


@pytest.fixture
def open_chat(browser: Browser, scripted: Any) -> Iterator[OpenChat]:
    """Opens the page in browsers of their own, or in a ``context`` that is there. At the end
    nothing may have gone wrong in any, nor been asked of another address."""
    chats: list[Chat] = []
    contexts: list[BrowserContext] = []

    def open_page(
        url: str = scripted.url, context: BrowserContext | None = None, **options: Any
    ) -> Chat:
        if context is None:
            context = browser.new_context(**options)
            context.set_default_timeout(SECONDS * 1000)
            contexts.append(context)
        chat = Chat(context.new_page(), url)
        chats.append(chat)
        page, note = chat.page, chat.problems.append

        def console(message: Any) -> None:
            if message.type in ("error", "warning") and not message.text.startswith(EXPECTED):
                note(message.text)

        page.on("console", console)
        page.on("pageerror", lambda error: note(f"{error}"))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((url, "blob:", "data:")) else note(request.url)
            ),
        )
        page.goto(f"{url}/")
        return chat

    yield open_page
    for context in contexts:
        context.close()
    assert [chat.problems for chat in chats if chat.problems] == []


@pytest.fixture
def chat(open_chat: OpenChat) -> Chat:
    """The page, ready."""
    chat = open_chat(viewport={"width": 1200, "height": 800})
    expect(chat.page.get_by_role("heading", name="scripted")).to_be_visible()
    return chat


@pytest.fixture
def captures() -> Path | None:
    """The folder of the pictures of the documentation, if they are to be taken."""
    if not os.environ.get("WRITE_CAPTURES"):
        return None
    return Path(__file__).parents[3] / "docs" / "images"
