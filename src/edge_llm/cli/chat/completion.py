"""Complete a command: its name, a setting, a program, a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from edge_llm.cli.chat import settings
from edge_llm.cli.chat.commands import COMMANDS, Command


class CommandCompleter(Completer):
    """Completes what begins with a slash, and nothing in messages."""

    def __init__(self, programs: Callable[[], Iterable[str]]) -> None:
        """Take what lists the names of programs."""
        self._programs = programs

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """Yield what can stand at the cursor."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in document.text:
            return
        word, space, rest = text.partition(" ")
        if not space:
            for command in COMMANDS:
                yield from _matching(word, command.names[:1], command.meaning)
            return
        found = next((command for command in COMMANDS if word in command.names), None)
        if found is not None:
            yield from self._arguments(found, rest)

    def _arguments(self, command: Command, rest: str) -> Iterator[Completion]:
        match command.argument:
            case "NAME":
                yield from _matching(rest, sorted(set(self._programs())))
            case "FILE":
                yield from _files(rest)
            case "NAME VALUE":
                name, space, value = rest.partition(" ")
                if not space:
                    yield from _matching(name, ["think", "loops", *settings.names()])
                else:
                    yield from _matching(value, _values(name))


def _values(name: str) -> list[str]:
    if name == "think":
        return ["on", "off", "default"]
    return ["stop", "ignore"] if name == "loops" else settings.choices_of(name)


def _matching(begun: str, words: Iterable[str], meaning: str = "") -> Iterator[Completion]:
    for word in words:
        if word.startswith(begun):
            yield Completion(word, start_position=-len(begun), display_meta=meaning)


def _files(begun: str) -> Iterator[Completion]:
    folder, name = os.path.split(begun)
    try:
        entries = sorted(os.scandir(Path(folder or ".").expanduser()), key=lambda entry: entry.name)
    except (OSError, RuntimeError):
        return
    for entry in entries:
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
            end = "/" if entry.is_dir() else ""
            yield Completion(entry.name + end, start_position=-len(name), display=entry.name + end)
