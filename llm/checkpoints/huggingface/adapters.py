"""LoRA adapters in PEFT's folder layout (peft.py), merged into the weights of a checkpoint as they
are read: W + sum over adapters of weight * scale * B A, in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import CheckpointError
from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.detached import detached, same_values
from edge_llm.llm.checkpoints.huggingface.peft import PeftFolder, copied_parameter, open_peft
from edge_llm.llm.checkpoints.huggingface.tensors import Tensors
from edge_llm.llm.checkpoints.source import Checkpoint, Shape
from edge_llm.llm.config import shorten
from edge_llm.llm.registry import shared_parameters

_PRODUCT = 2**22  # elements of B A at a time
FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class _Delta:
    """The change that one adapter makes to one parameter: ``factor`` times B A."""

    tensors: Tensors
    a: str
    b: str
    factor: float
    embedding: bool

    def add_to(self, weight: NDArray[np.float32]) -> None:
        """Add to ``weight`` [N, K], in place and a few rows at a time."""
        a, b = (to_float32(self.tensors.read(name)) for name in (self.a, self.b))
        left, right = (a.T, b.T) if self.embedding else (b, a)
        step = max(_PRODUCT // weight.shape[1], 1)
        for begin in range(0, len(weight), step):
            rows = slice(begin, begin + step)
            weight[rows] += (left[rows] @ right) * np.float32(self.factor)


def with_adapters(
    checkpoint: Checkpoint, adapters: Sequence[tuple[str | Path, float]]
) -> Checkpoint:
    """Return ``checkpoint`` with LoRA adapters (folder, weight) merged into what it reads. Adapted
    parameters come in float32; their integers, if the checkpoint holds some, no longer count.

    Raises:
        CheckpointError: a folder that is damaged, or that adapts what the model has not.
        ConfigError: a kind of adapter that is not supported.
    """
    tied = shared_parameters(checkpoint.config)
    shared = {*tied, *tied.values()}
    deltas: dict[str, list[_Delta]] = {}
    notes = list(checkpoint.notes)
    sources = list(checkpoint.sources)
    for folder, weight in adapters:
        peft = open_peft(folder)
        copies = _base_copies(peft.path, peft.tensors, checkpoint, tied)
        found = _deltas(peft, weight, checkpoint.shapes, shared, copies)
        for name, delta in found.items():
            deltas.setdefault(name, []).append(delta)
        sources += [peft.config_path, peft.weights_path]
        trained = f", trained on {shorten(peft.base)}" if peft.base else ""
        notes.append(
            f"adapter {peft.path.resolve().name} merged with weight {weight:g} into {len(found)} "
            f"matrices{trained}"
        )

    def read(name: str) -> Array:
        array = checkpoint.read(name)
        if name not in deltas:
            return array
        merged = to_float32(detached(array))
        for delta in deltas[name]:
            delta.add_to(merged)
        return merged

    return replace(
        checkpoint,
        read=read,
        sources=tuple(sources),
        notes=tuple(notes),
        integer_formats={
            name: form for name, form in checkpoint.integer_formats.items() if name not in deltas
        },
    )


def _base_copies(
    path: Path, tensors: Tensors, checkpoint: Checkpoint, tied: Mapping[str, str]
) -> set[str]:
    """Return the tensors that repeat weights of the model: PEFT stores those of embedding and head
    beside their adapters.

    Raises:
        CheckpointError: one holds other values, those of another model or trained ones.
    """
    copies: set[str] = set()
    for name in tensors.entries:
        parameter = copied_parameter(name)
        parameter = tied.get(parameter, parameter)
        if parameter in checkpoint.shapes:
            if not same_values(tensors.view(name), checkpoint.tensor(parameter)):
                raise CheckpointError(
                    f"{path} holds {shorten(name)}, whose values differ from {parameter} of "
                    f"{checkpoint.name}, expected the same: it was trained on another model, or "
                    "trained that matrix as a whole, which is not supported"
                )
            copies.add(name)
    return copies


def _deltas(
    peft: PeftFolder,
    weight: float,
    shapes: Mapping[str, Shape],
    shared: set[str],
    copies: set[str],
) -> dict[str, _Delta]:
    """Return what the adapter adds to each parameter; ``copies`` are tensors that add nothing.

    Raises:
        CheckpointError: listing every tensor that fits no parameter."""
    lines: list[str] = []
    found: dict[str, _Delta] = {}
    left = set(peft.tensors.entries) - copies
    for pair in peft.pairs():
        left -= {pair.a, pair.b}
        name = f"{pair.module}.weight"
        shape = shapes.get(name)
        if shape is None or len(shape) != 2:
            lines.append(f"unknown: {shorten(pair.module)}")
            continue
        if name in shared:
            lines.append(f"tied: {pair.module} shares its values, an adapter would part them")
            continue
        wrong = peft.problems(pair, shape)
        lines += wrong
        factor = weight * pair.scale
        if not abs(factor) <= FLOAT32_MAX:
            lines.append(f"scale: {pair.module}: got {factor:g}, which no float32 holds")
        elif not wrong:
            found[name] = _Delta(peft.tensors, pair.a, pair.b, factor, pair.embedding)
    lines += [f"left over: {shorten(name)}" for name in sorted(left)]
    if not found and not lines:
        lines.append("no tensors")
    if lines:
        listing = "".join(f"\n  {line}" for line in lines)
        raise CheckpointError(f"{peft.path} does not adapt this model:{listing}")
    return found
