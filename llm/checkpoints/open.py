"""Opening a checkpoint whatever its format."""

from __future__ import annotations

from pathlib import Path

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.gguf.model import first_parts
from edge_llm.llm.checkpoints.gguf.open import open_gguf
from edge_llm.llm.checkpoints.huggingface.open import ADAPTER, open_huggingface
from edge_llm.llm.checkpoints.meta.open import is_meta_folder, open_meta
from edge_llm.llm.checkpoints.source import Checkpoint

EXPECTED = (
    "expected a folder with config.json and safetensors, one with params.json and "
    "consolidated.00.pth, or a .gguf file"
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open and check a Hugging Face folder, one in Meta's layout, or a GGUF model: its file,
    one of its parts, or a folder with no other.

    Raises:
        CheckpointError: nothing there, not a checkpoint, damaged, or not fit for its family.
        ConfigError: a config that cannot be honoured, listing every key.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "config.json").is_file():
            return open_huggingface(path)
        if is_meta_folder(path):
            return open_meta(path)
        if (path / ADAPTER).is_file():
            raise CheckpointError(
                f"{path} holds an adapter ({ADAPTER}) without a model; {EXPECTED}",
                hint=f"edge-llm export MODEL --adapter {path}",
            )
        models = first_parts(list(path.glob("*.gguf")))
        if len(models) == 1:
            return open_gguf(models[0])
        got = "has several .gguf files: name one" if models else "holds no checkpoint"
        raise CheckpointError(f"{path} {got}; {EXPECTED}")
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; {EXPECTED}")
    if path.suffix == ".gguf":
        return open_gguf(path)
    got = "is a pickle, which is never run" if path.suffix in PICKLED else "is not a checkpoint"
    raise CheckpointError(f"{path} {got}; {EXPECTED}")
