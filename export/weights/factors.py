"""The factors that a file tells of, so that adapters can be put beside its weights.

Which weights have some follows from the plan and the recipe alone, so that the size of a file is
known before a weight is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from edge_llm.export.lowering.folds import Fold
from edge_llm.export.lowering.lowered import Lowered
from edge_llm.export.weights.parameters import Parameters
from edge_llm.export.weights.scaling import Scaling
from edge_llm.program.plan import Weight
from edge_llm.program.tensors import factor_name

Float32 = NDArray[np.float32]


def factor_sizes(lowered: Lowered, folds: Iterable[Fold]) -> Mapping[str, int]:
    """Return the tensors with what rows, and columns, of the plan's matrices may be multiplied with
    where the factors of these ``folds`` are moved, and how many numbers each has."""
    read, made = set[str](), set[str]()
    for fold in folds:
        read.update(fold.consumers)
        made.update(producer.parameter for producer in fold.producers)
    sizes: dict[str, int] = {}
    for weight in _matrices(lowered):
        parts = lowered.parts[weight.tensor]
        if not made.isdisjoint(parts):
            sizes[factor_name(weight.tensor, "rows")] = weight.shape[0]
        if not read.isdisjoint(parts):
            sizes[factor_name(weight.tensor, "columns")] = weight.shape[1]
    return sizes


def factors_of(
    lowered: Lowered, sizes: Mapping[str, int], parameters: Parameters
) -> Mapping[str, Float32]:
    """Return the numbers of the tensors of `factor_sizes`."""
    found: dict[str, Float32] = {}
    for weight in _matrices(lowered):
        parts = lowered.parts[weight.tensor]
        scalings = [parameters.scalings.get(part, Scaling()) for part in parts]
        rows, columns = (factor_name(weight.tensor, of) for of in ("rows", "columns"))
        if rows in sizes:
            found[rows] = np.concatenate(
                [
                    _ones(len(parameters.read(part))) if scaling.rows is None else scaling.rows
                    for part, scaling in zip(parts, scalings, strict=True)
                ]
            )
        if columns in sizes:  # parts read one input, which has one factor a channel
            own = scalings[0].columns
            found[columns] = _ones(weight.shape[1]) if own is None else own
    return found


def _matrices(lowered: Lowered) -> Iterable[Weight]:
    weights = {weight.tensor: weight for weight in lowered.plan.weights}.values()
    return [weight for weight in weights if weight.format.is_panel and len(weight.shape) == 2]


def _ones(count: int) -> Float32:
    return np.ones(count, np.float32)
