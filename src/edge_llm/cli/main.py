"""``edge-llm``: parses the command line and runs one verb.

Exit status: 0 done; 1 an error, told on stderr as ``error:`` and perhaps ``hint:``; 2 the command
line is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from edge_llm import __version__
from edge_llm.cli import (
    bench,
    chat,
    evaluate,
    export,
    inspect,
    run,
    serve,
    store,
    verify,
)
from edge_llm.errors import EdgeLLMError

VERBS = (export, chat, run, serve, bench, evaluate, inspect, verify, store)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-llm",
        description="Export a PyTorch LLM to one program file and run it here, without PyTorch.",
    )
    parser.add_argument("--version", action="version", version=f"edge-llm {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except EdgeLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`edge-llm ls | head`). Nothing more can be written; keep the
        # interpreter from complaining about it while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
