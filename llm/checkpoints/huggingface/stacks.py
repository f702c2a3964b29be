"""Tensors of a folder that hold parameters of many experts, or several parameters, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.checkpoints.detached import detached
from edge_llm.llm.families.family import Stacked
from edge_llm.llm.stacks import member
from edge_llm.program.ops import MAX_EXPERTS

Shape = tuple[int, ...]

_LAYER = re.compile(r"((?:model|mtp)\.layers\.\d+\.)(.+)")


@dataclass(frozen=True, slots=True)
class Piece:
    """One parameter in a tensor: of which expert (None: of all), and which ``part`` of it."""

    stored: str
    shape: Shape
    expert: int | None
    part: int
    layout: Stacked

    def read(self, tensor: Array) -> Array:
        """Return a copy of the parameter, given a view of the tensor.

        Raises:
            CheckpointError: its file was cut short.
        """
        values = detached(tensor if self.expert is None else tensor[self.expert])
        if self.layout.transposed:
            values = values.T
        axis = 0 if self.expert is not None else -1
        parts = len(self.layout.parts)
        count = values.shape[axis] // parts
        if self.layout.interleaved:
            index = np.arange(count) * parts + self.part
        else:
            index = np.arange(count) + self.part * count
        return np.ascontiguousarray(np.take(values, index, axis))


def pieces_of(shapes: Mapping[str, Shape], stacked: Mapping[str, Stacked]) -> dict[str, Piece]:
    """Return the parameters in tensors of these ``shapes`` that ``stacked`` knows by their names in
    a layer."""
    pieces: dict[str, Piece] = {}
    for stored, shape in shapes.items():
        layer = _LAYER.fullmatch(stored)
        layout = stacked.get(layer[2]) if layer else None
        if layer is None or layout is None or not _fits(shape, layout):
            continue
        owner = layer[1] + (layout.owner or layer[2].rpartition(".")[0])
        for part, name in enumerate(layout.parts):
            whole = f"{owner}.{name}"
            if len(shape) == 2:
                size = (shape[0], shape[1] // len(layout.parts))
                pieces[whole] = Piece(stored, size, None, part, layout)
                continue
            n, k = shape[:0:-1] if layout.transposed else shape[1:]
            for expert in range(shape[0]):
                size = (n // len(layout.parts), k)
                pieces[member(whole, expert)] = Piece(stored, size, expert, part, layout)
    return pieces


def _fits(shape: Shape, layout: Stacked) -> bool:
    """Tell whether a tensor can be parted; one that cannot is left over."""
    if len(shape) not in (2, 3) or shape[0] > MAX_EXPERTS:
        return False
    rows = shape[1] if len(shape) == 3 and not layout.transposed else shape[-1]
    return rows % len(layout.parts) == 0
