"""The factors that are moved between linears (lowering/folds.py).

The output of a linear is wrong since its weights are rounded in groups of columns, and since its
input is rounded to int8 with one scale a token. A channel that is multiplied by s in the weights,
and divided by it in the input, is rounded more finely in the one and more coarsely in the other.
For each channel

    s = size of the input ** a / size of the weights ** b

to a 16th of an octave, which is the same number on every machine.

Without a text, a and b are 1/2, the size of the input is guessed from what makes it (a norm's
weight, the root mean square of a row), and that of the weights is the root mean square of a column.
With one, sizes are measured, several a and b are tried, and those count that leave the least
squared error of the outputs, over some tokens and some rows of the weights, with rounded weights
and inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.export.lowering.folds import Fold
from edge_llm.export.weights.inputs import Inputs
from edge_llm.export.weights.kept import Arrays, Kept
from edge_llm.export.weights.parameters import Matrix, Parameters
from edge_llm.export.weights.prepared import row_chunks, spread
from edge_llm.export.weights.quantize import quantize
from edge_llm.export.weights.scaling import Scaling
from edge_llm.program.formats import RUN, WEIGHT_FORMATS, Activations, WeightFormat

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# a, b, and whether the input's size is its largest magnitude, not the mean one
_TRIED = tuple(
    (a, b, largest)
    for largest in (False, True)
    for a in (0.3, 0.5, 0.7, 0.9)
    for b in (0.0, 0.25, 0.5)
)
_MOST = 8.0  # octaves, on both sides of one
_STEPS = 16.0  # of an octave
_ROWS = 750  # of a matrix, whose outputs tell one choice from another
_TINY = 1e-30
_F32 = WEIGHT_FORMATS["f32"]


def even(folds: Sequence[Fold], parameters: Parameters) -> dict[str, Scaling]:
    """Return what the parameters of ``folds`` are to be multiplied with, known from them alone.

    Raises:
        CheckpointError: a parameter cannot be read.
    """
    norms = {
        name: np.abs(parameters.vector(fold.producers[0].parameter))
        for fold in folds
        if fold.norm
        for name in fold.consumers
    }

    def factors(fold: Fold) -> Float32:
        if fold.norm:
            size = norms[fold.consumers[0]].astype(np.float64)
        else:
            (producer, *_) = fold.producers
            made = parameters.matrix(producer.parameter, _F32)
            rows = slice(producer.begin, producer.begin + fold.count)
            size = _row_sizes(made, rows, norms.get(producer.parameter))
        columns = [_column_squares(parameters.matrix(name, _F32)) for name in fold.consumers]
        return _factors(size, 0.5, np.sqrt(_means(np.mean(columns, axis=0), fold)), 0.5)

    found: dict[str, Scaling] = {}
    with ThreadPoolExecutor(native.default_threads(), "edge-llm-even") as workers:
        for fold, made in zip(folds, workers.map(factors, folds), strict=True):
            _add(found, fold, made, parameters)
    return found


def balance(
    folds: Sequence[Fold],
    parameters: Parameters,
    formats: Mapping[str, WeightFormat],
    inputs: Mapping[str, Inputs],
    activations: Mapping[str, Activations],
    progress: Callable[[int, int], None],
    kept: Kept,
) -> dict[str, Scaling]:
    """Return what the parameters of ``folds`` are to be multiplied with, by the ``inputs`` of their
    consumers, which are rounded as ``activations`` says of each; ``progress(done, total)`` counts
    elements of matrices. What is in ``kept`` is taken from there.

    Raises:
        CheckpointError: a matrix cannot be read.
        ExportError: a matrix holds values that are not finite.
        NativeError: the native core is missing.
    """
    sizes = [
        sum(prod(parameters.matrix(name, _F32).shape) for name in fold.consumers) for fold in folds
    ]
    found: dict[str, Scaling] = {}
    with ThreadPoolExecutor(native.default_threads(), "edge-llm-balance") as workers:

        def factors(fold: Fold) -> Arrays:
            matrices = []
            for name in fold.consumers:
                values = parameters.matrix(name, _F32).floats(slice(None))
                assert values is not None
                values = found.get(name, Scaling()).apply(values)
                some = values[spread(len(values), _ROWS)]
                largest = np.abs(values).max(axis=0)
                matrices.append(_Consumer(some, largest, formats[name], activations.get(name)))
            return {"factors": _searched(fold, inputs[fold.consumers[0]], matrices, workers)}

        for index, fold in enumerate(folds, 1):
            made = kept.of(f"factors {index} {fold.consumers[0]}", partial(factors, fold))
            _add(found, fold, made["factors"], parameters)
            progress(sum(sizes[:index]), sum(sizes))
    return found


@dataclass(frozen=True, slots=True)
class _Consumer:
    """Some rows of a matrix, and the ``largest`` magnitude in each of its columns."""

    values: Float32
    largest: Float32
    format: WeightFormat
    activations: Activations | None

    def stored(self, scale: Float32) -> Float32:
        """Return the values with scaled columns, as a program would store them."""
        return quantize(self.values * scale, self.format).weight.dequantize()


def _searched(
    fold: Fold,
    inputs: Inputs,
    matrices: Sequence[_Consumer],
    workers: ThreadPoolExecutor,
) -> Float32:
    """Return the factor of each channel."""
    mean = _means(inputs.magnitude, fold)
    largest = _largest(inputs.largest, fold)
    columns = np.max([matrix.largest for matrix in matrices], axis=0)
    weights = _largest(columns, fold)
    tried = [np.ones(fold.count, np.float32)]
    for a, b, most in _TRIED:
        factors = _factors(largest if most else mean, a, weights, b)
        if not any(np.array_equal(factors, other) for other in tried):
            tried.append(factors)
    wanted = [inputs.rows @ matrix.values.T for matrix in matrices]
    ways = {matrix.activations for matrix in matrices}

    def error(factors: Float32) -> float:
        scale = factors[fold.channels]
        rows = {way: _rounded(inputs.rows / scale, way) for way in ways}
        return sum(
            float(
                np.square(rows[matrix.activations] @ matrix.stored(scale).T - exact).sum(
                    dtype=np.float64
                )
            )
            for matrix, exact in zip(matrices, wanted, strict=True)
        )

    return tried[int(np.argmin(list(workers.map(error, tried))))]


def _means(columns: Float64, fold: Fold) -> Float64:
    """Return for each channel the mean over the columns that read it."""
    means: Float64 = np.bincount(fold.channels, columns) / np.bincount(fold.channels)
    return means


def _largest(columns: NDArray[np.floating], fold: Fold) -> Float64:
    result: Float64 = np.zeros(fold.count)
    np.maximum.at(result, fold.channels, columns)
    return result


def _column_squares(matrix: Matrix) -> Float64:
    """Return the mean square of each column."""
    total = np.zeros(matrix.shape[1])
    for rows in row_chunks(*matrix.shape):
        values = matrix.floats(rows)
        assert values is not None
        total += np.einsum("nk,nk->k", values, values)
    return total / matrix.shape[0]


def _row_sizes(matrix: Matrix, rows: slice, columns: Float32 | None) -> Float64:
    """Return the length of each of ``rows``, of inputs with this size in each column."""
    values = matrix.floats(rows)
    assert values is not None
    if columns is not None:
        values = values * columns
    sizes: Float64 = np.sqrt(np.einsum("nk,nk->n", values, values), dtype=np.float64)
    return sizes


def _factors(size: Float64, a: float, weights: Float64, b: float) -> Float32:
    """Return factors around one; channels that are never used, or read, keep one."""
    used = (size > _TINY) & (weights > _TINY) & np.isfinite(size) & np.isfinite(weights)
    if not used.any():
        return np.ones(len(size), np.float32)
    exponents = a * np.log2(np.where(used, size, 1.0)) - b * np.log2(np.where(used, weights, 1.0))
    exponents = np.where(used, exponents - np.median(exponents[used]), 0.0)
    steps = np.round(np.clip(exponents, -_MOST, _MOST) * _STEPS)
    factors: Float32 = np.exp2(steps / _STEPS).astype(np.float32)
    return factors


def _rounded(rows: Float32, rounding: Activations | None) -> Float32:
    """Return rows as linears read them (docs/quantization.md, Activations)."""
    if rounding is None:
        return rows
    if rounding == "group":
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % RUN)))
        groups = padded.reshape(len(rows), -1, RUN)
        scale = np.abs(groups).max(axis=2, keepdims=True) / np.float32(127.0)
        scale = np.maximum(scale, np.finfo(np.float32).tiny)
        whole: Float32 = (np.round(groups / scale) * scale).reshape(padded.shape)
        return whole[:, : rows.shape[1]]
    low = np.minimum(rows.min(axis=1, keepdims=True), 0.0)
    high = np.maximum(rows.max(axis=1, keepdims=True), 0.0)
    scale = np.maximum((high - low) / np.float32(255.0), np.finfo(np.float32).tiny)
    zero = np.round(-128.0 - low / scale)
    codes = np.clip(np.round(rows / scale) + zero, -128.0, 127.0)
    rounded: Float32 = (codes - zero) * scale
    return rounded


def moved(fold: Fold, factors: Float32, parameters: Parameters) -> dict[str, Scaling]:
    """Return what the parameters of a fold are multiplied with to move ``factors``, one for each
    channel.

    Raises:
        CheckpointError: a parameter cannot be read.
    """
    scalings = dict.fromkeys(fold.consumers, Scaling(columns=factors[fold.channels]))
    for producer in fold.producers:
        rows = np.ones(len(parameters.read(producer.parameter)), np.float32)
        rows[producer.begin : producer.begin + fold.count] = 1.0 / factors
        scalings[producer.parameter] = Scaling(rows=rows)
    return scalings


def _add(found: dict[str, Scaling], fold: Fold, factors: Float32, parameters: Parameters) -> None:
    """Add what moves the factors of a fold to what was ``found`` before."""
    if not np.all(factors == 1.0):
        for name, scaling in moved(fold, factors, parameters).items():
            found[name] = found[name].times(scaling) if name in found else scaling
