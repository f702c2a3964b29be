"""The version of the file format: the one that this edge-llm writes and reads, and of files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from edge_llm.errors import ProgramError
from edge_llm.program.container import PREFIX

FORMAT_KEY = PREFIX + "format"
FORMAT_MAJOR = 2
FORMAT_MINOR = 6
FORMAT = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
_RECIPE_KEY = PREFIX + "recipe"
_SHOWN = 200  # characters of what a file says


def check_version(metadata: Mapping[str, str]) -> None:
    """Check that a file with this metadata can be read.

    Raises:
        ProgramError: it is no program, or one of another format; of an older one the hint has the
            command that exports it again.
    """
    version = metadata.get(FORMAT_KEY)
    if version is None:
        raise ProgramError("a safetensors file, but not an edge-llm program")
    major = _major(version)
    if major is None:
        raise ProgramError(f"format version {version[:32]!r} is malformed")
    if major == FORMAT_MAJOR:
        return
    raise ProgramError(
        f"format version {version[:32]}; this edge-llm reads {FORMAT_MAJOR}.x",
        hint="upgrade edge-llm, which is older than the file"
        if major > FORMAT_MAJOR
        else f"export the model again: `{export_command(_recipe(metadata))}`",
    )


def older_major(metadata: Mapping[str, Any]) -> int | None:
    """Return the major version that a file with this metadata says its format has, if it is older
    than ours; None for files of our format and for what is no program."""
    record = metadata.get(FORMAT_KEY)
    major = _major(record) if isinstance(record, str) else None
    return major if major is not None and major < FORMAT_MAJOR else None


def minor_of(metadata: Mapping[str, str]) -> int:
    """Return the minor version of a file that `check_version` accepts."""
    return int(metadata[FORMAT_KEY].partition(".")[2])


def _major(version: str) -> int | None:
    major, dot, minor = version.partition(".")
    whole = all(part.isascii() and part.isdecimal() and len(part) < 10 for part in (major, minor))
    return int(major) if dot and whole else None


def export_command(recipe: Any) -> str:
    """Return what exports a program again, as far as its ``recipe`` says it."""
    try:
        named = {"--model": recipe["model"], "--quant": recipe["scheme"]}
    except (KeyError, TypeError):
        named = {"--model": "MODEL"}
    words = [
        f"{option} {shlex.quote(value[:_SHOWN])}"
        for option, value in named.items()
        if isinstance(value, str) and value.isprintable()
    ]
    if not any(word.startswith("--model") for word in words):
        words.insert(0, "--model MODEL")
    return " ".join(["edge-llm export", *words])


def _recipe(metadata: Mapping[str, str]) -> Any:
    try:
        return json.loads(metadata[_RECIPE_KEY])
    except (KeyError, ValueError, RecursionError):
        return None
