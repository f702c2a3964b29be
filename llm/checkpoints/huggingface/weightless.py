"""A folder without weights: enough to plan an export, not to make one."""

from __future__ import annotations

from pathlib import Path

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.checkpoints.files import read_json_object
from edge_llm.llm.checkpoints.huggingface.retrieval import read_retrieval
from edge_llm.llm.checkpoints.source import Checkpoint, TokenizerDirectory, expected_shapes
from edge_llm.llm.registry import read_config
from edge_llm.program.documents import GenerationDefaults

_WEIGHTS = (".safetensors", ".bin", ".pth", ".gguf")


def is_weightless(path: Path) -> bool:
    """Return whether ``path`` is a folder with a config.json and no file of weights."""
    return (path / "config.json").is_file() and not any(
        entry.suffix in _WEIGHTS for entry in path.iterdir()
    )


def open_weightless(path: Path) -> Checkpoint:
    """Return the checkpoint that config.json describes. Its parameters have names and shapes;
    reading one is a CheckpointError. It has no sources to hash, and generation defaults are not
    read.

    Raises:
        CheckpointError: config.json is damaged.
        ConfigError: a config that cannot be honoured.
    """

    def read(name: str) -> Array:
        raise CheckpointError(f"{path} has no weights, so {name} cannot be read")

    config, unread = read_config(read_json_object(path / "config.json"), str(path / "config.json"))
    retrieval = read_retrieval(path).retrieval
    return Checkpoint(
        name=path.resolve().name,
        config=config,
        shapes=expected_shapes(config, retrieval),
        read=read,
        generation=GenerationDefaults(stop_ids=()),
        tokenizer=TokenizerDirectory(path),
        sources=(),
        unread_config_keys=unread,
        license=None,
        retrieval=retrieval,
        notes=("without weights: shapes are those of config.json",),
    )
