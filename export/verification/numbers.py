"""Fill the eager oracle's matrices with what a program file holds, or with what is made of the
checkpoint as it runs. Both give a few rows at a time, so that a model of any size runs in the
memory of its activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_llm.export.lowering.graph import Planned
from edge_llm.export.recipes.formats import Assignment
from edge_llm.export.weights.parameters import Matrix, Parameters
from edge_llm.llm.stacks import stack_of
from edge_llm.program.file import Program
from edge_llm.program.formats import WEIGHT_FORMATS, Activations, WeightFormat
from edge_llm.program.pack import PANEL, dequantize, packed_bytes

Float32 = NDArray[np.float32]
Rows = slice | NDArray[np.int64]  # consecutive rows, or indices


class Numbers(Protocol):
    """One matrix [N, K]. ``activations`` says how what it multiplies becomes int8; None: it stays
    float32."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def activations(self) -> Activations | None: ...

    def rows(self, rows: Rows) -> Float32:
        """Return some rows in float32, [rows, K]. Consecutive ones begin at a multiple of 16."""


Opened = Callable[[str], Numbers]  # a parameter's numbers by its name


@dataclass(frozen=True, slots=True)
class _Made:
    matrix: Matrix
    activations: Activations | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    def rows(self, rows: Rows) -> Float32:
        return self.matrix.prepare(rows).weight.dequantize()


@dataclass(frozen=True, slots=True)
class _Floats:
    matrix: Matrix
    activations = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    def rows(self, rows: Rows) -> Float32:
        values = self.matrix.floats(rows)
        assert values is not None  # no integers are float32
        return values


@dataclass(frozen=True, slots=True)
class _Packed:
    data: NDArray[np.uint8]
    format: WeightFormat
    shape: tuple[int, int]
    rounding: Activations

    @property
    def activations(self) -> Activations | None:
        return None if self.format.is_float else self.rounding

    def rows(self, rows: Rows) -> Float32:
        n, k = self.shape
        panels = self.data.reshape(-(-n // PANEL), -1)
        if isinstance(rows, slice):
            begin, end, _ = rows.indices(n)
            chosen = panels[begin // PANEL : -(-end // PANEL)]
            return dequantize(chosen.reshape(-1), self.format, end - begin, k)
        whole, place = np.unique(rows // PANEL, return_inverse=True)
        chosen = panels[whole].reshape(-1)
        values: Float32 = dequantize(chosen, self.format, len(whole) * PANEL, k)
        taken: Float32 = values[place * PANEL + rows % PANEL]
        return taken


def made(parameters: Parameters, assignment: Assignment) -> Opened:
    """Return numbers that are made of the checkpoint's, as each parameter or stack is assigned."""

    def opened(name: str) -> Numbers:
        stack = stack_of(name)
        matrix = parameters.matrix(name, assignment.formats[stack])
        return _Made(matrix, assignment.activations.get(stack))

    return opened


def unrounded(parameters: Parameters) -> Opened:
    """Return the checkpoint's own numbers."""
    return lambda name: _Floats(parameters.matrix(name, WEIGHT_FORMATS["f32"]))


def packed(program: Program, planned: Planned) -> Opened:
    """Return the numbers that ``program`` holds, which was made of that plan."""
    tied, formats = planned.tied, planned.assignment.formats
    # The file may hold the values of tied parameters in the format of each.
    places: dict[tuple[str, WeightFormat], _Packed] = {}
    for weight in {weight.tensor: weight for weight in program.plan.weights}.values():
        if not weight.format.is_panel:
            continue
        data, form = program.weight_data(weight), weight.format
        begin = 0
        for part in planned.lowered.parts[weight.tensor]:
            n, k = planned.shapes[part]
            end = begin + packed_bytes(form, n, k)
            places[part, form] = _Packed(data[begin:end], form, (n, k), weight.activations)
            begin = end
    return lambda name: places[tied.get(name, name), formats[stack_of(name)]]
