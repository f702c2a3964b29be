"""Every kind of checkpoint whose files are cut short between opening and reading: a typed error.

What is read comes from mapped files, so without the copies of `detached` the process would end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.checkpoints.open import open_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there, mapped files cannot be cut")


@pytest.fixture
def source(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """Weights that reach beyond one page."""
    return Path(shutil.copytree(tiny_checkpoint("llama"), tmp_path / "source"))


def read_all(path: Path, *, between: Callable[[], None]) -> None:
    checkpoint = open_checkpoint(path)
    between()
    for name in checkpoint.shapes:
        detached(checkpoint.tensor(name))


def cut(file: Path) -> None:
    os.truncate(file, 4096)


@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
def test_gguf(quant: str, source: Path, make_gguf: Callable[..., Path]) -> None:
    file = make_gguf(source, quant)
    read_all(file, between=lambda: None)
    with pytest.raises(CheckpointError, match="cut short"):
        read_all(file, between=lambda: cut(file))


@pytest.mark.parametrize("shards", [1, 2])
def test_meta(shards: int, source: Path, make_meta: Callable[..., Path]) -> None:
    folder = make_meta(source, shards)
    read_all(folder, between=lambda: None)
    with pytest.raises(CheckpointError, match="cut short"):
        read_all(folder, between=lambda: cut(folder / "consolidated.00.pth"))


def test_safetensors(source: Path) -> None:
    read_all(source, between=lambda: None)
    with pytest.raises(CheckpointError):  # its reader looks at the file's size each time
        read_all(source, between=lambda: cut(source / "model.safetensors"))


def test_safetensors_cut_after_a_tensor_was_mapped(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    views = [checkpoint.tensor(name) for name in checkpoint.shapes]
    cut(source / "model.safetensors")
    with pytest.raises(CheckpointError, match="cut short"):
        [detached(view) for view in views]
