"""``edge-llm completion``: what a shell needs to complete verbs, options, names and files."""

from __future__ import annotations

import argparse
from typing import Any

SHELLS = ("bash", "zsh", "fish")

_HOW = """\
bash:
  edge-llm completion bash > ~/.local/share/bash-completion/completions/edge-llm
zsh:
  edge-llm completion zsh > "${fpath[1]}/_edge-llm"
fish:
  edge-llm completion fish > ~/.config/fish/completions/edge-llm.fish"""


def add_parser(verbs: Any) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print what a shell needs to complete verbs, options, names of programs\n"
        "and models, and files. Keep it where the shell looks:\n\n" + _HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["edge-llm"], shell=arguments.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks for completions, and end the process."""
    import argcomplete

    argcomplete.autocomplete(parser)


def model_names(prefix: str) -> list[str]:
    """Return the names of programs and models that begin with ``prefix``, for a shell; files come
    from the shell itself."""
    from argcomplete.completers import FilesCompleter

    from edge_llm import catalogue

    try:
        names = [program.name for program in catalogue.list_programs()]
        names += [entry.name for entry in catalogue.list_models()]
    except Exception:  # a shell that completes shows no errors
        names = []
    found = [name for name in dict.fromkeys(names) if name.startswith(prefix)]
    return found + list(FilesCompleter(["edge", "gguf"])(prefix))
