"""Where a program came from: source files by hash, versions of the tools, the date."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_llm import __version__, catalogue
from edge_llm.errors import CheckpointError


def sha256(path: Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def provenance(
    sources: Sequence[Path],
    stated_license: str | None,
    progress: Callable[[int, int], None],
    digest: Callable[[Path], str] = sha256,
    *,
    traced: bool,
) -> dict[str, Any]:
    """Return the document: ``sources`` (file name, bytes, sha256), ``hub`` (``repository`` and
    ``commit`` of sources in the cache of Hugging Face's client, else null), ``versions`` of what
    decides the bytes of the program, and the ``license`` that the checkpoint states, if it does.

    ``progress(done, total)`` counts bytes; ``traced``: PyTorch made the plan now.

    Raises:
        CheckpointError: a source that can no longer be read.
    """
    try:
        sizes = [path.stat().st_size for path in sources]
        hashed = []
        for index, (path, size) in enumerate(zip(sources, sizes, strict=True)):
            hashed.append({"file": path.name, "bytes": size, "sha256": digest(path)})
            progress(sum(sizes[: index + 1]), sum(sizes))
    except OSError as exc:
        raise CheckpointError(f"{exc.filename} cannot be read: {exc.strerror}") from exc
    tracer = {"torch": version("torch")} if traced else {}
    return {
        "sources": hashed,
        "hub": catalogue.commit_of(sources[0]) if sources else None,
        "versions": {"edge-llm": __version__, **tracer},
        "license": stated_license,
    }
