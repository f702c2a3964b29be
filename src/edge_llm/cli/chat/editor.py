"""The line editor of a terminal, by prompt-toolkit."""

from __future__ import annotations

import os
from collections.abc import Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output

from edge_llm.cli.chat.completion import CommandCompleter
from edge_llm.cli.chat.history import FileHistory, history_path
from edge_llm.cli.chat.reading import is_open, unquoted
from edge_llm.cli.chat.reflow import follow_reflow
from edge_llm.cli.console import say


class Editor:
    """Reads messages of one or more lines: what is pasted is one, Alt-Enter breaks a line, and so
    does Enter after three double quotes."""

    def __init__(self) -> None:
        # The position of the cursor is never asked for: terminals that do not tell it would be
        # complained about, and those that tell it late would type it into the message.
        os.environ.setdefault("PROMPT_TOOLKIT_NO_CPR", "1")
        self._history = _history()
        self._told = False
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            history=self._history,
            completer=CommandCompleter(_programs),
            complete_while_typing=Condition(_is_command),
            reserve_space_for_menu=6,
            key_bindings=_keys(),
            prompt_continuation=lambda width, number, wraps: "  " if wraps else ". ",
            enable_suspend=True,
            enable_open_in_editor=True,
            output=create_output(),
        )
        follow_reflow(self._session.app)

    def read(self) -> str:
        """Return what was entered. Raises as `Reader.read`."""
        text = self._session.prompt("> ")
        trouble = getattr(self._history, "trouble", "there is no home folder")
        if trouble is not None and not self._told:
            self._told = True
            say(f"(what you type is not kept for the next time: {trouble})")
        return unquoted(text)


def _history() -> History:
    try:
        return FileHistory(history_path())
    except RuntimeError:
        return InMemoryHistory()


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("tab")
    def complete(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state is not None:
            buffer.complete_next()
            return
        asked = CompleteEvent(completion_requested=True)
        found = list(buffer.completer.get_completions(buffer.document, asked))
        if len(found) == 1:  # at once: the menu comes later than the next key
            buffer.apply_completion(found[0])
        else:
            buffer.start_completion(insert_common_part=True)

    return keys


def _is_command() -> bool:
    text = get_app().current_buffer.text
    return text.startswith("/") and not text.startswith("//") and "\n" not in text


def _programs() -> Iterable[str]:
    from edge_llm import catalogue

    return (program.path.stem for program in catalogue.list_programs())
