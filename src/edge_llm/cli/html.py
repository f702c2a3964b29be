"""The pages that `bench` and `eval` write: where they go, and what they say about the machine."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
from pathlib import Path
from typing import Any

from edge_llm.errors import RequestError
from edge_llm.extras import require_extra


def add_html_argument(parser: Any, charts: str) -> None:
    """Add ``--html``; ``charts`` says what of."""
    parser.add_argument(
        "--html",
        metavar="FILE",
        help=f"write a page with charts as well: {charts} (needs the extra `charts`)",
    )


def check_page(name: str, verb: str) -> None:
    """Check, before anything is measured, that a page can be drawn and written.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RequestError: no file can be written there.
    """
    require_extra("charts", f"{verb} --html")
    path = Path(name)
    folder = path.parent
    if path.is_dir():
        raise RequestError(f"--html is {name}, which is a folder, expected a file's name")
    if not folder.is_dir():
        raise RequestError(f"--html is {name}, but there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise RequestError(f"--html is {name}, which may not be written")


def write_page(name: str, text: str) -> None:
    """Write a page.

    Raises:
        RequestError: it cannot be written.
    """
    try:
        Path(name).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise RequestError(f"cannot write {name}: {exc.strerror or exc}") from exc


def machine_facts() -> list[tuple[str, str]]:
    """Return what a page says about the machine, the versions and the time: names and values."""
    from importlib.metadata import version

    from edge_llm import __version__
    from edge_llm.native import isa

    now = datetime.datetime.now(datetime.UTC)
    return [
        ("machine", f"{_processor()}, {os.cpu_count()} logical CPUs, {platform.machine()}"),
        ("instruction set", isa()),
        ("system", f"{platform.system()} {platform.release()}"),
        (
            "versions",
            f"edge-llm {__version__}, Python {platform.python_version()}, "
            f"numpy {version('numpy')}, matplotlib {version('matplotlib')}",
        ),
        ("date", now.strftime("%Y-%m-%d %H:%M UTC")),
    ]


def command_of(arguments: argparse.Namespace) -> str:
    """Return the command line that was given, as a shell takes it."""
    return shlex.join(["edge-llm", *arguments.argv])


def _processor() -> str:
    """Return the name of the processor, as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"
