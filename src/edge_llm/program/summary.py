"""A few facts of a program file, read from its header without checking the rest."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from edge_llm.errors import ProgramError
from edge_llm.program.container import LENGTH_BYTES, PREFIX, decode_header, header_bytes
from edge_llm.program.version import older_major


@dataclass(frozen=True, slots=True)
class Summary:
    """A file's own words, for lists and messages: the model's ``name``, the ``scheme`` of its
    recipe, its ``context`` in tokens, each None where it does not say; and the major version of
    its format where that is an ``older_format`` than ours, else None."""

    name: str | None
    scheme: str | None
    context: int | None
    older_format: int | None


def fault_of(path: str | os.PathLike[str]) -> str | None:
    """Return why the file at ``path`` is no whole program, as far as its header and its size tell;
    None where they tell of nothing."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(LENGTH_BYTES + 1)
            decode_header(start + file.read(header_bytes(start, size) - len(start)), size)
    except OSError as exc:
        return exc.strerror or str(exc)
    except ProgramError as exc:
        return str(exc)
    return None


def _metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the metadata in the header of a safetensors file; empty for what is none. Nothing of
    it is checked."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(LENGTH_BYTES + 1)
            text = start[LENGTH_BYTES:] + file.read(header_bytes(start, size) - len(start))
        found = json.loads(text)["__metadata__"]
    except (OSError, ProgramError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def summary_of(path: str | os.PathLike[str]) -> Summary:
    """Return the facts of the file at ``path``."""
    metadata = _metadata(path)
    model, recipe = _document(metadata, "model"), _document(metadata, "recipe")
    name, scheme, context = model.get("name"), recipe.get("scheme"), model.get("context")
    return Summary(
        name if isinstance(name, str) and name.isprintable() else None,
        scheme if isinstance(scheme, str) and scheme.isprintable() else None,
        context if isinstance(context, int) else None,
        older_major(metadata),
    )


def _document(metadata: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        found = json.loads(metadata[PREFIX + name])
    except (LookupError, ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
