"""The readers of files from strangers: what each is fed, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import readers
from core_plans import make_core, prepare_core, read_core
from makers import Make, damaging

MIB = 2**20


@dataclass(frozen=True)
class Target:
    """``make(random, seeds, folder)`` writes one damaged input into an empty folder;
    ``read(folder)`` reads it, and may raise `EdgeLLMError` alone; ``prepare`` does the imports;
    ``memory`` in bytes is how much the address space may grow while reading."""

    make: Make
    read: Callable[[Path], None]
    prepare: Callable[[], None]
    memory: int


def _checkpoint(*names: str) -> Target:
    return Target(damaging(*names), readers.read_checkpoint, readers.prepare_checkpoint, 256 * MIB)


def _tokenizer(*names: str, prepare: Callable[[], None] = readers.prepare_tokenizer) -> Target:
    return Target(damaging(*names), readers.read_tokenizer, prepare, 256 * MIB)


TARGETS: Mapping[str, Target] = {
    "program": Target(damaging(".edge"), readers.read_program, readers.prepare_program, 128 * MIB),
    "core": Target(make_core, read_core, prepare_core, 128 * MIB),
    "gguf": _checkpoint(".gguf"),
    "safetensors": _checkpoint(".safetensors", "index.json"),
    "config": _checkpoint("config.json"),
    "quantized": _checkpoint("config.json", ".safetensors"),
    "meta": _checkpoint(".pth", "params.json"),
    "adapter": _checkpoint("adapter_config.json", "adapter_model.safetensors"),
    "tokenizer": _tokenizer(".json"),
    "sentencepiece": _tokenizer(".model", "tokenizer_config.json"),
    "tiktoken": _tokenizer(".tiktoken", prepare=readers.prepare_tiktoken),
    "template": Target(
        damaging(".jinja"), readers.read_template, readers.prepare_template, 1024 * MIB
    ),
    "request": Target(
        damaging("chat.json", "completion.json"),
        readers.read_request,
        readers.prepare_request,
        64 * MIB,
    ),
    "recipe": Target(damaging(".yaml"), readers.read_recipe, readers.prepare_recipe, 64 * MIB),
}
