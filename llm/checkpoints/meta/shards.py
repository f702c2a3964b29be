"""The weights of Meta's checkpoints: consolidated.NN.pth, each with a part of every matrix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import Array, name_of
from edge_llm.llm.checkpoints.detached import detached_bytes
from edge_llm.llm.checkpoints.meta.torch_file import TorchFile, read_torch_file
from edge_llm.llm.checkpoints.source import Shape

SHARDS = "consolidated.*.pth"

# Meta's name -> (the module's, the dimension along which shards are parts; None: each has all).
# The embedding was split along its columns until Llama 2, and along its rows since.
EMBEDDING, HEAD = "tok_embeddings.weight", "output.weight"
OUTER_NAMES = {
    EMBEDDING: ("model.embed_tokens.weight", None),
    "norm.weight": ("model.norm.weight", None),
    HEAD: ("lm_head.weight", 0),
}
LAYER_NAMES = {
    "attention.wq.weight": ("self_attn.q_proj.weight", 0),
    "attention.wk.weight": ("self_attn.k_proj.weight", 0),
    "attention.wv.weight": ("self_attn.v_proj.weight", 0),
    "attention.wo.weight": ("self_attn.o_proj.weight", 1),
    "feed_forward.w1.weight": ("mlp.gate_proj.weight", 0),
    "feed_forward.w2.weight": ("mlp.down_proj.weight", 1),
    "feed_forward.w3.weight": ("mlp.up_proj.weight", 0),
    "attention_norm.weight": ("input_layernorm.weight", None),
    "ffn_norm.weight": ("post_attention_layernorm.weight", None),
}
# Those of adaptors in quantized checkpoints, behind the name of their linear, as in the module.
ADAPTOR = (".adaptor.A.weight", ".adaptor.B.weight")
INTERLEAVED = (".attention.wq.weight", ".attention.wk.weight")
INTERLEAVED_ADAPTORS = (".attention.wq.adaptor.B.weight", ".attention.wk.adaptor.B.weight")
LEFTOVERS = ("rope.freqs",)  # a table that Llama 2 stores

COMPARED = 2**24  # bytes at a time


def open_shards(path: Path) -> Shards:
    """Return the weights of a folder; tensors are read later, one at a time.

    Raises:
        CheckpointError: a shard is missing or damaged, or holds other tensors than the rest.
    """
    found = sorted(path.glob(SHARDS))
    expected = [path / f"consolidated.{index:02d}.pth" for index in range(len(found))]
    if found != expected:
        missing = sorted({file.name for file in expected} - {file.name for file in found})
        raise CheckpointError(
            f"{path} has {', '.join(file.name for file in found)}, but not {', '.join(missing)}"
        )
    return Shards([read_torch_file(file) for file in found])


def parameter_name(stored: str) -> str:
    """Return the parameter's name in the module; an unknown name stays, and is left over."""
    if stored in OUTER_NAMES:
        return OUTER_NAMES[stored][0]
    inner = _within_layer(stored)
    end = next((end for end in ADAPTOR if inner.endswith(end)), ".weight")
    linear = f"{inner.removesuffix(end)}.weight"
    if linear not in LAYER_NAMES:
        return stored
    module = LAYER_NAMES[linear][0].removesuffix(".weight")
    return f"model.{stored.removesuffix(inner)}{module}{end}"


class Shards:
    """The tensors of all shards by Meta's names, joined where each holds a part.

    ``problems`` has a line for each tensor whose parts do not fit each other."""

    def __init__(self, files: Sequence[TorchFile]) -> None:
        self._files = files
        self.paths = tuple(file.path for file in files)
        self.problems: list[str] = []
        self._axes = {name: self._axis(name) for name in files[0].tensors if name not in LEFTOVERS}
        for file in files[1:]:
            if file.tensors.keys() != files[0].tensors.keys():
                raise CheckpointError(
                    f"{file.path} and {files[0].path} hold other tensors, expected the same names"
                )
        for name, axis in self._axes.items():
            self._check(name, axis)

    def __contains__(self, name: str) -> bool:
        return name in self._axes

    def names(self) -> list[str]:
        """Return all names but those that carry nothing."""
        return list(self._axes)

    def _axis(self, name: str) -> int | None:
        if name == EMBEDDING and len(self._files) > 1:
            # Shards split along rows hold whole rows, as wide as the vectors of the norm.
            norm = self._files[0].tensors.get("norm.weight")
            whole = norm is not None and self._part(name)[1:] == norm.shape
            return 0 if whole else 1
        if name in OUTER_NAMES:
            return OUTER_NAMES[name][1]
        _, axis = LAYER_NAMES.get(_within_layer(name), ("", None))
        return axis

    def _check(self, name: str, axis: int | None) -> None:
        first = self._files[0].tensors[name]
        if axis is not None and len(first.shape) != 2:
            raise CheckpointError(
                f"{self._files[0].path}: {name}: got shape {list(first.shape)}, expected a matrix"
            )
        for file in self._files[1:]:
            part = file.tensors[name]
            if (part.shape, part.dtype) != (first.shape, first.dtype):
                self.problems.append(
                    f"shard: {name}: got {list(part.shape)} {name_of(part.dtype)} in "
                    f"{file.path.name}, expected {list(first.shape)} {name_of(first.dtype)} "
                    "as in the first"
                )
            elif axis is None and not _same(file.bytes_of(name), self._files[0].bytes_of(name)):
                self.problems.append(f"shard: {name} differs in {file.path.name}, expected copies")

    def _part(self, name: str) -> Shape:
        return self._files[0].tensors[name].shape

    def shape(self, name: str) -> Shape:
        """Return the shape of the whole tensor."""
        axis, part = self._axes[name], self._part(name)
        if axis is None:
            return part
        return tuple(
            size * (len(self._files) if index == axis else 1) for index, size in enumerate(part)
        )

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor."""
        return self._files[0].tensors[name].dtype

    def read(self, name: str) -> Array:
        """Return a copy of the whole tensor."""
        axis = self._axes[name]
        if axis is None or len(self._files) == 1:
            return self._files[0].tensor(name)
        whole = np.empty(self.shape(name), self._files[0].tensors[name].dtype)
        for part, file in zip(np.split(whole, len(self._files), axis), self._files, strict=True):
            part[...] = file.tensor(name)
        return whole

    def equal(self, one: str, other: str) -> bool:
        """Return whether two tensors hold the same bytes, cut into shards in the same way."""
        if (self._axes[one] or 0, self._part(one)) != (self._axes[other] or 0, self._part(other)):
            return False
        return all(_same(file.bytes_of(one), file.bytes_of(other)) for file in self._files)


def _same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return one.size == other.size and all(
        np.array_equal(
            detached_bytes(one[at : at + COMPARED]), detached_bytes(other[at : at + COMPARED])
        )
        for at in range(0, one.size, COMPARED)
    )


def _within_layer(name: str) -> str:
    match = re.fullmatch(r"layers\.\d+\.(.+)", name)
    return match[1] if match else ""
