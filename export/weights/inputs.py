"""Measure what the linears of a program are multiplied with while it reads a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.export.weights.reading import Reading

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_SAMPLES = 512  # tokens whose inputs are kept
_KEPT = 2**31  # bytes of whole inputs that are in memory at once


@dataclass(frozen=True, slots=True)
class Inputs:
    """The input of a linear [T, K]: of each column the mean ``square`` and ``magnitude`` and the
    ``largest`` magnitude, float64 [K], and some ``rows`` float32 [S, K], none where only experts
    read it."""

    square: Float64
    magnitude: Float64
    largest: Float64
    rows: Float32


class _Sums:
    def __init__(self, rows: int, width: int) -> None:
        self.square = np.zeros(width)
        self.magnitude = np.zeros(width)
        self.largest = np.zeros(width)
        self.rows: list[Float32] = []
        self._every = rows

    def add(self, values: Float32, first: int) -> None:
        """Add the rows of the tokens from ``first`` on."""
        self.square += np.einsum("tk,tk->k", values, values, dtype=np.float64)
        sizes = np.abs(values)
        self.magnitude += sizes.sum(axis=0, dtype=np.float64)
        np.maximum(self.largest, sizes.max(axis=0), out=self.largest)
        if self._every:
            self.rows.append(values[-first % self._every :: self._every].copy())


def measure(text: Reading, progress: Callable[[int, int], None]) -> dict[str, Inputs]:
    """Return what each parameter is multiplied with over the tokens of ``text``, by the parameter's
    name; ``progress(done, total)`` counts tokens.

    Raises:
        ExportError: the model computes values that are not finite.
        NativeError, CapacityError: the program cannot be run.
    """
    every = max(len(text.ids) // _SAMPLES, 1)
    sums = {
        number: _Sums(every if read.linears else 0, read.width)
        for number, read in text.values.items()
    }
    text.run(sums, lambda number, values, first: sums[number].add(values, first), progress)
    found: dict[str, Inputs] = {}
    for number, read in text.values.items():
        inputs = _finished(sums[number], len(text.ids))
        if not np.isfinite(inputs.square).all():
            named = read.parameters[0]
            raise ExportError(f"calibration: what {named} is multiplied with is not finite")
        found |= dict.fromkeys(read.parameters, inputs)
    return found


def _finished(sums: _Sums, tokens: int) -> Inputs:
    rows = np.concatenate(sums.rows) if sums.rows else np.empty((0, len(sums.square)), np.float32)
    return Inputs(sums.square / tokens, sums.magnitude / tokens, sums.largest, rows)


class WholeInputs:
    """All rows of the inputs of linears within the model. Those of some layers fit into memory: the
    text is read again for the next ones, which come in the order of the model."""

    def __init__(self, text: Reading) -> None:
        self._text = text
        self._within = {number: read for number, read in text.values.items() if read.linears}
        self._numbers = {
            name: number for number, read in self._within.items() for name in read.linears
        }
        self._kept: dict[int, Float32] = {}

    def has(self, name: str) -> bool:
        """Tell whether it is known what a parameter is multiplied with."""
        return name in self._numbers

    def of(self, name: str) -> Float32:
        """Return what a parameter is multiplied with, float32 [T, K]: the same array for those that
        are multiplied with the same.

        Raises:
            NativeError, CapacityError: the program cannot be run.
        """
        number = self._numbers[name]
        if number not in self._kept:
            self._kept.clear()
            self._read(number)
        return self._kept[number]

    def close(self) -> None:
        """Forget them all."""
        self._kept.clear()

    def _read(self, first: int) -> None:
        numbers, tokens = list(self._within), len(self._text.ids)
        kept: dict[int, Float32] = {}
        room = _KEPT
        for number in numbers[numbers.index(first) :]:
            width = self._within[number].width
            room -= 4 * tokens * width
            if kept and room < 0:
                break
            kept[number] = np.empty((tokens, width), np.float32)

        def look(number: int, values: Float32, begin: int) -> None:
            kept[number][begin : begin + len(values)] = values

        self._text.run(kept, look, lambda done, total: None)
        self._kept = kept
