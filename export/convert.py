"""A checkpoint that stands where a program is expected becomes one on the way, and is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edge_llm import __version__, catalogue
from edge_llm.catalogue.made import key_of, name_of, recall, remember, settle
from edge_llm.catalogue.store import make_programs_dir
from edge_llm.errors import CheckpointError
from edge_llm.export.lowering.graph import Progress
from edge_llm.export.meter import silent
from edge_llm.export.pipeline import make_program
from edge_llm.export.recipes.file import load_recipe
from edge_llm.llm.checkpoints.gguf.model import PART_NAME

_SCHEME = "8da4w"


def program_of(name: str, progress: Progress | None = None) -> Path:
    """Return the program that ``name`` means (see `find_program`), fetched if it is the address of
    one; of a checkpoint, which is fetched if need be, one is made.

    Raises:
        SourceError: there is none, or it cannot be fetched. And as `converted`.
    """
    if catalogue.names_program(name):
        return catalogue.pull_program(name, progress or silent)
    found = catalogue.program_unless_checkpoint(name)
    if found is not None:
        return found
    if catalogue.identify(name) is not None:
        catalogue.pull(name, progress)
    return converted(name, progress)


def converted(
    source: str,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Return the program of ``source`` (a path, a name of the catalogue or ``hf:…``, fetched
    already), made by the usual recipe, in the store.

    It is made the first time, and again when the files or this version have changed. PyTorch is not
    loaded, unless the model's structure is none of those whose plans ship with the package.
    ``tell`` is called with a sentence for people when one was made.

    Raises:
        SourceError, CheckpointError, TokenizerError, ConfigError, ExportError: as `export`.
        MissingDependencyError: the model must be traced, and PyTorch is not installed.
    """
    path = catalogue.resolve(source)
    entry = catalogue.identify(source)
    scheme = entry.recipe if isinstance(entry, catalogue.Entry) else _SCHEME
    try:
        key = key_of(_files(path), f"{scheme} {__version__}")
    except OSError as exc:
        raise CheckpointError(f"{path} cannot be read: {exc.strerror}") from exc
    made = recall(key)
    if made is not None:
        return made
    recipe = load_recipe(scheme, model=source)
    stem = entry.name if isinstance(entry, catalogue.Entry) else path.stem or path.name
    make_programs_dir()
    usual = f"{stem}-{scheme}"
    target = name_of(usual, key)
    outcome = make_program(recipe, output=target, progress=progress or silent, compare=False)
    made = settle(outcome.path, usual)
    remember(key, made)
    tell(
        f"made {made.stem} of {source}"
        + ("" if made.stem == usual else f"; {usual}, of other files, is still here")
    )
    return made


def _files(checkpoint: Path) -> list[Path]:
    """Return the files of a checkpoint: those of its folder, or its file and the parts beside it.

    Raises:
        OSError: the folder cannot be read.
    """
    if checkpoint.is_dir():
        return [file for file in checkpoint.iterdir() if file.is_file()]
    part = PART_NAME.fullmatch(checkpoint.name)
    if part is None:
        return [checkpoint]
    names = (PART_NAME.fullmatch(name) for name in os.listdir(checkpoint.parent))
    parts = [name for name in names if name is not None and name.group(1, 3) == part.group(1, 3)]
    return [checkpoint.with_name(name[0]) for name in parts]
