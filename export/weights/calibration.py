"""Find what rounding is to spare, by what linears are multiplied with while the model reads a
text.

The error that rounding a row w by d makes in its product with x is d . x, whose square has the mean
of d[i] d[j] x[i] x[j] over all pairs of columns. Factors are moved between linears first
(balance.py). Then scales are chosen by the diagonal, the mean of each x[i] squared, and codes by
all of it where whole inputs are known (rounder.py). It costs a few passes over a few thousand
tokens, and nothing of it needs PyTorch.

What is measured is measured while the model reads the text with int8 weights, which are as good as
floats here, and faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_llm.export.lowering.graph import Planned, Progress
from edge_llm.export.recipes.recipe import Recipe
from edge_llm.export.weights.balance import balance, even
from edge_llm.export.weights.inputs import Inputs, WholeInputs, measure
from edge_llm.export.weights.kept import Kept
from edge_llm.export.weights.parameters import Parameters
from edge_llm.export.weights.reading import Reading
from edge_llm.export.weights.rounder import Rounder
from edge_llm.export.weights.scaling import Scaling
from edge_llm.llm.stacks import stack_of

Float32 = NDArray[np.float32]

_FLOOR = 1e-3  # of the mean: no column counts for nothing


def measuring(recipe: Recipe) -> Recipe:
    """Return the recipe of the program that reads the text."""
    return replace(
        recipe,
        scheme="8da8w",
        group_size=None,
        linear=None,
        embedding=None,
        head=None,
        overrides={},
        calibration=None,
        bits=None,
        verify=False,
        # what is rotated here is rotated there too, and so is never taken over
        requantize=recipe.requantize or recipe.rotate is not None,
    )


def evened(planned: Planned, recipe: Recipe, parameters: Parameters) -> Parameters:
    """Return the parameters with the factors that are moved where there is no text.

    Raises:
        CheckpointError: a parameter cannot be read.
    """
    return replace(parameters, scalings=even(planned.moved(recipe), parameters))


@dataclass(frozen=True, slots=True)
class Study:
    """What reading a text has told: the ``inputs`` of parameters, and the ``scalings`` that follow
    from them."""

    inputs: Mapping[str, Inputs]
    scalings: Mapping[str, Scaling]

    def counts(self, name: str) -> Float32:
        """Return how much a squared error in each column of a parameter counts, relative to the
        mean of all."""
        return _counts(name, self.inputs[name], self.scalings)


def study(
    text: Reading, planned: Planned, parameters: Parameters, progress: Progress, kept: Kept
) -> Study:
    """Read ``text``, and find what is to be moved between the ``parameters`` of the program
    ``planned``; what is in ``kept`` is taken from there.

    Raises:
        CheckpointError: a matrix cannot be read.
        ExportError: the model computes values that are not finite.
        NativeError, CapacityError: the program cannot be run.
    """
    inputs = measure(text, _stage(progress, "calibrate"))
    formats, activations = planned.assignment.searched, planned.assignment.activations
    stage = _stage(progress, "balance")
    found = balance(planned.searched, parameters, formats, inputs, activations, stage, kept)
    return Study(inputs, found)


@contextmanager
def calibrated(
    text: Reading, found: Study, parameters: Parameters, kept: Kept
) -> Iterator[Parameters]:
    """Yield the parameters with what tells how to round them, for which they read ``text`` again as
    long, but for what is in ``kept``."""
    columns = {name: found.counts(name) for name in found.inputs}
    rounder = Rounder(WholeInputs(text), kept)
    try:
        yield replace(parameters, scalings=found.scalings, columns=columns, rounder=rounder)
    finally:
        rounder.close()


def notes_of(planned: Planned, parameters: Parameters) -> list[str]:
    """Return lines for the report: what was moved, and what a text did not help to round."""
    notes = []
    moved = sum(scaling.columns is not None for scaling in parameters.scalings.values())
    if moved:
        notes.append(f"factors moved from {moved} matrices into what makes their inputs")
    if isinstance(parameters.rounder, Rounder) and parameters.rounder.count:
        notes.append(f"{parameters.rounder.count} matrices rounded column after column (GPTQ)")
    if parameters.columns:
        missed = [name for name in _multiplied(planned) if name not in parameters.columns]
        missed = list(dict.fromkeys(stack_of(name) for name in missed))
        if missed:
            listed = ", ".join(missed[:3]) + (f" and {len(missed) - 3} more" if missed[3:] else "")
            notes.append(f"not calibrated, since what they multiply is not measured: {listed}")
    return notes


def _multiplied(planned: Planned) -> list[str]:
    """Return the parameters that are rounded to groups and are multiplied with something."""
    plan, parts = planned.lowered.plan, planned.lowered.parts
    return [
        part
        for method in plan.methods.values()
        for instruction in method.instructions
        if instruction.op in ("linear", "experts")
        for weight in (plan.weights[index] for index in instruction.weights if index >= 0)
        if weight.format.group and weight.format.is_made
        for part in parts[weight.tensor]
    ]


def _stage(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(name, done, total)


def _counts(name: str, inputs: Inputs, scalings: Mapping[str, Scaling]) -> Float32:
    """Return how much each column counts, relative to the mean of all."""
    squares = inputs.square
    columns = scalings[name].columns if name in scalings else None
    if columns is not None:
        squares = squares / np.square(columns, dtype=np.float64)
    mean = squares.mean()
    relative = squares / mean if mean > 0.0 else np.ones_like(squares)
    return (relative + _FLOOR).astype(np.float32)
