"""The loop of a chat: read a message or a command, carry it out, and read the next."""

from __future__ import annotations

import sys
from collections.abc import Callable

from edge_llm.cli.chat.commands import dispatch
from edge_llm.cli.chat.notes import about_error, about_turn
from edge_llm.cli.chat.reading import PlainReader, Reader
from edge_llm.cli.chat.rendering.writers import Writer, writer
from edge_llm.cli.chat.session import Session, Turn
from edge_llm.cli.chat.terminal import is_capable, silent_keys
from edge_llm.cli.console import check_text, say
from edge_llm.errors import EdgeLLMError


class Talk:
    """A session at the terminal: takes messages and commands, shows answers."""

    def __init__(self, session: Session, *, plain: bool = False, hide_thinking: bool = False):
        self.session = session
        self._plain = plain
        self._hide_thinking = hide_thinking

    def handle(self, text: str) -> None:
        """Run a command, or answer a message.

        Raises:
            EOFError: the command leaves.
            EdgeLLMError: the text is no text, or cannot be answered; nothing has changed then.
        """
        check_text(text)
        if text.startswith("//") and text[2:3].strip():
            text = text[1:]  # a message that looks like a command
        elif dispatch(self, text.strip()):
            return
        self.show(lambda shown: self.session.ask(text, shown))

    def show(self, answer: Callable[[Writer], Turn]) -> None:
        """Show an answer while it comes, and what is to be said about it."""
        with silent_keys():
            turn = answer(writer(plain=self._plain, hide_thinking=self._hide_thinking))
        note = about_turn(self.session, turn)
        if note is not None:
            say(note)


def talk(session: Session, *, plain: bool, hide_thinking: bool) -> None:
    """Talk until the input ends, or a command leaves."""
    terminal = sys.stdin.isatty()
    talk = Talk(session, plain=plain or not terminal, hide_thinking=hide_thinking)
    reader = _reader()
    if terminal:
        say("/help lists the commands, Ctrl-D leaves")
    while True:
        try:
            text = reader.read()
            if text.strip():
                talk.handle(text)
        except EOFError:
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            say("(/bye or Ctrl-D leaves)")
        except EdgeLLMError as error:  # a message that is refused ends no conversation
            say(about_error(session, error))


def _reader() -> Reader:
    if sys.stdin.isatty() and is_capable(sys.stdout):
        from edge_llm.cli.chat.editor import Editor

        return Editor()
    return PlainReader()
