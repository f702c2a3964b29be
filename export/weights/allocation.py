"""Find the format of each matrix under a budget of bits: more where rounding loses more.

What a matrix W loses in a format is the squared error of its products with some inputs of the text,
over the squares of the products themselves. The best mix under a budget spends each further byte
where it takes away the most of the sum: of each matrix the formats on the lower hull of loss
against bytes count, and steps along the hulls are taken from the steepest on (Shoham and Gersho
1988). Matrices that are one tensor of the file, like gate and up, have one format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from edge_llm import native
from edge_llm.errors import ConfigError
from edge_llm.export.backends.registry import Backend
from edge_llm.export.lowering.graph import Planned
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.weights.calibration import Study
from edge_llm.export.weights.kept import Arrays, Kept
from edge_llm.export.weights.parameters import Parameters
from edge_llm.export.weights.quantize import energy, quantize
from edge_llm.program.formats import RAW_F32, WEIGHT_FORMATS, WeightFormat

CANDIDATES = ("i4g128", "i4g64", "i4g32", "i6g32", "i8")
# What a loss is measured on, spread evenly: inputs, and rows of the matrix (1,000 rather than
# 1,024, so that they are at different places of heads).
_INPUTS = 256
_ROWS = 1000
_F32 = WEIGHT_FORMATS["f32"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What is to be chosen: ``matrices`` are the parameters of each tensor that gets a format,
    ``sizes`` its bytes in each format that fits, and ``room`` the bytes that all may have."""

    matrices: Mapping[str, tuple[str, ...]]
    room: int
    sizes: Mapping[str, Mapping[WeightFormat, int]]


@dataclass(frozen=True, slots=True)
class _Choice:
    form: WeightFormat
    size: int  # bytes
    loss: float


def budget(
    bits: float,
    planned: Planned,
    recipe: Recipe,
    stored: Mapping[str, WeightFormat],
    constants: frozenset[str],
    backend: Backend,
) -> Budget:
    """Return what ``bits`` for each weight of the program, as the report counts them, leave to the
    linears of the language model that are rounded here and that the recipe does not name.

    ``stored`` are the parameters whose integers the checkpoint has, ``constants`` are tensors that
    are no parameters.

    Raises:
        ConfigError: there is nothing to choose, or the budget is less than the least possible.
    """
    plan, parts = planned.lowered.plan, planned.lowered.parts
    model = plan.language_model
    within = {
        plan.weights[instruction.weights[0]].tensor
        for instruction in model.instructions
        if instruction.op == "linear" and model.values[instruction.inputs[0]].rows == "T"
    }
    forms: dict[str, dict[WeightFormat, int]] = {}
    fixed = elements = 0
    for tensor, weight in {weight.tensor: weight for weight in plan.weights}.items():
        shapes = [planned.shapes[part] for part in parts[tensor] if part not in constants]
        elements += sum(map(prod, shapes))
        if weight.format == RAW_F32:
            fixed += 4 * sum(map(prod, shapes))
        elif (
            tensor not in within
            or weight.format.is_float
            or any(name in stored or recipe.names(name) for name in parts[tensor])
        ):
            fixed += sum(backend.packed_bytes(weight.format, *shape) for shape in shapes)
        else:
            fitting = (form for name in CANDIDATES if (form := WEIGHT_FORMATS[name]))
            forms[tensor] = {
                form: sum(backend.packed_bytes(form, *shape) for shape in shapes)
                for form in fitting
                if weight.shape[1] % form.columns == 0 and form in backend.formats
            }
    if not forms:
        raise ConfigError(
            f"bits is {bits:g}, but there is no matrix to choose a format for: the recipe names "
            "all, or they are integers of the checkpoint",
            hint="requantize=true in the recipe rounds those of the checkpoint anew",
        )
    room = int(bits * elements / 8.0) - fixed
    least = sum(min(sizes.values()) for sizes in forms.values())
    if least > room:
        possible = -(-800 * (fixed + least) // elements) / 100  # rounded up
        raise ConfigError(
            f"bits is {bits:g}, but the least that this model can have is {possible:.2f}",
            hint="embedding and head take their part: head=i4g32 and embedding=i4g32 in the "
            "recipe make it less",
        )
    return Budget({tensor: parts[tensor] for tensor in forms}, room, forms)


def allocate(
    found: Budget,
    parameters: Parameters,
    study: Study,
    progress: Callable[[int, int], None],
    kept: Kept,
) -> dict[str, str]:
    """Return names of formats by the names of matrices, with which what rounding loses is the least
    that fits; ``progress(done, total)`` counts tensors. What is in ``kept`` is taken from there.

    Raises:
        CheckpointError: a matrix cannot be read.
        ExportError: a matrix holds values that are not finite.
    """
    moved = replace(parameters, scalings=study.scalings)
    hulls: dict[str, list[_Choice]] = {}

    def choices(tensor: str) -> list[_Choice]:
        sizes = found.sizes[tensor]
        names = found.matrices[tensor]

        def made() -> Arrays:
            each = [_losses(name, list(sizes), moved, study) for name in names]
            return {"losses": np.sum(each, axis=0)}

        losses = kept.of(f"losses {tensor}", made)["losses"]
        return [
            _Choice(form, size, loss)
            for (form, size), loss in zip(sizes.items(), losses.tolist(), strict=True)
        ]

    with ThreadPoolExecutor(native.default_threads(), "edge-llm-allocate") as workers:
        for tensor, made in zip(found.matrices, workers.map(choices, found.matrices), strict=True):
            hulls[tensor] = _hull(made)
            progress(len(hulls), len(found.matrices))
    chosen = _chosen(hulls, found.room)
    return {
        name: chosen[tensor].form.name for tensor, names in found.matrices.items() for name in names
    }


def mixed(recipe: Recipe, planned: Planned, chosen: Mapping[str, str]) -> Recipe:
    """Return the recipe with what was ``chosen`` among its overrides, where the plan had another
    format."""
    formats = planned.assignment.formats
    more = {name: form for name, form in chosen.items() if form != formats[name].name}
    return replace(recipe, overrides={**recipe.overrides, **more})


def _losses(
    name: str, forms: Sequence[WeightFormat], parameters: Parameters, study: Study
) -> list[float]:
    """Return what a matrix loses in each of ``forms``, relative to its products."""
    matrix = parameters.matrix(name, _F32)
    values = matrix.floats(_spread(matrix.shape[0], _ROWS))
    assert values is not None
    inputs = study.inputs[name].rows
    inputs = inputs[_spread(len(inputs), _INPUTS)]
    if matrix.scaling.columns is not None:
        inputs = inputs / matrix.scaling.columns
    counts = study.counts(name)

    def error(form: WeightFormat) -> float:
        made = quantize(values, form, columns=counts if form.group else None, name=name)
        return energy(inputs @ (made.weight.dequantize() - values).T)

    whole = max(energy(inputs @ values.T), float(np.finfo(np.float32).tiny))
    return [error(form) / whole for form in forms]


def _spread(count: int, most: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return at most ``most`` of the numbers below ``count``, evenly spread."""
    taken = min(count, most)
    return np.arange(taken, dtype=np.int64) * count // taken


def _hull(choices: Sequence[_Choice]) -> list[_Choice]:
    """Return those on the lower hull of loss against bytes, from the smallest on."""
    hull: list[_Choice] = []
    for choice in sorted(choices, key=lambda choice: (choice.size, choice.loss)):
        if hull and choice.loss >= hull[-1].loss:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-2], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _slope(one: _Choice, other: _Choice) -> float:
    """Return how much loss a byte takes away."""
    return (one.loss - other.loss) / (other.size - one.size)


def _chosen(hulls: Mapping[str, Sequence[_Choice]], room: int) -> dict[str, _Choice]:
    chosen = {tensor: hull[0] for tensor, hull in hulls.items()}
    room -= sum(choice.size for choice in chosen.values())
    steps = [
        (_slope(one, other), tensor, one, other)
        for tensor, hull in hulls.items()
        for one, other in pairwise(hull)
    ]
    for _, tensor, one, other in sorted(steps, key=lambda step: -step[0]):  # stable
        # a step that does not fit ends its matrix' way, not that of smaller ones
        if chosen[tensor] is one and other.size - one.size <= room:
            chosen[tensor] = other
            room -= other.size - one.size
    return chosen
