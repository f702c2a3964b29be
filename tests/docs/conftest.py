"""The folder in which the commands of a page run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # shell_blocks, sandbox


@pytest.fixture
def sandbox(
    tmp_path: Path, tiny_checkpoint: Any, tiny_program: Any, make_gguf: Any
) -> Iterator[Any]:
    from sandbox import Sandbox

    sizes = {"max_position_embeddings": 8192}
    checkpoint = tiny_checkpoint("llama", **sizes)
    program = tiny_program("8da4w", **sizes)
    made = Sandbox(tmp_path, checkpoint, program, make_gguf(checkpoint, "Q8_0"))
    yield made
    made.close()
