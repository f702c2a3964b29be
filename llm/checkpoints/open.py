"""Opening a checkpoint whatever its format."""

from __future__ import annotations

from pathlib import Path

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.gguf import open_gguf
from edge_llm.llm.checkpoints.huggingface import open_huggingface
from edge_llm.llm.checkpoints.source import Checkpoint

EXPECTED = "expected a folder with config.json and safetensors, or a .gguf file"


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens and checks a Hugging Face folder or a GGUF file (or a folder with just one).

    Raises:
        CheckpointError: nothing there, not a checkpoint, damaged, or not fit for its family.
        ConfigError: a config that cannot be honoured, listing every key.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "config.json").is_file():
            return open_huggingface(path)
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return open_gguf(files[0])
        got = "several .gguf files: name one" if files else "neither config.json nor a .gguf file"
        raise CheckpointError(f"{path} has {got}; {EXPECTED}")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; {EXPECTED}")
    if path.suffix == ".gguf":
        return open_gguf(path)
    raise CheckpointError(f"{path} is not a checkpoint; {EXPECTED}")
