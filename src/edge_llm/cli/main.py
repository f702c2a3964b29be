"""``edge-llm``: parses the command line and runs one verb.

Exit status: 0 done; 1 an error, told on stderr as ``error:`` and perhaps ``hint:``; 2 the command
line is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from edge_llm import __version__
from edge_llm.cli.console import complain, say
from edge_llm.cli.parser import Parser
from edge_llm.errors import EdgeLLMError
from edge_llm.near import near

# The verbs, and the modules of this package that they are in.
VERBS = {
    "export": "export",
    "chat": "chat",
    "run": "run",
    "serve": "serve",
    "bench": "bench",
    "plan": "plan",
    "eval": "evaluate",
    "inspect": "inspect",
    "verify": "verify",
    "default": "config",
    "config": "config",
    "completion": "completion",
    "pack": "pack",
    "ps": "served",
    "stop": "served",
    "ls": "store",
    "pull": "store",
    "rm": "store",
}


def build_parser(verb: str | None = None) -> Parser:
    """Return the parser of all verbs; or with ``verb``, if there is such, of that one's module
    alone: the others need not be imported to run it."""
    parser = Parser(
        prog="edge-llm",
        description="Run LLMs on this machine. Begin with `edge-llm chat`: the first time it "
        "fetches a small model. `edge-llm VERB --help` says more about each verb.",
    )
    parser.add_argument("--version", action="version", version=f"edge-llm {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in [VERBS[verb]] if verb in VERBS else dict.fromkeys(VERBS.values()):
        import_module(f"edge_llm.cli.{module}").add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    _open_streams()
    # The threads that numpy starts when imported: nothing here multiplies matrices with it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "_ARGCOMPLETE" in os.environ:
        from edge_llm.cli.completion import complete

        complete(build_parser())
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parsed(argv)
        arguments.argv = tuple(argv)  # a page says which command made it
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except EdgeLLMError as error:
        complain(str(error), error.hint)
        return 1
    except KeyboardInterrupt:
        # Terminals show ^C where the cursor was, perhaps behind half an answer.
        say("\ninterrupted" if sys.stderr.isatty() else "interrupted")
        return 130
    except BrokenPipeError:
        # The reader went away (`edge-llm ls | head`). Nothing more can be written; keep the
        # interpreter from complaining about it while it flushes at exit.
        _drop_stdout()
        return 1
    except OSError as error:
        # What modules read and write they translate; left is stdout itself, on a full disk.
        _drop_stdout()
        named = error.filename is not None or error.strerror is None
        complain(str(error) if named else f"cannot write to standard output: {error.strerror}")
        return 1


def _parsed(argv: list[str]) -> argparse.Namespace:
    """Return what the command line says; without a verb, it asks for help."""
    if not argv or argv == ["help"]:
        argv = ["--help"]
    if argv[0] == "help":
        argv = [argv[1], "--help"]
    if not argv[0].startswith("-") and argv[0] not in VERBS:
        close = near(argv[0], (*VERBS, "help"))
        Parser(prog="edge-llm").fail(f"there is no verb {argv[0]!r}", close)
    parser = build_parser(argv[0])
    if argv[0].startswith("-") and not parser.knows(argv[0]):
        parser.error(f"unrecognized arguments: {argv[0]}")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        verbs = parser.verbs
        verbs[arguments.verb].error(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def _open_streams() -> None:
    """Nothing to read and nowhere to write in place of a stream that was closed (``<&-``), which
    Python makes None; and an answer's character that the terminal lacks becomes a "?"."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 (for the process)
            setattr(sys, name, stream)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
