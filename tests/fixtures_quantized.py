"""Quantized Hugging Face folders, written by small numpy encoders of each public layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

Array = NDArray[Any]


@dataclass
class Quantized:
    """One linear as the encoder chose it: ``weight = (q - zeros) * scales`` over column groups,
    ``q`` unsigned [N, K], ``zeros`` and ``scales`` (float16) [N, G], ``groups`` [K]."""

    q: Array
    zeros: Array
    scales: Array
    groups: Array

    @property
    def weight(self) -> Array:
        """float32 [N, K]."""
        centred = (self.q - self.zeros[:, self.groups]).astype(np.float32)
        return centred * self.scales.astype(np.float32)[:, self.groups]


def choose(
    weight: Array, group: int, *, bits: int = 4, symmetric: bool = True, order: Array | None = None
) -> Quantized:
    """Rounds to nearest; ``group`` -1: the whole row; ``order`` gives the group of each column."""
    n, k = weight.shape
    size = k if group == -1 else group
    groups = np.arange(k) // size if order is None else order
    top = 2**bits - 1
    scales = np.empty((n, groups.max() + 1), np.float16)
    zeros = np.empty(scales.shape, np.int64)
    for index in range(scales.shape[1]):
        part = weight[:, groups == index]
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        if symmetric:
            scales[:, index] = 2 * np.abs(part).max(axis=1) / top
            zeros[:, index] = (top + 1) // 2
        else:
            scales[:, index] = (high - low) / top
            zeros[:, index] = np.clip(np.round(-low / scales[:, index]), 1, top)
    steps = weight / scales.astype(np.float32)[:, groups]
    q = np.clip(np.round(steps) + zeros[:, groups], 0, top).astype(np.int64)
    return Quantized(q, zeros, scales, groups)


def words(fields: Array, bits: int) -> Array:
    """Consecutive entries of the last axis, lowest bits first, as int32."""
    count = 32 // bits
    split = fields.reshape(*fields.shape[:-1], -1, count).astype(np.uint64)
    shifts = np.arange(count, dtype=np.uint64) * np.uint64(bits)
    return (split << shifts).sum(axis=-1).astype(np.uint32).view(np.int32)


def gptq(name: str, made: Quantized, *, bits: int = 4, less: int = 1) -> dict[str, Array]:
    """Version 1 stores zero points ``less`` 1."""
    return {
        f"{name}.qweight": words(made.q, bits).T,
        f"{name}.qzeros": words((made.zeros - less).T, bits),
        f"{name}.scales": made.scales.T,
        f"{name}.g_idx": made.groups.astype(np.int32),
    }


def awq(name: str, made: Quantized) -> dict[str, Array]:
    """Eight outputs in a word, interleaved."""

    def interleaved(rows: Array) -> Array:
        fields = rows.reshape(rows.shape[0], -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return words(fields.reshape(rows.shape), 4)

    return {
        f"{name}.qweight": interleaved(made.q.T),
        f"{name}.qzeros": interleaved(made.zeros.T),
        f"{name}.scales": made.scales.T,
    }


def compressed(
    name: str, made: Quantized, *, bits: int = 4, symmetric: bool = True
) -> dict[str, Array]:
    """compressed-tensors "pack-quantized"."""
    pieces = {
        f"{name}.weight_packed": words(made.q, bits),
        f"{name}.weight_scale": made.scales,
        f"{name}.weight_shape": np.array(made.q.shape, np.int64),
    }
    if not symmetric:
        pieces[f"{name}.weight_zero_point"] = words(made.zeros.T, bits).T
    return pieces


def requantized_folder(
    source: Path,
    target: Path,
    settings: dict[str, Any],
    encode: Callable[[str, Array], tuple[Quantized, dict[str, Array]]],
) -> dict[str, Quantized]:
    """Copies a folder with every linear of its layers as ``encode(module, weight)`` stores it;
    returns what was chosen, by parameter name. ``target``/dense has the same weights as floats."""
    shutil.copytree(source, target)
    shutil.copytree(source, target / "dense")
    tensors = load_file(source / "model.safetensors")
    stored, dense, chosen = dict(tensors), dict(tensors), {}
    for name, tensor in tensors.items():
        if "_proj.weight" in name:
            made, pieces = encode(name.removesuffix(".weight"), tensor.float().numpy())
            del stored[name]
            stored |= {
                piece: torch.from_numpy(np.ascontiguousarray(values))
                for piece, values in pieces.items()
            }
            dense[name] = torch.from_numpy(made.weight)
            chosen[name] = made
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    save_file(dense, target / "dense" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return chosen
