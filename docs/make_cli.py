"""Print docs/cli.md, the --help of every verb; with --man the man page, docs/edge-llm.1.
`make docs` writes both, a test compares them."""

from __future__ import annotations

import argparse
import os
import re
import sys

os.environ["COLUMNS"] = "92"  # argparse wraps to the terminal; the page must not
os.environ["NO_COLOR"] = "1"

from argparse_manpage.manpage import Manpage

from edge_llm import __version__
from edge_llm.cli.main import build_parser


def page() -> str:
    parser = build_parser()
    parts = [
        "# The command line\n\nMade by `make docs` from `--help`. Answers and `--json` documents "
        "go to stdout, progress and statistics to stderr. Exit status: 0 done, 1 an error, "
        "2 a wrong command line, 130 interrupted.\n",
        _block("edge-llm --help", parser),
    ]
    for action in parser._subparsers._group_actions:  # type: ignore[union-attr]
        assert isinstance(action, argparse._SubParsersAction)
        for name, verb in action.choices.items():
            parts.append(f"## {name}\n")
            parts.append(_block(f"edge-llm {name} --help", verb))
    return "\n".join(parts)


def _block(command: str, parser: argparse.ArgumentParser) -> str:
    return f"```\n$ {command}\n{parser.format_help().rstrip()}\n```\n"


def man() -> str:
    """Return the man page, which says the version in place of the day that it was made on."""
    _, *lines = str(Manpage(build_parser())).splitlines()
    lines[1] = "edge\\-llm \\- run LLMs on this machine"  # under NAME
    # Requests of man pages are upper case: a line of help that begins with a dot is text.
    lines = [f"\\&{line}" if re.match(r"\.[^A-Z]", line) else line for line in lines]
    head = f'.TH EDGE\\-LLM "1" "" "edge\\-llm {__version__}" "User Commands"'
    return "\n".join([head, *lines, ""])


if __name__ == "__main__":
    print(man() if "--man" in sys.argv else page(), end="")
