"""The program that a verb means: ``--model``, or the newest one, or the default model made now."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_llm.cli.console import Progress, human_bytes, say

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
    format that this edge-llm reads, else the default model, made now. The default model is made
    again where its file is of an older format. What names a checkpoint (a GGUF file, a folder,
    ``hf:…``, a model of the catalogue without a program) becomes a program now, and is kept.

    Raises:
        SourceError: no such program or model, or it could not be fetched.
        CheckpointError, ExportError, MissingDependencyError: no program could be made of it.
    """
    from edge_llm import catalogue
    from edge_llm.program.version import older_format

    if model is not None:
        if _is_checkpoint(model):
            return make_program(model)
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


def make_program(source: str) -> Path:
    """Return the program of a checkpoint (a path, a name of the catalogue or ``hf:…``, fetched if
    need be), made by the usual recipe the first time that it is asked for.

    Raises:
        SourceError: no such path or name, or it cannot be fetched.
        CheckpointError, ExportError, MissingDependencyError: no program could be made of it.
    """
    from edge_llm.cli.fetch import fetch
    from edge_llm.cli.terminate import terminate_as_interrupt
    from edge_llm.export.convert import converted

    terminate_as_interrupt()  # so that a killed export leaves no temporary file
    progress = Progress()
    try:
        fetch(source, progress)
        return converted(source, progress)
    finally:
        progress.close()


def _is_checkpoint(model: str) -> bool:
    """Tell whether ``model`` names a checkpoint, and no program."""
    from edge_llm import catalogue
    from edge_llm.catalogue.store import expand
    from edge_llm.errors import SourceError

    path = expand(model)
    if path.exists():
        return path.is_dir() or path.suffix == ".gguf"
    try:
        catalogue.find_program(model)
    except SourceError:
        try:
            catalogue.identify(model)
        except SourceError:
            return False
        return True
    return False


def _is_default(path: Path) -> bool:
    """Tell whether `_make_default` writes this file."""
    from edge_llm import catalogue

    name = f"{DEFAULT_MODEL}-{catalogue.find(DEFAULT_MODEL).recipe}"
    return path == catalogue.programs_dir() / f"{name}{path.suffix}"


def _make_default(reason: str) -> Path:
    """Make a program of the default model, after saying why."""
    from edge_llm import catalogue

    entry = catalogue.find(DEFAULT_MODEL)
    say(
        f"Making a program of {entry.name}, {reason} ("
        f"{human_bytes(entry.download_bytes)} from {entry.origin}, {entry.licence} licence)"
    )
    return make_program(DEFAULT_MODEL)
