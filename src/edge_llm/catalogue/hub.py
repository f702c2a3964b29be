"""Models on Hugging Face, through its own client and in its own cache.

The cache's layout is a public one: ``models--org--name`` has ``blobs/``, ``snapshots/COMMIT/`` with
links to them, and ``refs/BRANCH`` with a commit. A file gets its name in ``snapshots`` when it is
whole, and this module writes the ref when every file is, so that nothing half-done counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from edge_llm.catalogue.downloads import Address
from edge_llm.catalogue.files import report_growth, try_lock
from edge_llm.catalogue.layout import (
    find_checkpoint,
    gguf_parts,
    wanted,
    whole_gguf,
)
from edge_llm.catalogue.offered import SITE, advice, choose, gate
from edge_llm.catalogue.sources import HubSource
from edge_llm.errors import MissingDependencyError, SourceError

Progress = Callable[[str, int, int], None]

_MAIN = "main"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ELSEWHERE = "HF_HOME names another folder for the cache."
_OF_THIS_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def cached(source: HubSource) -> Path | None:
    """Return the model's folder or GGUF file in the cache, if it is whole; uses no network."""
    folder = repository_folder(source)
    if folder is None:
        return None
    revision = source.revision or _MAIN
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = revision
    if not _COMMIT.fullmatch(commit):
        return None
    snapshot = folder / "snapshots" / commit
    if source.file is None:
        return find_checkpoint(snapshot)
    return whole_gguf(snapshot / source.file)


def commit_of(path: Path) -> dict[str, str] | None:
    """Return ``repository`` and ``commit`` of a path inside the cache's layout; None for others."""
    path = path.absolute()
    for parent in (path, *path.parents):
        name, folder = parent.name, parent.parent
        if _COMMIT.fullmatch(name) and folder.name == "snapshots":
            kind, *names = folder.parent.name.split("--")
            if kind == "models" and len(names) == 2:
                return {"repository": "/".join(names), "commit": name}
    return None


def fetch(source: HubSource, progress: Progress) -> Path:
    """Download what an export reads; files that are in the cache already are not fetched again.

    Returns:
        The folder or the GGUF file, in the client's cache.

    Raises:
        MissingDependencyError: the client is not installed.
        SourceError: no network, no room on the disk, no such model or revision, a gated model,
            or no weights that can be read; the hint says what to do.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError as exc:
        raise MissingDependencyError(
            f"fetching {source} needs huggingface_hub",
            hint="pip install huggingface_hub\n" + advice(source),
        ) from exc
    with _explained(source):
        info = HfApi().model_info(
            source.repository, revision=source.revision or _MAIN, files_metadata=True
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        names = choose(source, sizes)
        folder, commit = repository_folder(source), info.sha or ""
        if folder is None or not _COMMIT.fullmatch(commit):
            raise SourceError(f"Hugging Face gave no commit for {source}: {info.sha!r}")
        snapshot = folder / "snapshots" / commit
        missing = {name: sizes[name] for name in names if not (snapshot / name).is_file()}
        _check_room(source, folder, sum(missing.values()))
        disable_progress_bars()
        # One after the other and in this thread: an interrupt ends the transfer at once.
        with report_growth(folder, sum(missing.values()), progress):
            for name in missing:
                hf_hub_download(source.repository, name, revision=commit)
        _clear_leftovers(folder)
        _write_ref(folder, source.revision or _MAIN, commit)
    path = cached(source)
    if path is None:
        raise SourceError(
            f"{source} has weights, but not all that an export needs "
            "(a config, a tokenizer, every file of the weights)",
            hint=f"Its files are at {SITE}/{source.repository}/tree/{commit}.",
        )
    return path


def address_of(source: HubSource) -> tuple[Address, str | None]:
    """Return where a file of a repository is, at the commit that the revision is at now, and its
    SHA-256 where Hugging Face has it.

    Raises:
        MissingDependencyError, SourceError: as `fetch`.
    """
    try:
        from huggingface_hub import HfApi, get_hf_file_metadata, get_token, hf_hub_url
    except ImportError as exc:
        raise MissingDependencyError(
            f"fetching {source} needs huggingface_hub", hint="pip install huggingface_hub"
        ) from exc
    file = source.file or ""
    with _explained(source):
        info = HfApi().model_info(source.repository, revision=source.revision or _MAIN)
        names = [entry.rfilename for entry in info.siblings or ()]
        if file not in names:
            programs = ", ".join(name for name in names if name.endswith(".edge"))
            raise SourceError(
                f"{source.repository} has no file {file}",
                hint=f"Its programs: {programs or 'none'}.",
            )
        url = hf_hub_url(source.repository, file, revision=info.sha)
        digest = get_hf_file_metadata(url).etag or ""
        return Address(url, get_token()), digest if _SHA256.fullmatch(digest) else None


def files_of(found: Path) -> list[Path]:
    """Return the files of what `cached` gives."""
    if found.is_file():
        return [found.parent / name for name in gguf_parts(found.name)]
    names = [str(PurePosixPath(path.relative_to(found))) for path in found.rglob("*")]
    return [found / name for name in wanted(names) if (found / name).is_file()]


def discard(file: Path) -> None:
    """Delete one file of a snapshot and what it links to, so that `fetch` gets it again.

    Raises:
        OSError: it cannot be deleted.
    """
    blob = file.resolve()
    file.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def remove(source: HubSource) -> list[Path]:
    """Delete the model from the cache, with what an interrupted download left: all of the
    repository, or with ``revision`` that one, or with ``file`` that one.

    Returns:
        What was deleted; nothing if it is not there.

    Raises:
        OSError: it cannot be deleted.
    """
    folder = repository_folder(source)
    if folder is None or not folder.is_dir():
        return []
    if source.file is None and source.revision is None:
        shutil.rmtree(folder)
        return [folder]
    found = cached(source)
    if found is None:
        return []
    if source.file is None:
        targets = [_snapshot_of(found)]
    else:
        targets = [found.parent / name for name in gguf_parts(found.name)]
    links = [link for path in targets for link in ([path] if path.is_file() else path.rglob("*"))]
    blobs = {path.resolve() for path in links if path.is_symlink()}
    for target in targets:
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    kept = {path.resolve() for path in (folder / "snapshots").rglob("*") if path.is_symlink()}
    for blob in blobs - kept:
        blob.unlink(missing_ok=True)
    return targets


@contextlib.contextmanager
def _explained(source: HubSource) -> Iterator[None]:
    """Turn what the client raises into a SourceError that says what to do."""
    from huggingface_hub import errors

    # The transport's base class, whichever library this version of the client is built on.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.GatedRepoError as exc:
        raise SourceError(
            f"Hugging Face does not let you have {source.repository} yet", hint=gate(source)
        ) from exc
    except errors.RevisionNotFoundError as exc:
        raise SourceError(
            f"{source.repository} has no revision {source.revision}",
            hint=f"Branches and commits are at {SITE}/{source.repository}/commits.",
        ) from exc
    except errors.RepositoryNotFoundError as exc:
        raise SourceError(
            f"Hugging Face has no {source.repository}, or does not show it to you",
            hint="Private models need a login: `hf auth login`, or HF_TOKEN.",
        ) from exc
    except (OSError, RuntimeError, transport) as exc:
        here = isinstance(exc, OSError) and exc.errno in _OF_THIS_MACHINE
        raise SourceError(
            f"cannot fetch {source} from Hugging Face: {_reason(exc)}",
            hint=_ELSEWHERE if here else advice(source),
        ) from exc


def _snapshot_of(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.parent.name == "snapshots")


def repository_folder(source: HubSource) -> Path | None:
    """Return the repository's place in the cache; None without the client, which knows it."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    return Path(constants.HF_HUB_CACHE) / f"models--{source.repository.replace('/', '--')}"


def _check_room(source: HubSource, folder: Path, needed: int) -> None:
    place = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise SourceError(
            f"{source} needs {needed / 1e9:.2f} GB, {place} has {free / 1e9:.2f} GB free",
            hint=_ELSEWHERE,
        )


def _clear_leftovers(folder: Path) -> None:
    """Delete what interrupted downloads left of files that the repository has no more; a file that
    another process is fetching is locked by the client."""
    locks = folder.parent / ".locks" / folder.name
    for part in (folder / "blobs").glob("*.incomplete"):
        with contextlib.suppress(OSError):
            path = locks / f"{part.name.removesuffix('.incomplete')}.lock"
            if not path.exists():
                part.unlink()
                continue
            with path.open("r+b") as lock:
                if try_lock(lock):
                    part.unlink()


def _write_ref(folder: Path, revision: str, commit: str) -> None:
    if revision == commit:
        return
    ref = folder / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    scratch = ref.with_name(f".{ref.name}-{os.getpid()}")
    try:
        scratch.write_text(commit, encoding="ascii")
        os.replace(scratch, ref)
    finally:
        scratch.unlink(missing_ok=True)


def _reason(exc: Any) -> str:
    if any(kind.__name__ == "ConnectError" for kind in type(exc).__mro__):
        return f"it cannot be reached ({exc})"
    if isinstance(exc, OSError) and exc.errno is not None and exc.strerror:
        return f"{exc.strerror}{f': {exc.filename}' if exc.filename else ''}"
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
