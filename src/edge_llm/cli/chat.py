"""``edge-llm chat``: a conversation in the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import check_text, say
from edge_llm.cli.programs import (
    add_loading_arguments,
    add_model_argument,
    loading_options,
    resolve_program,
)
from edge_llm.cli.sampling import add_sampling_arguments, sampling_params
from edge_llm.errors import EdgeLLMError

if TYPE_CHECKING:
    from edge_llm.api import LLM
    from edge_llm.runner.sampling import SamplingParams

_HELP = """\
/system TEXT   set the system message and start over (no TEXT: remove it)
/reset         forget the conversation
/stats         figures of the last answer
/save FILE     write the conversation as JSON
/help          this list
/quit          leave (also Ctrl-D)
Ctrl-C stops an answer; what was said so far stays in the conversation."""


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "chat",
        help="talk to a model in the terminal",
        description="Talk to a model.\n\n" + _HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_argument(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    add_loading_arguments(parser)
    add_sampling_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    path = resolve_program(arguments.model)

    from edge_llm.api import load

    with load(path, max_sequences=1, **loading_options(arguments)) as llm:
        llm.require_chat_template()
        conversation = Conversation(llm, sampling_params(llm, arguments), arguments.system)
        if sys.stdin.isatty():
            import readline  # noqa: F401  line editing and history for input()

            say(f"{llm.name}: /help lists the commands")
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "")
            except EOFError:
                return 0
            except KeyboardInterrupt:
                say("\n/quit or Ctrl-D leaves")
                continue
            if line.strip() in ("/quit", "/exit"):
                return 0
            if line.strip():
                try:
                    conversation.handle(line)
                except EdgeLLMError as error:  # a too long or refused message ends no conversation
                    say(f"error: {error}")


class Conversation:
    """The history and the commands that act on it."""

    def __init__(self, llm: LLM, params: SamplingParams, system: str | None) -> None:
        check_text(system or "")
        self.llm = llm
        self.params = params
        self.system = system
        self.messages: list[dict[str, str]] = []
        self.last_stats: str | None = None
        self.reset()

    def reset(self) -> None:
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def handle(self, line: str) -> None:
        """Run a command, or answer.

        Raises:
            EdgeLLMError: the line is no text, or cannot be answered; nothing has changed then.
        """
        check_text(line)
        command, _, rest = line.strip().partition(" ")
        match command:
            case "/help":
                say(_HELP)
            case "/reset":
                self.reset()
                say("(forgotten)")
            case "/stats":
                say(self.last_stats or "nothing was answered yet")
            case "/system":
                self.system = rest.strip() or None
                self.reset()
                say("(system message set)" if self.system else "(no system message)")
            case "/save":
                self._save(rest.strip())
            case _ if command.startswith("/"):
                say(f"unknown command {command}; /help lists them")
            case _:
                self._answer(line)

    def _answer(self, text: str) -> None:
        asked = [*self.messages, {"role": "user", "content": text}]
        answer: list[str] = []
        pieces = self.llm.chat(asked, self.params, stream=True)
        try:
            for piece in pieces:
                answer.append(piece.text)
                sys.stdout.write(piece.text)
                sys.stdout.flush()
                if piece.stats:
                    self.last_stats = piece.stats.summary()
        except KeyboardInterrupt:
            pieces.close()  # cancels the sequence; its blocks come back
            say("\n(stopped)")
        else:
            print()
        self.messages = [*asked, {"role": "assistant", "content": "".join(answer)}]

    def _save(self, name: str) -> None:
        if not name:
            say("/save needs a file name")
            return
        try:
            Path(name).write_text(
                json.dumps(self.messages, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
            )
        except OSError as error:
            say(f"error: cannot write {name}: {error.strerror}")
        else:
            say(f"(saved {len(self.messages)} messages to {name})")
