"""The numbers that a program holds for each parameter: the one place where they are made.

Packing, the eager oracle and the report all take them from here, a few rows at a time, so that what
is measured is what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.export.quantize import quantize
from edge_llm.export.recipe import Recipe
from edge_llm.export.weights import PreparedWeight, QuantizedWeight
from edge_llm.llm.checkpoints.arrays import Array
from edge_llm.llm.checkpoints.detached import detached, detached_rows
from edge_llm.llm.checkpoints.source import Checkpoint, Integers
from edge_llm.llm.tensors import as_tensor

Rows = slice | torch.Tensor  # consecutive rows, or int64 indices


@dataclass(frozen=True, slots=True)
class Matrix:
    """One opened parameter [N, K] in one format. ``stored`` are the checkpoint's own integers where
    those are taken over, and then ``values`` is None."""

    name: str
    format: str
    scale_rule: str
    shape: tuple[int, int]
    values: Array | None
    stored: Integers | None

    @property
    def taken_over(self) -> bool:
        """Whether the numbers are the checkpoint's, so that nothing is lost."""
        return self.stored is not None

    def floats(self, rows: Rows) -> torch.Tensor | None:
        """What is to be approximated, float32 [rows, K]; None where it is taken over.

        Raises:
            CheckpointError: its file was cut short.
        """
        if self.values is None:
            return None
        return as_tensor(detached_rows(self.values, _index(rows))).to(torch.float32)

    def prepare(self, rows: Rows, floats: torch.Tensor | None = None) -> PreparedWeight:
        """The numbers of these rows as the program stores them; ``floats`` are those rows, where
        they have been read already.

        Raises:
            CheckpointError: its file was cut short.
            ExportError: values that are not finite, or that the format cannot hold.
        """
        if self.stored is not None:
            q, scales = (
                as_tensor(whole[_index(rows)]) for whole in (self.stored.q, self.stored.scales)
            )
            return QuantizedWeight(self.format, q, scales, self.stored.group)
        values = self.floats(rows) if floats is None else floats
        assert values is not None
        return quantize(values, self.format, scale_rule=self.scale_rule, name=self.name)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a model under a recipe.

    Attributes:
        read: gives any parameter or constant as a checkpoint does, tied ones included.
        scale_rule: of int4 groups that are quantized here, see `Recipe`.
        groups: parameters whose integers are taken over -> columns that share a scale.
        integers: reads those.
    """

    read: Callable[[str], Array]
    scale_rule: str
    groups: Mapping[str, int]
    integers: Callable[[str], Integers]

    def vector(self, name: str) -> torch.Tensor:
        """A copy of a parameter or constant that is stored as it is, float32.

        Raises:
            CheckpointError: it cannot be read.
        """
        return as_tensor(detached(self.read(name))).to(torch.float32)

    def matrix(self, name: str, weight_format: str) -> Matrix:
        """Reads a parameter [N, K] for use in ``weight_format``.

        Raises:
            CheckpointError: it cannot be read.
            ExportError: its integers do not fit the format that they were announced for.
        """
        if weight_format == f"i4g{self.groups.get(name)}":
            stored = self.integers(name)
            n, k = stored.q.shape
            if stored.group != self.groups[name] or stored.scales.shape != (n, k // stored.group):
                raise ExportError(
                    f"{name}: got scales {list(stored.scales.shape)} in groups of {stored.group}, "
                    f"expected {weight_format} of [{n}, {k}]"
                )
            return Matrix(name, weight_format, self.scale_rule, (n, k), None, stored)
        values = self.read(name)
        n, k = values.shape
        return Matrix(name, weight_format, self.scale_rule, (n, k), values, None)


def parameters_of(
    checkpoint: Checkpoint,
    recipe: Recipe,
    *,
    tied: Mapping[str, str],
    constants: Mapping[str, torch.Tensor],
) -> Parameters:
    """The parameters of ``checkpoint``; ``tied`` maps a parameter to the one whose values it
    shares, ``constants`` holds what is no parameter, by name."""
    groups = stored_groups(checkpoint, recipe, tied)

    def read(name: str) -> Array:
        if name in constants:
            return constants[name].numpy()
        return checkpoint.tensor(tied.get(name, name))

    return Parameters(
        read, recipe.scale_rule, groups, lambda name: checkpoint.integers(tied.get(name, name))
    )


def stored_groups(
    checkpoint: Checkpoint, recipe: Recipe, tied: Mapping[str, str]
) -> Mapping[str, int]:
    """Parameters, tied ones included, whose own int4 groups the recipe lets an export take over."""
    if recipe.requantize:
        return {}
    own = checkpoint.integer_groups
    return {**own, **{name: own[source] for name, source in tied.items() if source in own}}


def _index(rows: Rows) -> slice | NDArray[np.int64]:
    return rows if isinstance(rows, slice) else rows.numpy()
