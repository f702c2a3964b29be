"""The commands of a chat, which begin with a slash."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_llm.cli.console import say
from edge_llm.errors import RequestError
from edge_llm.near import near

if TYPE_CHECKING:
    from edge_llm.cli.chat.loop import Talk


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its names, the first of which is shown, its argument's name, and what it does."""

    names: tuple[str, ...]
    argument: str
    meaning: str
    run: Callable[[Talk, str], None]


def help_text() -> str:
    """Return the list of commands."""
    rows = [
        (f"{command.names[0]} {command.argument}".strip(), command.meaning) for command in COMMANDS
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{meaning}" for name, meaning in rows) + _KEYS


_KEYS = """

A message of several lines: paste it, end lines with Alt-Enter, or put
it between two \"\"\". //etc sends a message that begins with /etc.
Ctrl-C stops an answer; what was said so far stays in the conversation."""


def dispatch(talk: Talk, text: str) -> bool:
    """Run a command. Return False for text that is a message.

    Raises:
        EdgeLLMError: the command cannot be honoured; nothing has changed then.
    """
    found = re.match(r"/[A-Za-z?][^\s]*", text)
    if found is None:
        return False
    word = found[0]
    command = next((command for command in COMMANDS if word.lower() in command.names), None)
    if command is None:
        names = [name for command in COMMANDS for name in command.names]
        meant = near(word, names, 1, cutoff=0.5)
        raise RequestError(
            f"there is no command {word:.40}" + (f", did you mean {meant[0]}?" if meant else ""),
            hint=f"/help lists them; /{word:.40} … sends it as a message",
        )
    command.run(talk, text[len(word) :].strip())
    return True


def _help(talk: Talk, rest: str) -> None:
    say(help_text())


def _model(talk: Talk, rest: str) -> None:
    if not rest:
        say(f"{talk.session.llm.name}: {talk.session.llm.program.path}")
        return
    talk.session.switch(rest)
    used = talk.session.used()
    has = "" if used is None else f", {used} of {talk.session.llm.context} tokens of its context"
    say(f"({talk.session.llm.name} goes on with the conversation{has})")


def _adapter(talk: Talk, rest: str) -> None:
    session = talk.session
    if rest:
        session.set_adapter(None if rest == "none" else rest)
    there = ", ".join(session.llm.adapters) or "none is loaded"
    say(f"adapter: {session.adapter or 'none'} ({there})")


def _load(talk: Talk, rest: str) -> None:
    from edge_llm.cli.chat import transcript

    path = transcript.path_of(rest)
    messages = transcript.read(path)
    talk.session.load_messages(messages)
    say(f"(loaded {path}: {len(messages)} messages)")
    if messages and messages[-1]["role"] == "user":
        say("(the last one has no answer: /retry gives one)")


def _save(talk: Talk, rest: str) -> None:
    say(f"({talk.session.save(rest)})")


def _system(talk: Talk, rest: str) -> None:
    talk.session.set_system(rest or None)
    say("(system message set; a new conversation)" if rest else "(no system message)")


def _set(talk: Talk, rest: str) -> None:
    from edge_llm.cli.chat import settings

    session = talk.session
    given, _, value = re.sub(r"^(\w+)\s*=\s*", r"\1 ", rest).partition(" ")  # NAME=VALUE too
    value = value.strip()
    if not given:
        say(_columns(session.shown_settings()) + "\n(* set here; /set NAME default unsets it)")
        return
    rows = {
        name.removesuffix("*"): (value, meaning)
        for name, value, meaning in session.shown_settings()
    }
    name = given if given in ("think", "loops") else settings.name_of(given)
    if value:
        _change(talk, name, value)
        rows = {
            name.removesuffix("*"): (value, meaning)
            for name, value, meaning in session.shown_settings()
        }
        say(f"({name}: {rows[name][0]})")
    else:
        say(f"{name}: {rows[name][0]}\n{rows[name][1]}")


def _change(talk: Talk, name: str, value: str) -> None:
    from edge_llm.cli.chat import settings

    session, unset = talk.session, value.lower() in settings.UNSET
    if name == "loops":
        if value not in ("stop", "ignore"):
            raise RequestError(f"loops: got {value:.40}, expected stop or ignore")
        session.stops_loops = value == "stop"
    elif name == "think":
        wanted = settings.switch_of(value)
        if wanted is None and not unset:
            raise RequestError(f"think: got {value:.40}, expected on, off or default")
        session.set_think(wanted)
    else:
        session.set(name, None if unset else settings.value_of(name, value))


def _show(talk: Talk, rest: str) -> None:
    session = talk.session
    llm, used = session.llm, session.used()
    say(f"program:   {llm.name}, {llm.about.quantization}, {llm.program.path}")
    if llm.adapters:
        say(f"adapter:   {session.adapter or 'none'} ({', '.join(llm.adapters)})")
    tokens = "" if used is None else f", {used} of {llm.context} tokens of the context"
    say(f"messages:  {len(session.messages)}{tokens}")
    if session.system is not None:
        say(f"system:    {session.system}")
    changed = [
        f"{name[:-1]} {value}" for name, value, _ in session.shown_settings() if name.endswith("*")
    ]
    say(f"settings:  {', '.join(changed) or 'as the model has them'} (/set shows all)")


def _retry(talk: Talk, rest: str) -> None:
    params = talk.session.params
    if params.temperature == 0 or params.seed is not None:
        why = "temperature 0" if params.temperature == 0 else "this seed"
        say(f"(with {why} the answer will be the same)")
    talk.show(talk.session.retry)


def _undo(talk: Talk, rest: str) -> None:
    say(f"(forgotten: {talk.session.undo():.60})")


def _reset(talk: Talk, rest: str) -> None:
    talk.session.reset()
    say("(forgotten)")


def _stats(talk: Talk, rest: str) -> None:
    last = talk.session.last
    if last is None:
        say("nothing was answered yet")
    elif last.stats is None:
        say("the last answer was stopped, which leaves no figures")
    else:
        say(last.stats.summary())


def _bye(talk: Talk, rest: str) -> None:
    raise EOFError


COMMANDS = (
    Command(("/help", "/?"), "", "this list", _help),
    Command(("/model",), "NAME", "go on with another program", _model),
    Command(("/adapter",), "NAME", "answer with another adapter, or with none", _adapter),
    Command(("/system",), "TEXT", "set the system message, start over", _system),
    Command(("/set",), "NAME VALUE", "change a setting; /set alone shows all", _set),
    Command(("/show",), "", "program, settings, tokens used", _show),
    Command(("/retry",), "", "answer the last message again", _retry),
    Command(("/undo",), "", "forget the last message and its answer", _undo),
    Command(("/reset",), "", "forget the conversation", _reset),
    Command(("/stats",), "", "figures of the last answer", _stats),
    Command(("/save",), "FILE", "write the conversation as JSON", _save),
    Command(("/load",), "FILE", "go on with a conversation in a file", _load),
    Command(("/bye", "/quit", "/exit"), "", "leave (also Ctrl-D)", _bye),
)


def _columns(rows: list[tuple[str, str, str]]) -> str:
    """Return settings in columns that fit the terminal; meanings are cut."""
    width = shutil.get_terminal_size().columns
    names = max(len(name) for name, _, _ in rows)
    values = min(12, max(len(value) for _, value, _ in rows))
    lines = [f"{name:{names}}  {value:{values}}  {meaning}" for name, value, meaning in rows]
    return "\n".join(
        line if len(line) < width else line[: width - 4].rstrip() + "..." for line in lines
    )
