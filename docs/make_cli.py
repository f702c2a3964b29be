"""Print docs/cli.md: the --help of every verb. `make docs` writes it, a test compares it."""

from __future__ import annotations

import argparse
import os

os.environ["COLUMNS"] = "92"  # argparse wraps to the terminal; the page must not
os.environ["NO_COLOR"] = "1"

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


if __name__ == "__main__":
    print(page(), end="")
