"""Files that appear whole or not at all: full disks, bad targets, dead and living neighbours."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from edge_llm.errors import ExportError
from edge_llm.program.partial import PartialFile, check_target
from edge_llm.program.writer import ProgramWriter

posix = pytest.mark.skipif(os.name != "posix", reason="signals, locks and limits of POSIX")


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# --- targets -------------------------------------------------------------------------------------


def test_targets_that_cannot_be_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="is not the name of a file"):
        check_target(Path(""))
    with pytest.raises(ExportError, match="it is a folder"):
        check_target(tmp_path)
    with pytest.raises(ExportError, match=r"there is no folder .*file \(.*file is no folder\)"):
        check_target(tmp_path / "file" / "x.edge")
    with pytest.raises(ExportError, match="cannot write"):
        check_target(tmp_path / ("x" * 300))
    with pytest.raises(ExportError, match=r"there is no folder .*deep"):
        check_target(tmp_path / "none" / "deep" / "x.edge")
    assert left(tmp_path) == ["file"]


@posix
def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ExportError, match="no regular file"):
        PartialFile(pipe, 64)
    assert pipe.is_fifo()


def test_a_folder_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # may run as root, who can
    with pytest.raises(ExportError, match="its folder cannot be written to"):
        check_target(tmp_path / "x.edge")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files() -> None:
    with pytest.raises(ExportError, match=r"cannot write /proc/self/x\.edge"):
        PartialFile(Path("/proc/self/x.edge"), 64)


# --- disks ---------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_under_way(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.edge"
    path.write_bytes(b"the old file")
    fsync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match=r"No space left on device \([\d,]+ bytes are needed"):
        parts.write(path)
    monkeypatch.setattr(os, "fsync", fsync)
    assert left(tmp_path) == ["x.edge"]
    assert path.read_bytes() == b"the old file"


@posix
@pytest.mark.parametrize("reserves", [True, False])
def test_a_write_beyond_what_the_disk_takes(reserves: bool, tmp_path: Path) -> None:
    """A real refusal of the system: at the reservation, or in the middle of the tensors."""
    code = """
        import errno, os, resource, sys
        from pathlib import Path
        from edge_llm.errors import ExportError
        from edge_llm.program.partial import PartialFile

        reserves = sys.argv[2] == "True"
        def cannot(*_):
            raise OSError(errno.EOPNOTSUPP, "not here")
        if not reserves:
            os.posix_fallocate = cannot
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            partial = PartialFile(Path(sys.argv[1]), 8192 if reserves else 4096)
            partial.put(0, bytes(4096))
            print("began")
            try:
                partial.put(4096, bytes(4096))
            finally:
                partial.abandon()
        except ExportError as error:
            print(error)
    """
    path = tmp_path / "x.edge"
    path.write_bytes(b"the old file")
    out, _ = child(code, path, reserves).communicate(timeout=60)
    assert out.startswith("began") is not reserves
    assert f"cannot write {path}: File too large" in out
    assert left(tmp_path) == ["x.edge"]
    assert path.read_bytes() == b"the old file"


def test_a_file_system_that_cannot_reserve(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    usual = parts.write(tmp_path / "usual.edge").read_bytes()
    monkeypatch.setattr(os, "posix_fallocate", cannot, raising=False)
    assert parts.write(tmp_path / "x.edge").read_bytes() == usual


# --- neighbours ----------------------------------------------------------------------------------


def test_two_writers_of_one_name_do_not_mix(parts: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.edge"
    specs = list(parts.tensors)
    with (
        ProgramWriter(path, parts.plan, parts.documents, specs) as first,
        ProgramWriter(path, parts.plan, parts.documents, specs) as second,
    ):
        for spec, data in parts.tensors.items():
            first.write(spec.name, data)
            second.write(spec.name, data)
        first.finish(parts.documents)
        whole = path.read_bytes()
        assert second.temporary_path.exists()
        second.finish(parts.documents)
    assert path.read_bytes() == whole
    assert left(tmp_path) == ["x.edge"]


HOLD = """
    import sys
    from pathlib import Path
    from edge_llm.program.partial import PartialFile

    partial = PartialFile(Path(sys.argv[1]), 4096)
    partial.put(0, b"half a file")
    print(partial.path.name, flush=True)
    sys.stdin.read()
    partial.publish()
"""


@posix
def test_what_a_killed_writer_left_is_removed_and_a_living_one_is_not_disturbed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.edge"
    others = [".x.edge.abcdef01.partial.txt", ".y.edge.abcdef01.partial", "notes"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    killed, living = child(HOLD, path), child(HOLD, path)
    try:
        assert killed.stdout is not None
        assert living.stdout is not None
        dead, alive = killed.stdout.readline().strip(), living.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=60)
        assert left(tmp_path) == sorted([dead, alive, *others])
        partial = PartialFile(path, 64)
        assert left(tmp_path) == sorted([alive, partial.path.name, *others])
        partial.put(0, b"whole")
        partial.publish()
        assert path.read_bytes()[:5] == b"whole"
        living.communicate("", timeout=60)
        assert living.returncode == 0
        assert path.read_bytes()[:11] == b"half a file"
        assert left(tmp_path) == sorted(["x.edge", *others])
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()


@posix
def test_a_writer_whose_new_file_was_taken_for_stale_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    flock, removed = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        """Before the first lock, somebody removes the file."""
        if not removed:
            (entry,) = tmp_path.iterdir()
            entry.unlink()
            removed.append(entry)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    partial = PartialFile(tmp_path / "x.edge", 64)
    assert removed
    partial.publish()
    assert left(tmp_path) == ["x.edge"]


@posix
def test_without_locks_nothing_is_taken_for_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    first = PartialFile(tmp_path / "x.edge", 64)
    second = PartialFile(tmp_path / "x.edge", 64)
    first.publish()
    second.publish()
    assert left(tmp_path) == ["x.edge"]
