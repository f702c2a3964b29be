"""Checks that files that were fetched are still what was fetched: size and time first, digests
where those say that a file was touched, or that it was never looked at."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_llm.catalogue.notes import read_notes, write_notes
from edge_llm.catalogue.store import models_dir

Progress = Callable[[str, int, int], None]

_LEDGER = ".checked.json"
_CHUNK = 1 << 20
_SHOWN = 16  # digits of a digest in a message
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_BLOB = re.compile(r"[0-9a-f]{40}")


def find_faults(
    files: Mapping[Path, str | None], progress: Progress, *, again: bool = False
) -> dict[Path, str]:
    """Check files and note those that are whole, so that the next check need not read them.

    Args:
        files: with the digest of each (SHA-256, or SHA-1 as git has it of a file), or None: then
            the digest of the last check is expected, if there was one.
        progress: called with "check", and the bytes read and to be read; not at all where sizes
            and times are those of the last check.
        again: read all files, whatever their times say.

    Returns:
        What is wrong, in words, with the files that are not whole; nothing if all are.

    Raises:
        OSError: a file cannot be read.
    """
    ledger = read_notes(models_dir() / _LEDGER)
    states, unread = {}, {}
    for path, digest in files.items():
        status = path.stat()
        noted = ledger.get(str(path.absolute()))
        states[path] = (status.st_size, status.st_mtime_ns)
        known = noted if _is_note(noted) else None
        expected = digest or (known[2] if known is not None else None)
        seen = known is not None and tuple(known[:2]) == states[path] and known[2] == expected
        if again or not seen:
            unread[path] = expected, known
    faults, done = {}, 0
    for path, (expected, known) in list(unread.items()):
        if known is not None and known[2] == expected and known[0] != states[path][0]:
            faults[path] = f"{states[path][0]} bytes where there were {known[0]}"
            del unread[path]
    total = sum(states[path][0] for path in unread)
    for path, (expected, _) in unread.items():

        def report(count: int, before: int = done) -> None:
            progress("check", min(before + count, total), total)

        got = digest_of(path, expected, report)
        done += states[path][0]
        if expected is None or got == expected:
            ledger[str(path.absolute())] = [*states[path], got]
        else:
            faults[path] = (
                f"digest {got[:_SHOWN]}… of {states[path][0]} bytes, expected {expected[:_SHOWN]}…"
            )
    if unread:
        kept = {name: note for name, note in ledger.items() if Path(name).exists()}
        write_notes(models_dir() / _LEDGER, kept)
    return faults


def digest_of(path: Path, like: str | None, report: Callable[[int], None]) -> str:
    """Return the digest of a file, of the kind of ``like``: SHA-1 as git has it where that has 40
    digits, else SHA-256.

    Args:
        report: called with the bytes read so far.
    """
    if like is not None and _GIT_BLOB.fullmatch(like):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(done)
    return digest.hexdigest()


def digest_in_name(path: Path) -> str | None:
    """Return the digest that the cache of Hugging Face's client has in the name of the file that
    ``path`` is a link to; None where there is no link, or another name."""
    try:
        name = Path(os.readlink(path)).name
    except OSError:
        return None
    return name if _SHA256.fullmatch(name) or _GIT_BLOB.fullmatch(name) else None


def _is_note(noted: Any) -> bool:
    return isinstance(noted, list) and len(noted) == 3 and isinstance(noted[2], str)
