"""An export works beside its stages: digests of sources, and imports that take long."""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path

import pytest

from edge_llm.export.ahead import imported
from edge_llm.export.origin.provenance import hashed


def test_digests_of_files_of_any_size(tmp_path: Path) -> None:
    contents = {"a": b"", "b": b"x", "c": bytes(range(256)) * 4096, "d": b"y" * (2**20 + 1)}
    paths = [tmp_path / name for name in contents]
    for path in paths:
        path.write_bytes(contents[path.name])
    with hashed(paths) as digest:
        for path in reversed(paths):
            assert digest(path) == hashlib.sha256(contents[path.name]).hexdigest()


def test_a_file_that_is_gone_is_told_when_its_digest_is_wanted(tmp_path: Path) -> None:
    with hashed([tmp_path / "gone"]) as digest, pytest.raises(FileNotFoundError):
        digest(tmp_path / "gone")


def test_what_went_wrong_ends_the_hashing(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # hours of hashing; a hole takes no space
    with pytest.raises(KeyError, match="elsewhere"), hashed([path, path]):
        raise KeyError("elsewhere")
    assert not [thread for thread in threading.enumerate() if "hash" in thread.name]


def test_modules_are_there_after_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_slow_module.py").write_text("import time\ntime.sleep(0.05)\nready = True\n")
    (tmp_path / "a_broken_module.py").write_text("raise ImportError('broken')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with imported("a_broken_module", "a_slow_module"):
        pass
    assert sys.modules.pop("a_slow_module").ready
    assert "a_broken_module" not in sys.modules
