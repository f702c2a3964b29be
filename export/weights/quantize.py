"""Stage quantize: float rows -> the numbers that eager PyTorch, the report and the file share.

The formulas are torchao's (``choose_qparams_affine`` symmetric, ``quantize_affine``), with four
differences, the first for quality, the others so that what is packed is what was measured:

- a group's scale follows the recipe's rule, of which "affine" is torchao's;
- those scales are rounded to float16 before ``q`` is chosen (torchao keeps the checkpoint's dtype);
- they are at least 2**-24, the smallest float16 above zero, where torchao takes the smallest
  normal float32, which float16 cannot hold;
- int8 scales are ``max|w| / 127`` with q in [-127, 127], since exact 8-bit kernels cannot take the
  -128 that torchao's ``max|w| / 127.5`` yields.

The rules, for int4 (for int6 with 32 for 8): "affine" is ``max|w| / 7.5``; "signed" is
``max|w| / 8`` with the sign that puts that element on -8; "hqq" starts from whichever of the two
leaves less squared error and refines it by alternating least squares, as torchao's
``hqq_scale_only`` does:

    q = clamp(round_half_even(w / s), -8, 7)        s = sum(w * q) / sum(q * q)

for at most 20 rounds, or until nothing changes. The result counts where, rounded to float16, it
leaves less error than the start.

Where columns count differently (calibration), the squares and sums of "hqq" are weighted by them.
Least squares then ends in places that depend on where it begins, so it begins at both scales, and
at 0.9, 0.8 and 0.7 of each, for 6 rounds.

The native core computes them (runner/native/quantize), a group at a time, in an order of operations
that is the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from edge_llm import native
from edge_llm.errors import ExportError, NativeError
from edge_llm.export.weights.prepared import FloatWeight, PreparedWeight
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers

Float32 = NDArray[np.float32]

RULES = ("affine", "signed", "hqq")  # by their numbers in the core


@dataclass(frozen=True, slots=True)
class Quantized:
    """Rows as the program stores them; the sums of the squares of the floats that they were made of
    (``signal``), and of what rounding changed these by (``noise``)."""

    weight: PreparedWeight
    signal: float
    noise: float


def quantize(
    rows: Float32,
    form: WeightFormat,
    *,
    scale_rule: str = "hqq",
    columns: Float32 | None = None,
    name: str = "weight",
) -> Quantized:
    """Quantize (or round) ``rows`` float32 [N, K].

    ``form`` is a panel format that floats are rounded to; ``scale_rule`` is for groups of int4 and
    int6, and ``columns`` float32 [K] for "hqq": how much a squared error in each counts, all the
    same if None. Rows are independent of each other, so a matrix may come in chunks of rows.

    Raises:
        ExportError: values that are not finite, or that the format cannot hold; names ``name``.
        NativeError: the native core is missing.
    """
    rows = np.ascontiguousarray(rows)
    if not (np.isfinite(rows.min()) and np.isfinite(rows.max())):  # both are NaN if any value is
        raise ExportError(f"{name} holds values that are not finite")
    if form.is_float:
        rounded = _rounded(rows, form.code)
        if np.isinf(rounded).any():
            raise ExportError(f"{name} holds values that overflow {form.name}")
        return Quantized(FloatWeight(form, rounded), energy(rows), energy(rows - rounded))
    if not form.is_made:
        raise ExportError(
            f"{name}: {form.name} is taken over from checkpoints, never made of floats"
        )
    n, k = rows.shape
    codes = np.empty((n, k), np.int8)
    scales = np.empty((n, k // form.group if form.group else 1), np.float32)
    signal, noise = np.empty(n), np.empty(n)
    out = [array.ctypes.data for array in (codes, scales, signal, noise)]
    core = native.library()
    if form.code == "i8":
        native.check(core.edge_quantize_int8(rows.ctypes.data, n, k, *out))
    else:
        rule = RULES.index(scale_rule)
        try:
            counts = None if columns is None else np.ascontiguousarray(columns).ctypes.data
            settings = (n, k, form.bits, form.group, rule, counts)
            native.check(core.edge_quantize_groups(rows.ctypes.data, *settings, *out))
        except NativeError as exc:
            raise ExportError(f"{name}: {exc}") from exc
        scales = scales.astype(np.float16)  # exactly: the core rounded them
    return Quantized(Integers(form, codes, scales), fsum(signal), fsum(noise))


def _rounded(values: Float32, code: str) -> Float32:
    """Return the values as ``code`` ("f32", "f16", "bf16") holds them, halves to even."""
    if code == "f16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if code == "bf16":
        bits = values.view(np.uint32)
        bits = (bits + (((bits >> 16) & 1) + 0x7FFF)) & np.uint32(0xFFFF0000)
        return bits.view(np.float32)
    return values


def energy(values: Float32) -> float:
    """Return the sum of squares."""
    return float(np.square(values, dtype=np.float64).sum())
