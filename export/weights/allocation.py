"""Find the format of each matrix under a budget of bits: more where rounding loses more.

What a matrix W loses in a format is the squared error of its product with a token's inputs, over
the square of the product itself, as a mean over some tokens of the text: a few tokens have products
that are hundreds of times as large as those of others, and say little. The best mix under a budget
spends each further byte where it takes away the most of the sum: of each matrix the formats on the
lower hull of loss against bytes count, and steps along the hulls are taken from the steepest on
(Shoham and Gersho 1988). Matrices that would be one tensor of the file, like gate and up, are
chosen for each by itself, and are several tensors then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.errors import ConfigError
from edge_llm.export.backends.registry import Backend
from edge_llm.export.lowering.graph import Planned
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.weights.calibration import Study
from edge_llm.export.weights.kept import Arrays, Kept
from edge_llm.export.weights.parameters import Parameters
from edge_llm.export.weights.prepared import spread
from edge_llm.export.weights.quantize import quantize
from edge_llm.program.formats import RAW_F32, WEIGHT_FORMATS, WeightFormat

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

CANDIDATES = ("i4g128", "i4g64", "i4g32", "i6g32", "i8")
# What a loss is measured on, spread evenly: inputs, and rows of the matrix (1,000 rather than
# 1,024, so that they are at different places of heads).
_INPUTS = 256
_ROWS = 1000
_LEAST = 1e-3  # of the mean square of all products: the least that a token's counts as
_F32 = WEIGHT_FORMATS["f32"]


@dataclass(frozen=True, slots=True)
class Budget:
    """The choice to be made: ``sizes`` are the bytes of each parameter that gets a format, in each
    one that fits, and ``room`` those that all may have."""

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
            fitting = [
                form
                for form in map(WEIGHT_FORMATS.__getitem__, CANDIDATES)
                if weight.shape[1] % form.columns == 0 and form in backend.formats
            ]
            for name, shape in zip(parts[tensor], shapes, strict=True):
                forms[name] = {form: backend.packed_bytes(form, *shape) for form in fitting}
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
    return Budget(room, forms)


def allocate(
    found: Budget,
    parameters: Parameters,
    study: Study,
    progress: Callable[[int, int], None],
    kept: Kept,
) -> dict[str, str]:
    """Return names of formats by the names of matrices, with which what rounding loses is the least
    that fits; ``progress(done, total)`` counts matrices. What is in ``kept`` is taken from there.

    Raises:
        CheckpointError: a matrix cannot be read.
        ExportError: a matrix holds values that are not finite.
    """
    moved = replace(parameters, scalings=study.scalings)
    hulls: dict[str, list[_Choice]] = {}

    def choices(name: str) -> list[_Choice]:
        sizes = found.sizes[name]

        def made() -> Arrays:
            return {"losses": np.array(_losses(name, list(sizes), moved, study))}

        losses = kept.of(f"losses {name}", made)["losses"]
        return [
            _Choice(form, size, loss)
            for (form, size), loss in zip(sizes.items(), losses.tolist(), strict=True)
        ]

    with ThreadPoolExecutor(native.default_threads(), "edge-llm-allocate") as workers:
        for name, made in zip(found.sizes, workers.map(choices, found.sizes), strict=True):
            hulls[name] = _hull(made)
            progress(len(hulls), len(found.sizes))
    return {name: choice.form.name for name, choice in _chosen(hulls, found.room).items()}


def mixed(recipe: Recipe, planned: Planned, chosen: Mapping[str, str]) -> Recipe:
    """Return the recipe with what was ``chosen`` among its overrides, where the plan had another
    format."""
    formats = planned.assignment.formats
    more = {name: form for name, form in chosen.items() if form != formats[name].name}
    return replace(recipe, overrides={**recipe.overrides, **more})


def _losses(
    name: str, forms: Sequence[WeightFormat], parameters: Parameters, study: Study
) -> list[float]:
    """Return what a matrix loses in each of ``forms``, relative to its products, as a mean over
    tokens."""
    matrix = parameters.matrix(name, _F32)
    values = matrix.floats(spread(matrix.shape[0], _ROWS))
    assert values is not None
    inputs = study.inputs[name].rows
    inputs = inputs[spread(len(inputs), _INPUTS)]
    if matrix.scaling.columns is not None:
        inputs = inputs / matrix.scaling.columns
    counts = study.counts(name)
    products = _squares(inputs @ values.T)
    least = max(_LEAST * products.mean(), np.finfo(np.float32).tiny)
    products = np.maximum(products, least)

    def loss(form: WeightFormat) -> float:
        made = quantize(values, form, columns=counts if form.group else None, name=name)
        return float((_squares(inputs @ (made.weight.dequantize() - values).T) / products).mean())

    return [loss(form) for form in forms]


def _squares(rows: Float32) -> Float64:
    """Return the sum of the squares of each row."""
    sums: Float64 = np.einsum("tn,tn->t", rows, rows, dtype=np.float64)
    return sums


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
    chosen = {name: hull[0] for name, hull in hulls.items()}
    room -= sum(choice.size for choice in chosen.values())
    steps = [
        (_slope(one, other), name, one, other)
        for name, hull in hulls.items()
        for one, other in pairwise(hull)
    ]
    for _, name, one, other in sorted(steps, key=lambda step: -step[0]):  # stable
        # a step that does not fit ends its matrix' way, not that of smaller ones
        if chosen[name] is one and other.size - one.size <= room:
            chosen[name] = other
            room -= other.size - one.size
    return chosen
