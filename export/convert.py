"""A checkpoint that stands where a program is expected becomes one on the way, and is kept."""

from __future__ import annotations

from pathlib import Path

from edge_llm import __version__, catalogue
from edge_llm.catalogue.made import free_name, key_of, recall, remember
from edge_llm.catalogue.store import make_programs_dir
from edge_llm.errors import CheckpointError
from edge_llm.export.lowering.graph import Progress
from edge_llm.export.meter import silent
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe

_SCHEME = "8da4w"


def program_of(name: str, progress: Progress | None = None) -> Path:
    """Return the program that ``name`` means (see `find_program`), fetched if it is the address of
    one; of a checkpoint, which is fetched if need be, one is made.

    Raises:
        SourceError: there is none, or it cannot be fetched. And as `converted`.
    """
    if catalogue.names_program(name):
        return catalogue.pull_program(name, progress or silent)
    if not catalogue.names_checkpoint(name):
        return catalogue.find_program(name)
    if catalogue.identify(name) is not None:
        catalogue.pull(name, progress)
    return converted(name, progress)


def converted(source: str, progress: Progress | None = None) -> Path:
    """Return the program of ``source`` (a path, a name of the catalogue or ``hf:…``, fetched
    already), made by the usual recipe, in the store.

    It is made the first time, and again when the files or this version have changed. PyTorch is not
    loaded, unless the model's structure is none of those whose plans ship with the package.

    Raises:
        SourceError, CheckpointError, TokenizerError, ConfigError, ExportError: as `export`.
        MissingDependencyError: the model must be traced, and PyTorch is not installed.
    """
    path = catalogue.resolve(source)
    entry = catalogue.identify(source)
    scheme = entry.recipe if isinstance(entry, catalogue.Entry) else _SCHEME
    try:
        files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
        key = key_of(files, f"{scheme} {__version__}")
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror}") from exc
    made = recall(key)
    if made is not None:
        return made
    recipe = load_recipe(scheme, model=source)
    stem = entry.name if isinstance(entry, catalogue.Entry) else path.stem or path.name
    make_programs_dir()
    target = free_name(f"{stem}-{scheme}", key)
    outcome = make_program(recipe, output=target, progress=progress or silent, compare=False)
    remember(key, outcome.path)
    return outcome.path
