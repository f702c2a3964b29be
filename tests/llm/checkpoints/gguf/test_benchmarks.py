"""The GGUF files that the benchmarks give to llama.cpp hold the models that they are made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stored_tensors import tensor_of

from edge_llm.llm.checkpoints.open import open_checkpoint

WRITER = Path(__file__).parents[4] / "benchmarks" / "peers" / "write_gguf.py"


# The benchmarks' families, with what a GGUF file cannot say left out.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"mlp_only_layers": []},
    "gemma3_text": {},
    "qwen3_5_text": {},
    "lfm2": {"head_dim": 16},
    "llama": {},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_as_llama_cpp_gets_it(
    family: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder, path = tiny_checkpoint(family, **FAMILIES[family]), tmp_path / "f16.gguf"
    command = [sys.executable, str(WRITER), str(folder), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    source, made = open_checkpoint(folder), open_checkpoint(path)
    assert made.shapes == source.shapes
    for name in source.shapes:
        got, expected = tensor_of(made, name).float(), tensor_of(source, name)
        torch.testing.assert_close(got, expected, rtol=2**-10, atol=1e-6, msg=name)
