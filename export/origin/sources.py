"""The files that an export reads, and that they stay what they were."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from edge_llm.errors import CheckpointError, EdgeLLMError, ExportError
from edge_llm.llm.checkpoints.source import Checkpoint

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file a name stands for, and the state of its contents."""

    device: int
    inode: int
    bytes: int
    modified_ns: int


def identity(path: Path) -> Identity:
    """The facts of the file behind ``path`` (links are followed).

    Raises:
        OSError: there is none.
    """
    status = path.stat()
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Sources:
    """Files as they were when they were first seen. ``place`` is the checkpoint, a file or a
    folder, which is looked at when this is made: before any of it is read.

    Raises:
        CheckpointError: the folder cannot be listed.
    """

    def __init__(self, place: Path) -> None:
        try:
            files = [place] if place.is_file() else _files(place)
            self._before = {path: identity(path) for path in files}
        except OSError as exc:
            raise CheckpointError(f"{place} cannot be read: {exc.strerror}") from exc
        self._seen: dict[Path, Identity] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that were added, in order."""
        return tuple(self._seen)

    def add(self, paths: Iterable[Path]) -> None:
        """Files to watch from now on; those of the checkpoint as they were in the beginning.

        Raises:
            CheckpointError: one is gone already.
        """
        for path in paths:
            try:
                self._seen.setdefault(path, self._before.get(path) or identity(path))
            except OSError as exc:
                raise CheckpointError(f"{path} cannot be read: {exc.strerror}") from exc

    def check(self) -> None:
        """
        Raises:
            ExportError: a file is gone, is another one, or has another size or time.
        """
        for path, before in self._seen.items():
            try:
                now = identity(path)
            except OSError as exc:
                raise ExportError(
                    f"{path} changed while it was exported: it can no longer be found "
                    f"({exc.strerror})"
                ) from exc
            if now != before:
                raise ExportError(f"{path} changed while it was exported: {_change(before, now)}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A block that reads the files: an error in it is checked for being the consequence of a
        change.

        Raises:
            ExportError: as `check`, in place of the block's own error.
        """
        try:
            yield
        except EdgeLLMError:
            self.check()
            raise

    def guard(self, checkpoint: Checkpoint) -> Checkpoint:
        """``checkpoint``, whose readers raise ExportError where `check` does."""
        return replace(
            checkpoint,
            read=self._guarded(checkpoint.read),
            integers=self._guarded(checkpoint.integers),
        )

    def _guarded(self, read: Callable[[str], T]) -> Callable[[str], T]:
        def guarded(name: str) -> T:
            self.check()
            return read(name)

        return guarded


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_file()]


def _change(before: Identity, now: Identity) -> str:
    if now.bytes != before.bytes:
        return f"it had {before.bytes:,} bytes, now {now.bytes:,}"
    if (now.device, now.inode) != (before.device, before.inode):
        return "another file is in its place"
    return "it was written to"
