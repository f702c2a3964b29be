"""The numbers that a program holds for each parameter: the one place where they are made.

Packing, the eager oracle and the report all take them from here, a few rows at a time, so that what
is measured is what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.export.lowering.rotations import Turn
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.weights.quantize import Quantized, energy, quantize
from edge_llm.export.weights.rotation import Rotated, rotated_columns, rotated_rows
from edge_llm.export.weights.scaling import Scaling
from edge_llm.llm.checkpoints.arrays import Array, to_float32
from edge_llm.llm.checkpoints.detached import detached, detached_rows
from edge_llm.llm.checkpoints.source import Checkpoint, Rowwise
from edge_llm.llm.stacks import stack_of
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers

T = TypeVar("T")
Float32 = NDArray[np.float32]
Rows = slice | NDArray[np.int64]  # consecutive rows, or indices


@dataclass(frozen=True, slots=True)
class Matrix:
    """One opened parameter [N, K] in one format. ``stored`` are the checkpoint's own integers where
    those are taken over, and then ``values`` is None, or reads what they nearly give. ``columns``
    float32 [K]: how much a squared error in each counts, all the same if None; ``scaling`` is what
    ``values`` are multiplied with. ``rounded``: what these are rounded to, if that is chosen for
    all rows at once."""

    name: str
    format: WeightFormat
    scale_rule: str
    shape: tuple[int, int]
    values: Array | Rowwise | None
    stored: Integers | None
    columns: Float32 | None = None
    scaling: Scaling = field(default_factory=Scaling)
    rounded: Integers | None = None

    @property
    def taken_over(self) -> bool:
        """Tell whether the integers are the checkpoint's."""
        return self.stored is not None

    def floats(self, rows: Rows) -> Float32 | None:
        """Return what is to be approximated, float32 [rows, K]; None where what is taken over is
        that.

        Raises:
            CheckpointError: its file was cut short.
        """
        if self.values is None:
            return None
        if isinstance(self.values, np.ndarray):
            values = to_float32(detached_rows(self.values, rows))
        else:
            values = self.values.rows(rows)
        return self.scaling.apply(values, rows)

    def prepare(self, rows: Rows) -> Quantized:
        """Return the numbers of these rows as the program stores them, and what was lost.

        Raises:
            CheckpointError: its file was cut short.
            ExportError: values that are not finite, or that the format cannot hold.
        """
        values = self.floats(rows)
        whole = self.rounded if self.stored is None else self.stored
        if whole is not None:
            kept = whole.rows(rows)
            if values is None:
                return Quantized(kept, 0.0, 0.0)
            return Quantized(kept, energy(values), energy(values - kept.dequantize()))
        assert values is not None
        return quantize(
            values,
            self.format,
            scale_rule=self.scale_rule,
            columns=self.columns,
            name=self.name,
        )


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a model under a recipe.

    Attributes:
        read: gives any parameter or constant as a checkpoint does, tied ones included.
        scale_rule: of int4 groups that are quantized here, see `Recipe`.
        stored: parameters whose integers are taken over -> their format.
        integers: reads those.
        sources: parameters -> how the checkpoint stores them, in its own words.
        columns: parameters that were calibrated -> float32 [K], how much each column counts.
        inexact: those of ``stored`` whose integers give the checkpoint's values nearly -> what
            reads these.
        turns: parameters and stacks -> how they are rotated when they are read.
        scalings: parameters -> what they are multiplied with after that.
        rounder: chooses all that an opened matrix is rounded to, or returns None.
    """

    read: Callable[[str], Array]
    scale_rule: str
    stored: Mapping[str, WeightFormat]
    integers: Callable[[str], Integers]
    sources: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Float32] = field(default_factory=dict)
    inexact: Mapping[str, Callable[[], Rowwise]] = field(default_factory=dict)
    turns: Mapping[str, Turn] = field(default_factory=dict)
    scalings: Mapping[str, Scaling] = field(default_factory=dict)
    rounder: Callable[[Matrix], Integers | None] = lambda matrix: None

    def vector(self, name: str) -> Float32:
        """Return a copy of a parameter or constant that is stored as it is, float32.

        Raises:
            CheckpointError: it cannot be read.
        """
        turn, values = self.turns.get(name, Turn()), self.read(name)
        if turn.ones:
            values = np.ones(values.shape, np.float32)
        elif turn.rows is None:
            values = self._plain(name)
        elif values.ndim == 1:
            values = rotated_rows(values, *turn.rows)
        else:  # biases of experts, one below the other
            values = rotated_columns(self._plain(name), turn.rows[2])
        return self._scaling(name).apply(values)

    def _plain(self, name: str) -> Float32:
        return to_float32(detached(self.read(name)))

    def _scaling(self, name: str) -> Scaling:
        return self.scalings.get(name, Scaling())

    def matrix(self, name: str, form: WeightFormat) -> Matrix:
        """Read a parameter [N, K] for use in ``form``.

        Raises:
            CheckpointError: it cannot be read.
            ExportError: its integers are not in the format that they were announced in.
        """
        if form == self.stored.get(name):
            stored = self.integers(name)
            if stored.format != form:
                raise ExportError(f"{name}: got {stored.format.name}, expected {form.name}")
            original = self.inexact[name]() if name in self.inexact else None
            return Matrix(name, form, self.scale_rule, stored.shape, original, stored)
        read = self.read(name)
        n, k = read.shape
        turn = self.turns.get(stack_of(name))
        values = read if turn is None else self._rotated(read, turn)
        columns, scaling = self.columns.get(name), self._scaling(name)
        matrix = Matrix(name, form, self.scale_rule, (n, k), values, None, columns, scaling)
        return replace(matrix, rounded=self.rounder(matrix))

    def _rotated(self, values: Array, turn: Turn) -> Array | Rowwise:
        """Return a matrix rotated, as a whole where rows are mixed."""
        if turn.rows is not None:
            values = rotated_rows(values, *turn.rows)
        if not turn.columns:
            return values
        norm = None if turn.norm is None else self._plain(turn.norm)
        return Rotated(values, turn.columns, norm)


def parameters_of(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    tied: Mapping[str, str],
    constants: Mapping[str, Array],
    turns: Mapping[str, Turn] | None = None,
) -> Parameters:
    """Return the parameters of ``checkpoint``; ``tied`` maps a parameter to the one whose values it
    shares, ``constants`` holds what is no parameter, by name, and ``turns`` are as in
    `Parameters`."""

    def read(name: str) -> Array:
        if name in constants:
            return constants[name]
        return checkpoint.tensor(tied.get(name, name))

    stored, turns = stored_formats(checkpoint, recipe, tied), turns or {}
    return Parameters(
        read,
        recipe.scale_rule,
        {name: form for name, form in stored.items() if stack_of(name) not in turns},
        lambda name: checkpoint.integers(tied.get(name, name)),
        shared(checkpoint.stored_as, tied),
        inexact=shared(checkpoint.inexact, tied),
        turns=turns,
    )


def stored_formats(
    checkpoint: Checkpoint, recipe: Recipe, tied: Mapping[str, str]
) -> Mapping[str, WeightFormat]:
    """Return the formats of the parameters, tied ones included, whose own integers the recipe
    lets an export take over."""
    if recipe.requantize:
        return {}
    return shared(checkpoint.integer_formats, tied)


def shared(of_parameters: Mapping[str, T], tied: Mapping[str, str]) -> Mapping[str, T]:
    """Return ``of_parameters`` with the entries of tied parameters beside those that they share."""
    more = {name: of_parameters[other] for name, other in tied.items() if other in of_parameters}
    return {**of_parameters, **more}
