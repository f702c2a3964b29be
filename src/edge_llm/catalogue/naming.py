"""From what a user calls a program to its file."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from edge_llm.catalogue.entries import find, list_models
from edge_llm.catalogue.settings import setting
from edge_llm.catalogue.sources import is_hub_reference, names_program, parse_hub_reference
from edge_llm.catalogue.store import SUFFIX, StoredProgram, expand, list_programs
from edge_llm.errors import AmbiguousNameError, SourceError

_CONFIGS = ("config.json", "params.json")


def find_program(name: str) -> Path:
    """Return the program file that a user means: a path; the address that it was pulled from; the
    name of a program in the store; or a name that one program there has: its model's (as the file
    says it, in the catalogue, or ``hf:…``). Of several the default program is meant, if it is one.

    Raises:
        SourceError: there is none, and the hint says how to make it, or what is close; or ``hf:…``
            is malformed.
        AmbiguousNameError: several have that name.
    """
    if names_program(name):
        from edge_llm.catalogue.ready import pulled

        found_here = pulled(name)
        if found_here is not None:
            return found_here
        raise SourceError(
            f"{name} is not on this machine yet", hint=f"`edge-llm pull {name}` fetches it."
        )
    path = expand(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise SourceError(
            f"{name} is a folder, not a program",
            hint=f"A checkpoint becomes a program by `edge-llm export --model {name}`.",
        )
    found = programs_called(name)
    if len(found) == 1:
        return found[0].path
    if found:
        return _the_default(name, found)
    raise _unknown(name, _model_name(name.removesuffix(SUFFIX)), list_programs())


def programs_called(name: str) -> list[StoredProgram]:
    """Return the programs of the store that have a name: the one that is called so, else those
    whose model is, the newest first.

    Raises:
        SourceError: ``hf:…`` is malformed.
    """
    programs = list_programs()
    wanted = name.removesuffix(SUFFIX)
    for program in programs:
        if program.name == wanted:
            return [program]
    return _of_model(programs, wanted, _model_name(wanted))


def _of_model(programs: list[StoredProgram], wanted: str, model: str | None) -> list[StoredProgram]:
    """Return the programs whose model is called so."""
    from edge_llm.program.summary import summary_of

    names = [((summary_of(item.path).name or "").lower(), item.name.lower()) for item in programs]

    def called(name: str) -> list[StoredProgram]:
        lower = name.lower()
        return [
            program
            for program, (inside, outside) in zip(programs, names, strict=True)
            if lower in (inside, outside) or outside.startswith(f"{lower}-")
        ]

    # "smollm2" is a model of another size in the catalogue, but a program here comes first
    return called(wanted) or (called(model) if model is not None else [])


def _the_default(name: str, found: list[StoredProgram]) -> Path:
    chosen = setting("default")
    for program in found:
        if chosen in (program.name, str(program.path)):
            return program.path
    raise AmbiguousNameError(
        f"{name!r} is the name of several programs: {', '.join(item.name for item in found)}",
        hint=f"Give the whole name, or choose one for good: `edge-llm default {found[0].name}`.",
    )


def _model_name(name: str) -> str | None:
    """Return the name of the model that is meant, as programs have it; None if there is none.

    Raises:
        SourceError: ``hf:…`` is malformed.
    """
    if is_hub_reference(name):
        return parse_hub_reference(name).name
    try:
        return find(name).name
    except SourceError:
        return None


def _unknown(name: str, model: str | None, programs: list[StoredProgram]) -> SourceError:
    if model is not None:
        return SourceError(
            f"there is no program of {model} yet",
            hint=f"Make one with `edge-llm export --model {name.removesuffix(SUFFIX)}`.",
        )
    names = [program.name for program in programs]
    known = {word.lower(): word for word in (*names, *(entry.name for entry in list_models()))}
    close = [known[word] for word in difflib.get_close_matches(name.lower(), known, cutoff=0.6)]
    listed = ", ".join(names) or "none yet"
    return SourceError(
        f"no program {name[:80]!r}: neither a file nor a name in the store",
        hint=(f"Did you mean {' or '.join(close)}? " if close else "")
        + f"Programs in the store: {listed}. `edge-llm ls --all` lists programs and models.",
    )


def means_model(text: str) -> bool:
    """Tell whether ``text`` names something to run: a program or GGUF file, a checkpoint's folder,
    ``hf:…``, the address of a program, or exactly the name of a program or of a model of the
    catalogue. Nothing is fetched, and no near miss counts."""
    if is_hub_reference(text):
        return True
    if names_program(text):
        return True
    if "\n" in text or len(text) > 4096:
        return False
    path = Path(text)
    try:
        path = path.expanduser()
        if path.suffix in (SUFFIX, ".gguf") and (path.is_file() or os.sep in text):
            return True
        if path.is_dir() and (os.sep in text or text in (".", "..")):
            return any((path / name).is_file() for name in _CONFIGS) or any(path.glob("*.gguf"))
    except (OSError, RuntimeError, ValueError):
        return False
    if any(program.name == text.removesuffix(SUFFIX) for program in list_programs()):
        return True
    return any(text.lower() in map(str.lower, entry.names) for entry in list_models())


def program_unless_checkpoint(name: str) -> Path | None:
    """Return what `find_program` does; None if ``name`` is that of a checkpoint, and of no program:
    a folder or a GGUF file, or ``hf:…`` or a model of the catalogue of which no program is here.

    Raises:
        SourceError: it is the name of neither, or ``hf:…`` is malformed.
        AmbiguousNameError: several programs have the name.
    """
    path = expand(name)
    if path.is_dir() or (path.suffix == ".gguf" and path.exists()):
        return None
    try:
        return find_program(name)
    except AmbiguousNameError:
        raise
    except SourceError:
        if not path.exists() and (path.suffix == ".gguf" or _model_name(name) is not None):
            return None
        raise
