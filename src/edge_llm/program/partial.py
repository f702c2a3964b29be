"""A file that is written under another name and takes its place in one step, or not at all.

While it grows it is locked, so that what a killed process left behind can be told from what another
process is writing right now; the next writer of the same name removes the former.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path
from typing import TypeVar

from edge_llm.errors import ExportError

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")

_ATTEMPTS = 16
_POPULATE_READ = 22  # Linux 5.14: reads the pages of a mapping


def check_target(path: Path) -> None:
    """Check that a file can be put at ``path``; what is there now stays.

    Raises:
        ExportError: it has no name, is taken by something that is no file, or its folder is not
            there or cannot be written to.
    """
    if not path.name:
        raise ExportError(f"{str(path)!r} is not the name of a file")
    if not path.parent.is_dir():
        there = next((str(folder) for folder in path.parents if folder.exists()), None)
        raise ExportError(
            f"cannot write {path}: there is no folder {path.parent}"
            + (f" ({there} is no folder)" if there and not Path(there).is_dir() else "")
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise ExportError(f"cannot write {path}: {exc.strerror}") from exc
    else:
        if stat.S_ISDIR(mode):
            raise ExportError(f"cannot write {path}: it is a folder, expected the name of a file")
        if not stat.S_ISREG(mode):
            raise ExportError(f"cannot write {path}: it is there, and no regular file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ExportError(f"cannot write {path}: its folder cannot be written to")


class PartialFile:
    """A hidden file beside ``target``, with ``size`` bytes of disk set aside for it.

    Raises:
        ExportError: here and in every method: ``target`` cannot be written, or the disk is full.
    """

    path: Path

    def __init__(self, target: Path, size: int) -> None:
        self._target = target
        self._size = size
        check_target(target)
        self._disk(lambda: _remove_stale(target))
        self.path, self._file = self._disk(lambda: _create(target))
        try:
            self._disk(self._reserve)
        except BaseException:
            self.abandon()
            raise

    def put(self, offset: int, data: memoryview | bytes) -> None:
        """Writes ``data`` at ``offset``."""

        def write() -> None:
            self._file.seek(offset)
            self._file.write(data)
            self._file.flush()

        self._disk(write)

    def publish(self) -> None:
        """Forces the file to disk and puts it in the target's place."""
        self._disk(self._publish)

    def abandon(self) -> None:
        """Removes the file, unless it was published."""
        # A failed flush of a full disk raises again at close; the file goes away in any case.
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _reserve(self) -> None:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._file.fileno(), 0, self._size)
                return
            except OSError as exc:
                if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system cannot
                    raise
        self._file.truncate(self._size)

    def _publish(self) -> None:
        os.fsync(self._file.fileno())
        with contextlib.suppress(OSError):  # speed alone
            _cache_in_huge_pages(self._file.fileno())
        self._file.close()
        os.replace(self.path, self._target)
        if os.name == "posix":  # the rename is durable once its folder is
            folder = os.open(self._target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _disk(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except OSError as exc:
            reason = exc.strerror or str(exc)
            if exc.errno == errno.ENOSPC:
                with contextlib.suppress(OSError):
                    free = shutil.disk_usage(self._target.parent).free
                    reason += f" ({self._size:,} bytes are needed, {free:,} are free)"
            raise ExportError(f"cannot write {self._target}: {reason}") from exc


def _create(target: Path) -> tuple[Path, BufferedWriter]:
    """A new file beside ``target``, locked where the system can."""
    for _ in range(_ATTEMPTS):
        path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        file = path.open("xb")
        try:
            # Before it was locked, another writer may have taken it for stale.
            if lock_file(file.fileno()) is not False and _is_there(file.fileno()):
                return path, file
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
        file.close()
    raise OSError(errno.EBUSY, "other exports keep removing the temporary file")


def _remove_stale(target: Path) -> None:
    """Removes files like `_create`'s whose writers are gone."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.partial")
    for name in os.listdir(target.parent):
        if pattern.fullmatch(name) is None:
            continue
        # What cannot be opened or removed is somebody else's, or in use (as Windows says it).
        with contextlib.suppress(OSError):
            path = target.parent / name
            if sys.platform == "win32":
                path.unlink()
                continue
            with path.open("r+b") as file:
                if lock_file(file.fileno()):
                    path.unlink()


def lock_file(descriptor: int) -> bool | None:
    """Takes the file's lock, which its process holds until it ends; False if another has it, None
    where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_there(descriptor: int) -> bool:
    return os.fstat(descriptor).st_nlink > 0


def _cache_in_huge_pages(file: int) -> None:
    """What was written lies in small pages of the cache; reads it back in huge ones, where the
    kernel has those for files, so that whoever maps it gets them at once."""
    if sys.platform != "linux":
        return
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    with mmap.mmap(file, 0, prot=mmap.PROT_READ) as mapping:
        mapping.madvise(mmap.MADV_HUGEPAGE)
        mapping.madvise(_POPULATE_READ)
