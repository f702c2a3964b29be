"""Programs that somebody else has made: from an address, or from Hugging Face, into the store."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from edge_llm.catalogue.downloads import Address, check_address, download, forget, read_small
from edge_llm.catalogue.files import try_lock
from edge_llm.catalogue.intact import Progress, digest_of, find_faults
from edge_llm.catalogue.notes import read_notes, write_notes
from edge_llm.catalogue.sources import is_hub_reference, parse_hub_reference
from edge_llm.catalogue.store import SUFFIX, make_programs_dir, programs_dir
from edge_llm.errors import ProgramError, SourceError

_PULLED = ".pulled.json"
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]{0,150}\.edge", flags=re.ASCII)
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_SIDECAR_BYTES = 4096
_KEPT_SECONDS = 24 * 3600


def pulled(text: str) -> Path | None:
    """Return the program in the store that was pulled from an address; None if none was."""
    source = text.partition("#")[0]
    for name, note in read_notes(programs_dir() / _PULLED).items():
        path = programs_dir() / name
        if isinstance(note, dict) and note.get("from") == source and path.is_file():
            return path
    return None


def pull_program(
    text: str,
    progress: Progress,
    *,
    verify: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Return the program of an address, in the store under the name that it has there; fetched
    unless it is here already and whole.

    What is fetched is compared with its digest (behind ``#sha256=``, in a file ``FILE.edge.sha256``
    beside it, or as Hugging Face has it), and checked as every program is that is opened.

    Args:
        text: see `names_program`.
        progress: called with the stage, and the bytes done and in all.
        verify: read what is here, even if its size and time are those of the last check.
        tell: called with what a person should know.

    Raises:
        SourceError: no such file, no network, no permission, no room on the disk, another program
            of that name is here, or what came is damaged or no program.
    """
    source, _, fragment = text.partition("#")
    wanted = _wanted_digest(text, fragment)
    name = _file_name(source)
    target = make_programs_dir() / name
    if target.is_file():
        note = read_notes(target.with_name(_PULLED)).get(name)
        known = note["sha256"] if isinstance(note, dict) and note.get("from") == source else None
        expected = wanted or known or _place(source, ask=True)[1]
        if expected is None or (known is None and find_faults({target: expected}, progress)):
            raise _taken(target, source)
        if not find_faults({target: expected}, progress, again=verify):
            if note is None:
                _note(name, {"from": source, "sha256": expected})
            return target
        if known not in (None, expected) and not find_faults({target: known}, progress):
            tell(f"another {target.stem} is wanted than the one here: fetching it")
        elif _is_whole(target):
            raise _taken(target, source)  # somebody's export, in its place
        else:
            tell(f"{target} is damaged: fetching it again")
    address, published = _place(source, ask=wanted is None)
    expected = wanted or published
    if expected is None:
        tell("no digest is published for it: only what the file says of itself can be checked")
    _fetch(address, target, expected, progress)
    digest = expected or digest_of(target, None, lambda done: None)
    find_faults({target: digest}, progress)  # noted, so that the next check need not read it
    _note(name, {"from": source, "sha256": digest})
    return target


def _place(source: str, *, ask: bool) -> tuple[Address, str | None]:
    """Return where a program is fetched from, and its digest as Hugging Face has it or, where
    ``ask`` says to look, a file beside it."""
    if is_hub_reference(source):
        from edge_llm.catalogue import hub  # not needed to find programs

        return hub.address_of(parse_hub_reference(source))
    return Address(source), _digest_beside(source) if ask else None


def _fetch(address: Address, target: Path, expected: str | None, progress: Progress) -> None:
    """Put what is at ``address`` in the place of ``target``, once it is whole."""
    key = hashlib.sha256(f"{address.url} {expected}".encode()).hexdigest()[:16]
    part = target.with_name(f".{target.name}.{key}.part")
    try:
        with _alone(part, target.stem):
            _clear_others(target, part)
            download(address, part, progress, _check_start)
            try:
                _check(part, expected, progress)
            except (SourceError, ProgramError) as exc:
                forget(part)
                raise SourceError(
                    f"{address.url} is no program that can be used: "
                    f"{str(exc).replace(f'{part}: ', '')}",
                    hint=exc.hint,
                ) from exc
            os.replace(part, target)
            forget(part)
    except OSError as exc:
        raise SourceError(
            f"cannot store {target}: {exc.strerror or exc}",
            hint="EDGE_LLM_HOME names another folder for programs.",
        ) from exc


@contextmanager
def _alone(part: Path, name: str) -> Iterator[None]:
    """Keep other processes from fetching the same file meanwhile, where the system has locks."""
    path = part.with_name(f"{part.name}.lock")
    with path.open("wb") as lock:
        if not try_lock(lock) and os.name != "nt":
            raise SourceError(f"another process is fetching {name} right now")
        try:
            yield
        finally:
            if os.name != "nt":  # there an open file stays
                path.unlink(missing_ok=True)


def _clear_others(target: Path, part: Path) -> None:
    """Delete what interrupted pulls have left: of other files under the same name, and of any name
    if nobody has gone on with it for a day."""
    for left in target.parent.glob(".*.part"):
        with suppress(OSError):
            same = left.name.startswith(f".{target.name}.")
            if left != part and (same or time.time() - left.stat().st_mtime > _KEPT_SECONDS):
                forget(left)
                left.with_name(f"{left.name}.lock").unlink(missing_ok=True)


def _taken(target: Path, source: str) -> SourceError:
    return SourceError(
        f"a program {target.stem} is here already, and it is not the one of {source}",
        hint=f"`edge-llm rm {target.stem}` removes it.",
    )


def _is_whole(path: Path) -> bool:
    """Tell whether the file is a program all of whose digests are right."""
    from edge_llm.program.file import Program

    try:
        with Program.open(path, huge_pages=False) as program:
            program.verify_digests()
    except ProgramError:
        return False
    return True


def _check_start(start: bytes, total: int) -> None:
    from edge_llm.program.container import LENGTH_BYTES, MAX_FILE, header_bytes

    try:
        header_bytes(start[: LENGTH_BYTES + 1], total or MAX_FILE)
    except ProgramError as exc:
        raise SourceError(f"what comes from there is no program: {exc}") from exc


def _check(part: Path, expected: str | None, progress: Progress) -> None:
    from edge_llm.program.file import Program

    if expected is not None:
        for fault in find_faults({part: expected}, progress, again=True).values():
            raise SourceError(
                f"it is not the file that was published: {fault}",
                hint="The same command again fetches it from the start.",
            )
    with Program.open(part, huge_pages=False) as program:
        if expected is None:
            program.verify_digests()


def _wanted_digest(text: str, fragment: str) -> str | None:
    if not fragment:
        return None
    key, _, digest = fragment.partition("=")
    if key != "sha256" or not _DIGEST.fullmatch(digest.lower()):
        raise SourceError(f"{text[:300]!r}: expected #sha256= and 64 hexadecimal digits behind it")
    return digest.lower()


def _file_name(source: str) -> str:
    if is_hub_reference(source):
        path = parse_hub_reference(source).file or ""
    else:
        check_address(source)
        path = unquote(urlsplit(source).path)
    name = path.rpartition("/")[2]
    if not _NAME.fullmatch(name):
        raise SourceError(
            f"{name[:200]!r} cannot be the name of a program in the store: expected letters, "
            f"digits, and ._+- before {SUFFIX}"
        )
    return name


def _digest_beside(source: str) -> str | None:
    parts = urlsplit(source)
    beside = urlunsplit(parts._replace(path=f"{parts.path}.sha256"))
    found = _DIGEST.match((read_small(Address(beside), _SIDECAR_BYTES) or b"").decode("latin-1"))
    return None if found is None else found[0]


def _note(name: str, note: dict[str, str]) -> None:
    folder = programs_dir()
    notes = read_notes(folder / _PULLED)
    kept = {key: value for key, value in notes.items() if (folder / key).is_file()}
    write_notes(folder / _PULLED, {**kept, name: note})
