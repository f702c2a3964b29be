"""One file over HTTPS: resumed where it was cut, and never from an address without TLS."""

from __future__ import annotations

import errno
import http.client
import re
import shutil
import string
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from edge_llm import __version__
from edge_llm.errors import SourceError

Progress = Callable[[str, int, int], None]

_TRIES = 4  # without a byte of progress between them
_SECONDS = 30  # that a host may be silent
_CHUNK = 1 << 18
_START = 16  # bytes that `check_start` sees
_UNANNOUNCED = 1 << 36  # bytes at most, where the host does not say how many come
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Address:
    """``token`` is shown to the host of ``url`` alone, not to those that it redirects to."""

    url: str
    token: str | None = None


class _CutError(Exception):
    """The connection ended before the file did."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_address(url: str) -> None:
    """Check that what comes from ``url`` cannot be changed on the way: by ``https``, or from this
    machine.

    Raises:
        SourceError: it can be, or this is no such address.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as exc:
        raise SourceError(f"{url[:200]!r} is no address: {exc}") from exc
    if host and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        return
    raise SourceError(
        f"{url[:200]} is refused: expected an address that begins with https://",
        hint="What comes over plain http can be changed on the way.",
    )


def read_small(address: Address, most: int) -> bytes | None:
    """Return the first ``most`` bytes of a small file; None if there is no such file.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with _open(address, {}) as answer:
            found: bytes = answer.read(most)
            return found
    except urllib.error.HTTPError as exc:
        exc.close()
        if exc.code in (401, 403, 404, 410):
            return None
        raise _refusal(address.url, exc) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise _unreachable(address.url, exc) from exc


def download(
    address: Address, part: Path, progress: Progress, check_start: Callable[[bytes, int], None]
) -> None:
    """Write what is at ``address`` to ``part``, behind what an earlier call has written there if
    the host says that the file is still the same. `forget` when ``part`` is done with.

    Args:
        progress: called with "download", and the bytes here and in all.
        check_start: called with the first bytes and the announced size (0 if unknown), as soon as
            they are there; raises what ends the download.

    Raises:
        SourceError: no such file, no permission, no network, no room on the disk, or a connection
            that keeps ending early: then the next call goes on from there.
    """
    tries = 0
    while True:
        before = _size(part)
        try:
            return _once(address, part, progress, check_start)
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code != 416 or before == 0:
                raise _refusal(address.url, exc) from exc
            if exc.headers.get("Content-Range") == f"bytes */{before}":
                return None  # the whole file was there already
            part.unlink()
        except (_CutError, OSError, http.client.HTTPException) as exc:
            tries = 1 if _size(part) > before else tries + 1
            if tries < _TRIES and not isinstance(exc, urllib.error.URLError):
                continue
            raise _unreachable(address.url, exc) from exc


def _once(
    address: Address, part: Path, progress: Progress, check_start: Callable[[bytes, int], None]
) -> None:
    tag = _tag_of(part)
    have, known = _size(part), _text(tag)
    headers = {"Range": f"bytes={have}-", "If-Range": known} if have and known else {}
    with _open(address, headers) as answer:
        if answer.status != 206:
            have = 0
        if answer.headers.get_content_type() == "text/html":
            raise SourceError(
                f"{address.url} is a web page, not a program",
                hint="Give the address of the file itself (on Hugging Face with /resolve/ in it).",
            )
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and re.fullmatch(r"[0-9]{1,18}", length) else 0
        _check_room(address.url, part, total - have)
        try:
            validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            tag.write_text("" if validator.startswith("W/") else validator, encoding="utf-8")
            file = part.open("r+b" if have else "wb")
        except OSError as exc:
            raise _unwritable(part, exc) from exc
        with file:
            file.seek(have)
            file.truncate()
            start = b"" if have == 0 else bytes(_START)
            while chunk := answer.read(_CHUNK):
                if len(start) < _START:
                    start += chunk[:_START]
                    check_start(start[:_START], total)
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as exc:
                    raise _unwritable(part, exc) from exc
                have += len(chunk)
                progress("download", have, max(total, have))
                if total == 0 and have > _UNANNOUNCED:
                    raise SourceError(f"{address.url} sends without end, or says no size")
    if have < total:
        raise _CutError(f"the connection ended after {have} of {total} bytes")


def forget(part: Path) -> None:
    """Delete what `download` has written for ``part``, where it is."""
    for path in (part, _tag_of(part)):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _open(address: Address, headers: dict[str, str]) -> Any:
    check_address(address.url)
    # Without compression: positions count in what is stored.
    agent = {"User-Agent": f"edge-llm/{__version__}", "Accept-Encoding": "identity"}
    # http.client takes ASCII alone; what is escaped already stays
    url = quote(address.url, safe=string.punctuation)
    request = urllib.request.Request(url, headers={**agent, **headers})
    if address.token:
        request.add_unredirected_header("Authorization", f"Bearer {address.token}")
    return urllib.request.build_opener(_Redirects).open(request, timeout=_SECONDS)


def _check_room(url: str, part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise SourceError(
            f"{url} needs {needed / 1e9:.2f} GB, {part.parent} has {free / 1e9:.2f} GB free",
            hint="EDGE_LLM_HOME names another folder for programs.",
        )


def _refusal(url: str, exc: urllib.error.HTTPError) -> SourceError:
    if exc.code in (404, 410):
        return SourceError(f"there is no {url} ({exc.code})", hint="Compare it letter by letter.")
    if exc.code in (401, 403):
        return SourceError(
            f"{url} is not given to everybody ({exc.code})",
            hint="From Hugging Face: log in (`hf auth login`, or HF_TOKEN) and use "
            "hf:ORG/NAME/FILE.edge.",
        )
    return SourceError(
        f"{url}: its host answers {exc.code} {_shown(exc.reason)}", hint="Try again later."
    )


def _unreachable(url: str, exc: Exception) -> SourceError:
    if isinstance(exc, _CutError | http.client.IncompleteRead):
        return SourceError(
            f"{url}: {exc}", hint="The same command again goes on from there, if the host can."
        )
    reason = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(reason, TimeoutError):
        reason = f"nothing came for {_SECONDS} s"
    return SourceError(
        f"{urlsplit(url).hostname} cannot be reached: {_shown(reason)}",
        hint="Without network: fetch the file on another machine, and name its path as --model.",
    )


def _shown(said: object) -> str:
    """Return the first line of what a host has said, without what would steer a terminal."""
    first = str(said).strip().partition("\n")[0]
    return "".join(char if char.isprintable() else "?" for char in first[:200])


def _unwritable(part: Path, exc: OSError) -> SourceError:
    reason = "no space left on the disk" if exc.errno == errno.ENOSPC else exc.strerror
    return SourceError(
        f"cannot write in {part.parent}: {reason}",
        hint="EDGE_LLM_HOME names another folder for programs.",
    )


def _tag_of(part: Path) -> Path:
    """Return where the mark is kept by which the host knows the file that ``part`` is of."""
    return part.with_name(f"{part.name}.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
