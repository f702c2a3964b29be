"""Blocks kept in a folder, so that conversations go on where they were after a restart.

What is in a block follows from the program and the tokens up to its end, to the bit, on every
machine. So a block that was written once stands for what would be computed again, and files can be
missing, or be dropped if they are damaged: what they held is computed again.

A file is named by the hash of what its block holds. It has `MAGIC`, a BLAKE2b digest (32 bytes) of
all that follows, the number of the parent's bytes and the parent, the number of tokens and the
tokens (all int32, as this machine has them), and the block's bytes.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from edge_llm.errors import ConfigError
from edge_llm.runner.engine.blocks import ROOT, Content
from edge_llm.runner.engine.pool import BlockPool
from edge_llm.runner.executor import Executor

MAGIC = b"EDGEKV1\n"
_SUFFIX = ".block"
_DIGEST = 32
_WORD = 4
_LOOK_AGAIN = 16  # after this part of what a folder may take: others write there too
_KEPT = 0.9  # of what a folder may take, when room was made
_NAME = re.compile(rf"[0-9a-f]{{{2 * _DIGEST}}}-\d{{1,3}}{re.escape(_SUFFIX)}", re.ASCII)
_HEAD = len(MAGIC) + _DIGEST + _WORD + _DIGEST + _WORD  # the most before the tokens
_LEFT_SECONDS = 60.0  # a file that is half written for longer was left

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of the folder: when it was used last (in nanoseconds since 1970), and its size."""

    used: int
    size: int
    path: Path


class SavedBlocks:
    """The blocks of one program in a folder that several may share, of at most ``most`` bytes in
    all. Used on the engine's thread."""

    def __init__(self, folder: Path, key: str, most: int) -> None:
        """``key`` names all that the bytes of a block depend on beside its tokens.

        Raises:
            ConfigError: the folder cannot be made or written to.
        """
        self._root, self._folder, self._most = folder, folder / key, most
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._bytes = sum(file.size for file in self._files(self._root, "*/*"))
            for left in self._root.glob("*/*.part"):
                with suppress(FileNotFoundError):
                    if time.time() - left.lstat().st_mtime > _LEFT_SECONDS:
                        left.unlink()
        except OSError as exc:
            raise ConfigError(f"sessions: {folder} cannot be used: {exc.strerror}") from exc
        self._there = {path.name for path in self._folder.glob(f"*{_SUFFIX}")}
        self._gone: set[str] = set()  # of the blocks in the cache, those whose files made room
        self._written = 0  # bytes, since the last look at the folder
        self._cleaning: Iterator[None] | None = None  # a look at it that is not over
        self._working = True

    def restore(self, pool: BlockPool, executor: Executor, interrupted: Callable[[], bool]) -> int:
        """Put the blocks that were used last into the pool, as far as there is room, until
        ``interrupted``; return how many. Files that are damaged are dropped."""
        room = [group.available for group in pool.groups]
        wanted: list[SavedFile] = []
        try:
            files = sorted(self._files(self._folder, "*"), key=lambda file: file.used, reverse=True)
        except OSError as exc:
            _log.warning("earlier sessions cannot be read: %s", exc)
            return 0
        for file in files:
            number = _group_of(file.path)
            if 0 <= number < len(room) and room[number] > 0:
                wanted.append(file)
                room[number] -= 1
        count = 0
        for file in reversed(wanted):  # the one used last comes last
            if interrupted():
                break
            number = _group_of(file.path)
            if (read := self._read(file, number, pool, executor)) is None:
                continue
            content, data = read
            if (block := pool.groups[number].restore(content)) is not None:
                executor.write_block(number, block, data)
                count += 1
        return count

    def save(self, pool: BlockPool, executor: Executor, interrupted: Callable[[], bool]) -> None:
        """Write the blocks that nobody holds and that have no file, until all are written or
        ``interrupted``; then note which were used last. Whatever fails ends the saving alone."""
        if not self._working:
            return
        try:
            names = self._write_all(pool, executor, interrupted)
            if self._touch(names, interrupted):  # some are gone: others have made room
                self._touch(self._write_all(pool, executor, interrupted), interrupted)
        except Exception as exc:  # of the system, the executor, or memory: answers go on
            _log.warning("sessions are not saved any longer: %s", exc)
            self._working = False

    def _write_all(
        self, pool: BlockPool, executor: Executor, interrupted: Callable[[], bool]
    ) -> list[str]:
        """Write the blocks that have no file, of those used last as many as the folder takes;
        return the names of all files, in the order in which their blocks would be evicted, or of
        none where ``interrupted``."""
        contents = [group.contents() for group in pool.groups]
        sizes = [_most_bytes(pool, executor, number) for number in range(len(contents))]
        whole = sum(size * len(found) for size, found in zip(sizes, contents, strict=True))
        share = min(1.0, self._most * _KEPT / whole) if whole else 1.0
        names: list[str] = []
        for number, found in enumerate(contents):
            named = {block: _name(content, number) for block, content in found}
            names += named.values()
            kept = found[len(found) - int(share * len(found)) :]
            self._gone -= self._followed(kept, named)
            for block, content in _beginnings_first(kept):
                name = named[block]
                if name in self._there:
                    continue
                if interrupted():
                    return []
                data = _file_of(content, executor.read_block(number, block))
                if name in self._gone and self._bytes + len(data) > self._most:
                    continue  # what made room, and was not used since, makes none for itself
                if not self._room_made(len(data), interrupted):
                    return []
                self._write(name, data)
        self._gone.intersection_update(names)
        return names

    def _followed(self, kept: list[tuple[int, Content]], named: dict[int, str]) -> set[str]:
        """Return the names of the blocks that new ones follow, and of those new ones: they were
        used again. In ``kept`` a block comes before the one that it follows."""
        parents: set[bytes] = set()
        names: set[str] = set()
        for block, content in kept:
            name = named[block]
            new = name not in self._there and name not in self._gone
            if new or content.digest in parents:
                names.add(name)
                parents.add(content.parent)
        return names

    def _write(self, name: str, whole: bytes) -> None:
        part = self._folder / f"{secrets.token_hex(8)}.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(whole)
            part.replace(self._folder / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        self._there.add(name)
        self._gone.discard(name)
        self._bytes += len(whole)
        self._written += len(whole)

    def _room_made(self, size: int, interrupted: Callable[[], bool]) -> bool:
        """Return True once there is room for ``size`` bytes; False if ``interrupted`` before: the
        next call goes on from there."""
        if self._cleaning is None:
            known = self._written <= self._most // _LOOK_AGAIN
            if known and self._bytes + size <= self._most:
                return True
            self._cleaning = self._clean(size)
        for _ in self._cleaning:
            if interrupted():
                return False
        self._cleaning = None
        return True

    def _clean(self, size: int) -> Iterator[None]:
        """Look at the folder, and drop the files that were not used for longest, of whatever
        program, a tenth at once; yield after each file: there may be very many."""
        files: list[SavedFile] = []
        for file in self._files(self._root, "*/*"):
            files.append(file)
            yield
        files.sort(key=lambda file: file.used)
        self._bytes, self._written = sum(file.size for file in files), 0
        if self._bytes + size <= self._most:
            return
        for file in files:
            if self._bytes + size <= self._most * _KEPT:
                break
            self._drop(file)
            yield

    def _drop(self, file: SavedFile) -> None:
        file.path.unlink(missing_ok=True)
        self._bytes -= file.size
        if file.path.parent == self._folder:
            self._forget(file.path.name)

    def _forget(self, name: str) -> None:
        self._there.discard(name)
        self._gone.add(name)

    def _drop_damaged(self, file: SavedFile) -> None:
        with suppress(OSError):  # it stays, and counts no more than now
            self._drop(file)

    def _touch(self, names: list[str], interrupted: Callable[[], bool]) -> bool:
        """Give files the order of ``names``, as times; return whether some are gone."""
        gone = False
        newest = time.time_ns()
        for index, name in enumerate(names):
            if interrupted():
                break
            moment = newest - len(names) + index
            if name in self._there:
                try:
                    os.utime(self._folder / name, ns=(moment, moment))
                except FileNotFoundError:  # somebody has cleaned up
                    self._forget(name)
                    gone = True
        return gone

    def _read(
        self, file: SavedFile, number: int, pool: BlockPool, executor: Executor
    ) -> tuple[Content, bytes] | None:
        """Return what a file holds; None if it cannot be read, or, with the file dropped, if it is
        damaged."""
        try:
            if file.size > _most_bytes(pool, executor, number):
                raise ValueError("it is too large")
            content, data = _parsed(file.path.read_bytes(), pool.block_size)
        except FileNotFoundError:  # another server has made room
            return None
        except OSError as exc:
            _log.warning("a saved block cannot be read: %s", exc)
            return None
        except ValueError as exc:
            _log.warning("a saved block is dropped: %s", exc)
            self._drop_damaged(file)
            return None
        wrong = len(data) != executor.block_bytes(number) or file.path.name != _name(
            content, number
        )
        if wrong:
            _log.warning("a saved block is dropped: it is another one than its name says")
            self._drop_damaged(file)
            return None
        return content, data

    @staticmethod
    def _files(folder: Path, pattern: str) -> Iterator[SavedFile]:
        """Yield the files of ours, and nothing else that lies there."""
        for path in folder.glob(pattern):
            if not _NAME.fullmatch(path.name):
                continue
            try:
                facts = path.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(facts.st_mode):
                continue
            yield SavedFile(facts.st_mtime_ns, facts.st_size, path)


def _beginnings_first(contents: list[tuple[int, Content]]) -> Iterator[tuple[int, Content]]:
    """Yield blocks in their order, but none before the one that it follows: what was written when a
    process is killed is of use then."""
    ends = {content.digest: (block, content) for block, content in contents if content.digest}
    done: set[int] = set()
    for item in contents:
        chain: list[tuple[int, Content]] = []
        before: tuple[int, Content] | None = item
        while before is not None and before[0] not in done:
            done.add(before[0])
            chain.append(before)
            before = ends.get(before[1].parent)
        yield from reversed(chain)


def _most_bytes(pool: BlockPool, executor: Executor, group: int) -> int:
    """Return the most bytes that the file of a block has."""
    return _HEAD + _WORD * pool.block_size + executor.block_bytes(group)


def _file_of(content: Content, data: bytes) -> bytes:
    """Return the file of a block that holds ``data``."""
    body = b"".join(
        (
            len(content.parent).to_bytes(_WORD, sys.byteorder),
            content.parent,
            len(content.tokens).to_bytes(_WORD, sys.byteorder),
            content.tokens.tobytes(),
            data,
        )
    )
    return MAGIC + blake2b(body, digest_size=_DIGEST).digest() + body


def _parsed(data: bytes, block_size: int) -> tuple[Content, bytes]:
    """Return what a file says.

    Raises:
        ValueError: it is damaged, or no such file.
    """
    body = data[len(MAGIC) + _DIGEST :]
    digest = data[len(MAGIC) : len(MAGIC) + _DIGEST]
    if not data.startswith(MAGIC) or blake2b(body, digest_size=_DIGEST).digest() != digest:
        raise ValueError("its digest is not that of its bytes")
    size = int.from_bytes(body[:_WORD], sys.byteorder)
    parent, rest = body[_WORD : _WORD + size], body[_WORD + size :]
    count = int.from_bytes(rest[:_WORD], sys.byteorder)
    end = _WORD * (1 + count)
    if size not in (len(ROOT), _DIGEST) or not 0 < count <= block_size or len(rest) < end:
        raise ValueError("its sizes are out of range")
    tokens = array("i")
    tokens.frombytes(rest[_WORD:end])
    return Content.of(parent, tokens, block_size), rest[end:]


def _name(content: Content, group: int) -> str:
    if content.digest is not None:
        name = content.digest
    else:
        text = content.parent + content.tokens.tobytes()
        name = blake2b(text, digest_size=_DIGEST, person=b"part").digest()
    return f"{name.hex()}-{group}{_SUFFIX}"


def _group_of(path: Path) -> int:
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isdecimal() and len(text) < 4 else -1
