"""Which program a verb means: ``--model``, or the newest one, or the default model made now."""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_llm.cli.console import human_bytes, say
from edge_llm.errors import ExportError, MissingDependencyError

DEFAULT_MODEL = "smollm2-135m"


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """``--model`` of the verbs that can do without: see `resolve_program`."""
    parser.add_argument(
        "--model",
        "-m",
        metavar="FILE|NAME",
        help="a program file, or the name of one in the store (default: the newest one; with none, "
        "the small default model)",
    )


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """``--threads`` and ``--huge-pages`` of verbs that start an engine; see `machine_options`."""
    parser.add_argument(
        "--threads",
        type=_threads,
        default=0,
        metavar="N|auto",
        help="default: auto, the physical cores that this process may use, measured (in 3 ms) "
        "where the system cannot tell them from hyper-threads",
    )
    parser.add_argument(
        "--huge-pages",
        choices=("auto", "copy", "off"),
        default="auto",
        help="auto: ask the kernel to hold the file in huge pages; copy: copy the weights into "
        "huge pages at load, if memory allows (default: auto)",
    )


def machine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_machine_arguments` read, as keyword arguments of `edge_llm.load`."""
    return {"threads": arguments.threads, "huge_pages": arguments.huge_pages}


def _threads(text: str) -> int:
    if text == "auto":
        return 0
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number or auto") from None


def resolve_program(model: str | None) -> Path:
    """The program file to run.

    Raises:
        SourceError: no such program, or the default model could not be fetched.
        ExportError: the default model could not be exported.
    """
    from edge_llm import catalogue

    if model is not None:
        return catalogue.find_program(model)
    newest = catalogue.newest_program()
    return newest if newest is not None else _make_default()


def _make_default() -> Path:
    from edge_llm import catalogue

    entry = catalogue.find(DEFAULT_MODEL)
    say(
        f"No program here yet: making one of {entry.name} ("
        f"{human_bytes(entry.download_bytes)} from {entry.origin}, {entry.licence} licence)"
    )
    require_export_extra()
    # In a child process, so that this one, which goes on to serve, never loads PyTorch.
    command = [sys.executable, "-m", "edge_llm.cli.main", "export", "--model", DEFAULT_MODEL]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if completed.returncode != 0:
        raise ExportError(f"exporting the default model {DEFAULT_MODEL} failed (see above)")
    return Path(completed.stdout.strip())


def require_export_extra() -> None:
    """Raises MissingDependencyError, with what to install, where PyTorch is not there."""
    missing = [name for name in ("torch", "torchao", "safetensors") if not find_spec(name)]
    if missing:
        raise MissingDependencyError(
            f"exporting needs {', '.join(missing)}, which this environment lacks",
            hint="pip install 'edge-llm[export]'",
        )
