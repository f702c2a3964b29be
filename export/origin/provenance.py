"""Where a program came from: source files by hash, versions of the tools, the date."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
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
) -> dict[str, Any]:
    """The document: ``sources`` (file name, bytes, sha256), ``hub`` (``repository`` and ``commit``
    of sources in the cache of Hugging Face's client, else null), ``versions``, ``exported`` (UTC),
    ``license`` of the checkpoint if it states one. ``progress(done, total)`` counts bytes.

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
    return {
        "sources": hashed,
        "hub": catalogue.commit_of(sources[0]) if sources else None,
        "versions": {
            "edge-llm": __version__,
            "torch": version("torch"),
            "torchao": version("torchao"),
        },
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "license": stated_license,
    }
