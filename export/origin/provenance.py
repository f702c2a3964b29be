"""Record the origin of a program: source files by hash, versions of the tools."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

from edge_llm import __version__, catalogue
from edge_llm.errors import CheckpointError

UNKNOWN = "0" * 64  # in place of a digest, as long as one
_PIECE = 2**20  # bytes


@contextmanager
def hashed(paths: Sequence[Path]) -> Iterator[Callable[[Path], str]]:
    """Hash files in a thread while the block runs, and give what returns the SHA-256 of one in hex,
    when it is there. Once the block has ended there are no more.

    Raises:
        OSError: a file cannot be read; by what is given.
    """
    ended = Event()
    with ThreadPoolExecutor(1, "edge-llm-hash") as thread:
        digests = {path: thread.submit(_sha256, path, ended) for path in paths}
        try:
            yield lambda path: digests[path].result()
        finally:
            ended.set()


def _sha256(path: Path, ended: Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while not ended.is_set() and (piece := file.read(_PIECE)):
            digest.update(piece)
    return digest.hexdigest()


def provenance(
    sources: Sequence[Path],
    stated_license: str | None,
    progress: Callable[[int, int], None],
    digest: Callable[[Path], str],
    *,
    traced: bool,
) -> dict[str, Any]:
    """Return the document: ``sources`` (file name, bytes, sha256), ``hub`` (``repository`` and
    ``commit`` of sources in the cache of Hugging Face's client, else null), ``versions`` of what
    decides the bytes of the program, and the ``license`` that the checkpoint states, if it does.

    ``progress(done, total)`` counts bytes; ``digest`` gives a file's SHA-256 in hex; ``traced``:
    PyTorch made the plan now.

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
