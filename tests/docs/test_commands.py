"""Every command in README and docs is one that the programs take, and those that can run here do.

Each page is run from top to bottom by a shell, in a folder with a tiny checkpoint, an adapter, a
text and programs of the names that the pages use, with an ``EDGE_LLM_HOME`` of its own. The server
of a page listens at a free port instead of 8017. Not run, but checked: what a block is marked for
(`shell_blocks.REASONS`), what would fetch a model, and programs other than ours (`make`, `pip`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
from sandbox import RUN, Sandbox, runs_here
from shell_blocks import REASONS, Line, inline_commands, shell_lines

from edge_llm.cli.main import VERBS, build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "cli.md"),  # made
]
LINES = [line for page in PAGES for line in shell_lines(page)]


def _name(line: Line) -> str:
    return f"{line.page}:{line.number}"


@pytest.mark.parametrize("line", LINES, ids=_name)
def test_is_a_command(line: Line) -> None:
    assert line.skipped is None or line.skipped in REASONS
    for command in line.commands():
        _check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_name_what_there_is(page: Path) -> None:
    """They may be parts of commands, so it is verbs and options that count."""
    for text in inline_commands(page):
        words = text.split()[1:]
        if words[0].startswith("-"):
            continue
        verb = words[0].rstrip(".,;:")
        assert verb in VERBS, text
        known = _options(verb)
        for option in re.findall(r"(?<!\S)--[\w-]+", text):
            assert option in known, text


@pytest.mark.skipif(sys.platform == "win32", reason="the pages are for a POSIX shell")
@pytest.mark.parametrize("page", dict.fromkeys(line.page for line in LINES if runs_here(line)))
def test_page_runs(page: str, sandbox: Sandbox) -> None:
    for line in LINES:
        if line.page == page and runs_here(line):
            sandbox.run(line)


def _check(command: list[str]) -> None:
    """Check a command without running it: what it names is there, and what `edge-llm` is given is
    something that it takes."""
    program, *words = command
    if program == "edge-llm":
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
                build_parser(words[0] if words else None).parse_args(words)
        except SystemExit as exc:  # --help and --version end so too, with 0
            if exc.code != 0:
                pytest.fail(f"edge-llm {' '.join(words)}: {errors.getvalue()}")
    elif program == "make":
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in words if "=" not in word):
            assert re.search(rf"^{re.escape(target)}:", text, re.MULTILINE), target
    elif program == "sudo" and words[0] in RUN:
        _check(words)
    for word in words:  # of the repository
        if re.match(r"(benchmarks|deploy|docs|examples|tests|tools)/", word):
            assert (ROOT / word.partition("::")[0]).exists(), word


def _options(verb: str) -> set[str]:
    (verbs,) = [
        action
        for action in build_parser(verb)._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return set(verbs.choices[verb]._option_string_actions)
