"""The program that a verb means: ``--model``, or the newest one, or the default model made now."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_llm.cli.console import human_bytes, say
from edge_llm.errors import ExportError

DEFAULT_MODEL = "smollm2-135m"


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` for the verbs that can do without it: see `resolve_program`."""
    parser.add_argument(
        "--model",
        "-m",
        metavar="FILE|NAME",
        help="a program file, or the name of one in the store (default: the newest one; with none, "
        "the small default model)",
    )


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads`` and ``--huge-pages`` for verbs that start an engine; see
    `machine_options`."""
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
    """Return what `add_machine_arguments` read, as keyword arguments of `edge_llm.load`."""
    return {"threads": arguments.threads, "huge_pages": arguments.huge_pages}


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `add_machine_arguments`, ``--context`` and ``--kv-dtype``, for verbs
    that generate; see `loading_options`."""
    from edge_llm.program.ops import KV_DTYPES

    add_machine_arguments(parser)
    parser.add_argument(
        "--context",
        type=int,
        metavar="N",
        help="most tokens of prompt and answer together (default: what the program allows); fewer "
        "take less memory",
    )
    parser.add_argument(
        "--kv-dtype",
        choices=tuple(KV_DTYPES),
        help="how keys and values are stored (default: as the program recommends)",
    )


def loading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_loading_arguments` read, as keyword arguments of `edge_llm.load`."""
    return {
        **machine_options(arguments),
        "context": arguments.context,
        "kv_dtype": arguments.kv_dtype,
    }


def _threads(text: str) -> int:
    if text == "auto":
        return 0
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number or auto") from None


def resolve_program(model: str | None) -> Path:
    """Return the program file to run: the one that is named, else the newest of the store in a
    format that this edge-llm reads, else the default model, exported now. The default model is
    exported again where its file is of an older format.

    Raises:
        SourceError: no such program, or the default model could not be fetched.
        ExportError: the default model could not be exported.
    """
    from edge_llm import catalogue
    from edge_llm.program.version import older_format

    if model is not None:
        path = catalogue.find_program(model)
        # Others are refused when they are opened, with the command that exports them again.
        outdated = _is_default(path) and older_format(path) is not None
        return _make_default("it is of an older format here") if outdated else path
    for program in catalogue.list_programs():
        version = older_format(program.path)
        if version is None:
            return program.path
        if _is_default(program.path):
            return _make_default("it is of an older format here")
        say(f"passing over {program.name}, of format {version}: export it again")
    return _make_default("no program here yet")


def _is_default(path: Path) -> bool:
    """Tell whether `_make_default` writes this file."""
    from edge_llm import catalogue

    name = f"{DEFAULT_MODEL}-{catalogue.find(DEFAULT_MODEL).recipe}"
    return path == catalogue.programs_dir() / f"{name}{path.suffix}"


def _make_default(reason: str) -> Path:
    """Export the default model into the store, after saying why."""
    from edge_llm import catalogue

    entry = catalogue.find(DEFAULT_MODEL)
    say(
        f"Making a program of {entry.name}, {reason} ("
        f"{human_bytes(entry.download_bytes)} from {entry.origin}, {entry.licence} licence)"
    )
    # In a child process, so that this one, which goes on to serve, never loads PyTorch, which the
    # file is compared with.
    command = [sys.executable, "-m", "edge_llm.cli.main", "export", "--model", DEFAULT_MODEL]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if completed.returncode != 0:
        raise ExportError(f"exporting the default model {DEFAULT_MODEL} failed (see above)")
    return Path(completed.stdout.strip())
