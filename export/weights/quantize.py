"""Stage quantize: float rows -> the numbers that eager PyTorch, the report and the file share.

The formulas are torchao's (``choose_qparams_affine`` symmetric, ``quantize_affine``), with four
differences, the first for quality, the others so that what is packed is what was measured:

- an int4 scale follows the recipe's rule (scales.py), of which "affine" is torchao's;
- int4 scales are rounded to float16 before ``q`` is chosen (torchao keeps the checkpoint's dtype);
- int4 scales are at least 2**-24, the smallest float16 above zero, where torchao takes the smallest
  normal float32, which float16 cannot hold;
- int8 scales are ``max|w| / 127`` with q in [-127, 127], since exact 8-bit kernels cannot take the
  -128 that torchao's ``max|w| / 127.5`` yields.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_llm.errors import ExportError
from edge_llm.export.weights.prepared import FloatWeight, PreparedWeight
from edge_llm.export.weights.scales import INT4_RANGE, int4_scales
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers

Float32 = NDArray[np.float32]

INT8_RANGE = (-127, 127)
_SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal


def quantize(
    rows: Float32, form: WeightFormat, *, scale_rule: str = "hqq", name: str = "weight"
) -> PreparedWeight:
    """Quantize (or round) ``rows`` float32 [N, K].

    ``form`` is a panel format without minima; ``scale_rule`` is for int4 (see `Recipe`). Rows are
    independent of each other, so a matrix may come in chunks of rows.

    Raises:
        ExportError: values that are not finite, or that the format cannot hold; names ``name``.
    """
    if not (np.isfinite(rows.min()) and np.isfinite(rows.max())):  # both are NaN if any value is
        raise ExportError(f"{name} holds values that are not finite")
    if form.is_float:
        rounded = _rounded(rows, form.code)
        if np.isinf(rounded).any():
            raise ExportError(f"{name} holds values that overflow {form.name}")
        return FloatWeight(form, rounded)
    if form.code == "i8":
        return _int8(rows, form)
    if form.code == "i4":
        return _int4(rows, form, scale_rule, name)
    raise ExportError(f"{name}: {form.name} is taken over from checkpoints, never made of floats")


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


def _int8(values: Float32, form: WeightFormat) -> Integers:
    largest = np.abs(values).max(axis=1, keepdims=True)  # (N, 1)
    scales = np.maximum(largest / np.float32(127.0), _SMALLEST_NORMAL)
    q = np.rint(values * (np.float32(1.0) / scales)).clip(*INT8_RANGE).astype(np.int8)
    return Integers(form, q, scales)


def _int4(values: Float32, form: WeightFormat, scale_rule: str, name: str) -> Integers:
    n, k = values.shape
    grouped = values.reshape(n, k // form.group, form.group)
    scales = int4_scales(grouped, scale_rule, name)  # float16's values
    q = np.rint(grouped * (np.float32(1.0) / scales)[:, :, None]).clip(*INT4_RANGE)
    return Integers(form, q.astype(np.int8).reshape(n, k), scales.astype(np.float16))
