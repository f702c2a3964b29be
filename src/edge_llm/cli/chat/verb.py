"""The options of ``edge-llm chat``, and its start."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from edge_llm.cli.chat.commands import help_text
from edge_llm.cli.console import check_text
from edge_llm.cli.loading import add_loading_arguments, loading_options
from edge_llm.cli.programs import add_model_argument, model_of, resolve_program
from edge_llm.cli.sampling import add_sampling_arguments, given_sampling

if TYPE_CHECKING:
    from edge_llm.api import LLM


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "chat",
        help="talk to a model in the terminal",
        description="Talk to a model. In the conversation:\n\n" + help_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_argument(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument(
        "--plain", action="store_true", help="show answers as they are written, not as Markdown"
    )
    parser.add_argument(
        "--hide-thinking", action="store_true", help="do not show what the model thinks"
    )
    add_loading_arguments(
        parser, adapters="may be repeated: the first answers, /adapter changes to another"
    )
    add_sampling_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load the program and talk until the end of the input."""
    check_text(arguments.system or "")

    def load(name: str | None, *, first: bool = False) -> LLM:
        from edge_llm.api import load as open_program

        path = resolve_program(name)
        options = loading_options(arguments, path)
        if not first:  # adapters are those of one model
            options["adapters"] = {}
        return open_program(path, max_sequences=1, **options)

    from edge_llm.cli.chat.loop import talk
    from edge_llm.cli.chat.session import Session

    llm = load(model_of(arguments), first=True)
    try:
        session = Session(llm, load, given_sampling(arguments), arguments.system)
    except BaseException:
        llm.close()
        raise
    try:
        talk(session, plain=arguments.plain, hide_thinking=arguments.hide_thinking)
    finally:
        session.llm.close()
    return 0
