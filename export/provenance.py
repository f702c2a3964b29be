"""Where a program came from: source files by hash, versions of the tools, the date."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_llm import __version__
from edge_llm.errors import CheckpointError


def provenance(
    sources: Sequence[Path], stated_license: str | None, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """The document: ``sources`` (file name, bytes, sha256), ``versions``, ``exported`` (UTC),
    ``license`` of the checkpoint if it states one. ``progress(done, total)`` counts bytes.

    Raises:
        CheckpointError: a source that can no longer be read.
    """
    try:
        sizes = [path.stat().st_size for path in sources]
        hashed = []
        for index, (path, size) in enumerate(zip(sources, sizes, strict=True)):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            hashed.append({"file": path.name, "bytes": size, "sha256": digest})
            progress(sum(sizes[: index + 1]), sum(sizes))
    except OSError as exc:
        raise CheckpointError(f"{exc.filename} cannot be read: {exc.strerror}") from exc
    return {
        "sources": hashed,
        "versions": {
            "edge-llm": __version__,
            "torch": version("torch"),
            "torchao": version("torchao"),
        },
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "license": stated_license,
    }
